"""Ports of a running pod: added, removed and listed through the proxy's control socket, by its owner alone."""

import gc
import json
import os
import socket
import threading

import pytest
from fakehost import UID
from portlab import inside, labs
from procfs import until

from nsbox.errors import NsboxError
from nsbox.net import control, listen, proxy
from nsbox.net.listen import Forward

pytestmark = pytest.mark.needs_root


@pytest.fixture
def lab(bare_host):
    yield from labs(bare_host)


class Desk:
    """A directory with the control socket of a proxy, and calls to it from the host."""

    def __init__(self, lab):
        self.lab = lab
        self.path = lab.host.scratch / "a directory whose name is longer than a socket's may be" / ("x" * 60)
        self.path.mkdir(parents=True, mode=0o700)
        self.dir_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        self.sock = control.bind(self.dir_fd, "control")

    def call(self, function, *args):
        return inside(self.lab.host.pid, lambda: function(self.dir_fd, "control", *args))


@pytest.fixture
def desk(lab):
    one = Desk(lab)
    yield one
    one.sock.close()
    os.close(one.dir_fd)


def add(lab, desk, forward):
    """Publish one more port on a running pod; return it with its real number."""
    def run():
        one = listen.listen(forward)
        control.add(desk.dir_fd, "control", [one])
        return one.forward
    return inside(lab.host.pid, run)


def test_ports_come_and_go_on_a_running_pod(lab, desk):
    """Red when: `remove` leaves the clients of the port."""
    pod = lab.pod()
    server = pod.server("0.0.0.0", 80)
    running = lab.tcp(pod, control_fd=desk.sock.fileno())
    first = running.forwards[0]
    second = add(lab, desk, Forward("tcp", "127.0.0.1", 0, 80))
    third = add(lab, desk, Forward("udp", "0.0.0.0", 0, 80))
    client = lab.client(second[1:3])
    member = server.accept()[0]
    member.sendall(b"hello")
    assert client.recv(10) == b"hello"
    assert desk.call(control.status) == [(first, 0), (second, 1), (third, 0)]
    desk.call(control.remove, [second])
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert lab.is_refused(second[1:3]) and not lab.is_refused(first[1:3])
    with pytest.raises(NsboxError, match="it is not published"):
        desk.call(control.remove, [first, second])
    assert [one.forward for one in desk.call(control.status)] == [first, third]


MANY = 3500


def publish_many(lab, desk, count=MANY, **kw):
    """So many ports on a running pod; return the first one, and those."""
    running = lab.tcp(lab.pod(), control_fd=desk.sock.fileno(), **kw)

    def run():
        found = [listen.listen(Forward("tcp", "127.0.0.1", 0, number + 1)) for number in range(count)]
        control.add(desk.dir_fd, "control", found)
        return [one.forward for one in found]
    return running.forwards[0], inside(lab.host.pid, run)


@pytest.mark.slow
def test_thousands_of_ports_are_added_listed_and_removed(lab, desk):
    """Red when: a list is one packet, or remove() is."""
    first, rest = publish_many(lab, desk)
    assert [one.forward for one in desk.call(control.status)] == [first, *rest]
    desk.call(control.remove, rest)
    assert [one.forward for one in desk.call(control.status)] == [first]


def test_what_the_callers_garbage_had_open_is_not_closed_twice(lab, desk):
    """Red when: the collector finds sockets of the caller in the proxy, where their numbers are others'."""
    def litter():
        gc.set_threshold(10**6)
        for _ in range(50):
            knot = [socket.socket()]
            knot.append(knot)
        real = proxy._Server.answer

        def answer(server, request, fds):
            result = real(server, request, fds)
            gc.set_threshold(100)  # now that the numbers are used again
            return result
        proxy._Server.answer = answer
    first, rest = publish_many(lab, desk, 240, before=litter)
    for _ in range(20):
        assert [one.forward for one in desk.call(control.status)] == [first, *rest]
    assert len(lab.host.run(["ss", "-Hltn"], check=True).stdout.splitlines()) == 241


@pytest.mark.slow
def test_a_caller_that_does_not_read_keeps_nobody_waiting_and_gets_the_whole_list(lab, desk):
    """Red when: what does not fit into its socket at once is dropped, or waited for."""
    first, rest = publish_many(lab, desk)

    def run():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as slow:
            slow.connect(f"/proc/self/fd/{desk.dir_fd}/control")
            slow.send(b'{"do": "list"}')
            others = [len(control.status(desk.dir_fd, "control")) for _ in range(3)]
            pages = [json.loads(page) for page in iter(lambda: slow.recv(1 << 20), b"")]
            return others, pages
    others, pages = inside(lab.host.pid, run)
    assert others == [MANY + 1] * 3
    assert [tuple(forward) for page in pages for forward, _ in page["result"]] == [first, *rest]
    assert [page["more"] for page in pages] == [True] * (len(pages) - 1) + [False]


@pytest.mark.parametrize("said", [b"{", b"[]", b"7", b'{"result": 7}', b'{"result": [[1]]}', b'{"error": 7}',
                                  b'{"error": "x"}', b'{"error": "{}"}', b'{"result": [[["tcp"], 0]]}', b"\xff"])
def test_an_answer_that_cannot_be_read_is_an_error_in_words(desk, said):
    """Red when: it is taken apart without a doubt."""
    def answer():
        caller = desk.sock.accept()[0]
        caller.recv(1000)
        caller.send(said)
        caller.close()
    desk.sock.setblocking(True)
    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(NsboxError, match="cannot understand the proxy") as info:
        desk.call(control.status)
    thread.join()
    assert info.value.hint


def test_a_list_that_breaks_off_is_an_error(desk):
    """Red when: the end of the packets is taken for the end of the list."""
    def answer():
        caller = desk.sock.accept()[0]
        caller.recv(1000)
        caller.send(b'{"result": [], "more": true}')
        caller.close()
    desk.sock.setblocking(True)
    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(NsboxError, match="cannot reach the proxy"):
        desk.call(control.status)
    thread.join()


def test_a_proxy_that_was_killed_is_an_error(lab, desk):
    """Red when: a refused connection is not put into words."""
    pod = lab.pod()
    running = lab.tcp(pod, control_fd=desk.sock.fileno())
    desk.sock.close()
    os.kill(running.pid, 9)
    for _ in until(5.0):
        if running.is_gone():
            break
    with pytest.raises(NsboxError, match="cannot reach the proxy") as info:
        desk.call(control.status)
    assert info.value.hint


def test_D10_no_other_user_reaches_the_control_socket(lab, desk):
    """Nor with the directory opened by mistake; and no abstract socket is there at all.

    Red when: Desk does not ask for SO_PEERCRED.
    """
    lab.tcp(lab.pod(), control_fd=desk.sock.fileno())

    def as_other():
        os.setresuid(UID, UID, UID)
        try:
            return control.status(desk.dir_fd, "control")
        except NsboxError as err:
            return type(err.__cause__).__name__
    assert inside(lab.host.pid, as_other) == "PermissionError"
    for path in (desk.path, desk.path.parent, desk.path / "control"):
        path.chmod(0o777)
    # Turned away: while it asks, or while it waits for the answer.
    assert inside(lab.host.pid, as_other) in ("BrokenPipeError", "ConnectionResetError")
    assert "@" not in lab.host.run(["cat", "/proc/net/unix"]).stdout
    assert len(desk.call(control.status)) == 1


def test_nonsense_on_the_control_socket_does_not_end_the_proxy(lab, desk):
    """Red when: a request that cannot be read raises in the proxy's loop."""
    lab.tcp(lab.pod(), control_fd=desk.sock.fileno())

    def shout():
        answers = []
        for said in (b"{", b"[]", b'{"do": "add"}', b'{"do": "add", "forwards": [["tcp", "::", 1, 2]]}', b"\xff"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(f"/proc/self/fd/{desk.dir_fd}/control")
                sock.send(said)
                answers.append(sock.recv(10000))
        return answers
    assert all(b"error" in answer for answer in inside(lab.host.pid, shout))
    assert len(desk.call(control.status)) == 1
