"""Every step of a command at which something can go wrong, and one fault at one of them, by strace.

A point is one system call of one of the command's processes. strace counts the calls of each
process by itself, so the tenth openat(2) of the pod's PID 1 cannot be told from the tenth of its
parent. So here a process that is meant makes so many failing calls of that kind at its birth that
the others never come as far. The command runs in a stub that has imported everything already:
what is counted are steps of nsbox, not of the start of an interpreter.
"""

import contextlib
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fakehost import FakeHost
from procfs import until

# All of them, as before a release; else a sample of the steps, spread over the whole command.
EVERY = os.environ.get("NSBOX_TESTS_EVERY_FAULT", "") not in ("", "0")

_STUB = """
import ctypes, fcntl, os, sys, encodings.ascii, json, shutil, errno, locale
from nsbox.linux import process, syscalls
from nsbox.cli import front, create, end, join
from nsbox.pod import create as _, lifecycle, attach, supervise, target
from nsbox.images import store
role, call, burn, words = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
fork, clone3, libc = os.fork, syscalls.clone3, ctypes.CDLL(None)
BURN = {
    "openat": lambda: os.open("x", 0, dir_fd=999), "read": lambda: os.read(999, 1),
    "write": lambda: os.write(999, b""), "close": lambda: os.close(999), "fsync": lambda: os.fsync(999),
    "mkdirat": lambda: os.mkdir("x", dir_fd=999), "fcntl": lambda: os.set_inheritable(999, True),
    "ioctl": lambda: fcntl.ioctl(999, 0), "prctl": lambda: libc.prctl(-1, 0, 0, 0, 0),
    "renameat": lambda: os.rename("x", "y", src_dir_fd=999, dst_dir_fd=999),
}
def born(who):
    if role == "count":
        os.access("/born/" + who, 0)
    elif role == who:
        for _ in range(burn):
            try:
                BURN[call]()
            except OSError:
                pass
def marked_fork():
    pid = fork()
    if pid == 0:
        born("middle")
    return pid
def marked_clone3(*args):
    pid = clone3(*args)
    if pid == 0:
        born("one")
    return pid
os.fork, syscalls.clone3 = marked_fork, marked_clone3
born("front")
sys.exit(front.run(words))
"""

# What cannot fail, or tells a process only about itself.
_DULL = frozenset("""
    lseek newfstatat fstat brk mmap munmap mremap rt_sigaction rt_sigprocmask rt_sigreturn getpid gettid
    getppid geteuid getuid getegid getgid umask futex exit exit_group set_robust_list uname access faccessat madvise
    rt_sigtimedwait getrandom exit_group prlimit64 sysinfo mprotect rseq
""".split())
_CALL = re.compile(r"(\d+) +(\w+)\(")


class Point(NamedTuple):
    """One step of a command.

    Attributes:
        role: of the process: "front" is the command itself, "middle" and "one" see create.py.
        nth: which of its calls, from its birth on.
        when: the same as strace counts it.
        burn: how many failing calls are made at birth.
    """

    role: str
    call: str
    nth: int
    when: int
    burn: int

    def __str__(self) -> str:
        return f"{self.call} {self.nth} of {self.role}"


class Strike(NamedTuple):
    """What came of a fault. `hit`: the command came to that point at all."""

    point: Point
    fault: str
    status: int
    stdout: str
    stderr: str
    hit: bool

    def __str__(self) -> str:
        said = f"{self.stdout}{self.stderr}".strip()
        return f"{self.fault} at {self.point}: status {self.status}: {said or 'silence'}"


def stub(role: str, call: str, burn: int, *words: str) -> list[str]:
    """The words of a command that runs nsbox in the stub."""
    return [sys.executable, "-P", "-c", _STUB, role, call, str(burn), *words]


def points(host: FakeHost, *words: str) -> list[Point]:
    """The steps of the command nsbox `words`, in the order in which they happen. It is run for that."""
    roles: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    before: Counter[tuple[str, str]] = Counter()
    steps = []
    status, _, err, log = strace(host, *stub("count", "-", 0, *words))
    assert status == 0, err
    for line in log.splitlines():
        if not (found := _CALL.match(line)):
            continue
        pid, call = found.groups()
        if mark := re.search(r'"/born/(\w+)"', line):
            roles[pid] = mark[1]
            before.update({(pid, name): n for (who, name), n in counts.items() if who == pid})
        elif pid in roles and call == "execveat":
            steps.append((pid, call, 1))
            del roles[pid]  # what comes now is another program
        else:
            counts[pid, call] += 1
            if pid in roles and call not in _DULL:
                steps.append((pid, call, counts[pid, call]))
    return _numbered(steps, {**roles, **_first_of(log)}, counts, before)


def _first_of(log: str) -> dict[str, str]:
    marks = re.findall(r'^(\d+) .*"/born/(\w+)"', log, re.MULTILINE)
    return dict(marks)


def _numbered(
    steps: list[tuple[str, str, int]], roles: dict[str, str],
    counts: Counter[tuple[str, str]], before: Counter[tuple[str, str]],
) -> list[Point]:
    found = []
    for pid, call, absolute in steps:
        nth = absolute - before[pid, call]
        others = max((n for (who, name), n in counts.items() if name == call and who != pid), default=0)
        burn = others + 10 if roles[pid] != "front" and others else 0
        found.append(Point(roles[pid], call, nth, absolute + burn, burn))
    return found


# As faults.strace, but options of strace may be given, and processes may vanish while it is looked.
_STRACE = 'out=$1; shift; exec strace -D -I 2 -f -qq -o "$out.log" "$@" >"$out.out" 2>"$out.err"'


def strace(host: FakeHost, *words: str) -> tuple[int, str, str, str]:
    """Run strace `words` inside; return exit status, stdout and stderr of the command, and the log."""
    top = host.scratch / "fault"
    paths = [Path(f"{top}.{name}") for name in ("out", "err", "log")]
    for path in paths:
        path.write_text("")
        path.chmod(0o666)
    done = host.run(["sh", "-c", _STRACE, "sh", str(top), *words], timeout=60)
    for _ in until(10):
        tracers = [pid for pid in host.processes().values() if _name(pid) == "strace"]
        for pid in tracers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not tracers:
            out, err, log = (path.read_text(errors="surrogateescape") for path in paths)
            return done.returncode, out, err, log
    raise AssertionError("strace does not let go")


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def sample(found: list[Point], about: int, offset: int = 0) -> list[Point]:
    """About so many of them, spread evenly; all if that is asked for by the environment."""
    return found if EVERY else found[offset :: max(1, len(found) // about)]


def strike(host: FakeHost, point: Point, fault: str, *words: str, twice: bool = False) -> Strike:
    """Run nsbox `words` with one fault at one point; `twice`: at the next call of the kind too."""
    when = f"{point.when}..{point.when + 1}" if twice else str(point.when)
    options = ["-e", f"trace={point.call}", "-e", f"inject={point.call}:{fault}:when={when}"]
    status, out, err, log = strace(host, *options, *stub(point.role, point.call, point.burn, *words))
    assert "KeyError" not in err, f"no way to burn {point.call}: {err}"
    hit = status < 0 or "(INJECTED)" in log or f"--- {fault.partition('=')[2]}" in log or "killed by" in log
    return Strike(point, fault, status, out, err, hit)
