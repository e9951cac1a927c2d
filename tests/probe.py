"""Says, as JSON, what there is in a fake host. Started once a test run by FakeHost.snapshot, and kept.

A line on stdin is a PID and the state directory of its fake host. Each kind of thing is a sorted list of
lines without anything that changes by itself (times, mount ids); a string in its stead says what failed.
Each look is a child that enters the namespaces: an interpreter started anew would cost most of the time.
Started with -I -S, so: the standard library alone.
"""

import contextlib
import ctypes
import glob
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator

# What nsbox makes at its first use and keeps: an empty shelf for the pods, one for the networks, and
# in that the number in the names of its firewall's tables, when nothing is noted beside it.
KEPT = {"pods", "nsbox", "nsbox/pods", "nets", "nsbox/nets"}
SCOPE, SETTLED = "nets/scope.json", '"forward_before": ""'
IP = "link\naddr\nroute show table all\nrule\n"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "mqueue", "pts")
SYSCTLS = ("net/ipv4/ip_forward", "net/ipv[46]/conf/*/forwarding", "net/ipv4/conf/*/accept_redirects",
           "net/ipv4/conf/*/route_localnet", "net/ipv6/conf/*/accept_ra", "kernel/hostname", "kernel/domainname")


def text(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def processes() -> Iterator[tuple[str, str]]:
    """PID and description of each process but this one."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = text(f"/proc/{pid}/stat").rpartition(")")
        if int(pid) == os.getpid() or not fields[2]:
            continue
        state, parent = fields[2].split()[:2]
        words = text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()[:200]
        state = "zombie " if state == "Z" else ""
        yield pid, f"{state}{pid} child of {parent}: {fields[0].partition('(')[2]} {words!r}"


def namespaces(pids: list[str]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, or is a zombie
            for kind in os.listdir(f"/proc/{pid}/ns"):
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def files(top: str) -> Iterator[str]:
    """Each thing below `top` with its type, owner and size."""
    for where, directories, names in os.walk(top):
        for name in directories + names:
            path = os.path.join(where, name)
            where_in = os.path.relpath(path, top)
            if os.path.isdir(path) and where_in in KEPT:
                continue
            if where_in.endswith(SCOPE) and SETTLED in text(path):
                continue
            with contextlib.suppress(FileNotFoundError):
                about = os.lstat(path)
                size = about.st_size if stat.S_ISREG(about.st_mode) else ""
                yield f"{path} {stat.filemode(about.st_mode)} {about.st_uid}:{about.st_gid} {size}".rstrip()


def devices() -> Iterator[str]:
    for name in DEVICES:
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(f"/dev/{name}")
            yield f"{name} {stat.filemode(about.st_mode)} {about.st_uid}:{about.st_gid} {about.st_rdev:#x}"


def output(*argv: str, said: str = "") -> list[str]:
    if not shutil.which(argv[0]):
        return []
    return subprocess.run(argv, input=said, capture_output=True, text=True, check=False).stdout.splitlines()


def snapshot(state: str) -> dict[str, list[str]]:
    found = dict(processes())
    # The size of a tmpfs is half of the memory, and a virtual machine may get more of that meanwhile.
    mounts = [re.sub(r",size=\d+k", "", line.split(" ", 2)[2]) for line in text("/proc/1/mountinfo").splitlines()]
    return {
        "process": list(found.values()),
        "namespace": list(namespaces(list(found))),
        "mount": mounts,
        "network": output("ip", "-o", "-force", "-batch", "-", said=IP),
        "firewall": output("nft", "list", "ruleset"),
        "ipc": [f"{kind} {line}" for kind in ("msg", "sem", "shm")
                for line in text(f"/proc/sysvipc/{kind}").splitlines()[1:]],
        "queue": [*files("/dev/mqueue"), *files("/dev/shm")],
        "device": list(devices()),
        "sysctl": [f"{path.removeprefix('/proc/sys/')}={text(path).strip()}"
                   for name in SYSCTLS for path in glob.glob("/proc/sys/" + name)],
        "state": list(files(state)),
        "run": list(files("/run")),
    }


# ---- from outside ----

CLONE_FLAGS = 0x20000 | 0x40000000 | 0x20000000 | 0x04000000 | 0x08000000  # NEWNS, NEWNET, NEWPID, NEWUTS, NEWIPC
LOOK_S = 60


def look(libc: ctypes.CDLL, pid: int, state: str) -> str:
    """The snapshot of the fake host whose PID 1 is `pid`, as JSON without a line break; "" if it ended meanwhile."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer(libc, pid, state, write_fd)
        finally:
            os._exit(1)
    os.close(write_fd)
    with open(read_fd) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def answer(libc: ctypes.CDLL, pid: int, state: str, write_fd: int) -> None:
    signal.alarm(LOOK_S)
    try:
        if libc.setns(os.pidfd_open(pid), CLONE_FLAGS):
            raise OSError(ctypes.get_errno(), "setns")
        inner = os.fork()  # the PID namespace is that of children
        if inner:
            os.close(write_fd)
            os.waitpid(inner, 0)
            return
        signal.alarm(LOOK_S)
        said = json.dumps({kind: sorted(lines) for kind, lines in snapshot(state).items()})
    except Exception:
        said = json.dumps(traceback.format_exc())
    with open(write_fd, "w") as pipe:
        pipe.write(said)


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for line in iter(sys.stdin.readline, ""):
        pid, state = line.rstrip("\n").split(" ", 1)
        said = look(libc, int(pid), state)
        print(said or json.dumps("it ended while it was looked at"), flush=True)


if __name__ == "__main__":
    main()
