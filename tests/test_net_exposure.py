"""Who reaches what of a pod and of its host, seen by neighbours who send what they like."""

import ipaddress
import socket

import neighbours
import pytest
from fakehost import UID, FakeHost
from neighbours import Lan, peer
from portlab import sockets

pytestmark = pytest.mark.needs_root
BUSYBOX = ("--rootfs", "busybox")
MANY = tuple(range(80, 100))


@pytest.fixture
def lan(host: FakeHost):
    yield from neighbours.lans(host)


def test_the_attacks_of_this_laboratory_work_where_nothing_stops_them(lan: Lan) -> None:
    """Without it the tests below could pass because a packet is lost on its way."""
    served = lan.serve(lan.h, "127.0.0.1", 9999)
    assert lan.reach(lan.near, "127.0.0.1", 9999) == "blocked"
    lan.sysctl(lan.h, "ipv4/conf/all/route_localnet", "1")
    assert lan.reach(lan.near, "127.0.0.1", 9999) == "open"
    assert peer(served) == lan.near.v4
    lan.sysctl(lan.h, "ipv4/conf/all/route_localnet", "0")
    far = lan.serve(lan.far, "0.0.0.0", 80)
    assert lan.reach(lan.near, lan.far.v4, 80) == "blocked"
    lan.sysctl(lan.h, "ipv4/ip_forward", "1")
    assert lan.reach(lan.near, lan.far.v4, 80) == "open"
    assert peer(far) == lan.near.v4
    lan.sysctl(lan.h, "ipv4/ip_forward", "0")


def test_D02_D03_a_port_on_loopback_is_for_this_host_alone_and_opens_no_other(lan: Lan) -> None:
    """Red when: create sets route_localnet; or a DNAT rule leads 127.0.0.1:8080 to the pod."""
    pod = lan.create("web", *BUSYBOX, "-p", "8080:80")
    served = lan.serve(pod, "0.0.0.0", 80)
    lan.serve(lan.h, "127.0.0.1", 9999)
    assert lan.reach(lan.h, "127.0.0.1", 8080) == "open"
    assert lan.reach(lan.near, "127.0.0.1", 8080, 9999, 80) == "blocked"
    assert lan.reach(lan.near, lan.h.v4, 8080, 80) == "refused"
    assert not peer(served).startswith("127.")
    for where in (lan.h, pod):
        assert set(lan.sysctls(where, "ipv4/conf/*/route_localnet").values()) == {"0"}
    lan.rm("web")


# word of -p: what ss shows of it, and from where it is reached: the host by v4 and by v6 loopback,
# L by v4 and by v6.
PLACES = {
    "8080:80": (["127.0.0.1:8080"], "4"),
    "127.0.0.1:8080:80": (["127.0.0.1:8080"], "4"),
    "[::1]:8080:80": (["[::1]:8080"], "6"),
    "0.0.0.0:8080:80": (["0.0.0.0:8080"], "4L"),
    "[::]:8080:80": (["[::]:8080"], "6M"),
    "192.168.77.1:8080:80": (["192.168.77.1:8080"], "L"),
    "[fd77::1]:8080:80": (["[fd77::1]:8080"], "M"),
}


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_D04_each_port_is_open_exactly_where_it_was_asked_for(lan: Lan, proto: str) -> None:
    """Red when: DEFAULT_ADDRESS is 0.0.0.0, or a socket for [::] takes v4 too."""
    pod = lan.create("web", *BUSYBOX)
    lan.serve(pod, "::", 80)  # takes v4 as well
    flag = proto[0]
    for word, (shown, reached) in PLACES.items():
        lan.host.nsbox("publish", "web", f"{word}/{proto}", check=True)
        assert lan.listening(flag) == shown, word
        if proto == "tcp":
            assert _reached(lan) == reached, word
        lan.host.nsbox("unpublish", "web", f"{word}/{proto}", check=True)
        assert lan.listening(flag) == []
    lan.rm("web")


def _reached(lan: Lan) -> str:
    tries = {"4": (lan.h, "127.0.0.1"), "6": (lan.h, "::1"), "L": (lan.near, lan.h.v4), "M": (lan.near, lan.h.v6)}
    return "".join(mark for mark, place in tries.items() if lan.reach(*place, 8080) == "open")


def test_D04_protocols_that_would_leave_the_family_open_are_no_words(host: FakeHost) -> None:
    """tcp4, tcp6: the address says which it is. Red when: the word after / is not checked."""
    for proto in ("tcp4", "tcp6", "udp6", "sctp", "TCP"):
        done = host.nsbox("create", "web", *BUSYBOX, "-p", f"8080:80/{proto}")
        assert (done.returncode, "it is not [IP:]HOST:POD" in done.stderr) == (2, True)
    assert host.nsbox("ls", "-q").stdout == ""


def test_D05_ports_that_are_not_published_are_closed_to_everybody(lan: Lan) -> None:
    """A pod with lo alone: 20 open ports inside, one published.

    Red when: publish opens the pod's port number on the host too, or the pod keeps the host's network.
    """
    pod, other = lan.create("web", *BUSYBOX, "-p", "8080:80"), lan.create("other", *BUSYBOX)
    for port in MANY:
        lan.serve(pod, "0.0.0.0", port)
    scanned = (*MANY, 8080)
    for address in ("127.0.0.1", lan.h.v4, "192.168.88.1"):
        found = {port for port, word in lan.scan(lan.h, address, scanned).items() if word == "open"}
        assert found == ({8080} if address == "127.0.0.1" else set()), address
    for where, address in ((lan.near, lan.h.v4), (lan.near, "192.168.88.1"), (lan.far, "192.168.88.1"),
                           (other, "127.0.0.1"), (other, lan.h.v4)):
        assert "open" not in lan.scan(where, address, scanned).values(), (where, address)
    lan.rm("web", "other")


def test_D07_a_published_port_obeys_the_firewall_of_the_host(lan: Lan) -> None:
    """Red when: the port is led to the pod before the input chain, as by DNAT."""
    pod = lan.create("web", *BUSYBOX, "-p", "0.0.0.0:8080:80")
    lan.serve(pod, "0.0.0.0", 80)
    assert lan.reach(lan.near, lan.h.v4, 8080) == "open"
    lan.nft("table inet filter { chain input { type filter hook input priority 0; tcp dport 8080 drop; }; }")
    assert lan.reach(lan.near, lan.h.v4, 8080) == "blocked"
    lan.nft("delete table inet filter")
    lan.rm("web")


def test_D09_no_client_comes_to_a_member_as_loopback(lan: Lan) -> None:
    """Wherever it listens. Red when: the proxy connects to the member without an address of its own to come from."""
    pod = lan.create("web", *BUSYBOX, "-p", "0.0.0.0:8080:80", "-p", "[::]:8080:80", "-p", "0.0.0.0:8053:53/udp")
    asked = lan.serve(pod, "127.0.0.1", 53, socket.SOCK_DGRAM)
    for bound in ("::", "127.0.0.1", "::1"):
        served = lan.serve(pod, bound, 80)
        for where, address in ((lan.h, "127.0.0.1"), (lan.h, "::1"), (lan.near, lan.h.v4), (lan.near, lan.h.v6)):
            lan.connect(where, address, 8080)
            assert peer(served) in ("169.254.110.115", "fd6e:7362:6f78::1"), (bound, address)
        served.close()
    for client in (lan.udp(lan.near), lan.udp(lan.h)):
        client.sendto(b"x", (lan.h.v4, 8053))
        asked.settimeout(5.0)
        assert not asked.recvfrom(9)[1][0].startswith("127.")
    lan.rm("web")


def test_D10_what_controls_nsbox_is_no_abstract_socket_and_closed_to_other_users(host: FakeHost) -> None:
    """Nor is there one in the pod. What is above the state directory is open here: nsbox closes its own.

    Red when: control.bind() takes an abstract name, the proxy opens one in the pod, or a directory is open to all.
    """
    host.run(["chmod", "755", str(host.state)], check=True)
    own = host.state / "own"
    env = {"NSBOX_STATE": str(own)}
    pod = host.host_pid(int(host.nsbox("create", "web", *BUSYBOX, "-p", "8080:80", env=env, check=True).stdout))
    host.nsbox("join", "web", "-d", "--", "sleep", "100", env=env, check=True)
    for pid in (host.pid, pod):
        with open(f"/proc/{pid}/net/unix") as file:
            unix = file.read()
        assert "@" not in unix
        assert "/ports\n" in unix or pid == pod
    knock = "import socket, sys\ntry: socket.socket(1, 5).connect(sys.argv[1])\nexcept OSError as e: print(e.strerror)"
    control = str(own / "pods" / "web" / "ports")
    assert host.python(knock, control, check=True).stdout == ""
    assert host.python(knock, control, user=UID, check=True).stdout == "Permission denied\n"
    for path in (own, own / "pods", own / "pods" / "web"):
        assert "Permission denied" in host.run(["ls", str(path)], user=UID).stderr, path
    host.nsbox("rm", "-f", "web", env=env, check=True)
    host.run(["sh", "-c", f"rm -r {own}; chmod 700 {host.state}"], check=True)


# ---- pods with a link ----

BRIDGE = (*BUSYBOX, "--net", "bridge")


def forward_v6(lan: Lan, on: bool) -> None:
    """Make the host a router for v6: nsbox never does, and what it blocks must not hang on that."""
    lan.sysctl(lan.h, "ipv6/conf/all/forwarding", str(int(on)))


def gateway(address: str, prefix: int) -> str:
    """The bridge's address in the subnet of `address`."""
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False)[1])


def test_D01_a_pod_of_a_bridge_is_not_reached_by_routing_to_its_address(lan: Lan) -> None:
    """By nobody on the LAN, on whatever port, by v4 or v6, nor as a forged neighbour; the host reaches it,
    and it reaches the LAN.

    Red when: rules.render() leaves the raw drop out.
    """
    pod = lan.create("web", *BRIDGE, "-p", "8080:80")
    forward_v6(lan, True)
    served = lan.serve(pod, "::", 80)
    assert lan.reach(lan.h, pod.v4, 80) == lan.reach(lan.h, pod.v6, 80) == "open"
    for where in (lan.near, lan.far):
        for address in (pod.v4, pod.v6, "10.77.0.1", gateway(pod.v6, 64)):
            assert lan.reach(where, address, 80, 8080, 22) == "blocked", (where, address)
    lan.ip(lan.near, "addr add 10.77.99.99/32 dev eth0", f"route replace {pod.v4}/32 via 192.168.77.1 src 10.77.99.99")
    assert lan.reach(lan.near, pod.v4, 80) == "blocked"
    assert lan.reach(lan.near, "127.0.0.1", 8080) == "blocked"
    assert lan.reach(lan.h, "127.0.0.1", 8080) == "open"
    assert not peer(served).startswith("127.")
    answered = lan.serve(lan.near, "0.0.0.0", 80)
    assert lan.reach(pod, lan.near.v4, 80) == "open"
    assert peer(answered) == lan.h.v4
    lan.rm("web")
    forward_v6(lan, False)


def test_D01_what_a_host_routes_through_a_pod_is_not_reached_from_the_lan(lan: Lan) -> None:
    """To addresses that are in no subnet of ours. Red when: _forward() does not drop what goes to a bridge."""
    lan.sysctl(lan.h, "ipv4/ip_forward", "1")  # a router before: nothing but the rules for the bridge holds
    pod = lan.create("web", *BRIDGE)
    lan.ip(lan.h, f"route add 10.200.0.0/24 via {pod.v4}")
    lan.ip(pod, "addr add 10.200.0.1/32 dev lo")
    heard = lan.serve(pod, "10.200.0.1", 5000, socket.SOCK_DGRAM)
    heard.settimeout(0.5)
    lan.udp(lan.h).sendto(b"host", ("10.200.0.1", 5000))
    assert heard.recv(10) == b"host"  # the way is there; an answer would not pass the bridge
    lan.udp(lan.near).sendto(b"x", ("10.200.0.1", 5000))
    with pytest.raises(TimeoutError):
        heard.recv(10)
    lan.ip(lan.h, "route del 10.200.0.0/24")
    lan.rm("web")
    lan.sysctl(lan.h, "ipv4/ip_forward", "0")


def test_D12_a_pod_that_takes_another_address_is_not_heard(lan: Lan) -> None:
    """A member with CAP_NET_ADMIN does. Red when: the rules are installed without the pods' ports."""
    one, two = lan.create("one", *BRIDGE), lan.create("two", *BRIDGE)
    served = lan.serve(two, "0.0.0.0", 80)
    assert lan.reach(one, two.v4, 80) == "open"
    assert peer(served) == one.v4
    lan.ip(one, "addr add 10.77.0.99/16 dev eth0")
    [forger] = sockets(one.pid)
    with forger:
        forger.bind(("10.77.0.99", 0))
        forger.settimeout(1.0)
        with pytest.raises(OSError):
            forger.connect((two.v4, 80))
    assert lan.reach(one, two.v4, 80) == "open"
    lan.rm("one", "two")


def test_D02_D11_no_end_of_a_cable_believes_router_advertisements_or_routes_loopback(lan: Lan) -> None:
    """Of the host or of the pod. Red when: accept_ra stays as the kernel gives it."""
    links = set(lan.sysctls(lan.h, "ipv6/conf/*/accept_ra"))
    pod = lan.create("web", *BRIDGE)
    said = lan.sysctls(lan.h, "ipv6/conf/*/accept_ra")
    assert len(set(said) - links) == 2
    assert {said[name] for name in set(said) - links} == {"0"}
    assert lan.sysctl(pod, "ipv6/conf/eth0/accept_ra") == "0"
    for where in (lan.h, pod):
        assert set(lan.sysctls(where, "ipv4/conf/*/route_localnet").values()) == {"0"}
    lan.rm("web")


def test_D05_of_a_linked_pod_only_its_own_network_reaches_the_ports(lan: Lan) -> None:
    """20 ports; from the LAN, another network, an internal one whose pod routes as it likes, and a pod
    without any. And the host's address on the bridge.

    Red when: rules.render() leaves the raw drop out (the bridge's address), or that and the drop in
    forward (the pods), or does not close an internal network.
    """
    lan.host.nsbox("net", "create", "blue", check=True)
    lan.host.nsbox("net", "create", "red", "--internal", check=True)
    pod, peer_pod = lan.create("web", *BRIDGE), lan.create("peer", *BRIDGE)
    others = [lan.create("blue", *BUSYBOX, "--net", "blue"), lan.create("red", *BUSYBOX, "--net", "red"),
              lan.create("none", *BUSYBOX), lan.near, lan.far]
    forward_v6(lan, True)
    for port in MANY:
        lan.serve(pod, "::", port)
    for address in (pod.v4, pod.v6):
        assert lan.reach(peer_pod, address, *MANY) == lan.reach(lan.h, address, *MANY) == "open"
        for where in others:
            assert lan.reach(where, address, *MANY, 8080) == "blocked", (where, address)
    red = others[1]
    lan.ip(red, f"route add default via {gateway(red.v4, 24)}")
    lan.serve(lan.h, "10.77.0.1", 80)
    assert lan.reach(pod, "10.77.0.1", 80) == "open"
    for where in others:
        assert lan.reach(where, "10.77.0.1", 80) == "blocked", where
    assert lan.reach(red, pod.v4, 80) == "blocked"
    lan.serve(red, "::", 80)
    lan.serve(lan.near, "::", 80)
    assert lan.reach(red, lan.near.v4, 80) == "blocked"
    heard, said = lan.udp(lan.near, 5000), lan.udp(red)  # not even a datagram that nobody answers
    heard.settimeout(0.5)
    said.sendto(b"x", (lan.near.v4, 5000))
    with pytest.raises(TimeoutError):
        heard.recv(10)
    assert lan.reach(lan.h, red.v4, 80) == "open"
    assert lan.reach(pod, red.v4, 80) == "blocked"
    lan.rm("web", "peer", "blue", "red", "none")
    lan.host.nsbox("net", "rm", "blue", check=True)
    lan.host.nsbox("net", "rm", "red", check=True)
    forward_v6(lan, False)


def test_D06_the_host_becomes_no_router_for_its_neighbours(lan: Lan) -> None:
    """While pods are there, and not after the last of two has gone.

    Red when: rules.render() leaves the drop for everything else out, or ip_forward stays on.
    """
    lan.serve(lan.near, "0.0.0.0", 80)
    lan.serve(lan.far, "0.0.0.0", 80)

    def crossing() -> set[str]:
        return {lan.reach(lan.near, lan.far.v4, 80), lan.reach(lan.far, lan.near.v4, 80)}
    assert crossing() == {"blocked"}
    pods = [lan.create("one", *BRIDGE), lan.create("two", *BRIDGE)]
    assert lan.sysctl(lan.h, "ipv4/ip_forward") == "1"
    assert crossing() == {"blocked"}
    assert [lan.reach(pod, lan.far.v4, 80) for pod in pods] == ["open", "open"]
    lan.rm("one")
    assert lan.sysctl(lan.h, "ipv4/ip_forward") == "1"
    assert lan.reach(pods[1], lan.far.v4, 80) == "open"
    assert crossing() == {"blocked"}
    lan.rm("two")
    assert lan.sysctl(lan.h, "ipv4/ip_forward") == "0"
    assert crossing() == {"blocked"}


def test_D06_an_internal_network_switches_nothing_on(lan: Lan) -> None:
    """Red when: forwarding is switched on for any link."""
    lan.host.nsbox("net", "create", "red", "--internal", check=True)
    lan.create("web", *BUSYBOX, "--net", "red")
    assert lan.sysctl(lan.h, "ipv4/ip_forward") == "0"
    lan.rm("web")
    lan.host.nsbox("net", "rm", "red", check=True)


def test_D06_a_host_that_is_a_router_stays_one(lan: Lan) -> None:
    """Red when: everything that is not ours is dropped even so, or the value is put to 0 at the end."""
    lan.sysctl(lan.h, "ipv4/ip_forward", "1")
    lan.serve(lan.far, "0.0.0.0", 80)
    assert lan.reach(lan.near, lan.far.v4, 80) == "open"
    pod = lan.create("web", *BRIDGE)
    lan.serve(pod, "0.0.0.0", 80)
    assert lan.reach(lan.near, lan.far.v4, 80) == "open"
    assert lan.reach(lan.near, pod.v4, 80) == "blocked"
    lan.rm("web")
    assert lan.sysctl(lan.h, "ipv4/ip_forward") == "1"
    assert lan.reach(lan.near, lan.far.v4, 80) == "open"
    lan.sysctl(lan.h, "ipv4/ip_forward", "0")


def test_D07_D09_a_published_port_of_a_linked_pod_obeys_the_firewall_and_shows_no_loopback(lan: Lan) -> None:
    """Red when: the port is led to the pod before the input chain; or the proxy comes as 127.0.0.1."""
    pod = lan.create("web", *BRIDGE, "-p", "0.0.0.0:8080:80")
    served = lan.serve(pod, "0.0.0.0", 80)
    for where, address in ((lan.near, lan.h.v4), (lan.h, "127.0.0.1"), (lan.h, lan.h.v4)):
        assert lan.reach(where, address, 8080) == "open"
        assert not peer(served).startswith("127.")
    lan.nft("table inet filter { chain input { type filter hook input priority 0; tcp dport 8080 drop; }; }")
    assert lan.reach(lan.near, lan.h.v4, 8080) == "blocked"
    lan.nft("delete table inet filter")
    lan.rm("web")
