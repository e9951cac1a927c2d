"""Processes: who is who, what they keep over an execve, and how they are told to end.

Identity is boot id + PID + start time: a PID alone may belong to somebody else by now.
Signals go to pidfds, never to a number read from a file.
"""

import errno
import os
import select
import signal
import sys
from functools import cache
from typing import Iterable, NamedTuple

from .. import errors
from . import syscalls

EXIT_SETUP_FAILED = 125


class Identity(NamedTuple):
    """One process, for ever: no other has the same three.

    Attributes:
        boot_id: which boot of the machine, from /proc/sys/kernel/random/boot_id.
        pid: its number in our PID namespace.
        start_time: clock ticks after boot, field 22 of proc_pid_stat(5).
    """

    boot_id: str
    pid: int
    start_time: int


class Spawned(NamedTuple):
    """A child of ours: wait for it by `pid`, signal it by `pidfd`."""

    pid: int
    pidfd: int


@cache
def boot_id() -> str:
    """Which boot of the machine this is: a random UUID. See random(4). Raises NsboxError: there is no /proc."""
    try:
        return _read_file("/proc/sys/kernel/random/boot_id").decode("ascii").strip()
    except FileNotFoundError:
        require_own_proc()
        raise


def require_own_proc() -> None:
    """Raise NsboxError where /proc cannot tell about our PIDs: then nobody may be taken for dead."""
    try:
        if os.readlink("/proc/self") == str(os.getpid()):
            return
    except OSError:
        pass  # there is nothing mounted
    raise errors.NsboxError("cannot tell who is who: /proc is missing, or of another PID namespace",
                            hint="mount it: mount -t proc proc /proc; with unshare(1): --mount-proc")


def stat_fields(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state first). See proc_pid_stat(5).

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        raw = _read_file(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        require_own_proc()
        raise ProcessLookupError(errno.ESRCH, "no such process") from None
    # The command's name may hold spaces and brackets: the last bracket is the real one.
    return raw[raw.rindex(b")") + 2 :].decode("ascii").split()


def identify(pid: int) -> Identity:
    """The identity of a running process. Raises ProcessLookupError if there is none."""
    require_own_proc()
    return Identity(boot_id(), pid, int(stat_fields(pid)[19]))


def open_process(who: Identity) -> int:
    """A pidfd of exactly this process.

    Raises:
        ProcessLookupError: it has ended, or its number belongs to another one now.
    """
    if who.pid <= 1 or who.boot_id != boot_id():
        raise ProcessLookupError(errno.ESRCH, "the process has ended")
    pidfd = open_pid(who.pid)
    try:
        # Looked at after the open: from here on the number cannot change its owner unseen.
        if int(stat_fields(who.pid)[19]) != who.start_time or has_ended(pidfd):
            require_own_proc()
            raise ProcessLookupError(errno.ESRCH, "the process has ended")
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def open_pid(pid: int) -> int:
    """A pidfd of whoever has this number now. See pidfd_open(2).

    Raises:
        ProcessLookupError: nobody has it. OSError: we may not know, having no descriptor left, say;
            then nobody may be taken for dead.
    """
    try:
        return os.pidfd_open(pid)
    except (ValueError, OverflowError):
        raise ProcessLookupError(errno.ESRCH, "no process can have that number") from None
    except OSError as err:
        if err.errno in (errno.ESRCH, errno.EINVAL):  # EINVAL: a thread, or no number of a process
            raise ProcessLookupError(errno.ESRCH, "the process has ended") from None
        raise OSError(err.errno, f"pidfd_open: {err.strerror}") from None


def has_ended(pidfd: int, timeout_s: float | None = 0.0) -> bool:
    """Whether the process has ended (a zombie has), waiting for that up to `timeout_s`; None: for ever."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def send_signal(pidfd: int, signum: int) -> bool:
    """Send a signal to exactly this process; False if it has ended. See pidfd_send_signal(2)."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    except OSError as err:
        raise OSError(err.errno, f"pidfd_send_signal: {err.strerror}") from None
    return True


def kill_and_reap(child: Spawned) -> None:
    """End a child of ours at once and collect it."""
    send_signal(child.pidfd, signal.SIGKILL)
    try:
        os.waitpid(child.pid, 0)
    except ChildProcessError:
        pass  # collected already


def end_own_child(who: Identity) -> bool:
    """End a child of ours by its number, and collect it; False if it is none.

    A number is nobody else's before its child has been waited for, so no pidfd is needed.
    """
    try:
        os.waitid(os.P_PID, who.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if int(stat_fields(who.pid)[19]) != who.start_time:
            return False
    except (ChildProcessError, ProcessLookupError):
        return False
    os.kill(who.pid, signal.SIGKILL)
    os.waitpid(who.pid, 0)
    return True


ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def reset_signals() -> None:
    """Default dispositions and an empty mask, for a program that shall start clean. See signal(7)."""
    for signum in range(1, signal.NSIG):
        if signum not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):  # 32, 33 belong to libc
            try:
                signal.signal(signum, signal.SIG_DFL)
            except (OSError, ValueError):
                continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor from 3 up that is not in `keep`."""
    first = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        if fd > first:
            syscalls.close_range(first, fd - 1, cloexec_only=False)
        first = fd + 1
    syscalls.close_range(first, cloexec_only=False)


def seal_imports() -> None:
    """Make any later import fail. After the root has changed, modules would come from it."""
    for entries in (sys.meta_path, sys.path_hooks, sys.path):
        entries.clear()
    sys.path_importer_cache.clear()


def _read_file(path: str) -> bytes:
    """A small file of /proc. By hand: open() of the library asks six things more of the kernel."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def read_all(fd: int) -> bytes:
    """All that comes from a descriptor until its end."""
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)
