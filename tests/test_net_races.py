"""Ports and networks when commands race, are killed half way, or come again at once."""

import json
import os
import signal
import socket
import sys

import neighbours
import pytest
from fakehost import FakeHost
from faultpoints import EVERY
from neighbours import Lan, all_of, peer, settled
from portlab import sockets
from procfs import TOP, comm, until

pytestmark = pytest.mark.needs_root
BUSYBOX = ("--rootfs", "busybox")
STRIDE = "29"  # prime: the steps that are tried differ from loop to loop


@pytest.fixture
def lan(host: FakeHost):
    yield from neighbours.lans(host)


def test_D13_a_port_that_a_program_of_the_host_has_is_an_error_and_leaves_nothing(lan: Lan) -> None:
    """Red when: listen() sets SO_REUSEPORT and shares it, or create does not look before it makes the pod."""
    [theirs] = sockets(lan.h.pid)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # whoever asks for it too could share
    theirs.bind(("127.0.0.1", 8080))
    theirs.listen()
    lan.create("taken", *BUSYBOX)
    before = settled(lan.host)
    done = lan.host.nsbox("create", "web", *BUSYBOX, "-p", ":81", "-p", "8080:80")
    assert done.returncode == 125
    assert "cannot publish 127.0.0.1:8080: bind: Address already in use" in done.stderr
    # The port comes before the pod: of two errors this is the one that is told.
    done = lan.host.nsbox("create", "taken", *BUSYBOX, "-p", "8080:80")
    assert done.returncode == 125 and "Address already in use" in done.stderr
    lan.host.assert_same_as(before)
    for _ in range(20):  # shared, half of them would come to the other one
        assert lan.reach(lan.h, "127.0.0.1", 8080) == "open"
        assert peer(theirs) == "127.0.0.1"
    theirs.close()
    lan.rm("taken")


@pytest.mark.slow
def test_D14_of_20_creates_at_once_with_one_port_exactly_one_wins(host: FakeHost) -> None:
    """Red when: listen() sets SO_REUSEPORT, or a create that comes too late does not undo its pod."""
    done = all_of(20, lambda number: host.nsbox_popen("create", f"web{number}", *BUSYBOX, "-p", "8080:80"))
    assert sorted(command.returncode for command in done) == [0] + [125] * 19
    said = [command.stderr.read() for command in done if command.returncode]
    assert all("Address already in use" in text for text in said), said
    [name] = host.nsbox("ls", "-q").stdout.split()
    host.nsbox("rm", "-f", name, check=True)


def test_D15_a_killed_proxy_shows_in_ls_and_the_pod_can_be_removed(host: FakeHost) -> None:
    """Red when: ls believes ports.json, or has no ports."""
    host.nsbox("create", "plain", *BUSYBOX, check=True)
    assert "PORTS" not in host.nsbox("ls", check=True).stdout
    host.nsbox("create", "web", *BUSYBOX, "-p", "8080:80", "-p", "[::1]:8053:53/udp", check=True)
    assert "  127.0.0.1:8080->80/tcp, [::1]:8053->53/udp  " in listed(host)["web"]
    assert "  -  " in listed(host)["plain"]
    os.kill(proxy_of(host), signal.SIGKILL)
    wanted = "  127.0.0.1:8080->80/tcp (down), [::1]:8053->53/udp (down)  "
    assert any(wanted in listed(host)["web"] for _ in until(20.0))
    rows = {row["name"]: row for row in json.loads(host.nsbox("ls", "--json").stdout)}
    assert [row["state"] for row in rows["web"]["ports"]] == ["down", "down"]
    assert rows["plain"]["ports"] == [] and rows["web"]["members"] == 0
    host.nsbox("rm", "web", check=True)
    host.nsbox("rm", "plain", check=True)


def test_D15_the_port_is_free_within_a_second_of_the_pauses_death(lan: Lan) -> None:
    """And at once the port of another pod, while clients of the first are connected.

    Red when: the proxy does not watch the pod's pidfd.
    """
    pod = lan.create("web", *BUSYBOX, "-p", "0.0.0.0:8080:80")
    lan.serve(pod, "0.0.0.0", 80)
    client = lan.connect(lan.near, lan.h.v4, 8080)
    os.kill(pod.pid, signal.SIGKILL)
    assert any(not lan.listening() for _ in until(5.0))
    assert "(down)" in listed(lan.host)["web"]
    again = lan.create("again", *BUSYBOX, "-p", "0.0.0.0:8080:80")
    served = lan.serve(again, "0.0.0.0", 80)
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    assert not peer(served).startswith("127.")
    client.close()
    lan.rm("web", "again")


def test_a_port_file_that_cannot_be_read_does_not_end_ls(host: FakeHost) -> None:
    """Red when: summaries() lets the error through."""
    host.nsbox("create", "web", *BUSYBOX, "-p", "8080:80", check=True)
    host.run(["sh", "-c", f"echo '{{' > {host.state}/pods/web/ports.json"], check=True)
    assert host.nsbox("ls", "-q", check=True).stdout == "web\n"
    assert "corrupt" in host.nsbox("publish", "web").stderr
    host.nsbox("rm", "-f", "web", check=True)


def test_a_port_of_a_killed_proxy_can_be_published_again_by_the_same_words(host: FakeHost) -> None:
    """Red when: publish() binds the old ports beside the new ones, and is in its own way."""
    host.nsbox("create", "web", *BUSYBOX, "-p", "8080:80", "-p", "8081:81", check=True)
    os.kill(proxy_of(host), signal.SIGKILL)
    assert any("(down)" in listed(host)["web"] for _ in until(20.0))
    host.nsbox("publish", "web", "8080:80", check=True)
    assert host.nsbox("publish", "web").stdout == "127.0.0.1:8081 -> 81/tcp\n127.0.0.1:8080 -> 80/tcp\n"
    host.nsbox("rm", "-f", "web", check=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("before, what", [("nothing", "publish"), ("proxy", "publish"), ("killed", "publish"),
                                          ("proxy", "unpublish")])
@pytest.mark.parametrize("signame", ["KILL", "TERM"])
def test_a_command_cut_off_at_any_step_leaves_no_port_that_is_not_listed(
    host: FakeHost, before: str, what: str, signame: str
) -> None:
    """Nor a proxy that counts as a member, nor anything that the next command cannot mend.

    Red when: ports.json is written after the proxy was started; published() tells the file alone; the proxy
    answers before it has closed a port; an error (TERM) is not followed by _take_back().
    """
    host.nsbox("create", "web", *BUSYBOX, check=True)
    done = host.run([sys.executable, "-P", str(TOP / "tests" / "netkill.py"), before, what, signame,
                     "1" if EVERY else STRIDE],
                    timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 300, "these are too few steps"
    host.nsbox("rm", "-f", "web", check=True)


def test_D15_a_proxy_that_does_not_answer_is_not_taken_for_a_dead_one(host: FakeHost) -> None:
    """Its port is open still. Red when: _serving() does not look whether the process is there."""
    host.nsbox("create", "web", *BUSYBOX, "-p", "8080:80", check=True)
    proxy = proxy_of(host)
    os.kill(proxy, signal.SIGSTOP)
    done = host.nsbox("unpublish", "web", "8080:80")
    assert done.returncode == 125 and "cannot reach the proxy" in done.stderr
    os.kill(proxy, signal.SIGCONT)
    host.nsbox("unpublish", "web", "8080:80", check=True)
    assert host.nsbox("publish", "web").stdout == ""
    host.nsbox("rm", "-f", "web", check=True)


# ---- pods with a link ----

BRIDGE = (*BUSYBOX, "--net", "bridge")

FOREIGN = """
table ip nat { chain prerouting { type nat hook prerouting priority -100; tcp dport 2222 dnat to 192.0.2.1:22; }; }
table ip nsbox { chain c { type filter hook forward priority 10; ip saddr 10.77.0.0/16 counter accept; }; }
table inet nsbox_00000000 { set s { type ipv4_addr; elements = { 10.77.0.2, 10.78.1.1 }; }; }
table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy accept; }; }
table bridge filter { chain c { type filter hook forward priority 0; policy accept; }; }
table arp filter { chain c { type filter hook input priority 0; policy accept; }; }
"""


def test_D17_rules_and_links_of_others_are_not_touched(lan: Lan) -> None:
    """By pods that come and go, nor while one is there.

    Red when: the ruleset is flushed, or a table that is not ours is replaced or removed.
    """
    lan.nft(FOREIGN)
    lan.ip(lan.h, "link add nsb-theirs type bridge", "addr add 10.99.0.1/24 dev nsb-theirs")
    before, links = lan.ruleset(), theirs(lan)
    for number in range(50 if EVERY else 3):
        lan.create("web", *BRIDGE)
        if number == 0:
            now = lan.ruleset()
            assert all(table in now for table in tables(before)), "while a pod is there"
            assert now != before
        lan.rm("web")
        assert lan.ruleset() == before, f"after {number + 1} pods"
    assert theirs(lan) == links
    for table in ("ip nat", "ip nsbox", "inet nsbox_00000000", "ip6 filter", "bridge filter", "arp filter"):
        lan.nft(f"delete table {table}")
    lan.ip(lan.h, "link del nsb-theirs")


def theirs(lan: Lan) -> str:
    return "".join(lan.host.run(["ip", *words, "show", "nsb-theirs"], check=True).stdout for words in (["addr"], ["link"]))


def tables(ruleset: str) -> list[str]:
    """The texts of its tables."""
    return [f"table {text}" for text in ruleset.split("table ")[1:]]


def test_D14_of_creates_at_once_with_one_address_exactly_one_wins(host: FakeHost) -> None:
    """Red when: an address is looked up and taken without the lock of the networks."""
    words = (*BRIDGE, "--ip", "10.77.0.77")
    host.nsbox("create", "keep", *BRIDGE, check=True)  # else they meet at the bridge already
    done = all_of(8, lambda number: host.nsbox_popen("create", f"web{number}", *words))
    assert sorted(command.returncode for command in done) == [0] + [125] * 7
    said = [command.stderr.read() for command in done if command.returncode]
    assert all("10.77.0.77" in text and "Traceback" not in text for text in said), said
    [name] = [one for one in host.nsbox("ls", "-q").stdout.split() if one != "keep"]
    host.nsbox("rm", "-f", name, "keep", check=True)


# An nft that takes all but the rule of a forwarded port.
FAIL_DNAT = r"""
cp "$(readlink -f /usr/sbin/nft)" /run/nft.real
cat > /run/nft <<'END'
#!/bin/sh
text=$(cat)
case $text in *" dnat ip to "*) echo "Error: refused" >&2; exit 1;; esac
printf "%s\\n" "$text" | /run/nft.real "$@"
END
chmod 755 /run/nft
mount --bind /run/nft /usr/sbin/nft
"""


def test_D13_a_linked_pod_whose_port_cannot_be_had_leaves_no_network(lan: Lan) -> None:
    """The port is in use, or publishing it fails when the pod and its link are there already.

    Red when: a failed publish does not undo the link.
    """
    first = lan.create("one", *BRIDGE, "-p", "0.0.0.0:8080:80")
    lan.serve(first, "0.0.0.0", 80)
    before = settled(lan.host)
    done = lan.host.nsbox("create", "two", *BRIDGE, "-p", "8080:80")
    assert done.returncode == 125 and "Address already in use" in done.stderr
    lan.host.assert_same_as(before)
    lan.host.run(["sh", "-ec", FAIL_DNAT], check=True)
    before = settled(lan.host)
    done = lan.host.nsbox("create", "two", *BRIDGE, "-p", "0.0.0.0:9090:80", "--publish-mode", "nat")
    assert done.returncode == 125 and "refused" in done.stderr
    lan.host.assert_same_as(before)
    lan.host.run(["sh", "-ec", "umount /usr/sbin/nft; rm /run/nft /run/nft.real"], check=True)
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    lan.rm("one")


def test_D19_a_udp_client_with_a_fixed_port_reaches_the_new_pod_with_its_first_datagram(lan: Lan) -> None:
    """A client on the LAN, two published ports; the other port's flow is not disturbed.

    Red when: the flow of the client is kept from one proxy to the next, or by the kernel.
    """
    beside_it = lan.create("other", *BRIDGE, "-p", "0.0.0.0:5454:53/udp")
    other = lan.serve(beside_it, "0.0.0.0", 53, socket.SOCK_DGRAM)
    client, beside = lan.udp(lan.near, 40000), lan.udp(lan.near, 40001)
    for number, said in enumerate((b"OLD", b"NEW", b"NEWER")):
        pod = lan.create("dns", *BRIDGE, "--ip", f"10.77.0.{50 + number}", "-p", "0.0.0.0:5353:53/udp")
        served = lan.serve(pod, "0.0.0.0", 53, socket.SOCK_DGRAM)
        for _ in range(2):
            assert asked(client, (lan.h.v4, 5353), served, said) == said
            assert asked(beside, (lan.h.v4, 5454), other, b"same") == b"same"
        lan.rm("dns")
    lan.rm("other")


def asked(client: socket.socket, where: tuple[str, int], served: socket.socket, answer: bytes) -> bytes:
    """Send one datagram, answer it, and return what the client hears."""
    client.sendto(b"?", where)
    served.settimeout(5.0)
    client.settimeout(5.0)
    served.sendto(answer, served.recvfrom(100)[1])
    return client.recv(100)


@pytest.mark.slow
def test_D22_a_pod_may_come_again_at_once_with_its_name_and_address(lan: Lan) -> None:
    """Without a pause, while sockets keep the namespace of the one before alive.

    Red when: the host's end of the cable is left to the kernel to remove.
    """
    for _ in range(100 if EVERY else 4):
        pod = lan.create("web", *BRIDGE, "--ip", "10.77.0.50")
        served = lan.serve(pod, "0.0.0.0", 80)  # kept to the end of the test
        assert pod.v4 == "10.77.0.50"
        assert lan.reach(lan.h, pod.v4, 80) == "open"
        assert peer(served) == "10.77.0.1"  # this pod's, not that of the one before
        os.kill(pod.pid, signal.SIGKILL)
        lan.rm("web")
        assert " nsv" not in lan.host.run(["ip", "-o", "link"], check=True).stdout


def test_D23_long_names_that_differ_in_their_last_letter_are_different_pods(lan: Lan) -> None:
    """Red when: the name of a link is cut out of the pod's name."""
    pods = {}
    for letter in "abc":
        name = "n" * 62 + letter
        pods[name] = lan.create(name, *BRIDGE)
        lan.serve(pods[name], "0.0.0.0", 80)
    assert len({pod.v4 for pod in pods.values()}) == len({pod.v6 for pod in pods.values()}) == 3
    one = next(iter(pods.values()))
    for pod in pods.values():
        assert lan.reach(lan.h, pod.v4, 80) == lan.reach(one, pod.v4, 80) == "open"
    lan.rm(*pods)


def proxy_of(host: FakeHost) -> int:
    """The PID, on the real host, of the one proxy in the fake host."""
    [pid] = [pid for pid in host.processes().values() if comm(pid) == "nsbox:proxy"]
    return pid


def listed(host: FakeHost) -> dict[str, str]:
    """The lines of `nsbox ls`, by the pod's name."""
    lines = host.nsbox("ls", check=True).stdout.splitlines()[1:]
    return {line.split()[0]: line for line in lines}
