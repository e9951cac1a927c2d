"""What the tests of published ports need: pods, proxies, and sockets of any network namespace.

A socket belongs for ever to the network namespace it was made in. So a test has a short-lived
child make it there, gets it passed, and then is client and server itself, in straight lines.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fakehost import FakeHost
from procfs import children, until

from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
from nsbox.net import listen, proxy
from nsbox.net.listen import Forward

TIMEOUT_S = 20.0
NET = CloneFlag.CLONE_NEWNET
WORLD = CloneFlag.CLONE_NEWPID | CloneFlag.CLONE_NEWNET | CloneFlag.CLONE_NEWNS
MIB = 1 << 20
_FDS = 200  # passed in one message


def enter(pid: int, flags: CloneFlag) -> None:
    """Put this process into namespaces of `pid`."""
    pidfd = os.pidfd_open(pid)
    syscalls.setns(pidfd, flags)
    os.close(pidfd)


def inside(pid: int, body: Callable[[], Any], flags: CloneFlag = WORLD) -> Any:
    """What `body` returns or raises in a child that has entered namespaces of `pid`."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(TIMEOUT_S))
        _answer(write_fd, pid, flags, body)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said, "the process inside was killed, or took too long"
    good, result, trace = pickle.loads(said)
    if not good:
        raise result from RuntimeError(f"inside:\n{trace}")
    return result


def _answer(write_fd: int, pid: int, flags: CloneFlag, body: Callable[[], Any]) -> None:
    try:
        enter(pid, flags)
        if flags & CloneFlag.CLONE_NEWPID and (inner := os.fork()):
            os.close(write_fd)
            os.waitpid(inner, 0)
            os._exit(0)
        try:
            said = pickle.dumps((True, body(), ""))
        except BaseException as err:
            said = pickle.dumps((False, err, traceback.format_exc()))
        os.write(write_fd, said)
    finally:
        os._exit(0)


def sockets(pid: int, count: int = 1, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
            ) -> list[socket.socket]:
    """New sockets of the network namespace that `pid` is in."""
    ours, theirs = socket.socketpair()
    found: list[int] = []
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                enter(pid, NET)
                for start in range(0, count, _FDS):
                    made = [socket.socket(family, kind) for _ in range(min(_FDS, count - start))]
                    socket.send_fds(theirs, [b"s"], [sock.fileno() for sock in made])
            finally:
                os._exit(0)
        theirs.close()
        while len(found) < count:
            data, fds, _, _ = socket.recv_fds(ours, 1, _FDS)
            assert data, "no sockets"
            found += fds
        os.waitpid(child, 0)
    made = [socket.socket(fileno=fd) for fd in found]
    for sock in made:
        sock.settimeout(TIMEOUT_S)
    return made


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Pod(NamedTuple):
    """A process that holds a network and a PID namespace; `pid`: of its PID 1, on the real host."""

    pid: int

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def server(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that listens in the pod."""
        [sock] = sockets(self.pid, 1, family_of(address), kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(4096)
        return sock


class Proxy(NamedTuple):
    """A running proxy: its PID on the real host, and its ports with their real numbers."""

    pid: int
    forwards: list[Forward]

    def cpu_s(self) -> float:
        """Processor time it has had, in seconds."""
        fields = open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        return int(open(f"/proc/{self.pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def is_gone(self) -> bool:
        try:
            return open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True


class Lab:
    """A fake host with pods whose ports are published. Close it, or use `with`."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.pods: list[Pod] = []
        self.proxies: list[Proxy] = []

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *exc: object) -> None:
        for pod in self.pods:
            pod.kill()
        for _ in until(5.0):
            if all(one.is_gone() for one in self.proxies):
                return
        raise AssertionError("a proxy has outlived its pod")

    def pod(self, set_up: str = "true", *unshare: str) -> Pod:
        """A pod with `lo` alone; the shell runs `set_up` in it."""
        command = self.host.popen(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", *unshare,
             "sh", "-ec", f"ip link set lo up; {set_up}; echo ready; exec sleep infinity"])
        assert command.stdout is not None and command.stdout.readline() == "ready\n", command.communicate()
        [pid] = children(command.inner_pid())
        self.pods.append(Pod(pid))
        return self.pods[-1]

    def linked_pod(self, number: int = 1, *, v6: bool = True) -> Pod:
        """A pod with an eth0, 10.55.N.2 and fd55:N::2, on a veth whose other end, .1, is on the host."""
        pod = self.pod()
        near, far = f"10.55.{number}.1/24", f"10.55.{number}.2/24"
        self.ip(f"link add nsbt{number} type veth peer name eth0 netns {pod.pid}",
                f"addr add {near} dev nsbt{number}", f"link set nsbt{number} up")
        self.ip(f"addr add {far} dev eth0", "link set eth0 up", pid=pod.pid)
        if v6:
            self.ip(f"addr add fd55:{number}::2/64 dev eth0 nodad", pid=pod.pid)
        return pod

    def ip(self, *commands: str, pid: int | None = None) -> None:
        """Run `ip COMMAND` in the network namespace of `pid`, or the host's."""
        def run() -> None:
            for command in commands:
                subprocess.run(["ip", *command.split()], check=True)
        inside(pid or self.host.pid, run, NET)

    def publish(self, pod: Pod, *forwards: Forward, before: Callable[[], object] = lambda: None,
                control_fd: int = -1) -> Proxy:
        """Start a proxy on the host, as a command of nsbox would; `before` runs in it first."""
        pidfd = os.pidfd_open(pod.pid)

        def start() -> tuple[int, list[Forward]]:
            before()
            listening = [listen.listen(forward) for forward in forwards]
            spawned = proxy.start(listening, pidfd, control_fd)
            return spawned.pid, [one.forward for one in listening]
        try:
            pid, real = inside(self.host.pid, start)
        finally:
            os.close(pidfd)
        self.proxies.append(Proxy(self.host.host_pid(pid), real))
        return self.proxies[-1]

    def tcp(self, pod: Pod, pod_port: int = 80, address: str = "127.0.0.1", **kw: Any) -> Proxy:
        """Publish one TCP port of a pod on a free port of the host."""
        return self.publish(pod, Forward("tcp", address, 0, pod_port), **kw)

    def clients(self, count: int, where: Proxy | tuple[str, int]) -> list[socket.socket]:
        """Connections made on the host."""
        if isinstance(where, Proxy):
            where = where.forwards[0][1:3]
        made = sockets(self.host.pid, count, family_of(where[0]))
        for sock in made:
            sock.connect(where)
        return made

    def client(self, where: Proxy | tuple[str, int]) -> socket.socket:
        """One connection made on the host."""
        return self.clients(1, where)[0]

    def is_refused(self, where: tuple[str, int]) -> bool:
        """Whether nobody listens there on the host."""
        try:
            self.client(where).close()
        except ConnectionRefusedError:
            return True
        return False


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end that the other side sent."""
    return b"".join(iter(lambda: sock.recv(MIB), b""))


def cpu_share(one: Proxy, over_s: float = 0.5) -> float:
    """The part of one processor that a proxy uses."""
    start_s, used_s = time.monotonic(), one.cpu_s()
    for _ in until(over_s):
        pass
    return (one.cpu_s() - used_s) / (time.monotonic() - start_s)


def labs(host: FakeHost) -> Iterator[Lab]:
    """For a fixture."""
    with Lab(host) as lab:
        yield lab
