"""`nsbox net`: networks by name, pods on them, and what is left when somebody is killed."""

import json
import sys

import pytest
from fakehost import FakeHost
from neighbours import all_of
from portlab import sockets
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
POD = ("--rootfs", "busybox")


def create(host: FakeHost, name: str, *words: str) -> str:
    return str(host.nsbox("create", name, *POD, *words, check=True).stdout.strip())


def pods_on(host: FakeHost, network: str) -> dict[str, str]:
    """name -> v4 address."""
    [about] = json.loads(host.nsbox("net", "inspect", network, "--json", check=True).stdout)
    return {pod["name"]: pod["address4"] for pod in about["pods"]}


def test_a_network_from_its_making_to_its_end(host):
    """Red when: a bridge, rule, record or ip_forward outlives the last rm (the fixture looks)."""
    assert host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True).stdout == "lan\n"
    create(host, "a", "--net", "lan")
    create(host, "b", "--net", "lan", "--ip", "10.9.0.77")
    assert pods_on(host, "lan") == {"a": "10.9.0.2", "b": "10.9.0.77"}
    assert host.nsbox("join", "a", "--cap-add", "NET_RAW", "--", "ping", "-c", "1", "-W", "2", "b").returncode == 0
    refused = host.nsbox("net", "rm", "lan")
    assert refused.returncode == 125 and "a, b" in refused.stderr and "--force" in refused.stderr
    host.nsbox("net", "rm", "--force", "lan", check=True)
    assert host.nsbox("net", "ls", "--json").stdout == "[]\n"
    assert host.nsbox("join", "a", "--cap-add", "NET_RAW", "--", "ping", "-c", "1", "-W", "1", "10.9.0.77").returncode != 0
    host.nsbox("rm", "--force", "a", "b", check=True)


@pytest.mark.parametrize("words, status, said", [
    (("bridge",), 2, "means something else"),
    (("none",), 2, "means something else"),
    (("A b",), 2, "a name is"),
    (("lan", "--subnet", "10.9.0.1/24"), 2, "host bits"),
    (("lan", "--subnet", "10.9.0.0/31"), 2, "prefix length"),
    (("lan", "--subnet", "127.0.0.0/8"), 2, "no pod can have"),
    (("lan", "--subnet", "10.8.0.0/16"), 125, "has 10.8.1.0/24"),
])
def test_a_network_that_cannot_be_is_refused(host, words, status, said):
    """Red when: create() in networks.py takes it."""
    host.nsbox("net", "create", "other", "--subnet", "10.8.1.0/24", check=True)
    done = host.nsbox("net", "create", *words)
    assert (done.returncode, done.stdout) == (status, "") and said in done.stderr
    assert len(json.loads(host.nsbox("net", "ls", "--json").stdout)) == 1
    host.nsbox("net", "rm", "other", check=True)


def test_a_subnet_that_the_host_has_a_route_to_is_not_taken(host):
    """Red when: _free() or _asked() looks at networks of nsbox alone."""
    host.run(["sh", "-c", "ip link add up0 type veth peer name up1; ip addr add 10.78.0.1/23 dev up0; "
              "ip link set up0 up; ip link set up1 up"], check=True)
    done = host.nsbox("net", "create", "lan", "--subnet", "10.78.1.0/24")
    assert done.returncode == 125 and "has a route" in done.stderr
    host.nsbox("net", "create", "lan", check=True)
    assert '"subnet4": "10.78.2.0/24"' in host.nsbox("net", "inspect", "lan", "--json").stdout
    host.nsbox("net", "rm", "lan", check=True)
    host.run(["ip", "link", "del", "up0"], check=True)


@pytest.mark.parametrize("words, said", [
    (("--ip", "10.9.0.1"), "has one from 10.9.0.2 to 10.9.0.6"),
    (("--ip", "10.9.1.2"), "has one from"),
    (("--ip", "10.9.0.2"), "pod 'first' has it"),
])
def test_an_address_that_cannot_be_had(host, words, said):
    """Red when: _address_number() takes any."""
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/29", check=True)
    create(host, "first", "--net", "lan")
    done = host.nsbox("create", "second", *POD, "--net", "lan", *words)
    assert done.returncode == 125 and said in done.stderr
    assert "second" not in host.nsbox("ls", "-q").stdout
    host.nsbox("rm", "-f", "first", check=True)
    host.nsbox("net", "rm", "lan", check=True)


def test_an_internal_network_leads_nowhere_and_switches_nothing_on(host):
    """Red when: internal is not looked at where the default route or ip_forward is set."""
    host.nsbox("net", "create", "inner", "--internal", check=True)
    create(host, "a", "--net", "inner")
    assert "default" not in host.nsbox("join", "a", "--", "ip", "route").stdout
    assert host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "0\n"
    host.nsbox("rm", "-f", "a", check=True)
    host.nsbox("net", "rm", "inner", check=True)


def test_connect_and_disconnect_a_running_pod(host):
    """Red when: a second network takes the first one's interface name, or disconnect the wrong cable."""
    for number, name in enumerate(("one", "two")):
        host.nsbox("net", "create", name, "--subnet", f"10.9.{number}.0/24", check=True)
    create(host, "a")
    create(host, "b", "--net", "two")
    assert host.nsbox("net", "connect", "a", "one", check=True).stdout.startswith("eth0 10.9.0.2 ")
    assert host.nsbox("net", "connect", "a", "two", check=True).stdout.startswith("eth1 10.9.1.3 ")
    again = host.nsbox("net", "connect", "a", "two")
    assert again.returncode == 125 and "already" in again.stderr
    assert host.nsbox("join", "a", "--cap-add", "NET_RAW", "--", "ping", "-c", "1", "-W", "2", "10.9.1.2").returncode == 0
    host.nsbox("net", "disconnect", "a", "two", check=True)
    assert host.nsbox("join", "a", "--cap-add", "NET_RAW", "--", "ping", "-c", "1", "-W", "1", "-I", "eth1", "10.9.1.2").returncode != 0
    assert "eth0" in host.nsbox("join", "a", "--", "ip", "link").stdout
    host.nsbox("rm", "-f", "a", "b", check=True)
    host.nsbox("net", "rm", "one", "two", check=True)


def test_a_cable_between_two_pods(host):
    """Red when: tie addresses are of one subnet only, or disconnect leaves the other end."""
    for name in ("a", "b", "c"):
        create(host, name)
    assert host.nsbox("net", "link", "a", "b", check=True).stdout == "a eth0 10.76.0.1\nb eth0 10.76.0.2\n"
    assert host.nsbox("net", "link", "b", "c", check=True).stdout == "b eth1 10.76.0.5\nc eth0 10.76.0.6\n"
    assert host.nsbox("join", "c", "--cap-add", "NET_RAW", "--", "ping", "-c", "1", "-W", "2", "10.76.0.5").returncode == 0
    host.nsbox("net", "disconnect", "a", "b", check=True)
    assert "eth0" not in host.nsbox("join", "b", "--", "ip", "link").stdout
    host.nsbox("rm", "-f", "c", check=True)
    assert host.nsbox("net", "link", "b", "a", check=True).returncode == 0  # c's cable went with c
    host.nsbox("rm", "-f", "a", "b", check=True)


def test_a_shape_that_the_kernel_lacks_leaves_the_pod_as_it_was(host):
    """Red when: connect() keeps the cable although shaping it failed."""
    host.nsbox("net", "create", "lan", check=True)
    create(host, "a")
    done = host.nsbox("net", "connect", "a", "lan", "--delay", "20")
    if done.returncode:  # no netem in this kernel
        assert "netem" in done.stderr
        assert "eth0" not in host.nsbox("join", "a", "--", "ip", "link").stdout
        assert pods_on(host, "lan") == {}
    host.nsbox("rm", "-f", "a", check=True)
    host.nsbox("net", "rm", "lan", check=True)


def test_without_root_networks_are_refused_with_a_way_out(user_host):
    """Red when: the refusal comes after something has been made."""
    for words in (("net", "create", "lan"), ("create", "a", *POD, "--net", "bridge")):
        done = user_host.nsbox(*words)
        assert done.returncode == 125 and "needs root" in done.stderr and "--net user" in done.stderr


def test_names_of_a_network_follow_the_pods_that_come_and_go(host):
    """Red when: settle() does not rewrite the hosts files."""
    create(host, "a", "--net", "bridge")
    create(host, "b", "--net", "bridge", "--hostname", "beta")
    hosts = host.nsbox("join", "a", "--", "cat", "/etc/hosts").stdout
    assert "10.77.0.3 b\n10.77.0.3 beta\n" in hosts and "10.77.0.2 a\n" in hosts
    host.nsbox("rm", "-f", "b", check=True)
    assert "beta" not in host.nsbox("join", "a", "--", "cat", "/etc/hosts").stdout
    host.nsbox("rm", "-f", "a", check=True)


def test_D14_D20_addresses_are_unique_come_to_an_end_and_come_back(host):
    """Red when: two creates choose at once; or the addresses of dead pods stay taken."""
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/29", check=True)
    running = all_of(6, lambda number: host.nsbox_popen("create", f"p{number}", *POD, "--net", "lan"))
    assert sorted(command.returncode for command in running) == [0] * 5 + [125]
    [lost] = [command for command in running if command.returncode]
    assert "no free address in 10.9.0.0/29" in lost.stderr.read()
    for command in running:
        command.communicate()
    found = pods_on(host, "lan")
    assert len(set(found.values())) == 5
    victim = min(found)
    pid = next(row["pid"] for row in json.loads(host.nsbox("ls", "--json").stdout) if row["name"] == victim)
    host.run(["kill", "-9", str(pid)], check=True)
    for _ in until(5):
        if pods_on(host, "lan").get(victim) is None:
            break
    create(host, "late", "--net", "lan")
    assert pods_on(host, "lan")["late"] == found[victim]
    host.nsbox("rm", "-f", victim, "late", *(name for name in found if name != victim), check=True)
    host.nsbox("net", "rm", "lan", check=True)


def test_D16_rules_that_somebody_flushed_come_back_and_are_not_needed_for_rm(host):
    """Red when: reload() does nothing; or rm fails where a table is missing."""
    create(host, "a", "--net", "bridge")
    wanted = host.run(["nft", "list", "ruleset"], check=True).stdout
    assert "table inet nsbox_" in wanted and "table bridge nsbox_" in wanted
    host.run(["nft", "flush", "ruleset"], check=True)
    host.nsbox("net", "reload", check=True)
    assert host.run(["nft", "list", "ruleset"], check=True).stdout == wanted
    host.run(["nft", "flush", "ruleset"], check=True)
    host.nsbox("rm", "-f", "a", check=True)


# nsbox with the words from the second on, killed when it comes back from the function named first.
CUT = """
import os, signal, sys
from nsbox.cli import front
from nsbox.net import links
from nsbox.pod import netattach, netnames, netrecord, networks, networld
module, name = sys.argv[1].rsplit(".", 1)
module = sys.modules["nsbox." + module]
real, me = getattr(module, name), os.getpid()
def cut(*words, **more):
    real(*words, **more)
    if os.getpid() == me:
        os.kill(me, signal.SIGKILL)
setattr(module, name, cut)
sys.exit(front.run(sys.argv[2:]))
"""


@pytest.mark.parametrize("after", [
    "pod.networks.ensure", "pod.netrecord.write_pod", "pod.networld.install", "pod.networld.switch_forwarding_on",
    "net.links.plug", "pod.netnames.tell_own", "pod.networld.tell_names"])
def test_D21_nsbox_killed_while_it_makes_a_pod_on_a_network_leaves_nothing_that_prune_does_not_take(host, after):
    """Red when: neither undo() nor tidy() takes a cut off pod's links and rules away. See also netcut.py."""
    before = host.snapshot()
    done = host.run([sys.executable, "-P", "-c", CUT, after, "create", "a", *POD, "--net", "bridge"])
    assert done.returncode in (-9, 137), done
    host.nsbox("prune", check=True)
    host.assert_same_as(before)  # here: the next create would mend it
    create(host, "a", "--net", "bridge")
    assert pods_on(host, "bridge") == {"a": "10.77.0.2"}
    host.nsbox("rm", "-f", "a", check=True)


def test_D22_the_same_name_and_address_again_and_again(host):
    """While something keeps the network of the pod before alive.

    Red when: leave_all() leaves the cable to the kernel.
    """
    host.nsbox("net", "create", "lan", check=True)
    kept = []
    for _ in range(8):
        kept += sockets(host.host_pid(int(create(host, "a", "--net", "lan", "--ip", "10.78.0.9"))))
        host.nsbox("rm", "-f", "a", check=True)
        assert " nsv" not in host.run(["ip", "-o", "link"], check=True).stdout
    for sock in kept:
        sock.close()
    host.nsbox("net", "rm", "lan", check=True)


def test_a_record_of_a_network_that_is_broken_is_said_and_can_be_removed(host):
    """Red when: a traceback; or rm --force needs the record."""
    host.nsbox("net", "create", "lan", check=True)
    bridge = json.loads(host.nsbox("net", "ls", "--json").stdout)[0]["bridge"]
    (record := f"{host.state}/nets/lan.json")
    host.run(["sh", "-c", f"echo '{{' > {record}"], check=True)
    done = host.nsbox("create", "a", *POD, "--net", "lan")
    assert done.returncode == 125 and "net rm --force lan" in done.stderr
    assert "corrupt" in host.nsbox("net", "ls", check=True).stdout
    host.nsbox("net", "rm", "--force", "lan", check=True)
    assert host.nsbox("net", "ls", "--json").stdout == "[]\n"
    host.run(["ip", "link", "del", bridge])


def test_a_record_of_a_pods_links_that_is_broken_does_not_keep_the_pod(host):
    """Red when: rm cannot end a pod whose net.json is not readable."""
    create(host, "a", "--net", "bridge")
    host.run(["sh", "-c", f"echo '{{' > {host.state}/pods/a/net.json"], check=True)
    done = host.nsbox("net", "connect", "a", "bridge")
    assert done.returncode == 125 and "corrupt" in done.stderr or "no valid JSON" in done.stderr
    host.nsbox("rm", "-f", "a", check=True)
