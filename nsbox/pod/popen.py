"""A member as a Python program sees it: the interface of subprocess.Popen."""

import functools
import io
import os
import select
import subprocess
import threading
import time
from types import TracebackType
from typing import IO, Any, Callable

from ..linux import process
from .client import Answer

Redirect = int | IO[Any] | None


class Member:
    """A running member. Attributes and methods are those of subprocess.Popen.

    Attributes:
        pid: on the host.
        args: the command.
        stdin, stdout, stderr: our ends of the pipes asked for, else None.
        returncode: None while it runs; negative for a signal.
    """

    def __init__(self, args: list[bytes], answer: Answer, pipes: "Pipes") -> None:
        self.args = args
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = pipes.ours
        self._answer = answer
        message, fds = answer.first()
        self.pid: int = message["pid"]
        self._pidfd = fds[0]
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Member {self.pid} returncode={self.returncode}>"

    def poll(self) -> int | None:
        """The return code if the member has ended, else None."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the return code. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.returncode is not None:
            return self.returncode
        waiter = select.poll()
        waiter.register(self._answer.fileno(), select.POLLIN)
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not waiter.poll(left_ms):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        with self._lock:
            if self.returncode is None:
                self.returncode = self._answer.ended()
                self._answer.close()
                os.close(self._pidfd)
        return self.returncode

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
        """Write `input`, read stdout and stderr to their ends, wait. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        results: dict[str, Any] = {}
        threads = []
        if self.stdin is not None:
            threads.append(_thread(lambda: _feed(self.stdin, input)))
        for name in ("stdout", "stderr"):
            stream = getattr(self, name)
            if stream is not None:
                threads.append(_thread(functools.partial(_collect, stream, name, results)))
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return results.get("stdout"), results.get("stderr")

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


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _collect(stream: IO[Any], name: str, results: dict[str, Any]) -> None:
    results[name] = stream.read()


def _feed(stream: Any, data: Any) -> None:
    try:
        if data:
            stream.write(data)
        stream.close()
    except BrokenPipeError:
        pass  # it did not want to read all of it, as with subprocess


class Pipes:
    """The member's three descriptors and our ends of those that are pipes."""

    def __init__(self, redirects: tuple[Redirect, Redirect, Redirect], text: dict[str, Any] | None) -> None:
        self._close_after: list[int] = []
        self.ours: list[Any] = [None, None, None]
        self.theirs: list[int] = []
        for number, redirect in enumerate(redirects):
            self.theirs.append(self._one(number, redirect, text))

    def _one(self, number: int, redirect: Redirect, text: dict[str, Any] | None) -> int:
        if redirect is None:
            return number
        if redirect == subprocess.DEVNULL:
            return self._closed_later(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        if redirect == subprocess.STDOUT:
            return self.theirs[1]
        if redirect == subprocess.PIPE:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            inner, outer = (read_end, write_end) if number == 0 else (write_end, read_end)
            stream: Any = open(outer, "wb" if number == 0 else "rb")
            self.ours[number] = io.TextIOWrapper(stream, **text) if text is not None else stream
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
