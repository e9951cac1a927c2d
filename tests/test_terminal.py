"""The terminal room: pty, raw mode, window size, suspending. Needs no root.

Each docstring ends with the change to the code that turns the test red; each was tried.
"""

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios

import pytest
from forked import DEADLINE_S, FATAL, forked, wait_exit, wait_until

from nsbox.linux import terminal


class Hit(BaseException):
    """What the tests' signal handlers raise."""


@pytest.fixture
def pty():
    """(master_fd, slave_fd) in the state in which a shell finds its terminal."""
    with contextlib.ExitStack() as stack:
        pair = os.openpty()
        for fd in pair:
            stack.callback(os.close, fd)
        yield pair


def is_raw(fd):
    return not termios.tcgetattr(fd)[3] & (termios.ICANON | termios.ECHO)


def raw_in_child(slave_fd, block):
    """Fork a session on the pty that runs `block` in raw mode, with handlers that raise."""
    def raise_hit(signum, _frame):
        raise Hit(signum)

    def body():
        os.setsid()
        fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
        for signum in FATAL:
            signal.signal(signum, raise_hit)
        with contextlib.suppress(Hit, ZeroDivisionError):
            with terminal.RawMode(slave_fd):
                block()
    return forked(body)


def test_a_new_pty_carries_bytes_both_ways_and_is_closed_on_exec():
    """Red: leave O_CLOEXEC out of the flags in open_pty."""
    master_fd, slave_fd = terminal.open_pty("/dev/ptmx")
    try:
        os.write(slave_fd, b"out\n")
        assert os.read(master_fd, 100) == b"out\r\n"
        os.write(master_fd, b"in\n")
        assert os.read(slave_fd, 100) == b"in\n"
        assert os.ttyname(slave_fd).startswith("/dev/pts/")
        assert not os.get_inheritable(master_fd) and not os.get_inheritable(slave_fd)
    finally:
        os.close(master_fd)
        os.close(slave_fd)


def test_a_multiplexor_that_is_none_is_an_os_error_and_leaks_nothing(monkeypatch):
    """Red: do not close the master when an ioctl fails in open_pty; or do not look at what it is."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        terminal.open_pty("/dev/null")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(FileNotFoundError):
        terminal.open_pty("/dev/pts/no-ptmx")
    # One that passes for a multiplexor until it is asked for a terminal.
    monkeypatch.setattr(terminal, "_check_multiplexor", lambda *_: None)
    with pytest.raises(OSError) as caught:
        terminal.open_pty("/dev/null")
    assert caught.value.errno == errno.ENOTTY
    assert os.listdir("/proc/self/fd") == before


def test_a_child_gets_the_pty_as_its_controlling_terminal_and_as_0_1_2():
    """Red: leave TIOCSCTTY out of make_controlling (then /dev/tty cannot be opened)."""
    master_fd, slave_fd = terminal.open_pty("/dev/ptmx")

    def body():
        os.setsid()
        terminal.make_controlling(slave_fd)
        os.close(os.open("/dev/tty", os.O_RDWR))
        assert all(os.isatty(fd) and os.get_inheritable(fd) for fd in (0, 1, 2))
        assert os.tcgetpgrp(0) == os.getpid()
    pid = forked(body)
    os.close(slave_fd)
    assert wait_exit(pid) == 0
    os.close(master_fd)


@pytest.mark.parametrize("rows_columns", [(24, 80), (1, 1), (500, 999), (0, 0)])
def test_G06_the_window_size_is_copied(pty, rows_columns):
    """Red: return early from copy_window_size when the size is 0 by 0."""
    other_master, other_slave = os.openpty()
    try:
        for fd, size in ((pty[1], rows_columns), (other_slave, (7, 7))):
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        terminal.copy_window_size(pty[1], other_master)
        got = struct.unpack("4H", fcntl.ioctl(other_slave, termios.TIOCGWINSZ, bytes(8)))
        assert got[:2] == rows_columns
    finally:
        os.close(other_master)
        os.close(other_slave)


def test_G06_without_a_terminal_the_window_size_is_no_matter(pty):
    """Red: take ENOTTY out of _NO_SIZE."""
    with open("/dev/null", "rb") as null:
        terminal.copy_window_size(null.fileno(), pty[0])
        terminal.copy_window_size(pty[0], null.fileno())


def test_G03_raw_mode_passes_every_byte_and_ends_with_the_block(pty):
    """Red: leave ISIG or ICRNL out of _raw; or make __exit__ do nothing."""
    before = termios.tcgetattr(pty[1])
    every_byte = bytes(range(256))
    with terminal.RawMode(pty[1]) as raw:
        os.write(pty[0], every_byte)
        assert os.read(pty[1], 1000) == every_byte
        os.write(pty[1], every_byte)
        assert os.read(pty[0], 1000) == every_byte
        assert raw.active
    assert termios.tcgetattr(pty[1]) == before
    raw.restore()
    assert not raw.active


def test_G03_what_was_typed_ahead_is_kept(pty):
    """Red: TCSAFLUSH in _set_settings."""
    os.write(pty[0], b"typed ahead")
    wait_until(lambda: b"ahead" in os.read(pty[0], 100), "the echo, so it has arrived")
    with terminal.RawMode(pty[1]):
        assert select.select([pty[1]], [], [], DEADLINE_S)[0]
        assert os.read(pty[1], 100) == b"typed ahead"


def test_G03_an_exception_restores_the_terminal(pty):
    """Red: make __exit__ do nothing when there is an exception."""
    before = termios.tcgetattr(pty[1])
    with pytest.raises(ZeroDivisionError), terminal.RawMode(pty[1]):
        raise ZeroDivisionError
    assert termios.tcgetattr(pty[1]) == before


@pytest.mark.parametrize("signum", FATAL)
def test_G03_a_signal_whose_handler_raises_restores_the_terminal(pty, signum):
    """Red: make __exit__ do nothing when there is an exception."""
    before = termios.tcgetattr(pty[1])
    pid = raw_in_child(pty[1], signal.pause)
    wait_until(lambda: is_raw(pty[1]), "raw mode")
    os.kill(pid, signum)
    assert wait_exit(pid) == 0
    assert termios.tcgetattr(pty[1]) == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_G03_a_signal_in_the_middle_of_going_raw_restores_the_terminal(pty, when, monkeypatch):
    """Red: take the `except` out of __enter__ (after)."""
    before = termios.tcgetattr(pty[1])
    _hit_once_around_tcsetattr(monkeypatch, when)
    pid = raw_in_child(pty[1], signal.pause)
    assert wait_exit(pid) == 0
    assert termios.tcgetattr(pty[1]) == before


def test_G03_a_second_signal_while_restoring_does_not_leave_the_terminal_raw(pty, monkeypatch):
    """Red: call _put_back once, without a loop, in restore."""
    before = termios.tcgetattr(pty[1])

    def block():
        _hit_once_around_tcsetattr(monkeypatch, "before")
        raise ZeroDivisionError
    assert wait_exit(raw_in_child(pty[1], block)) == 0
    assert termios.tcgetattr(pty[1]) == before


def _hit_once_around_tcsetattr(monkeypatch, when):
    """Let SIGTERM arrive just before, or just after, the next change of the settings."""
    real = termios.tcsetattr

    def fake(*args):
        monkeypatch.setattr(termios, "tcsetattr", real)
        if when == "before":
            signal.raise_signal(signal.SIGTERM)
        real(*args)
        signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(termios, "tcsetattr", fake)


def test_G03_a_background_process_restores_without_being_stopped(pty):
    """Red: do not block SIGTTOU in _put_back (the child stops, the deadline passes)."""
    before = termios.tcgetattr(pty[1])

    def block():
        foreground = os.fork()
        if not foreground:
            signal.pause()
        os.setpgid(foreground, foreground)
        os.tcsetpgrp(pty[1], foreground)
        os.kill(foreground, signal.SIGKILL)
        os.waitpid(foreground, 0)
    assert wait_exit(raw_in_child(pty[1], block)) == 0
    assert termios.tcgetattr(pty[1]) == before


def test_G03_a_terminal_that_has_gone_is_no_error():
    """Red: raise on EIO in _put_back."""
    master_fd, slave_fd = os.openpty()
    with terminal.RawMode(slave_fd) as raw:
        os.close(master_fd)
    assert not raw.active
    os.close(slave_fd)


def test_what_is_no_terminal_cannot_be_made_raw():
    """Red: let termios.error, which is no OSError, out of _get_settings."""
    with open("/dev/null", "rb") as null, pytest.raises(OSError) as caught:
        terminal.RawMode(null.fileno()).enter()
    assert caught.value.errno == errno.ENOTTY


def test_G10_a_suspended_client_gives_the_terminal_back_and_goes_raw_again(pty):
    """Red: leave out raw.restore(), or raw.enter(), in suspend_self."""
    before = termios.tcgetattr(pty[1])
    asked_r, asked_w = os.pipe()

    def body():
        with terminal.RawMode(pty[1]) as raw:
            terminal.suspend_self(raw)
            os.write(asked_w, b"raw" if is_raw(pty[1]) else b"not")
    pid = forked(body)
    os.close(asked_w)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    while_stopped = termios.tcgetattr(pty[1])
    os.kill(pid, signal.SIGCONT)
    assert wait_exit(pid) == 0
    assert while_stopped == before
    assert os.read(asked_r, 10) == b"raw"
    assert termios.tcgetattr(pty[1]) == before
    os.close(asked_r)
