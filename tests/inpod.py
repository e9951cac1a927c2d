"""Words for tests that make pods in a fake host and look at them from outside and inside."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fakehost import FakeHost

FIVE = {"pid", "uts", "ipc", "net", "mnt"}
KINDS = (*sorted(FIVE), "user", "cgroup", "time")


@contextlib.contextmanager
def pod(host: FakeHost, name: str, *options: "str | Path") -> Iterator[int]:
    """A pod for the length of the block; its value is the PID that `create` printed."""
    done = host.nsbox("create", name, *options)
    assert done.returncode == 0, done.stderr
    try:
        yield int(done.stdout)
    finally:
        gone = host.nsbox("rm", "-f", name)
        assert gone.returncode == 0, gone.stderr


def inside(host: FakeHost, target: str, script: str, *options: "str | Path", status: int = 0) -> str:
    """What a shell script says that runs as a member; it must end with `status`."""
    done = host.nsbox("join", target, *options, "--", "sh", "-c", script)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    said: str = done.stdout
    return said.rstrip("\n")


def refused(host: FakeHost, *args: "str | Path", status: int = 125) -> str:
    """The one line with which nsbox refuses; at most a hint follows, and no pod is left."""
    done = host.nsbox(*args)
    lines: list[str] = done.stderr.splitlines()
    assert done.returncode == status and done.stdout == "", (done.returncode, done.stdout, lines)
    assert lines and lines[0].startswith("nsbox: cannot "), lines
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), lines
    pods = Path(f"/proc/{host.pid}/root{host.state}/pods")
    assert not pods.exists() or not os.listdir(pods), os.listdir(pods)
    return lines[0]


@contextlib.contextmanager
def detached(host: FakeHost, target: str, *options: "str | Path", argv: tuple[str, ...] = ("sleep", "300")) -> Iterator[int]:
    """A detached member; its PID in the fake host. It ends with its pod."""
    done = host.nsbox("join", target, "-d", *options, "--", *argv)
    assert done.returncode == 0, done.stderr
    yield int(done.stdout)


def namespaces(host: FakeHost, pid: int) -> dict[str, int]:
    """The inode numbers of the namespaces of a process of the fake host."""
    real = host.host_pid(pid)
    return {kind: os.stat(f"/proc/{real}/ns/{kind}").st_ino for kind in KINDS}


def differing(one: dict[str, int], other: dict[str, int]) -> set[str]:
    """The kinds in which two processes are in different namespaces."""
    return {kind for kind in KINDS if one[kind] != other[kind]}


def mount_table(host: FakeHost) -> list[str]:
    """The mounts of the fake host, without their ids."""
    lines = host.run(["cat", "/proc/1/mountinfo"], user=0, check=True).stdout.splitlines()
    return sorted(line.split(" ", 2)[2] for line in lines)


def with_python(root: Path) -> list[str]:
    """Options that bring this machine's Python into `root`, as python_path() says."""
    options = ["-v", "/usr:/usr:ro"]
    for name in ("lib", "lib32", "lib64", "libx32"):
        there = Path("/", name)
        if there.is_symlink():
            (root / name).symlink_to(os.readlink(there))
        elif there.is_dir():
            options += ["-v", f"/{name}:/{name}:ro"]
    if not sys.base_prefix.startswith("/usr"):
        options += ["-v", f"{sys.base_prefix}:{sys.base_prefix}:ro"]
    return options


def bind_script(options: list[str]) -> str:
    """Shell commands that do by hand what with_python()'s options do, below "$1"."""
    pairs = [word.split(":")[:2] for word in options if word != "-v"]
    return "".join(f'mkdir -p "$1{target}" && mount --rbind {source} "$1{target}" && ' for source, target in pairs)


def python_path() -> str:
    """The interpreter behind the virtual environment."""
    return os.path.realpath(sys.executable)


# ---- the racer ----

# Swaps two names, again and again, until it is told to end; then says how often.
_RACER = """
import ctypes, os, signal, sys
libc, ends = ctypes.CDLL(None, use_errno=True), []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
one, other = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])
swaps = 0
print("ready", flush=True)
while not ends:
    swaps += libc.renameat2(-100, one, -100, other, 2) == 0
print(swaps, flush=True)
"""


class Racer:
    """A process that swaps `one` and `other` with RENAME_EXCHANGE for the length of a block.

    Attributes:
        swaps: how often it did; known after the block.
    """

    def __init__(self, host: FakeHost, one: Path, other: Path) -> None:
        self._host, self._paths, self.swaps = host, (str(one), str(other)), 0

    def __enter__(self) -> "Racer":
        self._process = self._host.popen([sys.executable, "-I", "-c", _RACER, *self._paths], user=0)
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self.swaps = int(self._process.communicate(timeout=20)[0])
