"""One thread that waits for all sockets of a proxy at once. See epoll(7).

A handler is a function that gets the events of one descriptor. Descriptors are closed only
at the end of a round: else a number could be given out again while events for its former
owner are still waiting in the same round.

Whatever goes wrong with one client, foreseen or not, is the end of that client alone: who waits
for a descriptor says how it is given up, and a handler that raises is given up by that.
"""

import select
import socket
import time
from typing import Callable, Protocol

IN, OUT = select.EPOLLIN, select.EPOLLOUT
READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

Handler = Callable[[int], object]
GiveUp = Callable[[], object]
_RETRY_S = 1.0  # when the whole machine is short of descriptors, nothing tells when that ends


class Waiting(Protocol):
    """A listener that takes no more clients until there is room."""

    def resume(self) -> None:
        """Take clients again."""


class Loop:
    """Waits, and calls the handlers.

    Attributes:
        now_s: time.monotonic() at the start of the round.
        room: how many more sockets may be opened.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.now_s = time.monotonic()
        self._epoll = select.epoll()
        self._handlers: dict[int, tuple[Handler, GiveUp]] = {}
        self._ready: list[tuple[Callable[[], object], GiveUp]] = []
        self._closing: list[socket.socket] = []
        self._starved: list[Waiting] = []

    @property
    def room_soon(self) -> int:
        """The room that there is at the end of this round."""
        return self.room + len(self._closing)

    def add(self, fd: int, events: int, handler: Handler, give_up: GiveUp) -> None:
        """Call `handler` on `events` of `fd`; if it raises, `give_up`, which must not raise.

        Raises:
            OSError: the kernel takes no more, see epoll_ctl(2).
        """
        self._epoll.register(fd, events)
        self._handlers[fd] = handler, give_up

    def attempt(self, give_up: GiveUp, action: Callable[..., object], *args: object) -> None:
        """Do `action`; if it raises, `give_up`."""
        try:
            action(*args)
        except Exception:
            give_up()

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of `fd`."""
        self._epoll.modify(fd, events)

    def close(self, sock: socket.socket) -> None:
        """Forget a socket that counted as room; it is closed when this round is over."""
        self._handlers.pop(sock.fileno(), None)
        self._closing.append(sock)

    def forget(self, fd: int) -> None:
        """Wait for `fd` no more; it stays open."""
        self._handlers.pop(fd, None)
        self._epoll.unregister(fd)

    def soon(self, action: Callable[[], object], give_up: GiveUp) -> None:
        """Do `action` in the next round, after the others have had their turn; see :meth:`add`."""
        self._ready.append((action, give_up))

    def starve(self, listener: Waiting) -> None:
        """Resume `listener` when something has been closed."""
        if listener not in self._starved:
            self._starved.append(listener)

    def round(self, timeout_s: float | None) -> None:
        """Wait up to `timeout_s` (None: for ever), then call the handlers once."""
        if self._ready or self._closing:  # there is something to do or to close already
            timeout_s = 0.0
        elif self._starved:
            timeout_s = _RETRY_S if timeout_s is None else min(timeout_s, _RETRY_S)
        ready, self._ready = self._ready, []
        events = self._epoll.poll(timeout_s)
        self.now_s = time.monotonic()
        for fd, mask in events:
            found = self._handlers.get(fd)
            if found is not None:
                self.attempt(found[1], found[0], mask)
        for action, give_up in ready:
            self.attempt(give_up, action)
        self._end_of_round(idle=not events and not ready)

    def _end_of_round(self, idle: bool) -> None:
        closed = bool(self._closing)
        for sock in self._closing:
            sock.close()
        self.room += len(self._closing)
        self._closing.clear()
        if self._starved and (closed or idle):
            starved, self._starved = self._starved, []
            for listener in starved:
                listener.resume()
