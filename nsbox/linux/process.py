"""Processes: who is who, starting one in namespaces, and hearing how that went.

Identity is boot id + PID + start time: a PID alone may belong to somebody else by now.
Signals go to pidfds, never to a number read from a file.
"""

import errno
import os
import select
import signal
import struct
import sys
from functools import cache
from typing import Callable, Iterable, NamedTuple, NoReturn

from .. import errors
from . import syscalls, trouble
from .flags import CloneFlag

EXIT_SETUP_FAILED = 125
_ALIVE_REPORT = b"."  # "set-up is done, the next call is execve": then an end of file is success
_TOLD = struct.Struct("=II")

Child = Callable[[], None]


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


# What happens in spawn_in(), and who holds which end:
#
#   parent                    middle (one thread)               child
#     fork ------------------> prepare(): setns
#     <----- pid ------------- clone3(CLONE_PARENT) -----------> waits on go; end of file: exits
#     before_go(pid)           _exit(0)
#     go --------------------------------------------------------> child(): mounts, identity
#     <------------------------------ report: "." ---------------- just before execve
#     <------------------------------ end of file: success, or an error as JSON


def spawn_in(
    flags: CloneFlag,
    child: Child,
    *,
    doing: str,
    prepare: Child | None = None,
    before_go: Callable[[int], None] | None = None,
    told: Callable[[int, int], errors.NsboxError] | None = None,
) -> Spawned:
    """Start a process in new namespaces and return when it has called execve(2).

    The clone is made by a middle process: a raw clone3 is safe only where there is one
    thread, and fork(2) leaves exactly one. CLONE_PARENT makes the result our own child.

    Args:
        flags: CLONE_NEW* of the namespaces to make for it.
        child: sets the process up, calls :func:`about_to_exec`, then execve. Never returns.
        doing: what this is for, in words, for the error message.
        prepare: runs in the middle process, to join namespaces.
        before_go: runs here with the child's PID while the child waits.
        told: the error for two numbers that the child's program reported.

    Raises:
        NsboxError: some step failed; the child is gone and collected.
    """
    report_r, report_w = os.pipe2(os.O_CLOEXEC)
    pid_r, pid_w = os.pipe2(os.O_CLOEXEC)
    go_r, go_w = os.pipe2(os.O_CLOEXEC)

    def middle() -> None:
        for fd in (report_r, pid_r, go_w):
            os.close(fd)
        if prepare is not None:
            prepare()
        pid = syscalls.clone3(flags | CloneFlag.CLONE_PARENT)
        if pid:
            os.write(pid_w, b"%d" % pid)
            os._exit(0)
        os.close(pid_w)
        if os.read(go_r, 1):  # end of file: the parent is gone, and nobody knows of us
            child()

    middle_pid = os.fork()
    if middle_pid == 0:
        _run(middle, report_w, doing)
    for fd in (report_w, pid_w, go_r):
        os.close(fd)
    try:
        started = _learn_pid(pid_r, middle_pid, report_r, go_w, doing)
        try:
            if before_go is not None:
                before_go(started.pid)
            try:
                os.write(go_w, b"g")
            except BrokenPipeError:
                pass  # killed by now: then there is no report either
            _check_report(_read_all(report_r), doing, told)
        except BaseException:
            kill_and_reap(started)
            os.close(started.pidfd)
            raise
    finally:
        for fd in (report_r, pid_r, go_w):
            os.close(fd)
    return started


def _learn_pid(pid_r: int, middle_pid: int, report_r: int, go_w: int, doing: str) -> Spawned:
    answer = _read_all(pid_r)
    os.waitpid(middle_pid, 0)
    if not answer:
        # The middle ended too early, perhaps with a child made: that one holds the report open,
        # and ends when our end of its go is closed, which this does.
        os.dup2(pid_r, go_w, inheritable=False)
        _check_report(_read_all(report_r), doing)
    pid = int(answer)
    return Spawned(pid, open_pid(pid))


_report_fd = -1  # set in a child only


def _run(child: Child, report_w: int, doing: str) -> NoReturn:
    """Run `child` in a fresh process. No way back: no finally of the caller, no atexit, no flush."""
    global _report_fd
    _report_fd = report_w
    try:
        # Before any namespace is joined: a module that is missing now would be looked for in there.
        seal_imports()
        for signum in ENDING_SIGNALS:  # the parent's handlers raise, and a child must not
            signal.signal(signum, signal.SIG_DFL)
        child()
    except errors.NsboxError as err:
        os.write(report_w, trouble.encode(err, trouble.scene()))
    except OSError as err:
        wrapped = errors.NsboxError(f"cannot {doing}", hint=trouble.hint(err))
        wrapped.__cause__ = err
        os.write(report_w, trouble.encode(wrapped, trouble.scene()))
    except BaseException as err:
        os.write(report_w, trouble.encode(errors.NsboxError(f"cannot {doing}: {err!r}")))
    finally:
        os._exit(EXIT_SETUP_FAILED)


ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def about_to_exec() -> None:
    """Tell the parent that set-up is done: what comes now is execve(2) or its error."""
    os.write(_report_fd, _ALIVE_REPORT)


def hand_over_report() -> int:
    """Let the program that comes next report, too; return the descriptor on which it is to.

    It closes that on success, or writes two numbers of four bytes: for `told` of :func:`spawn_in`.
    """
    os.set_inheritable(_report_fd, True)
    return _report_fd


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
        return _read_all(fd)
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def _check_report(
    report: bytes, doing: str, told: Callable[[int, int], errors.NsboxError] | None = None
) -> None:
    if report == _ALIVE_REPORT:
        return
    detail = report.removeprefix(_ALIVE_REPORT)
    if told is not None and len(detail) == _TOLD.size:
        raise told(*_TOLD.unpack(detail))
    if detail:
        raise trouble.decode(detail)
    raise errors.NsboxError(f"cannot {doing}: the new process was killed while it was set up")
