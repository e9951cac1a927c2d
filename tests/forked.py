"""Children of a test: forked, on a pty or pipes, waited for with a deadline, never left behind."""

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Callable

import pytest

from nsbox.linux import terminal
from nsbox.linux.relay import attend

DEADLINE_S = 20.0
MIB = 1 << 20
NO_SIGNALS = frozenset()
CPU_SHARE = 0.1
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


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_all(fd):
    return b"".join(iter(lambda: os.read(fd, MIB), b""))


def never(signum):
    raise AssertionError(f"signal {signum}")


@contextlib.contextmanager
def deadline():
    """Raise TimeoutError in the block, even out of a blocking call, when it takes too long."""
    def too_late(*_):
        raise TimeoutError("it does not end")
    old = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def attended(pid, relays, on_signal=never, signals=NO_SIGNALS, **options):
    """attend() our child `pid`, with a deadline; return its exit status."""
    pidfd = os.pidfd_open(pid)
    try:
        with deadline():
            attend(pidfd, relays, on_signal, signals, **options)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)
    return wait_exit(pid)


def run(command):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and so would the command
    os.execvp(command[0], command)


def on_pty(*command):
    """Start `command` on a new pty without output processing; return (pid, master_fd)."""
    master_fd, slave_fd = terminal.open_pty("/dev/ptmx")
    settings = termios.tcgetattr(slave_fd)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave_fd, termios.TCSANOW, settings)

    def body():
        os.setsid()
        terminal.make_controlling(slave_fd)
        run(command)
    pid = forked(body)
    os.close(slave_fd)
    return pid, master_fd


def on_pipes(*command):
    """Start `command`; return (pid, its stdin's write end, its stdout's read end)."""
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()

    def body():
        os.dup2(in_r, 0)
        os.dup2(out_w, 1)
        run(command)
    pid = forked(body)
    os.close(in_r)
    os.close(out_w)
    return pid, in_w, out_r


def feeder(data):
    """A process that writes `data` to a pipe; return (pid, read end)."""
    read_fd, write_fd = os.pipe()
    pid = forked(lambda: (os.close(read_fd), write_all(write_fd, data)))
    os.close(write_fd)
    return pid, read_fd


def output_file(tmp_path):
    return os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def cpu_s(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


def assert_idle(pid, watch_s=2.0):
    """The process uses next to no processor time for so many seconds, and lives on."""
    pidfd = os.pidfd_open(pid)
    before = cpu_s(pid)
    ended = select.select([pidfd], [], [], watch_s)[0]
    os.close(pidfd)
    assert not ended, "it ended"
    assert cpu_s(pid) - before < CPU_SHARE * watch_s
