"""Work done by a short-lived child, which may change its namespaces, fail or hang: the caller stays what it is.

The child has all signals blocked, so Ctrl-C does not stop it half way; the caller waits for it.
"""

import json
import math
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import NsboxError
from . import syscalls, trouble

DEADLINE_S = 30.0
_GRACE_S = 2.0  # after that, for what the child needs to say that it gave up
_OK, _FAILED = b"+", b"-"

Work = Callable[[], Any]


def run(purpose: str, work: Work) -> Any:
    """Do `work` in a child and return what it returned, if JSON can tell it.

    Only for a process with one thread.

    Args:
        purpose: "make the bridge nsb0": the error says "cannot" and this.

    Raises:
        NsboxError: what `work` raised, a netlink error or an OSError among them; or no end.
    """
    try:
        said, in_time = _outcome(*_start(purpose, work))
    except OSError as err:
        raise NsboxError(f"cannot {purpose}") from err
    if said[:1] == _OK:
        return json.loads(said[1:])
    if said[:1] == _FAILED:
        raise trouble.decode(said[1:])
    why = "who did it was killed" if in_time else f"the kernel did not answer within {DEADLINE_S:.0f} s"
    raise NsboxError(f"cannot {purpose}: {why}")


def _start(purpose: str, work: Work) -> tuple[int, int, set[int]]:
    """The child's PID, the pipe by which it tells, and the signals that were blocked before.

    All are blocked when this returns: no signal of ours comes between the fork and the wait.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _child(write_fd, purpose, work)
    except OSError:
        os.close(read_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        raise
    finally:
        os.close(write_fd)
    return pid, read_fd, {int(signum) for signum in blocked}


def _outcome(pid: int, read_fd: int, blocked: set[int]) -> tuple[bytes, bool]:
    """What the child writes until it ends, and whether it did so in time. The child is reaped."""
    deadline = math.inf if _nobody_hurries() else time.monotonic() + DEADLINE_S + _GRACE_S
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            said = _read(read_fd, deadline)
        except BaseException:  # a signal of ours: the child is all or nothing, so its end is waited for
            _read(read_fd, deadline)
            raise
    finally:
        os.close(read_fd)
        in_time = _end(pid)
    return said, in_time


def _nobody_hurries() -> bool:
    """Whether no deadline holds, for somebody is asked before each call."""
    listener = syscalls.listener()
    return listener is not None and listener.patient


def _read(fd: int, deadline: float) -> bytes:
    """All that comes until the end of file, or b"" when that does not come in time."""
    said = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(min(left, DEADLINE_S) * 1000):
            continue
        if not (part := os.read(fd, 1 << 16)):
            return said
        said += part
    return b""


def _end(pid: int) -> bool:
    """Reap the child, which has closed its pipe; whether neither its alarm clock nor we had to end it."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        in_time = bool(poll.poll(_GRACE_S * 1000))
        if not in_time:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    wait_status = os.waitpid(pid, 0)[1]
    return in_time and not (os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) == signal.SIGALRM)


def _child(write_fd: int, purpose: str, work: Work) -> NoReturn:
    """Do the work, write how it went, and end. Whatever happens, it never returns."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        # Even if the caller is gone by then.
        signal.setitimer(signal.ITIMER_REAL, 0.0 if _nobody_hurries() else DEADLINE_S)
        said = _attempt(purpose, work)
        while said:
            said = said[os.write(write_fd, said) :]
    finally:
        os._exit(0)


def _attempt(purpose: str, work: Work) -> bytes:
    try:
        return _OK + json.dumps(work()).encode()
    except NsboxError as err:
        return _FAILED + trouble.encode(err, trouble.scene())
    except Exception as err:
        if code := code_of(err):
            failure = NsboxError(f"cannot {purpose}")
            failure.__cause__ = trouble.likewise(err, OSError(code, reason(err)))
        else:
            failure = NsboxError(f"cannot {purpose}: {type(err).__name__}: {err}")
        return _FAILED + trouble.encode(failure, trouble.scene())


def code_of(err: BaseException) -> int:
    """The errno of a netlink error or an OSError, or 0."""
    code = getattr(err, "code", None) or getattr(err, "errno", None)
    return code if isinstance(code, int) else 0


def reason(err: BaseException) -> str:
    """'netlink: File exists', or what the OSError says already."""
    said = err.strerror if isinstance(err, OSError) else None
    return said or f"netlink: {os.strerror(code_of(err))}"
