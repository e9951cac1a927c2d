"""Ports that the kernel forwards: `--publish-mode nat`, seen from a neighbour on the LAN."""

import socket

import neighbours
import pytest
from neighbours import Lan, peer
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
POD = ("--rootfs", "busybox", "--net", "bridge")
NAT = ("--publish-mode", "nat")
INPUT_DROP = """
table inet mine {
    chain input {
        type filter hook input priority 0; policy accept;
        tcp dport { 8080, 9090 } drop
    }
}
"""


@pytest.fixture
def lan(host):
    yield from neighbours.lans(host)


def test_D01_D09_the_lan_reaches_the_port_and_nothing_else_of_the_pod(lan: Lan) -> None:
    """On a host that is a router: else what is for others is not forwarded anyway.

    Red when: render() has neither the raw drop nor the one in forward; or masquerades what comes in.
    """
    lan.sysctl(lan.h, "ipv4/ip_forward", "1")
    pod = lan.create("web", *POD, "-p", "0.0.0.0:8080:80", *NAT)
    served = lan.serve(pod, "0.0.0.0", 80)
    lan.serve(pod, "0.0.0.0", 81)
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    assert peer(served) == lan.near.v4  # the client itself: no proxy in between
    assert lan.reach(lan.near, lan.h.v4, 81) == "refused"
    assert lan.reach(lan.near, pod.v4, 80, 81) == "blocked"
    assert lan.reach(lan.near, "127.0.0.1", 8080) == "blocked"
    assert lan.reach(lan.h, "127.0.0.1", 8080) == "open"  # that way it is the proxy
    assert not peer(served).startswith("127.")
    lan.rm("web")
    lan.sysctl(lan.h, "ipv4/ip_forward", "0")


def test_D13_a_port_that_is_taken_is_refused_and_its_owner_keeps_it(lan: Lan) -> None:
    """Red when: nat mode does not bind the port too."""
    first = lan.create("first", *POD, "-p", "0.0.0.0:8080:80", *NAT)
    served = lan.serve(first, "0.0.0.0", 80)
    rules = lan.ruleset()
    second = lan.host.nsbox("create", "second", *POD, "-p", "0.0.0.0:8080:80", *NAT)
    assert second.returncode == 125 and "in use" in second.stderr
    assert lan.ruleset() == rules
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    assert peer(served) == lan.near.v4
    lan.rm("first")


def test_D15_the_rule_goes_with_the_pod_within_a_second_or_two(lan: Lan) -> None:
    """Red when: add() in netnat.py leaves nobody behind who waits for the pod's end."""
    pod = lan.create("web", *POD, "-p", "0.0.0.0:8080:80", *NAT)
    assert " dnat ip to " in lan.ruleset()
    lan.host.run(["kill", "-9", lan.host.nsbox("ls", "--json").stdout.split('"pid": ')[1].split(",")[0]], check=True)
    for _ in until(5.0):
        if " dnat ip to " not in lan.ruleset():
            break
    assert " dnat ip to " not in lan.ruleset(), pod
    assert lan.host.nsbox("prune", check=True).stdout == "web\n"


def test_unpublish_takes_the_rule_away_and_publish_says_the_mode(lan: Lan) -> None:
    """Red when: undo() in cli/publish.py forgets the rule."""
    lan.create("web", *POD)
    said = lan.host.nsbox("publish", "web", "0.0.0.0:8080:80", *NAT, check=True).stdout
    assert said == "0.0.0.0:8080 -> 80/tcp (nat)\n"
    lan.host.nsbox("unpublish", "web", "0.0.0.0:8080:80", check=True)
    assert " dnat ip to " not in lan.ruleset()
    assert lan.reach(lan.near, lan.h.v4, 8080) == "refused"
    lan.rm("web")


@pytest.mark.parametrize("words, said", [
    (("--net", "bridge", "-p", "8080:80"), "only the host has loopback"),
    (("-p", "0.0.0.0:8080:80"), "is on no network"),
    (("--net", "user", "-p", "0.0.0.0:8080:80"), "is on no network"),
])
def test_what_cannot_be_forwarded_is_refused_before_anything_is_made(host, words, said) -> None:
    """Red when: check() in netnat.py lets it pass."""
    done = host.nsbox("create", "web", *words, *NAT)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


def test_D07_input_rules_of_the_host_hold_for_the_proxy_alone(lan: Lan) -> None:
    """As the README says it. Red when: either of them changes."""
    pod = lan.create("web", *POD, "-p", "0.0.0.0:8080:80", *NAT)
    lan.serve(pod, "0.0.0.0", 80)
    lan.host.nsbox("publish", "web", "0.0.0.0:9090:80", check=True)
    lan.nft(INPUT_DROP)
    assert lan.reach(lan.near, lan.h.v4, 9090) == "blocked"
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    lan.host.run(["nft", "delete", "table", "inet", "mine"], check=True)
    lan.rm("web")


def test_D19_a_udp_client_that_goes_on_sending_follows_the_port_to_its_next_owner(lan: Lan) -> None:
    """To a new pod, and to a program of the host.

    Red when: the flows of a port are not forgotten when a pod takes it (add), or gives it up (leave_all).
    """
    lan.create("keep", *POD)  # with the last pod the kernel would stop to follow flows at all
    client = lan.udp(lan.near)
    client.settimeout(0.5)

    def answer(server: socket.socket, name: str, come_as: str) -> str:
        server.settimeout(5.0)
        client.sendto(b"who", (lan.h.v4, 5353))
        who = server.recvfrom(100)[1]
        assert who[0] == come_as
        server.sendto(name.encode(), who)
        return client.recv(100).decode()

    client.sendto(b"who", (lan.h.v4, 5353))  # a flow that nobody led anywhere
    for number, name in enumerate(("old", "new")):  # another address: else the old flow would do
        pod = lan.create(name, *POD, "--ip", f"10.77.0.{50 + number}", "-p", "0.0.0.0:5353:53/udp", *NAT)
        # As itself: the kernel leads it, not the proxy.
        assert answer(lan.serve(pod, pod.v4, 53, socket.SOCK_DGRAM), name, lan.near.v4) == name
        lan.rm(name)
        with lan.serve(lan.h, "0.0.0.0", 5353, socket.SOCK_DGRAM) as server:  # a program of the host is next
            assert answer(server, "host", lan.near.v4) == "host"
    lan.rm("keep")
