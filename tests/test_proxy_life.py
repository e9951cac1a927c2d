"""Published ports: where they listen, what taking one costs, how they end, who may change them."""

import contextlib
import json
import os
import re
import socket

import pytest
from fakehost import UID, FakeHost
from portlab import inside, labs, read_all, sockets
from procfs import Stopwatch, until

from nsbox.errors import NsboxError, one_line
from nsbox.net import listen, podside, proxy, stream
from nsbox.net.listen import Forward

pytestmark = pytest.mark.needs_root


@pytest.fixture
def lab(bare_host):
    yield from labs(bare_host)


def listening(lab):
    """What `ss` says about the host: address and port of each TCP listener."""
    lines = lab.host.run(["ss", "-Hltn"], check=True).stdout.splitlines()
    return sorted(line.split()[3] for line in lines)


@pytest.mark.parametrize("address, shown", [
    ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", "0.0.0.0"), ("::", "[::]"),
    ("127.0.0.2", "127.0.0.2"),
])
def test_D04_a_port_listens_exactly_where_it_was_asked_to(lab, address, shown):
    """Red when: listen() leaves IPV6_V6ONLY out ("*" for "[::]"), or binds the wildcard."""
    running = lab.tcp(lab.pod(), address=address)
    assert listening(lab) == [f"{shown}:{running.forwards[0].host_port}"]


def test_D27_one_port_on_all_v4_and_all_v6_addresses_is_two_ports(lab):
    """Red when: listen() leaves IPV6_V6ONLY out."""
    lab.publish(lab.pod(), Forward("tcp", "::", 8080, 80), Forward("tcp", "0.0.0.0", 8080, 80))
    assert listening(lab) == ["0.0.0.0:8080", "[::]:8080"]


def refusal(lab, forward):
    """(what the person reads, the hint) when a port of the host cannot be had."""
    def attempt():
        try:
            listen.listen(forward)
        except NsboxError as err:
            return one_line(err), err.hint
        return None
    return inside(lab.host.pid, attempt)


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("second", ["127.0.0.1", "0.0.0.0"])
def test_D13_a_port_in_use_is_an_error_and_the_first_pod_keeps_it(lab, proto, second):
    """Red when: listen() sets SO_REUSEPORT, or SO_REUSEADDR for UDP."""
    pod = lab.pod()
    kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM
    server = pod.server("0.0.0.0", 80, kind)
    lab.publish(pod, Forward(proto, "127.0.0.1", 8080, 80))
    said, hint = refusal(lab, Forward(proto, second, 8080, 80))
    where = f"{second}:8080" + ("/udp" if proto == "udp" else "")
    assert said == f"cannot publish {where}: bind: Address already in use"
    assert "another program or pod" in hint
    [client] = sockets(lab.host.pid, 1, kind=kind)
    client.connect(("127.0.0.1", 8080))
    client.send(b"still here")
    assert (server if proto == "udp" else server.accept()[0]).recv(100) == b"still here"


def test_an_address_that_the_host_has_not_is_an_error(lab):
    """Red when: listen() sets IP_FREEBIND."""
    said, hint = refusal(lab, Forward("tcp", "192.0.2.1", 8080, 80))
    assert said == "cannot publish 192.0.2.1:8080: bind: Cannot assign requested address"
    assert hint == "no interface of this host has that address"


def test_D15_the_port_closes_within_a_second_of_the_pods_death_and_is_free_at_once(lab):
    """With connections open, half open and just closed.

    Red when: the proxy does not watch the pidfd, or listen() leaves SO_REUSEADDR out.
    """
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    forwards = [Forward("tcp", "127.0.0.1", 8080, 80), Forward("udp", "127.0.0.1", 8080, 80)]
    first = lab.publish(pod, *forwards)
    clients = lab.clients(3, first)
    members = [server.accept()[0] for _ in clients]
    members[0].close()  # this side ends first: its TIME_WAIT stays with the host's port
    assert read_all(clients[0]) == b""
    clients[0].close()
    clients[1].shutdown(socket.SHUT_WR)
    watch = Stopwatch()
    pod.kill()
    for _ in until(20.0):
        if lab.is_refused(("127.0.0.1", 8080)):
            break
    assert watch.quiet_s() < 1.0 and watch.s() < 10.0
    other = lab.pod()
    other_server = other.server("0.0.0.0", 80)
    second = lab.publish(other, *forwards)
    client = lab.client(second)
    client.sendall(b"new")
    assert other_server.accept()[0].recv(10) == b"new"
    for _ in until(20.0):
        if first.is_gone():
            break
    assert first.is_gone() and watch.quiet_s() < 5.0


SAY_ALL_AND_WAIT = """
import socket, time
server = socket.create_server(("", 80)); print("ready", flush=True)
client = server.accept()[0]; client.setblocking(False)
sent, idle = 0, 0
while idle < 10:
    try: sent += client.send(b"z" * 100000); idle = 0
    except BlockingIOError: time.sleep(0.05); idle += 1
print(sent, flush=True); time.sleep(60)
"""


@pytest.mark.slow
def test_the_last_words_of_a_pod_still_arrive(lab):
    """More than fits into the client's socket, so that the proxy has to go on after the pod's end.

    Red when: the proxy ends as soon as the pod has.
    """
    def patient():
        proxy.DRAIN_S = 20.0  # for a slow machine; the test ends when all has arrived
    pod = lab.pod()
    where = lab.tcp(pod, before=patient).forwards[0][1:3]
    member = lab.host.popen(["nsenter", "-t", str(inner_pid(lab, pod)), "-n", "-p", "python3", "-c",
                             SAY_ALL_AND_WAIT])
    assert member.stdout.readline() == "ready\n"
    [client] = sockets(lab.host.pid, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.connect(where)
    sent = int(member.stdout.readline())
    pod.kill()
    for _ in until(5.0):
        if lab.is_refused(where):
            break
    assert len(read_all(client)) == sent
    member.end()


def inner_pid(lab, pod):
    return next(inner for inner, outer in lab.host.processes().items() if outer == pod.pid)


def held(running):
    """The kinds of what a proxy has open, sorted."""
    links = [os.readlink(f"/proc/{running.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{running.pid}/fd")]
    return sorted(re.sub(r":\[.*", "", link) for link in links)


def test_the_proxy_holds_nothing_of_the_host_but_its_listeners(lab):
    """Red when: serve() does not close what it inherits."""
    hosts = open("/etc/hostname")  # inherited by the process that starts the proxy
    running = lab.tcp(lab.pod(), before=lambda: os.set_inheritable(hosts.fileno(), True))
    assert held(running) == ["/dev/null"] * 3 + ["anon_inode"] * 2 + ["socket"]  # epoll and the pidfd
    assert open(f"/proc/{running.pid}/comm").read() == "nsbox:proxy\n"
    assert os.readlink(f"/proc/{running.pid}/cwd") == "/"
    hosts.close()


def test_a_pod_that_is_dead_already_is_an_error_and_leaves_no_proxy(lab):
    """Red when: a failure after the fork is not reported."""
    pod = lab.pod()
    pidfd = os.pidfd_open(pod.pid)
    pod.kill()

    def attempt():
        try:
            proxy.start([listen.listen(Forward("tcp", "127.0.0.1", 8080, 80))], pidfd)
        except NsboxError as err:
            return one_line(err)
    for _ in until(5.0):
        if not os.path.exists(f"/proc/{pod.pid}"):
            break
    assert inside(lab.host.pid, attempt) == "cannot serve the pod's ports: setns: No such process"
    os.close(pidfd)
    assert any(lab.is_refused(("127.0.0.1", 8080)) for _ in until(5.0))  # as soon as it has ended


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_what_goes_wrong_with_one_client_ends_that_one_alone(lab, proto):
    """Red when: an exception that nobody expects leaves the loop, or stays with the client's descriptor."""
    kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM

    def break_port_81():
        real = podside.connect

        def connect(target, port, *kind):
            if port == 81:
                raise RuntimeError("nobody expects this")
            return real(target, port, *kind)
        podside.connect = connect
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80, kind)
    running = lab.publish(pod, Forward(proto, "127.0.0.1", 8080, 80), Forward(proto, "127.0.0.1", 8181, 81),
                          before=break_port_81)
    for _ in range(3):
        bad, good = sockets(lab.host.pid, 2, kind=kind)
        with contextlib.suppress(ConnectionResetError):
            bad.connect(("127.0.0.1", 8181))
            bad.send(b"x")
            assert proto == "udp" or not bad.recv(1)
        good.connect(("127.0.0.1", 8080))
        good.send(b"x")
        assert (server if proto == "udp" else server.accept()[0]).recv(1) == b"x"
        good.close()
    for _ in until(5.0):
        if proto == "udp" or held(running).count("socket") == 2:
            return
    raise AssertionError(f"left: {held(running)}")


def test_a_stream_that_breaks_in_an_unknown_way_ends_its_connection_alone(lab):
    """Red when: a handler that raises is not given up."""
    def break_the_first():
        real, broken = stream.Stream._give, []

        def give(self):
            if not broken:
                broken.append(self)
                raise RuntimeError("nobody expects this")
            return real(self)
        stream.Stream._give = give
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    running = lab.tcp(pod, before=break_the_first)
    first = lab.client(running)
    member = server.accept()[0]
    first.send(b"x")
    for end in (first, member):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    second = lab.client(running)
    second.send(b"x")
    assert server.accept()[0].recv(1) == b"x"


def test_a_pod_that_loses_its_link_is_reached_by_its_loopback(lab):
    """As after `net disconnect`. Red when: ensure_address() passes over a pod that has a link."""
    pod = lab.linked_pod()
    server = pod.server("0.0.0.0", 80)
    running = lab.tcp(pod)
    lab.client(running)
    assert server.accept()[1][0] == "10.55.1.2"
    lab.ip("link del nsbt1")
    lab.client(running)
    assert server.accept()[1][0] == podside.LO_V4


def test_a_member_never_sends_from_the_spare_addresses_by_itself(lab):
    """Red when: LO_V4 is of scope global, or LO_V6 not deprecated."""
    pod = lab.linked_pod()
    for _ in range(2):  # and giving them again is no error
        lab.tcp(pod)
    shown = lab.host.run(["nsenter", "-t", str(inner_pid(lab, pod)), "-n", "ip", "-j", "addr", "show", "dev", "lo"],
                         check=True).stdout
    spare = {one["local"]: one for one in json.loads(shown)[0]["addr_info"]}
    assert (spare[podside.LO_V4]["prefixlen"], spare[podside.LO_V4]["scope"]) == (32, "host")
    assert (spare[podside.LO_V6]["prefixlen"], spare[podside.LO_V6]["deprecated"]) == (128, True)
    lab.ip("addr flush dev eth0", "route add default dev eth0", pid=pod.pid)
    [sock] = sockets(pod.pid, 1, kind=socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        sock.connect(("192.0.2.1", 80))
    assert sock.getsockname()[0] != podside.LO_V4


def become_user():
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def test_rootless_a_pod_in_a_user_namespace_of_its_owner(base):
    """Red when: the proxy does not enter the user namespace first."""
    with FakeHost(base, uid=UID) as host:
        before = host.snapshot()
        for lab in labs(host):
            pod = lab.pod("true", "--user", "--map-root-user")
            server = pod.server("127.0.0.1", 80)
            running = lab.tcp(pod, before=become_user)
            client = lab.client(running)
            member, peer = server.accept()
            assert not peer[0].startswith("127.")
            client.sendall(b"hello")
            assert member.recv(10) == b"hello"
        host.assert_same_as(before)
