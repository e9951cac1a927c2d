"""Published UDP ports: each client has its own way there and back, and none outlives the pod."""

import os
import socket
import time

import pytest
from portlab import Proxy, cpu_share, labs, sockets
from procfs import until

from nsbox.net import podside, udp
from nsbox.net.listen import Forward

pytestmark = pytest.mark.needs_root

DGRAM = socket.SOCK_DGRAM


@pytest.fixture
def lab(bare_host):
    yield from labs(bare_host)


def published(lab, pod, address="127.0.0.1", port=0, **kw):
    """A UDP port of `pod`, its port 53, on the host."""
    return lab.publish(pod, Forward("udp", address, port, 53), **kw)


def ask(client, server, text):
    """One request and its answer; return the address that the member saw, and the answer."""
    client.send(text)
    heard, peer = server.recvfrom(70000)
    assert heard == text
    server.sendto(b"re: " + heard[:50], peer)
    return peer, client.recv(100)


def clients(lab, count, where: Proxy | tuple[str, int]):
    if isinstance(where, Proxy):
        where = where.forwards[0][1:3]
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    made = sockets(lab.host.pid, count, family, DGRAM)
    for sock in made:
        sock.connect(where)
    return made


@pytest.mark.parametrize("linked, bound, address, peer", [
    (False, "0.0.0.0", "127.0.0.1", podside.LO_V4),
    (False, "127.0.0.1", "127.0.0.1", podside.LO_V4),
    (False, "::1", "::1", podside.LO_V6),
    (False, "0.0.0.0", "::1", podside.LO_V4),
    (True, "0.0.0.0", "127.0.0.1", "10.55.1.2"),
    (True, "::", "::1", "fd55:1::2"),
])
def test_D09_the_member_sees_each_client_as_a_peer_that_is_not_loopback(lab, linked, bound, address, peer):
    """Red when: flows are keyed by the listener alone, or the proxy connects to 127.0.0.1 from itself."""
    pod = lab.linked_pod() if linked else lab.pod()
    server = pod.server(bound, 53, DGRAM)
    asking = clients(lab, 5, published(lab, pod, address))
    seen = set()
    for turn in range(2):
        for number, client in enumerate(asking):
            text = b"%d.%d" % (turn, number)
            who, answer = ask(client, server, text)
            assert who[0] == peer and answer == b"re: " + text
            seen.add(who)
    assert len(seen) == 5


def test_answers_of_many_clients_do_not_mix(lab):
    """Red when: the reply goes to whoever wrote last."""
    pod = lab.pod()
    server = pod.server("0.0.0.0", 53, DGRAM)
    asking = clients(lab, 50, published(lab, pod))
    for number, client in enumerate(asking):
        client.send(b"%d" % number)
    heard = [server.recvfrom(100) for _ in asking]
    for text, peer in reversed(heard):
        server.sendto(text, peer)
        server.sendto(text + b"!", peer)
    for number, client in enumerate(asking):
        assert [client.recv(100), client.recv(100)] == [b"%d" % number, b"%d!" % number]


@pytest.mark.parametrize("wildcard, address", [("0.0.0.0", "127.0.0.77"), ("0.0.0.0", "10.55.1.1"),
                                               ("::", "fd55:9::1"), ("::", "::1")])
def test_a_reply_comes_from_the_address_that_was_asked(lab, wildcard, address):
    """A connected client drops what comes from another one.

    Red when: replies of a wildcard port leave without IP_PKTINFO.
    """
    pod = lab.linked_pod()
    lab.ip("addr add fd55:9::2/128 dev lo", "addr add fd55:9::1/128 dev lo")
    server = pod.server("0.0.0.0", 53, DGRAM)
    proxy = published(lab, pod, wildcard)
    [client] = clients(lab, 1, (address, proxy.forwards[0].host_port))
    assert ask(client, server, b"hello")[1] == b"re: hello"
    lab.ip("addr del fd55:9::2/128 dev lo", "addr del fd55:9::1/128 dev lo")


def test_datagrams_keep_their_borders_and_sizes(lab):
    """Red when: the proxy's buffer is smaller than a datagram may be."""
    pod = lab.pod()
    server = pod.server("0.0.0.0", 53, DGRAM)
    [client] = clients(lab, 1, published(lab, pod))
    for size in (0, 1, 1472, 65507):
        client.send(b"x" * size)
        heard, peer = server.recvfrom(70000)
        server.sendto(heard, peer)
        assert len(heard) == len(client.recv(70000)) == size


def test_nobody_listens_then_somebody_does(lab):
    """Red when: a flow that all addresses have refused is kept."""
    pod = lab.pod()
    [client] = clients(lab, 1, published(lab, pod))
    for _ in until(0.3):  # often enough for all addresses of the pod to be tried
        client.send(b"anybody?")
    server = pod.server("127.0.0.1", 53, DGRAM)
    server.settimeout(0.1)
    for _ in until(5.0):
        client.send(b"now?")
        try:
            heard, peer = server.recvfrom(100)
        except TimeoutError:
            continue
        break
    server.sendto(b"yes", peer)
    assert client.recv(10) == b"yes"


@pytest.mark.slow
def test_silent_flows_end_answered_ones_later(lab):
    """Red when: flows never expire, or answered ones as soon as the others."""
    def shorten():
        udp.UNREPLIED_S, udp.REPLIED_S = 0.5, 3.0
    pod = lab.pod()
    server = pod.server("0.0.0.0", 53, DGRAM)
    proxy = published(lab, pod, before=shorten)
    answered, ignored = clients(lab, 2, proxy)
    first, _ = ask(answered, server, b"a")
    ignored.send(b"b")
    assert server.recvfrom(100)[0] == b"b"
    count = open_sockets(proxy)
    assert soon(lambda: open_sockets(proxy) == count - 1, 1.5)
    assert ask(answered, server, b"c")[0] == first
    assert soon(lambda: open_sockets(proxy) == count - 2, 5.0)
    assert cpu_share(proxy) < 0.03


def open_sockets(proxy):
    return len(os.listdir(f"/proc/{proxy.pid}/fd"))


def soon(is_so, within_s):
    return any(is_so() for _ in until(within_s))


@pytest.mark.slow
def test_a_flood_of_senders_is_bounded_and_does_not_push_out_who_is_served(lab):
    """Red when: the table has no limit, or the oldest flow goes, answered or not."""
    def shrink():
        udp.FLOWS_MAX = 64
    pod = lab.pod()
    server = pod.server("0.0.0.0", 53, DGRAM)
    proxy = published(lab, pod, before=shrink)
    [served] = clients(lab, 1, proxy)
    first, _ = ask(served, server, b"a")
    for flood in clients(lab, 500, proxy):
        flood.send(b"x")
        assert server.recv(10) == b"x"
        flood.close()
    assert soon(lambda: open_sockets(proxy) < 64 + 20, 5.0)
    assert ask(served, server, b"b")[0] == first


def test_D19_a_client_with_a_fixed_port_reaches_the_new_pod_with_its_first_datagram(lab):
    """Red when: the proxy, and its flows with it, outlives the pod."""
    old = lab.pod()
    old_server = old.server("0.0.0.0", 53, DGRAM)
    first = published(lab, old, port=5353)
    other_pod = lab.pod()
    other_server = other_pod.server("0.0.0.0", 53, DGRAM)
    other = published(lab, other_pod)
    [client] = clients(lab, 1, first)
    [bystander] = clients(lab, 1, other)
    ask(client, old_server, b"old")
    flow, _ = ask(bystander, other_server, b"other")
    old.kill()
    assert soon(first.is_gone, 5.0)
    new = lab.pod()
    new_server = new.server("0.0.0.0", 53, DGRAM)
    published(lab, new, port=5353)
    assert ask(client, new_server, b"new")[1] == b"re: new"
    assert ask(bystander, other_server, b"still")[0] == flow


def test_D15_a_udp_port_closes_with_the_pod(lab):
    """Red when: the proxy does not watch the pidfd."""
    pod = lab.pod()
    first = published(lab, pod, port=5353)
    start_s = time.monotonic()
    pod.kill()
    [probe] = sockets(lab.host.pid, 1, kind=DGRAM)

    def is_free():
        try:
            probe.bind(("127.0.0.1", 5353))
        except OSError:
            return False
        return True
    assert soon(is_free, 5.0) and time.monotonic() - start_s < 1.0
    assert soon(first.is_gone, 5.0)
