"""explain of networks: what is said to the kernel by netlink and by nft, with the line of ip or nft for each.

That no message is missing and none is invented is shown by strace, as for system calls.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re
import time

import oracle
import pytest
from procfs import until
from ptyclient import Terminal

from nsbox.linux import apart

pytestmark = pytest.mark.needs_root
THINKS_S = apart.DEADLINE_S + 3


@pytest.fixture
def net(host):
    """A fake host with a network and a pod on it."""
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    host.nsbox("create", "web", "--rootfs", "busybox", "--net", "lan", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)
    host.nsbox("net", "rm", "--force", "lan", "more", check=True)


def agree(host, *words):
    seen, told, log = oracle.both(host, words)
    assert told == seen, oracle.difference(seen, told)
    return [one for calls in told.values() for one in calls]


def told(host, *words):
    file = host.scratch / "events"
    verb = 2 if words[0] in ("net", "rootfs") else 1
    host.nsbox(*words[:verb], "--events", file, *words[verb:], check=True)
    return [json.loads(line) for line in file.read_text().splitlines()]


VERBS = {
    "net create": ["net", "create", "more", "--subnet", "10.10.0.0/24", "--internal"],
    "net connect": ["net", "connect", "other", "lan"],
    "net link": ["net", "link", "web", "other"],
    "net reload": ["net", "reload"],
    "net disconnect": ["net", "disconnect", "web", "lan"],
    "publish": ["publish", "other", "8080:80", "[::1]:8081:81", "127.0.0.1:8082:82/udp"],
    "publish by nat": ["publish", "web", "0.0.0.0:8080:80", "--publish-mode", "nat"],
    "net rm": ["net", "rm", "--force", "lan"],
    "rm": ["rm", "--force", "web"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_network_is_changed_by_exactly_what_is_told(net, verb):
    """Red when: the row of recvfrom is taken out of net/doors.py, or that of bind."""
    net.nsbox("create", "other", "--rootfs", "busybox", check=True)
    assert agree(net, *VERBS[verb])


def test_more_ports_and_fewer_are_told_where_the_proxy_runs(net):
    """Red when: send_fds has no row in net/doors.py."""
    net.nsbox("publish", "web", "8080:80", check=True)
    added, removed = agree(net, "publish", "web", "8083:83"), agree(net, "unpublish", "web", "8083:83")
    assert [one.call.partition(",")[0] for one in (*added, *removed) if "sendmsg" in one.call] == ["sendmsg(add", "sendmsg(remove"]


OTHERS = {"of the host": "host", "of a pod": "pod:web", "of a file": "ns:/run/netns/lab"}


@pytest.mark.parametrize("how", OTHERS)
def test_a_network_of_others_is_entered_by_exactly_what_is_told(net, how):
    """Red when: the row of unshare or setns is taken out of catalogue.CALLS."""
    net.run(["ip", "netns", "add", "lab"], check=True)
    told = agree(net, "create", "other", "--rootfs", "busybox", "--net", OTHERS[how])
    assert any("CLONE_NEWNET" in one.call for one in told) == (how != "of the host")
    net.nsbox("rm", "--force", "other", check=True)
    net.run(["sh", "-c", "ip netns del lab && umount /run/netns && rmdir /run/netns"], check=True)


def test_a_build_of_a_root_file_system_tells_the_programs_that_it_runs(net):
    """Red when: Popen has no row in net/doors.py, or cli/rootfs.py notes no purpose."""
    events = told(net, "rootfs", "build", "busybox", "--force")
    assert [one["who"] for one in events if one["call"] == "execve"] == ["busybox", "sync"]
    assert [one["why"] for one in events if one["call"] == "execve"] == ["linking the applets", "writing to the disk"]
    assert events[-1]["call"] == "rename" and events[-1]["by_hand"][0].startswith("mv ")


CREATES = {
    "on the bridge that comes by itself": ["--net", "bridge"],
    "on a network": ["--net", "lan", "--ip", "10.9.0.77"],
    "on a network, with a port": ["--net", "lan", "-p", "8080:80", "-p", "[::1]:8081:81"],
}


@pytest.mark.parametrize("how", CREATES)
def test_a_pod_on_a_network_is_made_by_exactly_what_is_told(net, how):
    """Red when: the row of send is taken out of net/doors.py, or a type of netlink._FORMS, or the answer is not read."""
    made = agree(net, "create", "other", "--rootfs", "busybox", *CREATES[how])
    assert sum("netlink" in one.call for one in made) >= 10
    assert any(one.call.startswith('execve("/usr/sbin/nft"') for one in made)


def test_each_message_has_its_line_its_reason_and_its_network(net):
    """Red when: iproute leaves a word of a link out, or Networks takes the process for the socket."""
    done = net.nsbox("create", "other", "--rootfs", "busybox", "--net", "lan", "--explain", check=True)
    pid = done.stdout.strip()
    lines = [line.strip().removeprefix("$ ") for line in done.stderr.splitlines() if line.strip().startswith("$ ")]
    inside, outside = [line for line in lines if line.startswith(f"nsenter --target {pid} --net ip")], "\n".join(lines)
    assert re.search(rf"^ip link add name nsv\w+ address \S+ mtu 1500 type veth peer name nst\w+ .*netns {pid}$", outside, re.M)
    assert [line.split(" --net ")[1] for line in inside][1:] == [
        "ip address add 10.9.0.3/24 dev eth0",
        inside[2].split(" --net ")[1],
        "ip link set dev eth0 up",
        "ip route add default via 10.9.0.1 dev eth0 proto static",
        inside[5].split(" --net ")[1],
    ]
    assert "nft -f - <<'END_OF_RULES'" in lines and "sysctl -qw net/ipv6/conf/" in outside
    assert "veth(4)" in done.stderr and "nft(8)" in done.stderr and "ip-route(8)" in done.stderr


def test_the_network_told_is_the_one_in_which_it_is_done(net):
    """Red when: Told.net has where the process is, and not where its socket is from."""
    events = told(net, "create", "other", "--net", "lan")
    other = json.loads(net.nsbox("inspect", "--json", "other").stdout)[0]
    here = int(net.run(["stat", "-Lc%i", "/proc/self/ns/net"]).stdout)
    inner = int(net.run(["stat", "-Lc%i", f"/proc/{other['pid']}/ns/net"]).stdout)
    said = [one for one in events if one["call"] == "sendto"]
    assert {tuple(one["net"]) for one in said} == {(here, 0), (inner, other["pid"])}
    [cable] = [one for one in said if "veth" in one["text"]]  # sent by the host's socket, from within the pod's network
    assert cable["net"] == [here, 0] and cable["places"]["netns"] == str(other["pid"])
    for one in said:
        assert ("eth0" in str(one["places"]) or "default" in one["why"]) <= (one["net"][0] == inner)
    assert all(one["why"] and one["man"] for one in said)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_q_ends_it_half_way_and_nothing_is_left(net):
    """However long somebody thinks: the child that lays a cable has no deadline then.

    Red when: apart.py sets its alarm all the same (the test thinks for longer than that), or "q" is taken for Enter.
    """
    for _ in until(10):
        if "tentative" not in str(before := net.snapshot()):
            break
    with Terminal(net, columns=200).nsbox("create", "other", "--net", "lan", "--step") as terminal:
        while "veth" not in (asked := terminal.expect("q: end here and undo ").decode()):
            terminal.type("\n")
        assert "$ ip link add name nsv" in asked or "sendto(" in asked
        time.sleep(THINKS_S)
        terminal.type("\n")
        terminal.expect("q: end here and undo ")
        terminal.type("q\n")
        assert terminal.ends_with() == 125
    net.assert_same_as(before)
