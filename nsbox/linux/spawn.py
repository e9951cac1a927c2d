"""Starting a process in namespaces, and hearing how that went.

What happens in spawn_in(), and who holds which end:

  parent                    middle (one thread)               child
    fork ------------------> prepare(): setns
    <----- pid ------------- clone3(CLONE_PARENT) -----------> waits on go; end of file: exits
    before_go(pid)           _exit(0)
    go --------------------------------------------------------> child(): mounts, identity
    <------------------------------ report: "." ---------------- just before execve
    <------------------------------ end of file: success, or an error as JSON

And in spawn_last(), where the process is not seen in its PID namespace before it has become harmless:

  parent                    child                             its program
    fork ------------------> prepare(): setns, for PID it counts for children
                             child(): mounts, identity
                             execve -------------------------> clone(CLONE_PARENT): what is born waits on go
    <----- pid ------------------------------------------------ the rest as above
"""

import errno
import os
import signal
import struct
from typing import Callable, NamedTuple, NoReturn

from .. import errors
from . import process, syscalls, trouble
from .flags import CloneFlag

_ALIVE_REPORT = b"."  # "set-up is done, the next call is execve": then an end of file is success
_TOLD = struct.Struct("=II")
_PID = struct.Struct("=i")

Child = Callable[[], None]


class _Pipes(NamedTuple):
    report_r: int
    report_w: int
    pid_r: int
    pid_w: int
    go_r: int
    go_w: int


def _pipes() -> _Pipes:
    return _Pipes(*os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC))


def spawn_in(
    flags: CloneFlag,
    child: Child,
    *,
    doing: str,
    prepare: Child | None = None,
    before_go: Callable[[int], None] | None = None,
    told: Callable[[int, int], errors.NsboxError] | None = None,
) -> process.Spawned:
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
    pipes = _pipes()

    def middle() -> None:
        if prepare is not None:
            prepare()
        pid = syscalls.clone3(flags | CloneFlag.CLONE_PARENT)
        if pid:
            os.write(pipes.pid_w, _PID.pack(pid))
            os._exit(0)
        os.close(pipes.pid_w)
        if os.read(pipes.go_r, 1):  # end of file: the parent is gone, and nobody knows of us
            child()

    middle_pid = _fork(pipes, doing)
    if middle_pid == 0:
        _run(middle, pipes, (pipes.report_w,), doing)
    return _hear(pipes, middle_pid, doing, before_go, told)


def spawn_last(
    flags: CloneFlag,
    child: Child,
    *,
    doing: str,
    prepare: Child,
    before_go: Callable[[int], None] | None = None,
    told: Callable[[int, int], errors.NsboxError] | None = None,
) -> process.Spawned:
    """As :func:`spawn_in`, but `child` runs outside of the PID namespace that `prepare` joins for children.

    Its program makes the process that comes back, by CLONE_PARENT a child of ours too: see :func:`hand_over`.

    Args:
        flags: CLONE_NEW* of the namespaces to make for it, not CLONE_NEWPID.
        before_go: runs here when all is set up.
    """
    pipes = _pipes()

    def outside() -> None:
        trouble.see_by(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        prepare()
        if flags:
            syscalls.unshare(flags)
        child()

    pid = _fork(pipes, doing)
    if pid == 0:
        _run(outside, pipes, (pipes.report_w, pipes.pid_w, pipes.go_r), doing)
    return _hear(pipes, pid, doing, before_go, told)


def _fork(pipes: _Pipes, doing: str) -> int:
    """fork(2), whose error says nothing of the call. Raises NsboxError."""
    try:
        return os.fork()
    except OSError as err:
        for fd in pipes:
            os.close(fd)
        raise errors.NsboxError(f"cannot {doing}") from trouble.failed("fork", err.errno)


def _hear(
    pipes: _Pipes, child_pid: int, doing: str, before_go: Callable[[int], None] | None,
    told: Callable[[int, int], errors.NsboxError] | None,
) -> process.Spawned:  # fmt: skip
    """The parent's part."""
    report_r, pid_r, go_w = pipes.report_r, pipes.pid_r, pipes.go_w
    for fd in (pipes.report_w, pipes.pid_w, pipes.go_r):
        os.close(fd)
    try:
        started = _learn_pid(pid_r, child_pid, report_r, go_w, doing, told)
        try:
            if before_go is not None:
                before_go(started.pid)
            try:
                os.write(go_w, b"g")
            except BrokenPipeError:
                pass  # killed by now: then there is no report either
            _check_report(process.read_all(report_r), doing, told)
        except BaseException:
            process.kill_and_reap(started)
            os.close(started.pidfd)
            raise
    finally:
        for fd in (report_r, pid_r, go_w):
            os.close(fd)
    return started


def _learn_pid(
    pid_r: int, child_pid: int, report_r: int, go_w: int, doing: str,
    told: Callable[[int, int], errors.NsboxError] | None,
) -> process.Spawned:  # fmt: skip
    answer = process.read_all(pid_r)
    if not answer:
        os.waitpid(child_pid, 0)
        # It ended too early, perhaps with a child made: that one holds the report open, and ends
        # when our end of its go is closed, which this does.
        os.dup2(pid_r, go_w, inheritable=False)
        _check_report(process.read_all(report_r), doing, told)
    (pid,) = _PID.unpack(answer)
    if pid != child_pid:  # else a rehearsal: see stay_as_it()
        os.waitpid(child_pid, 0)
    try:
        return process.Spawned(pid, process.open_pid(pid))
    except OSError:  # there is no pidfd to be had; it ends for want of its go, and is ours to collect
        os.dup2(pid_r, go_w, inheritable=False)
        os.waitpid(pid, 0)
        raise


def opened_by_child(open_it: Callable[[], int]) -> int:
    """What `open_it` opens, run by a child that shares our descriptors. Only for a process with one thread.

    Raises:
        OSError: it failed; of another kind of failure the errno is ECHILD.
    """
    slot_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)  # its number is where it lands
    pid = syscalls.clone3(CloneFlag.CLONE_FILES, signal.SIGCHLD)
    if pid == 0:
        code = errno.ECHILD
        try:
            process.seal_imports()
            fd = open_it()
            os.dup2(fd, slot_fd, inheritable=False)
            os.close(fd)
            code = 0
        except OSError as err:
            code = err.errno or code
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        os.close(slot_fd)
        raise OSError(code if code > 0 else errno.ECHILD, os.strerror(code if code > 0 else errno.ECHILD))
    return slot_fd


_ends: tuple[int, ...] = ()  # set in a child only: its report, and of spawn_last() also where PID and go pass


def _run(child: Child, pipes: _Pipes, ends: tuple[int, ...], doing: str) -> NoReturn:
    """Run `child` in a fresh process. No way back: no finally of the caller, no atexit, no flush."""
    global _ends
    _ends = ends
    report_w = pipes.report_w
    try:
        for fd in (pipes.report_r, pipes.pid_r, pipes.go_w):
            os.close(fd)
        # Before any namespace is joined: a module that is missing now would be looked for in there.
        process.seal_imports()
        for signum in process.ENDING_SIGNALS:  # the parent's handlers raise, and a child must not
            signal.signal(signum, signal.SIG_DFL)
        child()
    except errors.NsboxError as err:
        os.write(report_w, trouble.encode(err, trouble.scene()))
    except OSError as err:
        wrapped = errors.NsboxError(f"cannot {doing}", hint=trouble.hint(err))
        wrapped.__cause__ = err
        os.write(report_w, trouble.encode(wrapped, trouble.scene()))
    except BaseException as err:
        failed = errors.NsboxError(f"cannot {doing}: {err!r}")
        if errors.is_want_of_memory(err):
            failed = errors.NsboxError(f"cannot {doing}: {os.strerror(errno.ENOMEM)}")
        os.write(report_w, trouble.encode(failed))
    finally:
        os._exit(process.EXIT_SETUP_FAILED)


def about_to_exec() -> None:
    """Tell the parent that set-up is done: what comes now is execve(2) or its error.

    After :func:`spawn_last` it is the program that tells it.
    """
    if len(_ends) == 1:
        os.write(_ends[0], _ALIVE_REPORT)


def hand_over() -> tuple[int, ...]:
    """Let the program that comes next report, too; return the descriptor on which it is to.

    It closes that on success, or writes two numbers of four bytes: for `told` of :func:`spawn_in`.
    After :func:`spawn_last` two more come behind it: it makes the process, tells its PID in four bytes
    on the second, and that process waits for a byte on the third.
    """
    for fd in _ends:
        os.set_inheritable(fd, True)
    return _ends


def stay_as_it() -> None:
    """In the place of a program that makes the process: be that process, outside. For rehearsals."""
    if len(_ends) > 1:
        report_w, pid_w, go_r = _ends
        os.write(pid_w, _PID.pack(os.getpid()))
        os.close(pid_w)
        if os.read(go_r, 1):
            os.write(report_w, _ALIVE_REPORT)


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
