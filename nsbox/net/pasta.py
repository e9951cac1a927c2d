"""A way out for a pod without root and without rules on the host: pasta of the package passt.

    caller              watcher "nsbox:user"                 pasta
      fork twice -----> holds the pod's pidfd
                        fork, execve ----------------------> a tap device in the pod, addresses,
                        looks until the pod has a route      routes; sockets in the host's network
      <--- PID or error
      goes on           waits for either to end; ends pasta with the pod

What the pod sends leaves by sockets of an ordinary process of the host. Nothing of the host's
loopback is mapped into the pod, and no port of either is forwarded to the other: what is published
goes through the proxy. See pasta(1).
"""

import fcntl
import os
import select
import signal
import struct
import time
from typing import Callable, NoReturn

from ..errors import NsboxError
from ..linux import mounts, process, syscalls, trouble
from ..linux.flags import CloneFlag, MountFlag

NAME = b"nsbox:user"
PROGRAMS = ("/usr/bin/pasta", "/usr/local/bin/pasta")
READY_S = 10.0
_POLL_S = 0.01
_V6_S = 0.5
_PLACE = "/tmp"  # in the watcher's own mount namespace; pasta itself mounts over it later
_TUN = "/dev/net/tun"
_SIOCGIFMTU = 0x8921
_MTU_MIN, _MTU_MAX = 1280, 65520  # of IPv6, and of pasta

WithParent = Callable[[int], None]


def program() -> str:
    """The path of pasta. Raises NsboxError: it is not installed, or cannot work here."""
    found = [path for path in PROGRAMS if os.access(path, os.X_OK)]
    if not found:
        raise NsboxError("cannot use network 'user': there is no program pasta", hint="install the package passt")
    if not os.access(_TUN, os.R_OK | os.W_OK):
        hint = "load the module tun; its device is open to all on most machines (mode 0666)"
        raise NsboxError(f"cannot use network 'user': {_TUN} is missing or closed to you", hint=hint)
    return found[0]


def start(pod_pid: int, die_with_parent: WithParent) -> process.Spawned:
    """Start pasta for the network namespace of `pod_pid`; return it when the pod has a route.

    Only for a process with one thread. pasta is no child of the caller.

    Args:
        pod_pid: PID 1 of the pod, a child of the caller; its end is the end of pasta.
        die_with_parent: has the kernel end the calling process with the one of the pidfd given.

    Raises:
        NsboxError: it could not be; nothing is left of it.
    """
    argv = _argv(pod_pid)
    pod_pidfd = os.pidfd_open(pod_pid)
    report_r, report_w = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        _become_watcher(argv, pod_pid, pod_pidfd, report_w, die_with_parent)
    os.close(report_w)
    os.close(pod_pidfd)
    try:
        os.waitpid(middle, 0)
        answer = os.read(report_r, 65536)
    finally:
        os.close(report_r)
    if answer.isdigit():
        try:
            return process.Spawned(int(answer), os.pidfd_open(int(answer)))
        except ProcessLookupError:
            raise NsboxError("cannot start pasta: it ended at once") from None
    if answer:
        raise trouble.decode(answer)
    raise NsboxError("cannot start pasta: its watcher was killed")


def _argv(pod_pid: int) -> list[str]:
    """The command line. No address of the host is mapped, no port forwarded, whatever its defaults are."""
    argv = [program(), "--foreground", "--quiet", "--config-net", "--no-map-gw", "--mtu", str(_mtu()),
            "-t", "none", "-u", "none", "-T", "none", "-U", "none"]  # fmt: skip
    if os.geteuid() == 0:
        # Not as "nobody": who has no right to the namespace cannot enter it.
        return [*argv, "--runas", "0:0", "--netns-only", "--no-netns-quit", "--netns", f"{_PLACE}/netns"]
    return [*argv, "--userns", f"/proc/{pod_pid}/ns/user", "--netns", f"/proc/{pod_pid}/ns/net"]


def _mtu() -> int:
    """The MTU of the link with the host's default route: larger packets would only be cut there."""
    name = _default_link("/proc/net/route", 0, "00000000") or _default_link("/proc/net/ipv6_route", 9, "0" * 32)
    if not name:
        return 1500
    fd = syscalls.socket(2, 2)  # AF_INET, SOCK_DGRAM
    try:
        answer = fcntl.ioctl(fd, _SIOCGIFMTU, struct.pack("16si20x", os.fsencode(name), 0))
    except OSError:
        return 1500
    finally:
        os.close(fd)
    return min(max(int(struct.unpack("16si20x", answer)[1]), _MTU_MIN), _MTU_MAX)


def _default_link(path: str, name_at: int, anywhere: str) -> str:
    """The link of a default route in /proc/PID/net/route or ipv6_route, or ""."""
    destination_at = 1 if name_at == 0 else 0
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.split() for line in file]
    except OSError:
        return ""
    for row in rows:
        long_enough = len(row) > max(name_at, 7)
        mask = row[7] if name_at == 0 and long_enough else row[1] if long_enough else "?"
        if long_enough and row[destination_at] == anywhere and not mask.strip("0") and row[name_at] != "lo":
            return row[name_at]
    return ""


def _become_watcher(
    argv: list[str], pod_pid: int, pod_pidfd: int, report_w: int, die_with_parent: WithParent
) -> NoReturn:
    """In the forked process: fork once more, so that the caller need not wait for the result."""
    try:
        os.setsid()
        if os.fork() == 0:
            _watch(argv, pod_pid, pod_pidfd, report_w, die_with_parent)
    except NsboxError as err:
        os.write(report_w, trouble.encode(err))
    except OSError as err:
        failure = NsboxError("cannot start pasta")
        failure.__cause__ = err
        os.write(report_w, trouble.encode(failure))
    finally:
        os._exit(0)


def _watch(
    argv: list[str], pod_pid: int, pod_pidfd: int, report_w: int, die_with_parent: WithParent
) -> None:
    _leave_the_caller((pod_pidfd, report_w))
    if os.geteuid() == 0:
        _name_namespace(pod_pid)
        process.close_all_but((pod_pidfd, report_w, *syscalls.listening_fds()))
    said_r, said_w = os.pipe2(os.O_CLOEXEC)
    our_pidfd = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        os.dup2(said_w, 2)
        die_with_parent(our_pidfd)
        os.execve(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    os.close(said_w)
    os.close(our_pidfd)
    pidfd = os.pidfd_open(pid)
    try:
        _wait_for_route(pod_pid, pod_pidfd, pidfd, said_r)
        os.close(said_r)
        syscalls.listen(None)  # who listens ends with the caller
        os.write(report_w, b"%d" % pid)
        os.close(report_w)
        poll = select.poll()
        for fd in (pod_pidfd, pidfd):
            poll.register(fd, select.POLLIN)
        poll.poll()
    finally:
        process.kill_and_reap(process.Spawned(pid, pidfd))


def _leave_the_caller(keep: tuple[int, ...]) -> None:
    with open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(NAME)
    process.reset_signals()
    os.chdir("/")
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null_fd, number)
    process.close_all_but((*keep, *syscalls.listening_fds()))


def _name_namespace(pod_pid: int) -> None:
    """Give the pod's network namespace a path that pasta may open: it gives up the right to /proc/PID/ns.

    In a mount namespace of our own, where nobody else sees it.
    """
    syscalls.unshare(CloneFlag.CLONE_NEWNS)
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    scratch_fd = mounts.new_filesystem("tmpfs", {"mode": "0700"}, mounts.MNT_BASE_ATTRS)
    mounts.attach(scratch_fd, mounts.open_host_path(_PLACE))
    place_fd = mounts.mkfile_in_root(scratch_fd, "/netns")
    mounts.attach(mounts.clone_tree(mounts.open_host_path(f"/proc/{pod_pid}/ns/net"), recursive=False), place_fd)


def _wait_for_route(pod_pid: int, pod_pidfd: int, pidfd: int, said_r: int) -> None:
    """Until the pod has a default route, which pasta sets last. Raises NsboxError."""
    deadline = time.monotonic() + READY_S
    v6_until = 0.0
    while True:
        v4, v6 = _has_routes(str(pod_pid))
        if v4 or v6:
            v6_until = v6_until or time.monotonic() + _V6_S
            if v6 or time.monotonic() > v6_until or not _has_routes("self")[1]:
                return
        if process.has_ended(pidfd) or process.has_ended(pod_pidfd) or time.monotonic() > deadline:
            process.send_signal(pidfd, signal.SIGKILL)
            raise NsboxError(f"cannot start pasta: {_last_words(said_r) or 'it set up no route in time'}")
        process.has_ended(pidfd, _POLL_S)


def _has_routes(pid: str) -> tuple[bool, bool]:
    v4 = bool(_default_link(f"/proc/{pid}/net/route", 0, "00000000"))
    return v4, bool(_default_link(f"/proc/{pid}/net/ipv6_route", 9, "0" * 32))


def _last_words(said_r: int) -> str:
    """The last line that pasta said, in printable characters."""
    os.set_blocking(said_r, False)
    try:
        text = os.read(said_r, 65536).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "to syslog" not in line]
    return "".join(char if char.isprintable() else "?" for char in lines[-1])[:200] if lines else ""
