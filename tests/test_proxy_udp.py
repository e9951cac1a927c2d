"""Published UDP ports: each client has its own way there and back, and none outlives the pod."""

import contextlib
import errno
import os
import resource
import signal
import socket

import pytest
from portlab import Proxy, cpu_share, inside, labs, sockets
from procfs import Stopwatch, until

from nsbox.net import listen, loop, podside, udp
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


def reaches(client, server, within_s=5.0):
    """Whether an answer comes to a client that goes on asking, among others who get none."""
    client.settimeout(0.2)
    server.settimeout(0.2)
    for _ in until(within_s):
        client.send(b"me")
        with contextlib.suppress(TimeoutError):
            while (heard := server.recvfrom(100))[0] != b"me":
                pass
            server.sendto(b"you", heard[1])
            return client.recv(10) == b"you"
    return False


@pytest.mark.parametrize("bound", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("ports", [1, 2])
def test_a_burst_of_senders_does_not_take_the_last_descriptors(lab, bound, ports):
    """All of it waits when the proxy looks, so one round gets it. At 127.0.0.1 each flow is made twice.

    Red when: an error for want of descriptors leaves the loop.
    """
    pod = lab.pod()
    server = pod.server(bound, 53, DGRAM)
    forwards = [Forward("udp", "127.0.0.1", 0, 53)] * ports
    proxy = lab.publish(pod, *forwards, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    for _ in range(3):
        flood = [sock for one in proxy.forwards for sock in clients(lab, 100, one[1:3])]
        os.kill(proxy.pid, signal.SIGSTOP)
        for sock in flood:
            sock.send(b"x")
        os.kill(proxy.pid, signal.SIGCONT)
        [late] = clients(lab, 1, proxy)
        assert reaches(late, server)
    assert not proxy.is_gone() and open_sockets(proxy) <= 64
    assert cpu_share(proxy) < 0.05


def test_no_more_flows_are_opened_in_one_round_than_there_is_room_for(lab):
    """And one goes in each, so that the next one has its turn. Red when: _next_target() does not look at the room."""
    def run():
        opened = []
        real = podside.connect
        podside.connect = lambda *how: opened.append(how) or real(*how)
        podside.targets = lambda family: [podside.Target(family, "127.0.0.1", "127.0.0.1")]
        with socket.socket(socket.AF_INET, DGRAM) as member:
            member.bind(("127.0.0.1", 0))
            port = Forward("udp", "127.0.0.1", 0, member.getsockname()[1])
            flows = udp.Flows(loop.Loop(room=3))
            listener = udp.UdpListener(flows, listen.listen(port))
            rounds = []
            for _ in range(3):
                asking = [socket.socket(socket.AF_INET, DGRAM) for _ in range(20)]
                for sock in asking:
                    sock.sendto(b"x", ("127.0.0.1", listener.forward.host_port))
                flows.loop.round(1.0)
                rounds.append((len(opened), len(flows), flows.loop.room))
        return rounds
    assert inside(lab.host.pid, run) == [(3, 2, 1), (4, 2, 1), (5, 2, 1)]


def test_no_descriptor_to_look_for_addresses_is_no_address(monkeypatch):
    """Red when: targets() raises for want of a descriptor."""
    def none(*_):
        raise OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(podside.socket, "socket", none)
    assert list(podside.addresses_v4()) == []


def test_a_client_that_goes_on_sending_follows_the_pod_to_another_address(lab):
    """Its link goes, as with `net disconnect`. Red when: an error of send() is taken for a full queue."""
    pod = lab.linked_pod()
    server = pod.server("0.0.0.0", 53, DGRAM)
    [client] = clients(lab, 1, published(lab, pod))
    assert ask(client, server, b"a")[0][0] == "10.55.1.2"
    lab.ip("link del nsbt1")
    assert reaches(client, server)


def test_a_client_that_is_not_answered_does_not_keep_its_flow_by_sending(lab):
    """What it sends may go to nobody. Red when: find() does not look at heard_s."""
    def shorten():
        udp.UNHEARD_S = 0.5
    pod = lab.pod()
    server = pod.server("0.0.0.0", 53, DGRAM)
    proxy = published(lab, pod, before=shorten)
    answered, ignored = clients(lab, 2, proxy)
    seen = {ask(answered, server, b"a")[0] for _ in until(1.5, pause=0.1)}
    assert len(seen) == 1, "an answer keeps it"
    peers = set()
    for _ in until(1.5, pause=0.1):
        ignored.send(b"b")
        heard, peer = server.recvfrom(100)
        assert heard == b"b", "none is lost"
        peers.add(peer)
    assert len(peers) >= 2


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
    watch = Stopwatch()
    pod.kill()
    [probe] = sockets(lab.host.pid, 1, kind=DGRAM)

    def is_free():
        try:
            probe.bind(("127.0.0.1", 5353))
        except OSError:
            return False
        return True
    assert soon(is_free, 20.0) and watch.quiet_s() < 1.0
    assert soon(first.is_gone, 5.0)
