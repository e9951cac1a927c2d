"""One tool in one fake host, ready to be asked: the root file system, the canary, the verdicts."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fakehost import FakeHost, HostPopen
from hostile import Canary, make_rootfs
from procfs import until
from rowtools import Box, Tool

TIMEOUT_S = 20.0
PROBE = "/bin/rowprobe"  # in the root
SOURCE = Path(__file__).with_name("rowprobe.c")


class Verdict(NamedTuple):
    """What a row says of a tool: "held", "open", "n/a" (there is nothing to ask) or "error"."""

    state: str
    evidence: str


def held(evidence: str) -> Verdict:
    return Verdict("held", evidence)


def is_open(evidence: str) -> Verdict:
    return Verdict("open", evidence)


def not_asked(reason: str) -> Verdict:
    return Verdict("n/a", reason)


def compiled(scratch: Path) -> Path:
    """The probe, linked statically. Raises CalledProcessError."""
    program = scratch / "rowprobe"
    subprocess.run(["gcc", "-static", "-O1", "-s", "-o", program, SOURCE], check=True)
    return program


class Lab:
    """A fake host, and a tool in it.

    Attributes:
        host: with /canary, with a process that nobody inside may reach, and, for OCI runtimes, prepared.
        tool: which one is asked.
        probe: the program of rowprobe.c, outside.
        port: at which the host's process listens, on 127.0.0.1.
    """

    def __init__(self, host: FakeHost, tool: Tool, canary: Canary, probe: Path, port: int) -> None:
        self.host, self.tool, self.canary, self.probe, self.port = host, tool, canary, probe, port
        self._seconds = random.randrange(10**6, 10**7)

    @contextlib.contextmanager
    def root(self) -> Iterator[Path]:
        """A root file system for one box, which belongs to whoever runs the tool."""
        path = make_rootfs(Path(tempfile.mkdtemp(prefix="root-", dir=self.host.scratch)))
        for name in ("tmp/deeper", "tmp/cgroup", "canary/dir"):
            (path / name).mkdir(parents=True)
        shutil.copy(self.probe, path / PROBE[1:])
        os.mknod(path / "tmp/null-node", 0o20666, os.makedev(1, 3))
        os.chmod(path / "tmp/null-node", 0o666)
        if self.tool.uid:
            subprocess.run(["chown", "-Rh", f"{self.tool.uid}:{self.tool.uid}", path], check=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def run(self, box: Box, before: tuple[str, ...] = (), **kw: Any) -> "subprocess.CompletedProcess[Any]":
        """Run it to its end; `before` are words before the command. Raises AssertionError if it does not end."""
        try:
            return self.host.run([*before, *self.tool.run(self.host, box)], timeout=kw.pop("timeout", TIMEOUT_S), **kw)
        except AssertionError:
            self.tool.end(self.host, box)
            raise

    @contextlib.contextmanager
    def running(self, box: Box, mark: str = "") -> Iterator[HostPopen]:
        """The tool's client while the command runs: from the moment it has written `mark` and a newline."""
        client = self.host.popen(self.tool.run(self.host, box))
        try:
            assert client.stdout is not None
            said = client.stdout.readline() if mark else ""
            if mark and said.strip() != mark:
                rest = client.communicate(timeout=TIMEOUT_S)
                raise AssertionError(f"it did not start: {said}{rest[0]}{rest[1]}")
            yield client
        finally:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
            self.tool.end(self.host, box)
            client.end()

    def sleeper(self, root: Path) -> Box:
        """A box whose command writes "up" and sleeps, by a command line that no other process has."""
        return Box(root, ["/bin/sh", "-c", f"echo up; exec sleep {self._seconds}"])

    @contextlib.contextmanager
    def asleep(self, box: Box) -> Iterator[HostPopen]:
        """The tool's client of such a box, once the command sleeps: it has written "up" a moment before its exec."""
        with self.running(box, "up") as client:
            assert any(self._sleepers() for _ in until(TIMEOUT_S)), "it wrote that it is up and does not sleep"
            yield client

    def _sleepers(self) -> list[int]:
        want = f"sleep\0{self._seconds}\0".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if cmdline(pid) == want]

    def sleeping(self, *, within: float) -> list[int]:
        """The PIDs on the real host of the sleeper's command, once `within` seconds are over; none as soon as it is gone."""
        found: list[int] = []
        for _ in until(within, pause=0.05):
            found = self._sleepers()
            if not found:
                break
        return found

    def kill(self, pids: list[int]) -> None:
        """End processes of this fake host."""
        for pid in {*pids} & {*self.host.processes().values()} if pids else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def cmdline(pid: int) -> bytes:
    """What /proc says; b"" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def said(done: "subprocess.CompletedProcess[Any]") -> str:
    """The first line of what a command says of its failure."""
    lines = [line for line in str(done.stderr or done.stdout).splitlines() if line.strip()]
    return short(lines[0]) if lines else f"status {done.returncode}"


def short(text: str, most: int = 110) -> str:
    """One line of a table."""
    text = " ".join(text.split()).replace("|", "/").replace("`", "'")
    if "msg=" in text:  # runc logs in fields
        text = text.partition("msg=")[2].strip('"').replace('\\"', "'")
    return text if len(text) <= most else text[: most - 1] + "…"
