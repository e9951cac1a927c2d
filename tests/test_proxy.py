"""Published TCP ports: bytes, ends, resets, many clients, and little of anything else."""

import errno
import hashlib
import os
import random
import resource
import select
import socket
import struct
import threading

import pytest
from portlab import MIB, cpu_share, labs, read_all
from procfs import until

from nsbox.net import podside
from nsbox.net.stream import COPY_BYTES

pytestmark = pytest.mark.needs_root

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def lab(bare_host):
    yield from labs(bare_host)


def pair(lab, **kw):
    """(client, member, proxy): a connection through a proxy, both its ends."""
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    proxy = lab.tcp(pod, **kw)
    client = lab.client(proxy)
    member = server.accept()[0]
    return client, member, proxy


def send_counted(sock, seed, size, sums):
    """Send `size` bytes that no shift or swap leaves alike; put their sum into `sums`."""
    said, source = hashlib.sha256(), random.Random(seed)
    block = source.randbytes(3 * MIB)
    while size:
        start = source.randrange(MIB)
        data = block[start:start + min(size, source.randrange(1, 2 * MIB))]
        said.update(data)
        sock.sendall(data)
        size -= len(data)
    sock.shutdown(socket.SHUT_WR)
    sums[seed] = said.hexdigest()


def receive_counted(sock):
    heard, size = hashlib.sha256(), 0
    while data := sock.recv(MIB):
        heard.update(data)
        size += len(data)
    return heard.hexdigest(), size


@pytest.mark.slow
def test_200_megabytes_each_way_at_once_arrive_as_they_were_sent(lab):
    """Red when: a stream forgets what it holds when the receiver is slow."""
    client, member, _ = pair(lab)
    size, sums, heard = 200_000_000, {}, {}
    threads = [threading.Thread(target=send_counted, args=(client, "up", size, sums)),
               threading.Thread(target=send_counted, args=(member, "down", size, sums)),
               threading.Thread(target=lambda: heard.update(up=receive_counted(member)))]
    for thread in threads[:2]:
        thread.start()
    poll = select.poll()
    for sock in (client, member):
        poll.register(sock, select.POLLOUT)
    for _ in until(10.0, pause=0.1):  # everything on the way is full before anybody reads
        if not poll.poll(200):
            break
    threads[2].start()
    heard["down"] = receive_counted(client)
    for thread in threads:
        thread.join()
    assert heard == {way: (sums[way], size) for way in ("up", "down")}


@pytest.mark.slow
def test_2000_clients_at_once(lab):
    """Red when: a connection keeps a descriptor after its end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip("needs 5,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    proxy = lab.tcp(pod)
    clients = lab.clients(2000, proxy)
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    members = [server.accept()[0] for _ in clients]
    for member in members:
        member.sendall(b"you are " + member.recv(100))
    assert [client.recv(100) for client in clients] == [b"you are %d" % n for n in range(2000)]
    assert len(os.listdir(f"/proc/{proxy.pid}/fd")) < 4000 + 100
    assert cpu_share(proxy) < 0.05
    for sock in (*clients, *members):
        sock.close()
    for _ in until(10):
        if len(os.listdir(f"/proc/{proxy.pid}/fd")) < 100:
            break
    assert len(os.listdir(f"/proc/{proxy.pid}/fd")) < 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("first_is_client", [True, False])
def test_one_side_may_end_while_the_other_goes_on(lab, first_is_client):
    """Red when: the end of one direction closes the connection, or is not handed on."""
    client, member, proxy = pair(lab)
    first, second = (client, member) if first_is_client else (member, client)
    first.sendall(b"the question")
    first.shutdown(socket.SHUT_WR)
    assert read_all(second) == b"the question"
    for _ in range(10):
        second.sendall(b"x" * 1000)
        assert len(first.recv(1000, socket.MSG_WAITALL)) == 1000
    second.close()
    assert read_all(first) == b""


def fill(socks):
    """Send on all until nothing more is taken for a while; return how much was, of each."""
    sent = [0 for _ in socks]
    for _ in until(20.0, pause=0.1):
        before = list(sent)
        for number, sock in enumerate(socks):
            sock.setblocking(False)
            try:
                while True:
                    sent[number] += sock.send(b"x" * MIB)
            except BlockingIOError:
                sock.settimeout(20)
        if sent == before:
            return sent
    raise AssertionError("somebody reads")


@pytest.mark.slow
def test_slow_readers_cost_neither_memory_nor_time_nor_the_others(lab):
    """Forty that read nothing, more than there are pipes: the rest copy through memory.

    Red when: a stream waits for a pipe that others hold.
    """
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    proxy = lab.tcp(pod)
    slow = []
    for _ in range(40):
        client = lab.client(proxy)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB // 4)
        member = server.accept()[0]
        member.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB // 4)
        slow.append((client, member))
    before = proxy.rss_bytes()
    sent = fill([member for _, member in slow])
    assert proxy.rss_bytes() - before < 40 * COPY_BYTES + 8 * MIB
    assert cpu_share(proxy) < 0.05
    client = lab.client(proxy)
    member = server.accept()[0]
    member.sendall(b"y" * 3 * MIB)
    member.close()
    assert read_all(client) == b"y" * 3 * MIB
    for (client, member), size in zip(slow, sent):
        member.shutdown(socket.SHUT_WR)
        assert len(read_all(client)) == size


def test_a_member_that_does_not_listen_resets_the_client(lab):
    """Red when: the client is closed by an end of file, which means an empty answer to it."""
    running = lab.tcp(lab.pod())
    with pytest.raises(ConnectionResetError):  # connect(2) may say so already
        lab.client(running).recv(1)


@pytest.mark.parametrize("first_is_client", [True, False])
def test_a_reset_is_handed_on_with_what_came_before_it(lab, first_is_client):
    """Red when: the end that follows a reset is handed on before it."""
    client, member, _ = pair(lab)
    first, second = (client, member) if first_is_client else (member, client)
    first.sendall(b"last words")
    assert second.recv(100) == b"last words"
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    first.close()
    with pytest.raises(ConnectionResetError):
        second.recv(1)


def test_a_side_that_has_ended_and_then_is_reset_is_noticed(lab):
    """Red when: errors are only seen by reading and writing."""
    client, member, proxy = pair(lab)
    client.shutdown(socket.SHUT_WR)
    assert read_all(member) == b""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    poll = select.poll()
    poll.register(member, 0)
    assert poll.poll(5000) == [(member.fileno(), select.POLLERR | select.POLLHUP)]


def test_a_connection_to_itself_is_refused(lab):
    """Where nobody listens, TCP may connect a socket to itself: then the client would hear an echo.

    Red when: podside.is_itself() says False.
    """
    pod = lab.pod("echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range")
    proxy = lab.tcp(pod, 40000)
    for _ in range(8):
        with pytest.raises(ConnectionResetError):
            client = lab.client(proxy)
            client.sendall(b"hello?")
            client.recv(100)


@pytest.mark.slow
def test_when_descriptors_run_out_clients_wait_and_nobody_spins(lab):
    """Red when: a listener takes clients while there is no room, or is asked for it all the time."""
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    proxy = lab.tcp(pod, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    clients = lab.clients(60, proxy)
    members = []
    server.settimeout(1.0)
    with pytest.raises(TimeoutError):
        while True:
            members.append(server.accept()[0])
    assert 10 <= len(members) <= 30, "some descriptors are kept for pipes and callers"
    assert cpu_share(proxy) < 0.05
    server.settimeout(20)
    for done in range(60):  # each that goes makes room for one that waits
        if done == len(members):
            members.append(server.accept()[0])
        members[done].sendall(b"bye")
        members[done].close()
        assert read_all(clients[done]) == b"bye"
        clients[done].close()


def test_an_idle_proxy_uses_no_processor_time(lab):
    """Red when: the loop waits with a time-out of zero."""
    client, member, proxy = pair(lab)
    client.sendall(b"x")
    assert member.recv(1) == b"x"
    assert cpu_share(proxy, 1.0) < 0.03


# ---- what the member sees ----

@pytest.mark.parametrize("linked, bound, address, peer", [
    (False, "0.0.0.0", "127.0.0.1", podside.LO_V4),
    (False, "127.0.0.1", "127.0.0.1", podside.LO_V4),
    (False, "::", "::1", podside.LO_V6),
    (False, "::1", "127.0.0.1", podside.LO_V6),
    (False, "0.0.0.0", "::1", podside.LO_V4),
    (True, "0.0.0.0", "127.0.0.1", "10.55.1.2"),
    (True, "10.55.1.2", "0.0.0.0", "10.55.1.2"),
    (True, "::", "::1", "fd55:1::2"),
    (True, "fd55:1::2", "127.0.0.1", "fd55:1::2"),
    (True, "0.0.0.0", "::", "10.55.1.2"),
])
def test_D09_the_member_sees_a_peer_that_is_not_loopback(lab, linked, bound, address, peer):
    """Red when: the proxy connects to 127.0.0.1 without an address of its own."""
    pod = lab.linked_pod() if linked else lab.pod()
    server = pod.server(bound, 80)
    proxy = lab.tcp(pod, address=address)
    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    client = lab.client((where, proxy.forwards[0].host_port))
    member, seen = server.accept()
    assert seen[0] == peer
    member.sendall(b"hello")
    assert client.recv(10) == b"hello"


def test_a_member_of_a_linked_pod_that_listens_on_its_loopback_alone_is_not_reached(lab):
    """Red when: 127.0.0.1 is tried in every pod."""
    pod = lab.linked_pod()
    server = pod.server("127.0.0.1", 80)
    running = lab.tcp(pod)
    with pytest.raises(ConnectionResetError):
        lab.client(running).recv(1)
    server.close()


def test_a_pod_without_a_link_gets_single_addresses_and_no_route(lab):
    """Red when: the netmask stays 16 bits: then 169.254.169.254 is the pod itself."""
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    lab.tcp(pod)
    [sock] = [pod.server("0.0.0.0", 0, socket.SOCK_DGRAM)]
    with pytest.raises(OSError) as info:
        sock.connect(("169.254.169.254", 80))
    assert info.value.errno == errno.ENETUNREACH
    server.close()
