"""The terminal of a member: pty, raw mode, window size; :mod:`.relay` does the copying.

The order in a client (the signals are blocked from before the fork, so that none is lost):

    block signals; open_pty; fork ----> restore the mask; setsid; make_controlling; execve
    close the slave, else the master never reports the end
    with RawMode(0): attend(...)        takes the signals, blocks them again at its end
    unblock signals                     the terminal is as it was: now a handler may raise

A client in the background is stopped by SIGTTIN when it reads the terminal and by SIGTTOU when
it makes it raw, as any program is, until the shell brings it to the foreground.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import termios

from .relay import Relay, attend

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING; to import typing costs 3 ms
if TYPE_CHECKING:
    from typing import Any

__all__ = ["RawMode", "Relay", "attend", "copy_window_size", "make_controlling", "open_pty",
           "suspend_self"]

# asm-generic/ioctls.h; the termios module of Python 3.11 has none of them.
_PTMX = (5, 2)  # the numbers of /dev/ptmx, whatever devpts it is in
_TIOCSPTLCK, _TIOCGPTPEER = 0x4004_5431, 0x5441

_RESTORE_TRIES = 100
_NO_SIZE = frozenset({errno.ENOTTY, errno.EINVAL, errno.EIO})


def open_pty(ptmx: str = "/dev/pts/ptmx") -> tuple[int, int]:
    """Make a pty; return (master_fd, slave_fd), both close-on-exec. See pts(4), ioctl_tty(2).

    The slave is asked from the master (TIOCGPTPEER, Linux 4.13), not opened by a path that a
    pod could replace. The master, ours alone, is non-blocking.

    Args:
        ptmx: the multiplexor of the devpts that shall own the pty. On a host "/dev/ptmx" is
            open to everybody, "/dev/pts/ptmx" often to nobody but root.

    Raises:
        OSError: no such multiplexor, no right to it, or no pty left (ENOSPC).
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    _check_multiplexor(os.stat(ptmx), ptmx)  # before it is opened: a device may act on that
    master_fd = os.open(ptmx, flags | os.O_NONBLOCK)
    try:
        _check_multiplexor(os.fstat(master_fd), ptmx)  # again: it may have been swapped
        fcntl.ioctl(master_fd, _TIOCSPTLCK, bytes(4))
        return master_fd, fcntl.ioctl(master_fd, _TIOCGPTPEER, flags)
    except BaseException:
        os.close(master_fd)
        raise


def _check_multiplexor(found: os.stat_result, path: str) -> None:
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(*_PTMX):
        raise OSError(errno.ENODEV, "not the multiplexor of pseudo-terminals", path)


def make_controlling(slave_fd: int) -> None:
    """Make the pty this session's terminal and descriptors 0, 1 and 2. See ioctl_tty(2).

    For a forked child that has called setsid(2). `slave_fd` stays open until execve(2).
    """
    fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave_fd, fd)
        os.set_inheritable(fd, True)  # dup2 onto itself changes nothing


def copy_window_size(from_fd: int, to_fd: int) -> None:
    """Give the terminal `to_fd` the rows and columns of `from_fd`, 0 by 0 too.

    A new size sends SIGWINCH to the foreground group there. Nothing happens if one of the two
    is no terminal or has gone.
    """
    try:
        size = fcntl.ioctl(from_fd, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(to_fd, termios.TIOCSWINSZ, size)
    except OSError as err:
        if err.errno not in _NO_SIZE:
            raise


class RawMode:
    """Keep a terminal raw for the length of a block: bytes pass unchanged, no echo, no signals.

    The old settings come back however the block is left. A signal handler that raises while
    they are put back has to wait; several in a row can still win, so keep the signals blocked
    as drawn at the head of this file. After SIGKILL only `stty sane` helps.

    Settings change at once (TCSANOW): to wait for the output (TCSADRAIN) could take for ever
    on a terminal that nobody reads, and TCSAFLUSH would drop what was typed ahead.
    """

    __slots__ = ("_fd", "_saved")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    @property
    def active(self) -> bool:
        """Whether there are settings to put back."""
        return self._saved is not None

    def enter(self) -> None:
        """Save the settings and go raw, if that is not so already.

        Raises:
            OSError: it is no terminal (ENOTTY), or it has gone (EIO).
        """
        if self._saved is None:
            self._saved = _get_settings(self._fd)
            _set_settings(self._fd, _raw(self._saved))

    def restore(self) -> None:
        """Put the saved settings back; the second time, or on a terminal that has gone, nothing."""
        interrupted = None
        for _ in range(_RESTORE_TRIES):
            try:
                self._put_back()
                break
            except OSError:
                raise
            except BaseException as err:  # from a signal handler: the terminal comes first
                interrupted = err
        if interrupted is not None:
            raise interrupted

    def _put_back(self) -> None:
        if self._saved is None:
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # Blocked, it does not stop us when we are in the background by now: termios(3)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            _set_settings(self._fd, self._saved)
        except OSError as err:
            if err.errno != errno.EIO:
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._saved = None

    def __enter__(self) -> RawMode:
        try:
            self.enter()
        except BaseException:
            self.restore()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.restore()


def suspend_self(raw: RawMode | None) -> None:
    """Stop this process as Ctrl-Z does; return, raw again, when it has been continued."""
    was_raw = raw is not None and raw.active
    if raw is not None:
        raw.restore()
    signal.raise_signal(signal.SIGSTOP)  # stops all threads; no handler can stand in the way
    if raw is not None and was_raw:
        raw.enter()


def _get_settings(fd: int) -> list[Any]:
    """termios.tcgetattr, but what it raises is an OSError."""
    try:
        return termios.tcgetattr(fd)
    except termios.error as err:
        raise OSError(err.args[0], f"tcgetattr: {os.strerror(err.args[0])}") from None


def _set_settings(fd: int, settings: list[Any]) -> None:
    """termios.tcsetattr at once; repeated when a signal cuts it off, as SIGCONT does."""
    while True:
        try:
            return termios.tcsetattr(fd, termios.TCSANOW, settings)
        except termios.error as err:
            if err.args[0] != errno.EINTR:
                raise OSError(err.args[0], f"tcsetattr: {os.strerror(err.args[0])}") from None


def _raw(settings: list[Any]) -> list[Any]:
    """These settings, made raw as cfmakeraw(3) does."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, chars = settings
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
               | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    chars = list(chars)
    chars[termios.VMIN], chars[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, chars]
