"""The proxy of a pod's published ports: one small process that dies with the pod.

    host's network                     the proxy                      pod's network
    127.0.0.1:8080  listening socket ──> accept ── splice(2) ── connect ──> member

The listening sockets are made before the process enters the pod's network namespace; every
socket it makes afterwards belongs to the pod. So no rule, no sysctl, no address on the host
and no right is needed, and a pod with nothing but `lo` can be reached. Which address the
member sees, and which one is tried: podside.py.

Life: the port is closed as soon as the pod's PID 1 has ended (its pidfd says so), UDP flows
with it; what TCP connections still hold is handed on for DRAIN_S at most, then the process
ends. SIGTERM and SIGKILL end it at once. Nobody else keeps it alive or ends it: callers
come and go by the socket of control.py.

It holds the listening sockets, the pidfd, the control socket and /dev/null, and nothing else
of the host. It is not in the pod's PID namespace: the pod neither sees nor signals it.

Rights: once it is there it needs none, and `confine` takes them away: to listen is what the
callers do. So whoever takes it over through what a client or a member sends has gained a
process that can talk to this pod.
"""

import gc
import os
import resource
import signal
import socket
from typing import Any, Callable, NoReturn, Sequence

from ..errors import NsboxError
from ..linux import namespaces, process, syscalls, trouble
from . import podside
from .control import Desk
from .listen import Forward, Listening, place
from .loop import IN, Loop
from .stream import Pipes
from .tcp import TcpListener
from .udp import Flows, UdpListener

NAME = b"nsbox:proxy"
DRAIN_S = 0.5
_PIPES_MAX = 32  # of 1 MiB: half of what an ordinary user may have, see pipe(7)
_RESERVE = 32  # descriptors for what is neither a client nor a pipe
_DESCRIPTORS_MAX = 1 << 20


def _nothing(*_: object) -> None:
    pass


def start(
    listeners: Sequence[Listening], pod_pidfd: int, control_fd: int = -1,
    *, confine: Callable[[], None] = _nothing, before_go: Callable[[int], None] = _nothing,
) -> process.Spawned:  # fmt: skip
    """Start the proxy as a process of its own, not a child of the caller; return when it serves.

    Only for a process with one thread. The caller closes its copies of the sockets then.

    Args:
        pod_pidfd: of the pod's PID 1.
        control_fd: a socket made by control.bind(), or -1.
        confine: gives all rights away; called in the pod's network, when the proxy needs none any more.
        before_go: called with its PID while it waits; if the caller is killed here, it ends too.

    Raises:
        NsboxError: it could not be set up; nothing is left of it.
    """
    report_r, report_w = os.pipe2(os.O_CLOEXEC)
    go_r, go_w = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        for fd in (report_r, go_w):
            os.close(fd)
        _start_serving(listeners, pod_pidfd, control_fd, confine, (go_r, report_w))
    for fd in (report_w, go_r):
        os.close(fd)
    try:
        os.waitpid(middle, 0)
        return _learn(report_r, go_w, before_go)
    finally:
        for fd in (report_r, go_w):
            os.close(fd)


def _learn(report_r: int, go_w: int, before_go: Callable[[int], None]) -> process.Spawned:
    """Hear the PID, open it while the process waits, let it go, and hear how that went."""
    pid = os.read(report_r, 32)
    if not pid.isdigit():
        raise NsboxError("cannot start the proxy of the pod's ports")
    pidfd = os.pidfd_open(int(pid))
    try:
        before_go(int(pid))
        os.write(go_w, b"g")
        answer = os.read(report_r, 65536)
        if answer != b".":
            if answer:
                raise trouble.decode(answer)
            raise NsboxError("cannot start the proxy of the pod's ports: it was killed")
    except BaseException:
        process.send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        raise
    return process.Spawned(int(pid), pidfd)


def _start_serving(
    listeners: Sequence[Listening], pod_pidfd: int, control_fd: int,
    confine: Callable[[], None], fds: tuple[int, int],
) -> NoReturn:  # fmt: skip
    """In the forked process: fork once more, so that the caller need not wait for the result."""
    go_r, report_w = fds
    try:
        os.setsid()
        if os.fork() == 0:
            os.write(report_w, b"%d" % os.getpid())
            if os.read(go_r, 1):
                os.close(go_r)
                serve(listeners, pod_pidfd, control_fd, confine=confine, ready_fd=report_w)
    except NsboxError as err:
        os.write(report_w, trouble.encode(err))
    finally:
        os._exit(0)


def serve(
    listeners: Sequence[Listening], pod_pidfd: int, control_fd: int = -1,
    *, confine: Callable[[], None] = _nothing, ready_fd: int = -1,
) -> NoReturn:  # fmt: skip
    """Become the proxy: the calling process, which must have one thread, does nothing else any more.

    Args:
        ready_fd: gets one "." when the ports are served, and is closed.

    Raises:
        NsboxError: it could not be set up.
    """
    try:
        keep = [pod_pidfd, control_fd, ready_fd, *syscalls.listening_fds()]
        _leave_the_caller([*keep, *(one.socket.fileno() for one in listeners)])
        descriptors = _raise_limit()
        entered_user = _enter(pod_pidfd)
        podside.ensure_address()
        confine()
        syscalls.listen(None)  # who listens ends with the caller
    except OSError as err:
        raise NsboxError("cannot serve the pod's ports") from err
    server = _Server(listeners, descriptors)
    if control_fd >= 0:
        uids = frozenset({os.geteuid()} if entered_user else {os.geteuid(), 0})
        Desk(server.loop, control_fd, server.answer, uids)
    if ready_fd >= 0:
        os.write(ready_fd, b".")
        os.close(ready_fd)
    server.run(pod_pidfd)
    os._exit(0)


def _leave_the_caller(keep: Sequence[int]) -> None:
    """Nothing of the caller's terminal, directory, signals and descriptors stays."""
    try:  # before a user namespace is entered: after that /proc/self belongs to root
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(NAME)
    except OSError:
        pass  # the name is for those who look at `ps`; ports work without it
    process.reset_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that has gone is an error of one call
    os.chdir("/")
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null_fd, number)
    # What the caller's objects held is closed here. Were one of them garbage, its own end would close
    # the number once more, which belongs to a client by then. A command collects none; we live longer.
    gc.freeze()
    gc.enable()
    process.close_all_but(fd for fd in keep if fd >= 0)


def _raise_limit() -> int:
    """As many descriptors as we may have; return how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _enter(pod_pidfd: int) -> bool:
    """Enter the pod's network namespace; return whether its user namespace had to be entered too.

    Root has the right already. The pod's owner gets it only in the pod's user namespace.
    """
    try:
        namespaces.join(pod_pidfd, frozenset({"net"}))
    except PermissionError:
        namespaces.join(pod_pidfd, frozenset({"user", "net"}))
        return True
    return False


class _Server:
    """The ports, and what can be asked of them."""

    def __init__(self, listeners: Sequence[Listening], descriptors: int) -> None:
        pipes = min(_PIPES_MAX, descriptors // 16)
        self.loop = Loop(descriptors - 2 * pipes - _RESERVE - len(listeners))
        self._pipes = Pipes(pipes)
        self._flows = Flows(self.loop)
        self._ports: dict[Forward, TcpListener | UdpListener] = {}
        self._closed = False
        for listening in listeners:
            self._open(listening)

    def _open(self, listening: Listening) -> None:
        if listening.forward.proto == "udp":
            self._ports[listening.forward] = UdpListener(self._flows, listening)
        else:
            self._ports[listening.forward] = TcpListener(self.loop, self._pipes, listening)

    def run(self, pod_pidfd: int) -> None:
        """Serve until the pod has ended and its last words are handed on."""
        ended = False

        def end(_events: int) -> None:
            nonlocal ended
            ended = True

        self.loop.add(pod_pidfd, IN, end, _nothing)
        while not ended:
            self.loop.round(self._flows.expire())
        for port in self._ports.values():
            port.stop()
        self._closed = True
        self.loop.forget(pod_pidfd)
        until_s = self.loop.now_s + DRAIN_S
        self.loop.round(0.0)
        while any(port.count for port in self._ports.values()) and self.loop.now_s < until_s:
            self.loop.round(until_s - self.loop.now_s)

    def answer(self, request: dict[str, Any], fds: list[int]) -> object:
        """Do what a caller asks; see control.py. Raises NsboxError."""
        if request["do"] == "list":
            ports = {} if self._closed else self._ports
            return [(forward, port.count) for forward, port in ports.items()]
        forwards = [Forward(*fields) for fields in request["forwards"]]
        if request["do"] == "add":
            if len(fds) != len(forwards):
                raise NsboxError("cannot publish: the proxy has no descriptors left")
            for forward in forwards:
                self.loop.room -= 1
                self._open(Listening(forward, socket.socket(fileno=fds.pop(0))))
            return None
        for forward in forwards:
            if forward not in self._ports:
                raise NsboxError(f"cannot unpublish {place(forward)}: it is not published")
        for forward in forwards:
            self._ports.pop(forward).close()
            self.loop.room += 1
        return None
