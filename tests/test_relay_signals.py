"""What attend does with signals, and that it leaves the caller's descriptors and handlers alone.

Needs no root. Each docstring ends with the change to the code that turns the test red; each was
tried.
"""

import fcntl
import os
import signal

import pytest
from forked import attended, forked, never, on_pipes, on_pty, wait_exit

from nsbox.linux import relay as relay_room
from nsbox.linux import terminal
from nsbox.linux.relay import Relay

TERM, USR1, USR2 = signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2
SIGNALS = frozenset({TERM, USR1, USR2})


@pytest.fixture
def blocked():
    """SIGNALS blocked, as the caller does before it forks."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    yield
    while signal.sigtimedwait(SIGNALS, 0):
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_signals_are_handed_over_in_the_order_of_their_arrival():
    """Red: sort what _Inbox.read returns.

    In a child: the signals are sent to a process, and a test worker has threads that would take them.
    """
    def body():
        pid, in_w, out_r = on_pipes("cat")
        order = [USR2, TERM, USR1, USR2, USR1]
        came = []

        def on_signal(signum):  # the others arrive while the first is handed over
            came.append(signum)
            if len(came) == 1:
                for other in order[1:]:
                    signal.raise_signal(other)
            elif len(came) == len(order):
                os.close(in_w)
        starter = forked(lambda: os.kill(os.getppid(), order[0]) if os.read(out_r, 1) else None)
        os.close(out_r)
        old = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.write(in_w, b"x")
        assert wait_exit(starter) == 0
        assert attended(pid, [], on_signal, SIGNALS) == 0
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        assert came == order
    assert wait_exit(forked(body)) == 0


def test_a_signal_that_nobody_has_read_is_handed_over_at_the_end():
    """Red: read nothing in _Inbox.close."""
    inbox = relay_room._Inbox(SIGNALS)
    inbox.open()
    signal.raise_signal(USR2)
    signal.raise_signal(USR1)
    assert inbox.close() == [USR2, USR1]


def test_a_signal_that_was_blocked_before_the_fork_is_not_lost(blocked):
    """Red: leave SIG_UNBLOCK out of _Inbox.open, and the child is never told to end."""
    pid, in_w, out_r = on_pipes("cat")
    signal.raise_signal(TERM)
    assert attended(pid, [], lambda signum: os.close(in_w), SIGNALS) == 0
    os.close(out_r)


def test_the_mask_the_handlers_and_the_wakeup_descriptor_are_put_back(blocked):
    """Red: leave out any one of the three in _Inbox.close."""
    def old_handler(*_):
        raise AssertionError("the old handler ran inside attend")
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    handler = signal.signal(USR1, old_handler)
    wakeup = signal.set_wakeup_fd(write_fd)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.raise_signal(USR1)
    pid, in_w, out_r = on_pipes("cat")
    try:
        with pytest.raises(ZeroDivisionError):
            attended(pid, [], lambda signum: 1 // 0, SIGNALS)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        assert signal.getsignal(USR1) is old_handler
        assert signal.set_wakeup_fd(wakeup) == write_fd
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(USR1, handler)
        for fd in (read_fd, write_fd, in_w, out_r):
            os.close(fd)


def test_signals_that_were_not_blocked_are_not_blocked_afterwards():
    """Red: leave SIG_SETMASK out of _Inbox.close."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS) - SIGNALS
    assert attended(forked(lambda: None), [], never, SIGNALS) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_an_ignored_signal_stays_ignored():
    """Red: install the handler without looking for SIG_IGN in _Inbox.open (nohup is broken).

    In a child, as above: a thread that has a signal unblocked would be ended by it.
    """
    def body():
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        signal.signal(USR1, signal.SIG_IGN)
        pid, in_w, out_r = on_pipes("sh", "-c", "kill -USR1 $PPID; kill -USR2 $PPID; cat")
        came = []

        def on_signal(signum):
            came.append(signum)
            if signum == USR2:
                os.close(in_w)
        assert attended(pid, [], on_signal, SIGNALS) == 0
        os.close(out_r)
        assert came == [USR2]
    assert wait_exit(forked(body)) == 0


def test_a_stopped_child_is_seen_through_sigchld():
    """Red: do not hand SIGCHLD over (drop it in _Inbox.read).

    In a child, as above: a thread that has SIGCHLD unblocked would throw it away.
    """
    def body():
        states = []
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = forked(lambda: signal.raise_signal(signal.SIGSTOP))

        def on_signal(signum):
            told = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG)
            states.append(told and told.si_status)
            os.kill(pid, signal.SIGCONT)
        assert attended(pid, [], on_signal, frozenset({signal.SIGCHLD})) == 0
        assert states[0] == signal.SIGSTOP
    assert wait_exit(forked(body)) == 0


@pytest.mark.parametrize("end", ["normally", "by SIGKILL"])
def test_G04_inherited_descriptors_stay_blocking(end):
    """Red: os.set_blocking(self.dst_fd, False) in Relay._write."""
    outer_master, outer_slave = os.openpty()
    pipe_r, pipe_w = os.pipe()
    seen = []
    for shared_in, shared_out in ((outer_slave, outer_slave), (pipe_r, pipe_w)):
        terminal.RawMode(outer_slave).enter()
        os.write(outer_master if shared_in == outer_slave else pipe_w, b"x\n")
        before = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (shared_in, shared_out)]

        def body(shared_in=shared_in, shared_out=shared_out):
            pid, master_fd = on_pty("sh", "-c", "head -c 1; exit 5")
            attended(pid, [Relay(shared_in, master_fd, is_input=True, eof_byte=b"\x04"),
                           Relay(master_fd, shared_out, close_src=True)])
            if end == "by SIGKILL":
                signal.raise_signal(signal.SIGKILL)
        expected = -signal.SIGKILL if end == "by SIGKILL" else 0
        assert wait_exit(forked(body)) == expected
        seen.append([fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (shared_in, shared_out)] == before)
    assert seen == [True, True]
    for fd in (outer_master, outer_slave, pipe_r, pipe_w):
        os.close(fd)


def test_G04_a_terminal_that_cannot_be_opened_again_still_gets_everything(monkeypatch):
    """Red: do not catch the refusal in _open_writer."""
    outer_master, outer_slave = os.openpty()
    terminal.RawMode(outer_slave).enter()
    real_open = os.open

    def refuse(path, *args, **options):
        if str(path).startswith("/proc/self/fd"):
            raise PermissionError(13, "refused")
        return real_open(path, *args, **options)
    reader = forked(lambda: [os.read(outer_master, 1) for _ in range(3000)])
    pid, master_fd = on_pty("sh", "-c", "head -c 3000 /dev/zero; exit 6")
    monkeypatch.setattr(os, "open", refuse)
    try:
        assert attended(pid, [Relay(master_fd, outer_slave, close_src=True)], never) == 6
    except BaseException:
        os.kill(reader, signal.SIGKILL)
        raise
    finally:
        monkeypatch.undo()
        read_everything = wait_exit(reader) == 0
    assert read_everything
    os.close(outer_master)
    os.close(outer_slave)


def test_a_blocking_pty_master_is_not_opened_again():
    """Red: leave the look for _PTMX out of _open_writer (the answer is another, new pty)."""
    master_fd, slave_fd = os.openpty()
    assert relay_room._open_writer(master_fd) == (-1, 1)
    os.close(master_fd)
    os.close(slave_fd)
