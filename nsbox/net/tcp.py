"""Published TCP ports: taking clients, connecting each to the member, handing ends and resets on.

A connection costs its two descriptors, and no more (stream.py). When there are none left, the
listener takes no more clients until something has been closed: they wait in its backlog.
"""

import errno
import socket
import struct
from typing import Callable

from . import podside
from .listen import Listening
from .loop import EDGES, IN, READABLE, WRITABLE, Loop
from .stream import End, Pipes, Stream

_ACCEPTS = 64  # clients taken in one round
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger, see socket(7)
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connection:
    """A client, and from when the pod has answered the socket to the member."""

    __slots__ = ("_loop", "_pipes", "_client", "_pod", "_streams", "_pod_port", "_targets",
                 "_over", "_waits", "open")  # fmt: skip

    def __init__(
        self, loop: Loop, pipes: Pipes, client: socket.socket, pod_port: int,
        over: "Callable[[Connection], None]",
    ) -> None:  # fmt: skip
        self._loop, self._pipes, self._pod_port, self._over = loop, pipes, pod_port, over
        self._client = End(client)
        self._pod: End | None = None
        self._streams: tuple[Stream, ...] = ()
        self._targets = iter(podside.targets(client.family))
        self._waits = False  # for its next turn
        self.open = True

    def connect(self) -> None:
        """Try the next targets until one answers or is about to; else reset the client."""
        for target in self._targets:
            try:
                sock, answered = podside.connect(target, self._pod_port)
            except OSError:
                continue
            self._pod = End(sock)
            self._loop.add(self._pod.fd, EDGES, self._pod_ready, self.reset)
            if answered:
                self._begin()
            return
        self.reset()

    def _begin(self) -> None:
        pod, client = self._pod, self._client
        assert pod is not None
        for end in (pod, client):
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Before streams: the round that brings the client's events then finds them.
        self._streams = (Stream(client, pod, self._pipes), Stream(pod, client, self._pipes))
        self._loop.add(client.fd, EDGES, self._client_ready, self.reset)

    def _pod_ready(self, events: int) -> None:
        pod = self._pod
        assert pod is not None
        if not self._streams:
            code = pod.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code or podside.is_itself(pod.sock, self._pod_port):
                self._loop.close(pod.sock)
                self._loop.room -= 1  # for the next one
                self._pod = None
                return self.connect()
            self._begin()
        self._ready(pod, events)

    def _client_ready(self, events: int) -> None:
        self._ready(self._client, events)

    def _ready(self, end: End, events: int) -> None:
        end.can_read = end.can_read or bool(events & READABLE)
        end.can_write = end.can_write or bool(events & WRITABLE)
        self._move()
        if self.open and events & WRITABLE & READABLE:  # EPOLLERR or EPOLLHUP
            if end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.reset()

    def _move(self) -> None:
        try:
            more = [stream.pump() for stream in self._streams if not stream.done]
        except OSError:
            self._last_words()
            return self.reset()
        if not any(not stream.done for stream in self._streams):
            self._close()
        elif any(more) and not self._waits:
            self._waits = True
            self._loop.soon(self._next_turn, self.reset)

    def _next_turn(self) -> None:
        self._waits = False
        if self.open:
            self._move()

    def _last_words(self) -> None:
        """What had arrived before a side went away still reaches the other one."""
        for stream in self._streams:
            try:
                stream.pump(ends=False)
            except OSError:
                continue

    def reset(self) -> None:
        """End it at once: both sides get a reset."""
        for end in (self._client, self._pod):
            if end is not None and self.open:
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        if not self.open:
            return
        self.open = False
        for stream in self._streams:
            stream.discard()
        self._loop.close(self._client.sock)
        if self._pod is not None:
            self._loop.close(self._pod.sock)
        else:
            self._loop.room += 1
        self._over(self)


class TcpListener:
    """Takes the clients of one published port."""

    def __init__(self, loop: Loop, pipes: Pipes, listening: Listening) -> None:
        self.forward, self._sock = listening
        self._loop, self._pipes = loop, pipes
        self._connections: set[Connection] = set()
        self._listens = True
        loop.add(self._sock.fileno(), IN, self._ready, self._pause)

    @property
    def count(self) -> int:
        """How many clients it has."""
        return len(self._connections)

    def _ready(self, _events: int) -> None:
        for _ in range(_ACCEPTS):
            if self._loop.room < 2:
                return self._pause()
            try:
                client = self._sock.accept()[0]
            except BlockingIOError:
                return
            except OSError as err:
                if err.errno in _NO_DESCRIPTORS:
                    return self._pause()
                continue  # the client has gone already; see accept(2)
            client.setblocking(False)
            self._loop.room -= 2
            connection = Connection(
                self._loop, self._pipes, client, self.forward.pod_port, self._connections.discard
            )
            self._connections.add(connection)
            self._loop.attempt(connection.reset, connection.connect)

    def _pause(self) -> None:
        if self._listens:
            self._loop.change(self._sock.fileno(), 0)
            self._loop.starve(self)

    def resume(self) -> None:
        """Take clients again, unless the port has been closed."""
        if self._listens:
            self._loop.change(self._sock.fileno(), IN)

    def stop(self) -> None:
        """Close the port at once; the clients that are there stay."""
        if self._listens:
            self._listens = False
            self._loop.close(self._sock)
            self._loop.room -= 1  # it never counted

    def close(self) -> None:
        """Close the port, and reset its clients."""
        self.stop()
        for connection in list(self._connections):
            connection.reset()
