"""A terminal in which a test types, and the nsbox client that runs on it in a fake host."""

import fcntl
import os
import select
import signal
import struct
import termios
import time
import tty
from collections.abc import Sequence
from pathlib import Path

from fakehost import NSBOX, FakeHost, HostPopen
from procfs import until

DEADLINE_S = 20.0


def state(pid: int) -> str:
    """The state letter of a process of the real host, "" if it has gone. See proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Terminal:
    """A pty of the test run, with a command of a fake host as its session leader.

    Attributes:
        master, slave: both ends; the slave stays open here, so settings can be read to the end.
        said: all that has been shown so far.
        client: the command, once started.
    """

    def __init__(self, host: FakeHost, rows: int = 24, columns: int = 80) -> None:
        self._host = host
        self.master, self.slave = os.openpty()
        os.set_inheritable(self.slave, False)
        self.said = b""
        self.client: HostPopen | None = None
        self.resize(rows, columns)
        self.before = self.settings()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.hang_up()
        if self.client is not None:
            self.client.end()

    def hang_up(self) -> None:
        """What closing the window does; may be called twice."""
        for fd in {self.master, self.slave} - {-1}:
            os.close(fd)
        self.master = self.slave = -1

    def nsbox(self, *args: "str | Path", **kw: object) -> "Terminal":
        """Start nsbox on the terminal."""
        return self.start([*NSBOX, *args], **kw)

    def start(self, argv: Sequence[object], **kw: object) -> "Terminal":
        """Start a command on the terminal, as the foreground of a session of its own.

        With another stdin it is only in a session of its own.
        """
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        self.client = self._host.popen(["setsid", *([] if "stdin" in kw else ["--ctty"]), *argv], text=False, **{**streams, **kw})
        return self

    # ---- typing and reading ----

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_some(self, timeout: float) -> bool:
        """Take what is there, waiting for it; False if nothing comes."""
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        self.said += os.read(self.master, 1 << 16)
        return True

    def expect(self, text: str) -> bytes:
        """Read until `text` was shown, and forget all up to there; returns what stood before it."""
        deadline = time.monotonic() + DEADLINE_S
        while text.encode() not in self.said:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was not shown, but {self.said!r}"
            self.read_some(left)
        before, _, self.said = self.said.partition(text.encode())
        return before

    def ends_with(self) -> int:
        """The client's exit status; what it shows until then is in `said`."""
        for _ in until(DEADLINE_S, pause=0.005):
            while self.read_some(0):
                pass
            if self.client.poll() is not None:
                while self.read_some(0):
                    pass
                return int(self.client.returncode)
        raise AssertionError(f"the client does not end; it has shown {self.said!r}")

    # ---- the terminal itself ----

    def settings(self) -> list[object]:
        """As stty -g: all modes and characters. See termios(3)."""
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not self.settings()[3] & termios.ICANON  # type: ignore[operator]

    def make_raw(self) -> None:
        """Let all bytes through as they are."""
        tty.setraw(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def state(self) -> str:
        """The state letter of the client. See proc_pid_stat(5)."""
        return state(self.client.inner_pid())

    def resume(self) -> None:
        """Continue a stopped client, as a shell does. nsenter stops with it, and must go on first."""
        assert any(state(self.client.pid) == "T" for _ in until(DEADLINE_S))
        os.kill(self.client.pid, signal.SIGCONT)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the client alone."""
        self.client.send_signal(signum)
