"""One direction of a connection: bytes go from socket to socket through a pipe, not through Python.

    client ---> End(client) ==splice==> pipe ==splice==> End(pod) ---> member     one Stream
    client <--- End(client) <==splice== pipe <==splice== End(pod) <--- member     the other

See splice(2). A stream reads only when it holds nothing. When the receiver is slow it
holds what one read brought, and reads no more until that is gone: then the kernel's windows
fill, and the sender waits. The end of one direction is handed on by shutdown(2) while the
other one goes on; a reset is handed on as a reset.

Few pipes are enough, as a stream gives its pipe back whenever it holds nothing. When all are
held by slow receivers, the others copy through memory, COPY_BYTES each: so a connection never
costs more than its two descriptors, and nobody waits for somebody else's receiver.

Events are edge-triggered: `can_read` and `can_write` remember them until a call has said
EAGAIN.
"""

import fcntl
import os
import socket

PIPE_BYTES = 1 << 20
COPY_BYTES = 1 << 16
_TURNS = 4  # reads of one stream in one round: then the others have their turn
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

Pipe = tuple[int, int]


class Pipes:
    """The pipes of one proxy: up to `limit`, made when needed, then kept."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._free: list[Pipe] = []

    def take(self) -> Pipe | None:
        """A pipe that is empty, or None: all are in use."""
        if self._free:
            return self._free.pop()
        if not self._left:
            return None
        try:
            pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        self._left -= 1
        try:
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # a limit for ordinary users, see pipe(7): then it keeps its 64 KiB
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take back an empty pipe."""
        self._free.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a pipe that is not empty."""
        for fd in pipe:
            os.close(fd)
        self._left += 1


class End:
    """One of the two sockets of a connection."""

    __slots__ = ("sock", "fd", "can_read", "can_write")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.can_read = self.can_write = False


class Stream:
    """One direction. It holds bytes either in `pipe` (`held` of them) or in `copied`."""

    __slots__ = ("_source", "_target", "_pipes", "_pipe", "_held", "_copied", "done")

    def __init__(self, source: End, target: End, pipes: Pipes) -> None:
        self._source, self._target, self._pipes = source, target, pipes
        self._pipe: Pipe | None = None
        self._held = 0
        self._copied = b""
        self.done = False

    def pump(self, *, ends: bool = True) -> bool:
        """Move what can be moved now; return whether there may be more.

        Args:
            ends: hand the end of the source on. After a reset what looks like one is none.

        Raises:
            OSError: one of the two sides has gone away.
        """
        for _ in range(_TURNS):
            if not self._held and not self._take(ends):
                return False
            if self._held and not self._give():
                return False
        return True

    def _take(self, ends: bool) -> bool:
        if self.done or not self._source.can_read:
            return False
        pipe = self._pipe = self._pipes.take()
        try:
            if pipe is not None:
                self._held = os.splice(self._source.fd, pipe[1], PIPE_BYTES, flags=_SPLICE)
            else:
                self._copied = self._source.sock.recv(COPY_BYTES)
                self._held = len(self._copied)
        except BlockingIOError:
            self._source.can_read = False
            return False
        finally:
            if not self._held:
                self._release()
        if not self._held:
            self.done = True
            if ends:
                self._target.sock.shutdown(socket.SHUT_WR)
        return bool(self._held)

    def _give(self) -> bool:
        if not self._target.can_write:
            return False
        try:
            while self._held:
                if self._pipe is not None:
                    sent = os.splice(self._pipe[0], self._target.fd, self._held, flags=_SPLICE)
                else:
                    sent = self._target.sock.send(self._copied)
                    self._copied = self._copied[sent:]
                self._held -= sent
        except BlockingIOError:
            self._target.can_write = False
            return False
        self._release()
        return True

    def _release(self) -> None:
        if self._pipe is not None:
            self._pipes.give(self._pipe)
            self._pipe = None

    def discard(self) -> None:
        """Let go of what it holds."""
        if self._pipe is not None:
            (self._pipes.discard if self._held else self._pipes.give)(self._pipe)
        self._pipe, self._copied, self._held = None, b"", 0
