"""What networks are after something went wrong: records that cannot be read, helpers that were killed, settings
of the host, flows that outlive their ports. And the names of pods that are connected while they run."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import neighbours
import pytest
from fakehost import FakeHost
from faultpoints import EVERY
from neighbours import Lan, settled
from procfs import TOP, comm, until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
BUSYBOX = ("--rootfs", "busybox")
BRIDGE = (*BUSYBOX, "--net", "bridge")


@pytest.fixture
def lan(host: FakeHost):
    yield from neighbours.lans(host)


def spoil(host: FakeHost, pod: str, file: str) -> None:
    host.run(["sh", "-c", f"echo '{{' > {host.state}/pods/{pod}/{file}"], check=True)


# ---- records ----

@pytest.mark.parametrize("file", ["net.json", "pod.json"])
def test_D05_a_pod_whose_record_is_broken_stays_guarded(lan: Lan, file: str) -> None:
    """Others may go, none may come; the rules, the bridge and ip_forward stay until it is removed.

    Red when: scan() passes it over, and settle() takes it for gone.
    """
    host = lan.host
    before = settled(lan.host)
    pod = lan.create("a", *BRIDGE)
    lan.create("b", *BRIDGE)
    lan.serve(pod, "0.0.0.0", 80)
    spoil(host, "a", file)
    done = host.nsbox("rm", "-f", "b", check=True)
    assert "the firewall rules stay as they were" in done.stderr and "'a'" in done.stderr
    assert "table inet nsbox_" in lan.ruleset() and lan.sysctl(lan.h, "ipv4/ip_forward") == "1"
    assert lan.reach(lan.near, pod.v4, 80) == "blocked" and lan.reach(lan.h, pod.v4, 80) == "open"
    assert host.nsbox("prune").returncode == 0
    assert "table inet nsbox_" in lan.ruleset()
    done = host.nsbox("create", "c", *BRIDGE)
    assert done.returncode == 125 and "nsbox rm --force a" in done.stderr
    host.nsbox("rm", "-f", "a", check=True)
    if file == "pod.json":  # then nobody knows its processes either
        os.kill(pod.pid, signal.SIGKILL)
        host.nsbox("prune", check=True)
        for link in [link for link in host.run(["ls", "/sys/class/net"]).stdout.split() if link.startswith("nsv")]:
            host.run(["ip", "link", "del", link])
    host.assert_same_as(before)


# ---- flows ----

@pytest.mark.parametrize("how", ["killed", "disconnected"])
def test_D19_a_client_of_a_port_never_reaches_a_pod_that_does_not_publish_it(lan: Lan, how: str) -> None:
    """It goes on sending; the address of the pod that had the port is another's now.

    Red when: _forward() in rules.py lets established flows pass, and neither cut_dead() nor _unplug() forgets.
    """
    port = (f"{lan.h.v4}:5353:53/udp", "--publish-mode", "nat")
    a = lan.create("a", *BRIDGE, "-p", *port)
    client = lan.udp(lan.near, 40000)
    client.settimeout(0.3)

    def ask(server: socket.socket) -> bool:
        client.sendto(b"?", (lan.h.v4, 5353))
        server.settimeout(0.3)
        try:
            server.sendto(b"!", server.recvfrom(9)[1])
            return client.recv(9) == b"!"
        except OSError:
            return False
    first = lan.serve(a, a.v4, 53, socket.SOCK_DGRAM)
    assert ask(first) and ask(first)
    if how == "killed":
        os.kill(a.pid, signal.SIGKILL)
    else:
        lan.host.nsbox("net", "create", "other", check=True)
        lan.host.nsbox("net", "connect", "a", "other", check=True)
        lan.host.nsbox("net", "disconnect", "a", "bridge", check=True)
    b = lan.create("b", *BRIDGE, "--ip", a.v4)
    assert b.v4 == a.v4
    second = lan.serve(b, b.v4, 53, socket.SOCK_DGRAM)
    assert [ask(second) for _ in range(3)] == [False] * 3
    lan.rm("a")
    assert not ask(second)
    lan.rm("b")
    lan.host.nsbox("net", "rm", "--force", "other", check=True)


def test_one_process_waits_for_the_end_of_a_pod_with_nat_and_goes_with_its_last_port(lan: Lan) -> None:
    """Red when: _keep() leaves one for each publish, or drop() leaves it behind."""
    def waiting() -> int:
        return sum(comm(pid) == "nsbox:nat" for pid in lan.host.processes().values())
    lan.create("a", *BRIDGE)
    ports = [f"0.0.0.0:{number}:80" for number in (8080, 8081, 8082)]
    for number, port in enumerate(ports):
        lan.host.nsbox("publish", "a", port, "--publish-mode", "nat", check=True)
        assert waiting() == 1, number
    lan.host.nsbox("unpublish", "a", *ports[:2], check=True)
    assert waiting() == 1
    lan.host.nsbox("unpublish", "a", ports[2], check=True)
    assert waiting() == 0
    lan.rm("a")


def test_nothing_is_forwarded_to_an_internal_network(lan: Lan) -> None:
    """The rule would lead the client away from the proxy, and into a drop.

    Red when: add() in netnat.py takes any network.
    """
    host = lan.host
    host.nsbox("net", "create", "red", "--internal", check=True)
    pod = lan.create("a", *BUSYBOX, "--net", "red", "-p", "0.0.0.0:8080:80")
    lan.serve(pod, "0.0.0.0", 80)
    before = settled(lan.host)
    words = ("-p", "0.0.0.0:8081:80", "--publish-mode", "nat")
    for done in (host.nsbox("create", "b", *BUSYBOX, "--net", "red", *words), host.nsbox("publish", "a", *words[1:])):
        assert done.returncode == 2 and "internal" in done.stderr
        host.assert_same_as(before)
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    lan.rm("a")
    host.nsbox("net", "rm", "red", check=True)


# ---- the host's settings ----

def test_D06_what_the_kernel_changes_with_ip_forward_is_put_back_too(lan: Lan) -> None:
    """Also after kill -9 of the command that switched it on.

    Red when: switch_forwarding_on() notes ip_forward alone.
    """
    lan.sysctl(lan.h, "ipv4/conf/all/accept_redirects", "0")  # off and on again, the kernel would make 1 of it
    lan.sysctl(lan.h, "ipv4/conf/lan1/forwarding", "1")
    before = settled(lan.host)
    lan.create("a", *BRIDGE)
    lan.rm("a")
    lan.host.assert_same_as(before)
    pod = lan.create("a", *BRIDGE)
    os.kill(pod.pid, signal.SIGKILL)
    lan.host.nsbox("prune", check=True)
    lan.host.assert_same_as(before)
    lan.sysctl(lan.h, "ipv4/conf/all/accept_redirects", "1")


# ---- names ----

def test_pods_that_are_connected_while_they_run_find_each_other_by_name(host: FakeHost) -> None:
    """In their own trees and in the host's, by a cable and by a network; members that join later too.

    Red when: bring() does nothing; or names_of() says "" of a pod that was made with --net none.
    """
    host_files = host.run(["cat", "/etc/hosts", "/etc/resolv.conf"]).stdout
    for name, words in (("a", BUSYBOX), ("b", ()), ("c", (*BUSYBOX, "--read-only"))):
        host.nsbox("create", name, *words, check=True)
    early = host.nsbox_popen("join", "a", "--", "sh", "-c", "read x; cat /etc/hosts", stdin=-1)
    host.nsbox("net", "link", "a", "b", check=True)
    assert host.nsbox("join", "a", "--cap-add", "NET_RAW", "--", "ping", "-c", "1", "-W", "2", "b").returncode == 0
    assert " a\n" in host.nsbox("join", "b", "--", "cat", "/etc/hosts", check=True).stdout
    assert "10.76.0.2 b\n" in early.communicate("x\n")[0]
    assert "10.76.0.2 b\n" in host.nsbox("join", "a", *BUSYBOX, "--", "cat", "/etc/hosts", check=True).stdout
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    for name in ("b", "c"):
        host.nsbox("net", "connect", name, "lan", check=True)
    assert "10.9.0.2 b\n" in host.nsbox("join", "c", *BUSYBOX, "--", "cat", "/etc/hosts", check=True).stdout
    said = host.nsbox("join", "b", "--", "cat", "/etc/hosts", check=True).stdout
    assert "10.9.0.3 c\n" in said and "10.76.0.1 a\n" in said
    host.nsbox("net", "disconnect", "a", "b", check=True)
    assert "10.76.0.2" not in host.nsbox("join", "a", "--", "cat", "/etc/hosts", check=True).stdout
    assert host.run(["cat", "/etc/hosts", "/etc/resolv.conf"]).stdout == host_files
    host.nsbox("rm", "-f", "a", "b", "c", check=True)
    host.nsbox("net", "rm", "lan", check=True)


def test_a_file_that_the_user_mounted_and_a_tree_used_in_place_stay_as_they_are(host: FakeHost, rootfs: Path) -> None:
    """Red when: _mount() does not look whether something is mounted there, or makes a file in the user's tree."""
    (host.work / "mine").write_text("1.2.3.4 mine\n")
    files = sorted(os.listdir(rootfs / "etc"))
    host.nsbox("create", "a", *BUSYBOX, "-v", f"{host.work}/mine:/etc/hosts", check=True)
    host.nsbox("create", "b", "--rootfs", str(rootfs), "--in-place", check=True)
    host.nsbox("net", "link", "a", "b", check=True)
    assert host.nsbox("join", "a", "--", "cat", "/etc/hosts", check=True).stdout == "1.2.3.4 mine\n"
    host.nsbox("rm", "-f", "a", "b", check=True)
    assert sorted(os.listdir(rootfs / "etc")) == files


def test_a_pod_in_the_host_s_network_has_the_host_s_names(host: FakeHost) -> None:
    """Its own root, and a member's. Red when: names_for() knows nothing of "host"."""
    wanted = host.run(["cat", "/etc/hosts", "/etc/resolv.conf"], check=True).stdout
    host.nsbox("create", "a", *BUSYBOX, "--net", "host", check=True)
    for words in ((), BUSYBOX):
        assert host.nsbox("join", "a", *words, "--", "cat", "/etc/hosts", "/etc/resolv.conf",
                          check=True).stdout == wanted, words
    host.nsbox("rm", "-f", "a", check=True)


def test_a_pod_in_a_named_namespace_has_names_too(host: FakeHost) -> None:
    """Red when: names_of() says "" of "ns:"."""
    host.run(["ip", "netns", "add", "blue"], check=True)
    host.nsbox("create", "a", *BUSYBOX, "--net", "ns:blue", check=True)
    assert host.nsbox("join", "a", "--", "cat", "/etc/hosts", check=True).stdout.endswith("127.0.1.1 a\n")
    assert "127.0.1.1 a\n" in host.nsbox("join", "a", *BUSYBOX, "--", "cat", "/etc/hosts", check=True).stdout
    host.nsbox("rm", "-f", "a", check=True)
    host.run(["sh", "-c", "ip netns del blue; umount /run/netns; rmdir /run/netns"], check=True)


# ---- commands that are cut off ----

CUT = [("create", "command", "KILL"), ("create", "command", "TERM"), ("create", "child", "KILL"),
       ("nat", "command", "KILL"), ("nat", "command", "TERM"), ("connect", "command", "KILL"),
       ("connect", "child", "KILL"), ("disconnect", "command", "KILL"), ("link", "command", "KILL"),
       ("link", "command", "TERM"), ("link", "child", "KILL"), ("rm", "command", "KILL"), ("rm", "child", "KILL"),
       ("net-create", "command", "KILL"), ("net-create", "child", "KILL"), ("net-rm", "command", "KILL")]


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case, who, signame", CUT)
def test_D20_D21_a_command_about_networks_cut_off_at_any_step_leaves_nothing(
    host: FakeHost, case: str, who: str, signame: str
) -> None:
    """No link, address, route, rule, port or setting, in the pods that live on neither; the next one has it all.

    The steps of a run are a sample, another one for each case; NSBOX_TESTS_EVERY_FAULT=1 takes one of five.
    Red when: create() or connect() does not undo; prune() does not look at networks; a cable is looked for by
    its alias alone (a child); what is taken away is forgotten before it is gone.
    """
    number = CUT.index((case, who, signame))
    stride, start = (5, 1) if EVERY else (4001 if who == "child" else 1301, 1 + 97 * number)
    done = host.run([sys.executable, "-P", str(TOP / "tests" / "netcut.py"), case, who, signame,
                     str(stride), str(start)], timeout=2900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) > 900, "these are too few steps"
