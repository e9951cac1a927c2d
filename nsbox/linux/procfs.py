"""One process as /proc shows it: who it is, and which namespaces it is in. See proc(5).

Everything of one process is read by one open directory: a number that was given to another
process meanwhile is an error (ESRCH), never a mixture of the two.
"""

import os
from typing import Iterator, NamedTuple

from . import process
from .namespaces import KINDS

# What says that a process has ended meanwhile.
GONE = (FileNotFoundError, ProcessLookupError)

_PF_KTHREAD = 0x0020_0000  # linux/sched.h, a flag of proc_pid_stat(5)
_LINKS = tuple((kind.name, f"ns/{kind.name}") for kind in KINDS)
# An unshare or setns of these counts for the next child.
_LINKS_OF_CHILDREN = tuple((kind, f"ns/{kind}_for_children") for kind in ("pid", "time"))
_PART = 1 << 16
# A thread may leave these alone: of the others unshare(2) says EINVAL while there are threads.
_OF_THREADS = ("cgroup", "ipc", "uts", "net", "mnt")


class Process(NamedTuple):
    """One process.

    Attributes:
        pid: in the PID namespace of this /proc, as all numbers here but `pids`.
        pids: its number at each level, that one first, its own namespace's last.
        start_time: clock ticks after boot; with the PID it tells a process from a later one.
        state: one letter, see proc_pid_stat(5).
        uid: effective user id, as our user namespace counts.
        name: of at most 15 bytes; what the process calls itself.
        command: its arguments, or its name in brackets where it has none.
        kernel: it is a thread of the kernel.
        threads: how many it has.
        root: its root directory; "" where that cannot be read.
        namespaces: the id of each kind it is in. Empty where it may not be seen; a zombie has
            only two left.
        children: of pid and time, the ids of its next child, where they are not its own.
        strays: (thread id, kind, id) of each namespace that only one of its threads is in.
        problem: why its namespaces cannot be seen, or "".
    """

    pid: int
    pids: tuple[int, ...]
    ppid: int
    start_time: int
    state: str
    uid: int
    name: str
    command: tuple[str, ...]
    kernel: bool
    threads: int
    root: str
    namespaces: dict[str, int]
    children: dict[str, int]
    strays: tuple[tuple[int, str, int], ...]
    problem: str


def pids() -> list[int]:
    """The numbers of all processes that this /proc shows, in order."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def own_pid() -> int:
    """Our number in this /proc, which may be that of another PID namespace.

    Raises:
        NsboxError: there is no /proc.
    """
    try:
        return int(os.readlink("/proc/self"))
    except FileNotFoundError:
        process.require_own_proc()
        raise


def id_map(pid: int | str, which: str = "uid") -> list[tuple[int, int, int]]:
    """(first inside, first outside, how many) of each range of a process's user namespace.

    Outside is the caller's user namespace, or, for a process in that one, its parent.

    Raises:
        OSError: the process has ended.
    """
    with open(f"/proc/{pid}/{which}_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    return [(first, outside, count) for first, outside, count in rows]


def open_directory(pid: int) -> int:
    """The directory of one process, for :func:`read`. Raises FileNotFoundError: there is none."""
    return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def read(dir_fd: int) -> Process:
    """The process whose directory is open. Raises one of GONE if it has ended."""
    status = _file(dir_fd, "status")
    stat = _file(dir_fd, "stat")
    fields = stat[stat.rindex(b")") + 2 :].split()
    ids, problem = _namespaces(dir_fd)
    threads = int(_field(status, b"\nThreads:"))
    name = os.fsdecode(status[len(b"Name:\t") : status.index(b"\n")])
    numbers = tuple(map(int, (_field(status, b"\nNSpid:") or _field(status, b"\nPid:")).split()))
    return Process(
        pid=numbers[0],
        pids=numbers,
        ppid=int(fields[1]),
        start_time=int(fields[19]),
        state=fields[0].decode(),
        uid=int(_field(status, b"\nUid:").split()[1]),
        name=name,
        command=_command(dir_fd) or (f"[{name}]",),
        kernel=bool(int(fields[6]) & _PF_KTHREAD),
        threads=threads,
        root="" if problem else _link(dir_fd, "root"),
        namespaces=ids,
        children={} if problem else _children(dir_fd, ids),
        strays=tuple(_strays(dir_fd, ids)) if threads > 1 and not problem else (),
        problem=problem,
    )


def _file(dir_fd: int, name: str) -> bytes:
    """All of a file that the kernel makes as one piece: less than was asked for is its end."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        said = part = os.read(fd, _PART)
        while len(part) == _PART:
            said += (part := os.read(fd, _PART))
        return said
    finally:
        os.close(fd)


def _field(status: bytes, key: bytes) -> bytes:
    """A line of proc_pid_status(5), or b"". A name holds no newline: the kernel writes it escaped."""
    start = status.find(key)
    return status[start + len(key) : status.index(b"\n", start + 1)] if start >= 0 else b""


def _command(dir_fd: int) -> tuple[str, ...]:
    words = _file(dir_fd, "cmdline").split(b"\0")
    while words and not words[-1]:
        words.pop()
    return tuple(os.fsdecode(word) for word in words)


def _link(dir_fd: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=dir_fd)
    except OSError:
        return ""  # a zombie has none


def _number(dir_fd: int, name: str) -> int:
    """The id out of a link like "net:[4026531840]". Raises OSError."""
    text = os.readlink(name, dir_fd=dir_fd)
    return int(text[text.index("[") + 1 : -1])


def _namespaces(dir_fd: int) -> tuple[dict[str, int], str]:
    """The ids of all kinds that there are, and why they cannot be seen."""
    ids = {}
    for kind, link in _LINKS:
        try:
            ids[kind] = _number(dir_fd, link)
        except GONE:
            continue  # a zombie, or a kernel without this kind
        except OSError as err:
            return {}, os.strerror(err.errno or 0)  # one check for all of them, see ptrace(2)
    return ids, ""


def _children(dir_fd: int, ids: dict[str, int]) -> dict[str, int]:
    found = {}
    for kind, link in _LINKS_OF_CHILDREN:
        try:
            number = _number(dir_fd, link)
        except OSError:
            continue  # a pid namespace in which nobody was born yet cannot be named either
        if number != ids.get(kind):
            found[kind] = number
    return found


def _strays(dir_fd: int, ids: dict[str, int]) -> Iterator[tuple[int, str, int]]:
    try:
        names = os.listdir(f"/proc/self/fd/{dir_fd}/task")
    except OSError:
        return
    for name in names:
        for kind in _OF_THREADS:
            try:
                number = _number(dir_fd, f"task/{name}/ns/{kind}")
            except OSError:
                break
            if number != ids.get(kind):
                yield int(name), kind, number


def descriptors(dir_fd: int) -> list[tuple[int, str]]:
    """(number, what it is) of each open descriptor, as "socket:[123]" or a path.

    Raises:
        PermissionError: the process is somebody else's.
    """
    found = []
    for name in os.listdir(f"/proc/self/fd/{dir_fd}/fd"):
        try:
            found.append((int(name), os.readlink(f"fd/{name}", dir_fd=dir_fd)))
        except OSError:
            continue  # closed meanwhile
    return found
