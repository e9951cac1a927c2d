"""What a hostile rootfs offers: links where directories should be, traps for a careless tool; a canary."""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakehost import FakeHost

# ---- root file systems ----

DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "var")


def make_rootfs(path: Path) -> Path:
    """Fill `path` with a small root file system: static busybox and what it can do. Returns it."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.fail("needs busybox: apt-get install busybox-static")
    for name in DIRECTORIES:
        (path / name).mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    (path / "tmp").chmod(0o1777)
    shutil.copy(busybox, path / "bin/busybox")
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
    return path


def replace(path: Path, link_to: str) -> None:
    """Put a symbolic link where a directory or file was."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    path.symlink_to(link_to)


def _special(path: Path, kind: int, major: int = 0, minor: int = 0) -> None:
    path.unlink(missing_ok=True)
    os.mknod(path, kind | 0o644, os.makedev(major, minor))


# One hostile feature each; given the root file system.
FEATURES: dict[str, Callable[[Path], None]] = {
    "proc is a link": lambda root: replace(root / "proc", "/bad"),
    "sys is a link": lambda root: replace(root / "sys", "/bad"),
    "dev is a link to the host": lambda root: replace(root / "dev", "/canary"),
    "dev is a link upwards": lambda root: replace(root / "dev", "../../canary"),
    "proc is a file": lambda root: (root / "proc").rmdir() or (root / "proc").write_text("") and None,
    "hosts is a link": lambda root: replace(root / "etc/hosts", "../../../canary/hosts"),
    "passwd is a link": lambda root: replace(root / "etc/passwd", "/canary/marker"),
    "passwd is a pipe": lambda root: _special(root / "etc/passwd", stat.S_IFIFO),
    "passwd is a device": lambda root: _special(root / "etc/passwd", stat.S_IFCHR, 1, 5),
    "passwd is huge": lambda root: os.truncate(root / "etc/passwd", 100 << 30),
    "passwd is a loop": lambda root: replace(root / "etc/passwd", "passwd"),
}


def hostile_rootfs(path: Path, feature: str) -> Path:
    """A small root file system in `path` with one feature of FEATURES. Returns it."""
    root = make_rootfs(path)
    FEATURES[feature](root)
    return root


PWNED = "PWNED"
_PROGRAMS = ("ps", "ip", "tar", "nsenter", "mount", "umount", "newuidmap", "newgidmap", "python3", "python",
             "sh", "ldconfig", "gcc")
_MODULES = ("os", "re", "json", "errno", "struct", "signal", "colorsys", "ctypes", "encodings/utf_8",
            "encodings/idna", "sitecustomize", "usercustomize", "nsbox/__init__", "prctl", "pwd", "grp")


def poison(root: Path) -> None:
    """Put traps wherever a tool that is careless after entering `root` would load from.

    A trap that goes off makes the file /PWNED of that root: see `pwned`. Programs that the root
    has already are left alone, since members run them.
    """
    for name in (*os.environ["PATH"].split(":"), "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin"):
        for program in _PROGRAMS:
            _trap(root / name.lstrip("/") / program, f"#!/bin/busybox sh\n: > /{PWNED}\n")
    code = f"open('/{PWNED}', 'w').close()\n"
    prefixes = (sys.prefix, sys.base_prefix, *filter(None, sys.path))
    for directory in (*prefixes, *(f"{sys.base_prefix}/lib/python3.{sys.version_info[1]}",)):
        for module in _MODULES:
            _trap(root / directory.lstrip("/") / f"{module}.py", code)
    for name in ("lib/x86_64-linux-gnu/libnss_files.so.2", "lib/x86_64-linux-gnu/libc.so.6",
                 "usr/lib/x86_64-linux-gnu/gconv/gconv-modules", "etc/ld.so.preload"):
        _trap(root / name, f"/tmp/{PWNED}.so\n")
    _trap(root / "etc/nsswitch.conf", "passwd: pwned\ngroup: pwned\nhosts: pwned\n")


def _trap(path: Path, content: str) -> None:
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x") as file:
            file.write(content)
        path.chmod(0o755)


def pwned(*roots: Path) -> list[str]:
    """The traps that went off, in these directories and on the host."""
    return [str(top / PWNED) for top in (*roots, Path("/")) if (top / PWNED).exists()]


# ---- the canary ----

def _hold_directory(path: str) -> int:
    """A descriptor of this directory, made if missing, with a shared lock on it."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
            os.close(fd)  # the one before removed it just now


class Canary:
    """The tree /canary in a fake host, on a file system of its own. Nothing may touch it.

    The empty directory below is the machine's, and test runs side by side share it. Each holds a
    lock on it: to remove it would take the others' mounts away.
    """

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self._place_fd = _hold_directory("/canary")
        self._sh("mount -t tmpfs -o mode=755 canary /canary && cd /canary && mkdir dir && "
                 "echo canary-secret > marker && echo 127.0.0.1 host > hosts && : > ptmx && "
                 "mknod null c 1 3 && : > dir/file")
        self.mark()

    def _sh(self, script: str) -> str:
        done: str = self._host.run(["sh", "-c", script], user=0, check=True).stdout
        return done

    def hash(self) -> str:
        """A digest of every name, type, owner, size, time and link in it."""
        return self._sh("find /canary -printf '%p %y %i %m %u %s %T@ %l\\n' | sort | sha256sum")

    def mark(self) -> None:
        """What is in it now is what it shall hold: a test changed it."""
        self._at_birth = self.hash()

    def check(self) -> None:
        """Fail if anything in it was changed or has been mounted on."""
        assert self.hash() == self._at_birth, self._sh("ls -lR /canary")
        below = [line for line in self._sh("cat /proc/self/mountinfo").splitlines() if " /canary/" in line]
        assert not below, below

    def close(self) -> None:
        self._sh("umount /canary")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._place_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rmdir("/canary")
        os.close(self._place_fd)

    @classmethod
    def watched(cls, host: FakeHost) -> Iterator["Canary"]:
        """For a fixture: make it, hand it out, check it, take it away."""
        canary = cls(host)
        try:
            yield canary
            canary.check()
        finally:
            canary.close()
