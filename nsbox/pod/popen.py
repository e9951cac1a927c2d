"""A member as a Python program sees it: the interface of subprocess.Popen."""

import io
import os
import select
import subprocess
import threading
import time
from types import TracebackType
from typing import IO, Any

from ..linux import process
from . import wire
from .client import Answer
from .talk import Talk

Redirect = int | IO[Any] | None


class Member:
    """A running member. Attributes and methods are those of subprocess.Popen.

    Attributes:
        pid: on the host.
        args: the command.
        stdin, stdout, stderr: our ends of the pipes asked for, else None.
        returncode: None while it runs; negative for a signal.
    """

    def __init__(self, args: Any, answer: Answer, pipes: "Pipes") -> None:
        self.args = args
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = pipes.ours
        self._answer = answer
        self._lock = threading.Lock()
        self._talk = Talk()
        self._pidfd = -1
        message, fds = answer.first()
        self.pid: int = message["pid"]
        self._pidfd = fds[0]

    def __del__(self) -> None:
        self._answer.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def __repr__(self) -> str:
        return f"<Member {self.pid} returncode={self.returncode}>"

    def poll(self) -> int | None:
        """The return code if the member has ended, else None."""
        return self.returncode if self._ends_within(0.0) else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the return code. Raises subprocess.TimeoutExpired."""
        if not self._ends_within(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def _ends_within(self, timeout: float | None) -> bool:
        with self._lock:
            if self.returncode is not None:
                return True
            fd = os.dup(self._answer.fileno())  # another thread may close the original meanwhile
        try:
            waiter = select.poll()
            waiter.register(fd, select.POLLIN)
            if not waiter.poll(None if timeout is None else max(0.0, timeout) * 1000):
                return False
        finally:
            os.close(fd)
        with self._lock:
            if self.returncode is None:
                self.returncode = self._answer.ended()
                self._answer.close()
                os.close(self._pidfd)
                self._pidfd = -1
        return True

    def send_signal(self, signum: int) -> None:
        """Send a signal to exactly this member; nothing happens if it has ended."""
        with self._lock:
            if self.returncode is None:
                process.send_signal(self._pidfd, signum)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(15)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(9)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Write `input`, read stdout and stderr to their ends, wait. Raises subprocess.TimeoutExpired.

        After that error it may be called again, without `input`: nothing is lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._talk.go((self.stdin, self.stdout, self.stderr), input, deadline):
            said = (self._talk.said(stream, raw=True) for stream in (self.stdout, self.stderr))
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, *said)
        try:
            self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            said = (self._talk.said(stream, raw=True) for stream in (self.stdout, self.stderr))
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, *said) from None
        return self._talk.said(self.stdout), self._talk.said(self.stderr)

    def __enter__(self) -> "Member":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        self.wait()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Pipes:
    """The member's three descriptors and our ends of those that are pipes."""

    def __init__(self, redirects: tuple[Redirect, Redirect, Redirect], text: dict[str, Any] | None) -> None:
        self._close_after: list[int] = []
        self.ours: list[Any] = [None, None, None]
        self.theirs: list[int] = []
        for number, redirect in enumerate(redirects):
            self.theirs.append(self._one(number, redirect, text))

    def _one(self, number: int, redirect: Redirect, text: dict[str, Any] | None) -> int:
        if redirect == subprocess.DEVNULL or redirect is None and not _is_open(number):
            return self._closed_later(wire.above_stdio(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)))
        if redirect is None:
            return number
        if redirect == subprocess.STDOUT:
            if number != 2:
                raise ValueError("STDOUT can only be used for stderr")
            return self.theirs[1]
        if redirect == subprocess.PIPE:
            read_end, write_end = (wire.above_stdio(fd) for fd in os.pipe2(os.O_CLOEXEC))
            inner, outer = (read_end, write_end) if number == 0 else (write_end, read_end)
            stream: Any = open(outer, "wb" if number == 0 else "rb")
            if text is not None:
                stream = io.TextIOWrapper(stream, write_through=number == 0, **text)
            self.ours[number] = stream
            return self._closed_later(inner)
        return redirect if isinstance(redirect, int) else redirect.fileno()

    def _closed_later(self, fd: int) -> int:
        self._close_after.append(fd)
        return fd

    def close_theirs(self) -> None:
        """Close the member's ends here, once it has them."""
        for fd in self._close_after:
            os.close(fd)
        self._close_after.clear()

    def close(self) -> None:
        """Close everything: the member could not be started."""
        self.close_theirs()
        for stream in self.ours:
            if stream is not None:
                stream.close()
