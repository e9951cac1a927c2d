"""Children of a test: forked, waited for with a deadline, never left behind."""

import os
import select
import signal
import time
from collections.abc import Callable

import pytest

DEADLINE_S = 20.0
FATAL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def forked(body: Callable[[], object]) -> int:
    """Fork; run `body` in the child, which ends with 0, or 1 if it raised. Return the PID."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for signum in FATAL:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        body()
        status = 0
    finally:
        os._exit(status)


def wait_exit(pid: int) -> int:
    """The exit status of our child, or minus the signal that killed it; fails after a deadline."""
    pidfd = os.pidfd_open(pid)
    try:
        in_time = select.select([pidfd], [], [], DEADLINE_S)[0]
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert in_time, "the child has not ended in time"
        return status
    finally:
        os.close(pidfd)


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Ask again and again until it is so; fails after a deadline."""
    end = time.monotonic() + DEADLINE_S
    while not is_so():
        if time.monotonic() > end:
            pytest.fail(f"not in time: {what}", pytrace=False)
        os.sched_yield()
