"""Writing to a program and reading what it says at the same time, without a thread."""

import os
import select
import time
from typing import IO, Any, Sequence

_READ_BYTES = 1 << 16


class Talk:
    """One conversation over the pipes of a program; it goes on where a timeout broke it off."""

    def __init__(self) -> None:
        self._left: memoryview | None = None
        self._said: dict[int, bytearray] = {}

    def go(self, streams: Sequence[IO[Any] | None], data: Any, deadline: float | None) -> bool:
        """Write `data` to streams[0] and read the others to their ends; False if that took too long.

        Args:
            deadline: by time.monotonic(), or None.
        """
        stdin = streams[0]
        if stdin is not None and not stdin.closed and self._left is None:
            self._begin(stdin, data)
        poll, open_streams = select.poll(), {}
        for stream in streams:
            if stream is not None and not stream.closed:
                open_streams[stream.fileno()] = stream
                poll.register(stream, select.POLLOUT if stream is stdin else select.POLLIN)
        while open_streams:
            left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = poll.poll(left_ms)
            if not ready:
                return False
            for fd, _ in ready:
                stream = open_streams[fd]
                if self._write(fd) if stream is stdin else self._read(stream, fd):
                    continue
                poll.unregister(fd)
                del open_streams[fd]
                _close(stream)
        return True

    def _begin(self, stdin: IO[Any], data: Any) -> None:
        try:
            stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; poll tells the same
        if isinstance(data, str):
            data = data.encode(stdin.encoding, stdin.errors or "strict")  # type: ignore[attr-defined]
        self._left = memoryview(data or b"").cast("B")

    def _write(self, fd: int) -> bool:
        """Write a part; False if all is written, or if nobody reads it, which is no error."""
        assert self._left is not None
        try:
            if self._left:
                # So much fits without blocking when poll says that there is room: pipe(7).
                self._left = self._left[os.write(fd, self._left[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            self._left = memoryview(b"")
        return bool(self._left)

    def _read(self, stream: IO[Any], fd: int) -> bool:
        data = os.read(fd, _READ_BYTES)
        self._said.setdefault(id(stream), bytearray()).extend(data)
        return bool(data)

    def said(self, stream: IO[Any] | None, *, raw: bool = False) -> Any:
        """What was read from `stream`, decoded if it is a text stream; None if there is no stream.

        Args:
            raw: as bytes, and None for nothing: the form that TimeoutExpired has.
        """
        if stream is None:
            return None
        data = bytes(self._said.get(id(stream), b""))
        if raw:
            return data or None
        encoding = getattr(stream, "encoding", None)
        if encoding is None:
            return data
        text = data.decode(encoding, getattr(stream, "errors", None) or "strict")
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _close(stream: IO[Any]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass  # bytes that were buffered: it did not want to read all, as with subprocess
