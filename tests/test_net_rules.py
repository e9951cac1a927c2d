"""The firewall: forged addresses are dropped, networks are closed to others, foreign rules stay."""

import random
import socket

import pytest
from netlab import (BRIDGE, BRIDGE_ALIAS, ETH_ARP, ETH_V4, ETH_V6, GATEWAYS, SCOPE, SUBNETS, arp, end, frame,
                    guarded, icmp6, ip4, ip6, mac, netlabs, packed6, packet_socket, pin, port, reaches, v4, v6)
from portlab import sockets

from nsbox.errors import NsboxError
from nsbox.net import conntrack, rules
from nsbox.net.rules import Dnat, Guarded

OTHER, OTHER_ALIAS, OTHER_SUBNET = "nsb0000bbbb", "nsbox:net:0000bbbb", "10.78.1.0/24"


@pytest.fixture
def lab(bare_host):
    yield from netlabs(bare_host)


# ---- text ----

def test_equal_networks_give_equal_text():
    networks = [guarded(2, 3, 4), Guarded(OTHER, (OTHER_SUBNET,), True, ())]
    dnats = [Dnat("tcp", "0.0.0.0", 80, v4(2), 80), Dnat("udp", "::", 53, v6(2), 53)]
    texts = set()
    for seed in range(5):
        shuffle = random.Random(seed).shuffle
        for one in (networks, dnats):
            shuffle(one)
        ports = list(networks[0].ports)
        shuffle(ports)
        mixed = [networks[0]._replace(ports=tuple(ports), subnets=networks[0].subnets[::-1]), networks[1]]
        texts.add(rules.render(SCOPE, mixed, router=True, dnats=dnats, bridges=["virbr1", "br0"]))
    assert len(texts) == 1


def test_D02_loopback_addresses_are_never_translated():
    """Red when: _dnats() takes 127.0.0.1 like any other address."""
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        text = rules.render(SCOPE, [], router=False, dnats=[Dnat("tcp", address, 80, v4(2), 80)])
        assert "dport" not in text
    text = rules.render(SCOPE, [], router=False, dnats=[Dnat("tcp", "0.0.0.0", 80, v4(2), 80)])
    assert text.count("ip daddr != 127.0.0.0/8 fib daddr type local") == 2
    text = rules.render(SCOPE, [], router=False, dnats=[Dnat("tcp", "::", 80, v6(2), 80)])
    assert text.count("ip6 daddr != ::1 fib daddr type local") == 2


def test_without_the_program_there_is_a_hint(monkeypatch):
    monkeypatch.setattr(rules, "_PROGRAMS", ("/nowhere/nft",))
    with pytest.raises(NsboxError) as caught:
        rules.remove(SCOPE)
    assert caught.value.hint == "install the package nftables"


@pytest.mark.parametrize("script, said", [
    ("echo 'no such thing' >&2; echo more >&2; exit 1", "cannot install the firewall rules: no such thing"),
    ("exit 3", "cannot install the firewall rules: nft ended with 3"),
    ("exec sleep 60", "nft did not end within 1 s"),
])
def test_D28_a_program_that_fails_or_hangs_is_an_error(monkeypatch, tmp_path, script, said):
    (tmp_path / "nft").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setattr(rules, "_PROGRAMS", (str(tmp_path / "nft"),))
    monkeypatch.setattr(rules, "_DEADLINE_S", 1.0)
    with pytest.raises(NsboxError, match=said):
        rules.install(SCOPE, rules.render(SCOPE, [guarded(2)], router=False))


# ---- the tables ----

FOREIGN = """
add table inet filter
add chain inet filter input { type filter hook input priority 0; policy accept; }
add rule inet filter input tcp dport 22 accept
add table ip nat
add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }
add rule ip nat POSTROUTING ip saddr 172.17.0.0/16 masquerade
add table inet nsbox_0ddba11f
add chain inet nsbox_0ddba11f other
add table bridge nsbox_0ddba11f
add chain bridge nsbox_0ddba11f other
add rule bridge nsbox_0ddba11f other drop
"""


@pytest.mark.needs_root
def test_D17_only_our_two_tables_are_made_replaced_and_removed(lab):
    """Red when: the text begins with "flush ruleset"."""
    lab.host.run(["nft", "-f", "-"], input=FOREIGN, check=True)
    before = lab.host.run(["nft", "list", "ruleset"], check=True).stdout

    def foreign():
        shown = lab.host.run(["nft", "list", "ruleset"], check=True).stdout
        kept = [part for part in shown.split("table ") if f"nsbox_{SCOPE}" not in part]
        return "table ".join(kept)

    def tables():
        return sorted(line for line in lab.host.run(["nft", "list", "tables"], check=True).stdout.splitlines()
                      if SCOPE in line)

    lab.guard(guarded(2, 3))
    assert foreign().split() == before.split()
    first = lab.host.run(["nft", "list", "table", "bridge", f"nsbox_{SCOPE}"], check=True).stdout
    assert port(2) in first and port(3) in first
    lab.guard(guarded(3), router=True, dnats=[Dnat("tcp", "0.0.0.0", 80, v4(3), 80)])
    assert port(2) not in lab.host.run(["nft", "list", "ruleset"], check=True).stdout
    assert foreign().split() == before.split()
    assert tables() == [f"table bridge nsbox_{SCOPE}", f"table inet nsbox_{SCOPE}"]
    lab.on_host(lambda: (rules.remove(SCOPE), rules.remove(SCOPE)))
    assert lab.host.run(["nft", "list", "ruleset"], check=True).stdout == before
    lab.host.run(["nft", "-f", "-"], input="delete table inet filter; delete table ip nat; "
                 "delete table inet nsbox_0ddba11f; delete table bridge nsbox_0ddba11f\n", check=True)


@pytest.mark.needs_root
def test_rules_that_are_refused_leave_the_old_ones(lab):
    lab.guard(guarded(2))
    before = lab.host.run(["nft", "list", "ruleset"], check=True).stdout
    bad = rules.render(SCOPE, [guarded(2, 3)], router=False).replace("policy accept", "policy nonsense", 1)

    def attempt():
        with pytest.raises(NsboxError, match="cannot install the firewall rules"):
            rules.install(SCOPE, bad)
    lab.on_host(attempt)
    assert lab.host.run(["nft", "list", "ruleset"], check=True).stdout == before


@pytest.mark.needs_root
def test_a_kernel_without_bridge_tables_gets_the_other_one(lab, tmp_path, monkeypatch):
    (tmp_path / "nft").write_text(
        "#!/bin/sh\ntext=$(cat)\ncase $text in *'table bridge'*) echo 'Error: not supported' >&2; exit 1;; esac\n"
        'printf "%s\\n" "$text" | /usr/sbin/nft -f -\n')
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setattr(rules, "_PROGRAMS", (str(tmp_path / "nft"),))
    lab.guard(guarded(2))
    shown = lab.host.run(["nft", "list", "tables"], check=True).stdout
    assert shown == f"table inet nsbox_{SCOPE}\n"


# ---- D12: a port is held to its addresses ----

FORGED = {
    "the source MAC": frame(mac(3), mac(9), ETH_V4, ip4(v4(2), v4(3), b"forged")),
    "the v4 source": frame(mac(3), mac(2), ETH_V4, ip4(v4(4), v4(3), b"forged")),
    "the gateway's v4 source": frame(mac(3), mac(2), ETH_V4, ip4(GATEWAYS[0], v4(3), b"forged")),
    "the ARP sender's address": frame(mac(3), mac(2), ETH_ARP, arp(mac(2), GATEWAYS[0], v4(3)) + b"forged"),
    "the ARP sender's MAC": frame(mac(3), mac(2), ETH_ARP, arp(mac(9), v4(2), v4(3)) + b"forged"),
    "the v6 source": frame(mac(3), mac(2), ETH_V6, ip6(v6(4), v6(3), b"forged")),
    "a neighbour advertisement": frame(mac(3), mac(2), ETH_V6, icmp6(
        v6(2), v6(3), 136, b"\x20\0\0\0" + packed6(GATEWAYS[1]) + b"\2\1" + bytes(6) + b"forged")),
    "one from a link-local address": frame(mac(3), mac(2), ETH_V6, icmp6(
        "fe80::2", v6(3), 136, b"\x20\0\0\0" + packed6(v6(4)) + b"\2\1" + bytes(6) + b"forged")),
    "a router advertisement": frame(mac(3), mac(2), ETH_V6, icmp6("fe80::2", v6(3), 134, bytes(12) + b"forged")),
    "a redirect": frame(mac(3), mac(2), ETH_V6, icmp6("fe80::2", v6(3), 137, bytes(36) + b"forged")),
    "a VLAN tag": frame(mac(3), mac(2), 0x8100, b"\0\1\x08\0" + ip4(v4(4), v4(3), b"forged")),
}
HONEST = {
    "v4": frame(mac(3), mac(2), ETH_V4, ip4(v4(2), v4(3), b"honest")),
    "ARP": frame(mac(3), mac(2), ETH_ARP, arp(mac(2), v4(2), v4(3)) + b"honest"),
    "an ARP probe": frame(mac(3), mac(2), ETH_ARP, arp(mac(2), "0.0.0.0", v4(3), 1) + b"honest"),
    "v6": frame(mac(3), mac(2), ETH_V6, ip6(v6(2), v6(3), b"honest")),
    "link-local v6": frame(mac(3), mac(2), ETH_V6, ip6("fe80::2", v6(3), b"honest")),
    "v6 without an address": frame(mac(3), mac(2), ETH_V6, ip6("::", v6(3), b"honest")),
    "its own neighbour advertisement": frame(mac(3), mac(2), ETH_V6, icmp6(
        v6(2), v6(3), 136, b"\x20\0\0\0" + packed6(v6(2)) + b"\2\1" + bytes(6) + b"honest")),
    "that of its link-local address": frame(mac(3), mac(2), ETH_V6, icmp6(
        "fe80::2", v6(3), 136, b"\x20\0\0\0" + packed6("fe80::2") + b"\2\1" + bytes(6) + b"honest")),
}


def arrived(lab, frames):
    """Which of the frames that pod 2 sends get to pod 3; the last one sent is known to."""
    one, two = lab.plugged(2), lab.plugged(3)
    with packet_socket(one) as sender, packet_socket(two) as receiver:
        for raw in frames:
            sender.send(raw)
        last = frame(mac(3), mac(2), ETH_V4, ip4(v4(2), v4(3), b"the last one"))
        sender.send(last)
        found = []
        while (got := receiver.recv(4096)) != last:
            found.append(got)
    # A tag is taken off before the frame is seen: packet(7), PACKET_AUXDATA.
    return [raw in found or raw[:12] + raw[16:] in found for raw in frames]


@pytest.mark.needs_root
def test_D12_forged_addresses_do_not_pass_the_bridge(lab):
    """Red when: any rule of _PORT_RULES or _advertised() is left out: each has its frame here."""
    lab.bridge()
    lab.guard(guarded(2, 3))
    passed = dict(zip([*FORGED, *HONEST.values()], arrived(lab, [*FORGED.values(), *HONEST.values()]), strict=True))
    assert [name for name in FORGED if passed[name]] == []
    assert [name for name, raw in HONEST.items() if not passed[raw]] == []


@pytest.mark.needs_root
def test_the_frames_of_the_test_above_pass_without_rules(lab):
    lab.bridge()
    names = [*FORGED, *HONEST]
    passed = dict(zip(names, arrived(lab, [*FORGED.values(), *HONEST.values()]), strict=True))
    assert [name for name in names if not passed[name]] == []


@pytest.mark.needs_root
def test_a_guarded_pod_reaches_its_neighbours_and_the_host(lab):
    lab.bridge()
    lab.guard(guarded(2, 3))
    one, two = lab.plugged(2), lab.plugged(3)
    with two.server(v4(3), 80), two.server(v6(3), 80):
        assert [reaches(pid, address) for pid in (one.pid, lab.host.pid) for address in (v4(3), v6(3))] == [True] * 4


# ---- who reaches whom ----

def networks(lab, *, internal=False, router=True, **options):
    """Two networks with a pod each, and neighbours on two LANs; forwarding is on."""
    lab.bridge()
    lab.bridge(OTHER, OTHER_ALIAS, ("10.78.1.1/24",))
    one = lab.plugged(2)
    two = lab.plug(lab.pod(), 3, OTHER, addresses=("10.78.1.3/24",), gateways=("10.78.1.1",))
    lab.guard(guarded(2, internal=internal),
              Guarded(OTHER, (OTHER_SUBNET,), internal, (pin(3)._replace(addresses=("10.78.1.3",)),)),
              router=router, **options)
    lab.forwarding(True)
    return one, two, lab.neighbour(1), lab.neighbour(2)


@pytest.fixture
def forwarding_lab(lab):
    yield lab
    lab.forwarding(False)


@pytest.mark.needs_root
def test_D01_a_network_is_reached_from_itself_and_the_host_only(forwarding_lab):
    """Red when: _only_from_its_bridge() gives nothing, and the forward chain does not drop."""
    lab = forwarding_lab
    one, two, near, _ = networks(lab)
    with one.server(v4(2), 80), two.server("10.78.1.3", 80):
        assert reaches(lab.host.pid, v4(2)) and reaches(lab.host.pid, "10.78.1.3")
        assert not reaches(near.pid, v4(2))
        assert not reaches(one.pid, "10.78.1.3")
        assert not reaches(two.pid, v4(2))


@pytest.mark.needs_root
def test_D01_the_hosts_address_on_a_bridge_is_not_the_lans(forwarding_lab):
    """Red when: _only_from_its_bridge() gives nothing: no forward chain sees what is for the host."""
    lab = forwarding_lab
    _, _, near, _ = networks(lab)
    [server] = sockets(lab.host.pid)
    with server:
        server.bind((GATEWAYS[0], 80))
        server.listen()
        assert reaches(lab.host.pid, GATEWAYS[0])
        assert not reaches(near.pid, GATEWAYS[0])


@pytest.mark.needs_root
def test_a_pod_reaches_the_lan_with_the_hosts_address(forwarding_lab):
    lab = forwarding_lab
    one, _, near, _ = networks(lab)
    lab.ip("route del default", pid=near.pid)  # it knows the host alone
    with near.server("10.66.1.2", 80) as server:
        assert reaches(one.pid, "10.66.1.2")
        assert server.accept()[1][0] == "10.66.1.1"


@pytest.mark.needs_root
def test_an_internal_network_reaches_nobody(forwarding_lab):
    """Red when: _forward() does not look at `internal`."""
    lab = forwarding_lab
    one, two, near, _ = networks(lab, internal=True)
    with near.server("10.66.1.2", 80), two.server("10.78.1.3", 80), one.server(v4(2), 80):
        assert reaches(lab.host.pid, v4(2))
        assert [reaches(one.pid, address) for address in ("10.66.1.2", "10.78.1.3")] == [False, False]
    # Not even a datagram that nobody answers.
    [heard], [said] = sockets(near.pid, kind=socket.SOCK_DGRAM), sockets(one.pid, kind=socket.SOCK_DGRAM)
    with heard, said:
        heard.bind(("10.66.1.2", 5000))
        heard.settimeout(0.5)
        said.sendto(b"x", ("10.66.1.2", 5000))
        with pytest.raises(TimeoutError):
            heard.recv(10)


@pytest.mark.needs_root
@pytest.mark.parametrize("router", [True, False])
def test_D06_a_host_that_we_made_a_router_forwards_for_pods_alone(forwarding_lab, router):
    """Red when: render() does not look at `router`. A host that was a router before goes on."""
    lab = forwarding_lab
    _, _, near, far = networks(lab, router=router)
    with far.server("10.66.2.2", 80):
        assert reaches(near.pid, "10.66.2.2") is not router


# ---- published by the kernel ----

DNATS = [Dnat("tcp", "0.0.0.0", 8080, v4(2), 80), Dnat("udp", "0.0.0.0", 5353, v4(2), 53)]


@pytest.mark.needs_root
def test_a_translated_port_is_reached_from_the_lan_the_host_and_the_pods(forwarding_lab):
    lab = forwarding_lab
    one, two, near, _ = networks(lab, dnats=DNATS)
    lab.plug(three := lab.pod(), 4)
    with one.server(v4(2), 80):
        assert reaches(near.pid, "10.66.1.1", 8080)
        assert reaches(lab.host.pid, "10.66.1.1", 8080)
        assert reaches(two.pid, "10.66.1.1", 8080)
        assert not reaches(lab.host.pid, "127.0.0.1", 8080)
        lab.guard(guarded(2, 4), router=True, dnats=DNATS)
        assert reaches(three.pid, "10.66.1.1", 8080)
        # With this on, the bridge itself would have to turn the packet round in the port it came by.
        lab.host.run(["sh", "-c", "cd /proc/sys/net/bridge 2>/dev/null || exit 0; echo 0 > bridge-nf-call-iptables"])
        assert reaches(one.pid, "10.66.1.1", 8080)


@pytest.mark.needs_root
@pytest.mark.parametrize("host_address", ["0.0.0.0", "10.66.1.1"])
def test_D19_a_flow_that_outlives_its_port_leads_to_nobody(forwarding_lab, host_address):
    """Its address may be another pod's by now; nobody but the rules need know of it.

    Red when: _forward() lets all pass that was translated, or that is established.
    """
    lab = forwarding_lab
    dnats = [Dnat("udp", host_address, 5353, v4(2), 53), Dnat("udp", "0.0.0.0", 5454, v4(2), 53)]
    one, _, near, _ = networks(lab, dnats=dnats)
    [heard], [said] = sockets(one.pid, kind=socket.SOCK_DGRAM), sockets(near.pid, kind=socket.SOCK_DGRAM)
    with heard, said:
        heard.bind((v4(2), 53))
        heard.settimeout(0.5)

        def arrives(to=5353):
            said.sendto(b"?", ("10.66.1.1", to))
            try:
                heard.sendto(b"!", heard.recvfrom(10)[1])
            except TimeoutError:
                return False
            return said.recv(10) == b"!"
        assert arrives() and arrives()  # answered: it is established now
        assert arrives(5454)
        lab.guard(guarded(2), router=True, dnats=dnats[1:])
        assert not arrives()
        assert arrives(5454)
        lab.guard(guarded(2), router=True, dnats=dnats)
        assert arrives()


@pytest.mark.needs_root
def test_D19_exactly_the_flows_of_a_port_are_forgotten(forwarding_lab):
    """Red when: forget() takes all flows to that port number, or only those of its address."""
    lab = forwarding_lab
    _, _, near, far = networks(lab, dnats=DNATS)
    to = [("10.66.1.1", 5353), ("10.66.2.1", 5353), ("10.66.1.1", 5354), ("10.66.2.2", 5353)]
    for address in to:  # the last one goes to the same port of somebody else
        [sock] = sockets(near.pid if address[0] != "10.66.2.2" else lab.host.pid, kind=socket.SOCK_DGRAM)
        with sock:
            sock.sendto(b"x", address)

    def flows():
        lines = lab.read("/proc/net/nf_conntrack").splitlines()
        words = [dict(word.split("=") for word in line.split("[")[0].split() if "=" in word) for line in lines]
        return sorted((one["dst"], int(one["dport"])) for one in words if one.get("dport") in ("5353", "5354"))

    assert flows() == sorted(to)
    assert lab.on_host(lambda: conntrack.forget("tcp", "0.0.0.0", 5353)) == 0
    assert lab.on_host(lambda: conntrack.forget("udp", "10.66.1.1", 5353)) == 1
    assert flows() == sorted(to[1:])
    assert lab.on_host(lambda: conntrack.forget("udp", "0.0.0.0", 5353)) == 1
    assert flows() == sorted(to[2:])
