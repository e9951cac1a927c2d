"""Copying between descriptors, and taking signals, until the child has ended.

No threads. A descriptor that somebody else may share (0, 1, 2) is never set to O_NONBLOCK: the
flag belongs to the open file, so the caller's shell would have it too, and keep it after us.
Instead poll(2) is asked first, and no more is written than cannot block then: PIPE_BUF bytes to
a pipe; a terminal promises one byte only, so it is opened once more, non-blocking, for us alone.
Whoever waits, waits in poll(2): for a reader that does not read, for a signal, for the child.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import termios

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING; to import typing costs 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BUFFER_BYTES = 65536

_PTMX = os.makedev(5, 2)  # what every pty master is: Documentation/admin-guide/devices.txt
_PTY_BYTES = 2 * BUFFER_BYTES  # more than a pty can hold: 64 KiB on its way, 4 KiB to be read
_STALLED_MS = 50
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO})  # EIO: a terminal hung up
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_WRITABLE = select.POLLOUT | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Relay:
    """One direction of copying for :func:`attend`, with a buffer of 64 KiB.

    At the end of the source the buffer is written out first. If the destination goes first
    (EPIPE, ECONNRESET, EIO) the direction is over and `broken` is True. Other errors, as of a
    full disk, come out of attend. EIO of the child's pty ends nothing while the child lives:
    it may open it again, and closing the master would kill it by SIGHUP as it ends.

    Args:
        is_input: feeds the child, so it is given up when the child has ended; the others
            are drained then.
        eof_byte: written at the end of the source: b"\\x04" for a pty master, which cannot be
            half closed. Twice after an unfinished line, as one would type it.
        close_src, close_dst: the descriptor is the relay's own, closed when the direction is
            over, at the latest at the end of attend; other relays that use it end then too.
            An output should own its source, else a child whose reader has gone waits for ever
            instead of getting SIGPIPE (or SIGHUP from its pty). One owner per descriptor.
    """

    __slots__ = ("src_fd", "dst_fd", "is_input", "broken", "finished", "stalled", "owned",
                 "_eof_byte", "_buffer", "_reading", "_left", "_line_open", "_own_fd", "_limit")

    def __init__(self, src_fd: int, dst_fd: int, *, is_input: bool = False,
                 eof_byte: bytes = b"", close_src: bool = False, close_dst: bool = False) -> None:
        self.src_fd, self.dst_fd, self.is_input = src_fd, dst_fd, is_input
        self.broken = self.finished = self._line_open = False
        self.stalled = 0  # POLLIN, POLLOUT: could not be done though poll(2) promised; try later
        self.owned = {fd for fd, own in ((src_fd, close_src), (dst_fd, close_dst)) if own}
        self._eof_byte, self._buffer, self._reading = eof_byte, bytearray(), True
        self._left: int | None = None  # bytes that may still be read, once the child has ended
        self._own_fd, self._limit = -1, 0

    def wants_to_read(self) -> bool:
        """Whether to poll the source: not before half the buffer is free, to read in big pieces."""
        return (self._reading and not self.stalled & select.POLLIN
                and len(self._buffer) <= BUFFER_BYTES // 2)

    def wants_to_write(self) -> bool:
        """Whether to poll the destination; asked for nothing, poll(2) would not wait."""
        return bool(self._buffer) and not self.stalled & select.POLLOUT

    def is_over(self) -> bool:
        """Whether nothing is left to copy, or nowhere to copy it to."""
        return self.broken or not (self._reading or self._buffer)

    def step(self, ready: dict[int, int]) -> None:
        """Copy what poll(2) found `ready`."""
        read, write = self.wants_to_read(), self.wants_to_write()
        if not ready:  # the pause is over; another direction's events must not shorten it
            self.stalled = 0
        if write and ready.get(self.dst_fd, 0) & _WRITABLE:
            self._write()
        if read and ready.get(self.src_fd, 0) & _READABLE:
            self._read()
        elif read and self._left is not None:  # the child has ended and left nothing more
            self._end_of_source()

    def _read(self) -> None:
        room = BUFFER_BYTES - len(self._buffer)
        try:
            data = os.read(self.src_fd, room if self._left is None else min(room, self._left))
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno == errno.EIO and not self.is_input and self._left is None:
                self.stalled |= select.POLLIN
                return
            if err.errno not in _GONE | {errno.EBADF}:  # a closed stdin is at its end
                raise
            data = b""
        self._buffer += data
        if data:
            self._line_open = data[-1:] not in b"\r\n"
        if self._left is not None:
            self._left -= len(data)
        if not data or self._left == 0:
            self._end_of_source()

    def _write(self) -> None:
        if not self._limit:
            self._own_fd, self._limit = _open_writer(self.dst_fd)
        try:
            fd = self.dst_fd if self._own_fd < 0 else self._own_fd
            del self._buffer[:os.write(fd, self._buffer[:self._limit])]
        except OSError as err:
            # EAGAIN: poll(2) saw less room than one character needs
            if err.errno == errno.EAGAIN or err.errno == errno.EIO and self.is_input:
                self.stalled |= select.POLLOUT
            elif err.errno in _GONE:
                self.broken = True
            else:
                raise

    def _end_of_source(self) -> None:
        self._reading = False
        self._buffer += self._eof_byte * (2 if self._line_open else 1)

    def child_ended(self) -> None:
        """Read only what is there now: a grandchild may keep the source open for ever."""
        if self._reading:
            self._left, self.stalled = _unread_bytes(self.src_fd), 0
            self._reading = self._left > 0

    def stop(self) -> None:
        """End the direction and close what the relay owns. Does nothing the second time."""
        if not self.finished:
            self.finished, self._reading = True, False
            self._buffer.clear()
            for fd in self.owned | ({self._own_fd} - {-1}):
                os.close(fd)


def attend(child_pidfd: int, relays: list[Relay], on_signal: Callable[[int], None],
           signals: frozenset[int], *, drain: bool = True) -> None:
    """Copy and take signals until the child has ended and its output has been written out.

    Not a byte of the child's own output is lost; what grandchildren write later is not waited
    for. A reader that does not read is waited for, and `on_signal` may raise to leave then.
    The relays are stopped and the old handlers are back, however this ends.

    Args:
        on_signal: gets the signals one after the other, in the order of their arrival. It runs
            between two steps, not in a handler, so it may do anything, as suspend_self. SIGCHLD
            tells of a stopped child (WSTOPPED), and comes once more for the end itself.
        signals: what to take; block them before the fork. They are unblocked in here only.
            One that is ignored (nohup) stays so. Only the main thread can take any.
        drain: False: leave at once when the child has ended.

    Raises:
        OSError: a source could not be read, or a destination not written (a full disk).
    """
    inbox = _Inbox(signals)
    try:
        inbox.open()
        _copy(child_pidfd, relays, inbox, on_signal, drain)
    finally:
        late = inbox.close()
        for relay in relays:
            _retire(relay, relays)
    for signum in late:
        on_signal(signum)


def _copy(child_pidfd: int, relays: list[Relay], inbox: _Inbox,
          on_signal: Callable[[int], None], drain: bool) -> None:
    waiting = {child_pidfd: select.POLLIN}
    while waiting or not all(relay.finished for relay in relays):
        ready = _poll(waiting | inbox.events, relays, ended=not waiting)
        if inbox.events.keys() & ready:
            for signum in inbox.read():
                on_signal(signum)
        for relay in relays:
            relay.step(ready)
            if waiting.keys() & ready:
                relay.child_ended()
            if relay.is_over():
                _retire(relay, relays)
        if waiting.keys() & ready:
            waiting = {}
            for relay in relays:
                if relay.is_input or not drain:
                    _retire(relay, relays)


def _poll(events: dict[int, int], relays: list[Relay], *, ended: bool) -> dict[int, int]:
    """Wait for one of `events` or a relay's; return {fd: what is so}. See poll(2)."""
    timeout_ms = None
    for relay in relays:
        if relay.wants_to_read():
            events[relay.src_fd] = events.get(relay.src_fd, 0) | select.POLLIN
            timeout_ms = 0 if ended else timeout_ms
        if relay.wants_to_write():
            events[relay.dst_fd] = events.get(relay.dst_fd, 0) | select.POLLOUT
        if relay.stalled and timeout_ms is None:
            timeout_ms = _STALLED_MS
    poller = select.poll()
    for fd, asked in events.items():
        poller.register(fd, asked)
    return dict(poller.poll(timeout_ms))


def _retire(relay: Relay, relays: list[Relay]) -> None:
    """Stop `relay`, and every other that uses a descriptor which that closes."""
    if relay.finished:
        return
    relay.stop()
    for other in relays:
        if relay.owned & {other.src_fd, other.dst_fd}:
            _retire(other, relays)


def _open_writer(fd: int) -> tuple[int, int]:
    """How to write to `fd` without blocking: (a descriptor of our own or -1, bytes a write)."""
    if not os.isatty(fd):
        return -1, select.PIPE_BUF
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
        return -1, BUFFER_BYTES
    try:
        if os.fstat(fd).st_rdev != _PTMX:  # to open a master again would make another pty
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{fd}", flags), BUFFER_BYTES
    except OSError:  # another user's terminal, as after su(1)
        pass
    return -1, 1


def _unread_bytes(fd: int) -> int:
    """How much can be in `fd` now, at most. A pty does not tell what is on its way."""
    if os.isatty(fd):
        return _PTY_BYTES
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return _PTY_BYTES


class _Inbox:
    """The signals of :func:`attend`, by way of a pipe of its own. See signal.set_wakeup_fd."""

    def __init__(self, signals: frozenset[int]) -> None:
        self.events: dict[int, int] = {}  # for poll(2)
        self._signals = signals
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._handlers: dict[int, Any] = {}
        self._read_fd = self._write_fd = self._old_wakeup_fd = -1

    def open(self) -> None:
        if not self._signals:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self.events = {self._read_fd: select.POLLIN}
        for signum in sorted(self._signals):
            if signal.getsignal(signum) != signal.SIG_IGN:
                self._handlers[signum] = signal.signal(signum, _note) or signal.SIG_DFL
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)

    def read(self) -> list[int]:
        """The signals that have come, in order; other people's handlers write here too."""
        try:
            came = os.read(self._read_fd, BUFFER_BYTES)
        except BlockingIOError:
            return []
        return [signum for signum in came if signum in self._signals]

    def close(self) -> list[int]:
        """Put handlers and mask back; return the signals that nobody has read."""
        late = []
        if self.events:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
            late = self.read()
            for signum, handler in self._handlers.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(self._old_wakeup_fd)
        for fd in {self._read_fd, self._write_fd} - {-1}:
            os.close(fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        return late


def _note(_signum: int, _frame: object) -> None:
    """A handler that does nothing: the interpreter has written the number to the pipe."""
