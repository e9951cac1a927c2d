"""Small things that the fixtures read from /proc or do by path; no namespaces here."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent  # the checkout


def make_dir(base: Path) -> str:
    """A new directory below `base`, with a name of its own, open to all."""
    path = tempfile.mkdtemp(prefix="h", dir=base)
    os.chmod(path, 0o755)
    return path


def until(timeout: float, *, pause: float = 0.01) -> Iterator[float]:
    """Go round at once, then after each pause (s), until `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    yield timeout
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(pause)
        yield left


class Stopwatch:
    """The time since it was made, and what of that the machine could give: for tests of "within a second".

    A machine on which other programs wait for a processor is late without anybody's fault.
    """

    def __init__(self) -> None:
        self._start_s, self._waited_s = time.monotonic(), self._stalled_s()

    @staticmethod
    def _stalled_s() -> float:
        """How long some task was kept waiting for a processor since the boot; see PSI in the kernel's manual."""
        return int(_read("/proc/pressure/cpu").partition(b"total=")[2].partition(b"\n")[0] or 0) / 1e6

    def quiet_s(self) -> float:
        """The seconds in which nobody waited for a processor."""
        return time.monotonic() - self._start_s - (self._stalled_s() - self._waited_s)

    def s(self) -> float:
        """All seconds."""
        return time.monotonic() - self._start_s


def children(pid: int) -> list[int]:
    """The child processes of `pid`'s first thread; none if it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def nspid(pid: int | str) -> list[int]:
    """The PIDs of one process, from the outermost namespace to its own; none if it is gone."""
    line = _read(f"/proc/{pid}/status").partition(b"\nNSpid:")[2].partition(b"\n")[0]
    return [int(word) for word in line.split()]


def comm(pid: int | str) -> str:
    """The name of a process; "" if it is gone."""
    return os.fsdecode(_read(f"/proc/{pid}/comm").removesuffix(b"\n"))


def cmdline(pid: int | str) -> bytes:
    """The words of a process, each with a NUL after it; b"" if it is gone, or a zombie."""
    return _read(f"/proc/{pid}/cmdline")


def state(pid: int | str) -> str:
    """The letter of its state, as in ps(1); "" if it is gone."""
    return os.fsdecode(_read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1])


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def identity(directory: str | Path) -> tuple[str, ...] | None:
    """Name, start time and namespaces of the process whose /proc directory it is; None if it is gone.

    Two fake hosts made at once have processes of equal numbers, names and start times.
    """
    name, closing, fields = _read(f"{directory}/stat").rpartition(b")")
    if not closing:
        return None
    found = [os.fsdecode(name.partition(b"(")[2]), os.fsdecode(fields.split()[19])]
    for kind in ("pid", "mnt", "user"):
        with contextlib.suppress(OSError):  # a zombie has none left but for its user namespace
            found.append(os.readlink(f"{directory}/ns/{kind}"))
    return tuple(found)


def closed_dirs() -> list[tuple[Path, Path]]:
    """Directories an ordinary user needs but cannot reach, each with what closes it, (wall, dir)."""
    found: dict[Path, Path] = {}
    for need in (TOP, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent):
        for wall in reversed(need.parents):
            if not wall.stat().st_mode & 0o001:
                if wall in found and need.is_relative_to(found[wall]):
                    break
                found[wall] = need
                break
    return list(found.items())
