"""One thing seen from two sides: a process, a user, a path, a port. Nothing is executed, nothing is made.

A side is a pod, a process, or the place where we are ("host").
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import NsboxError, PodNotFound, one_line
from ..linux import mounts, nsfs
from ..pod import inside, publish, store
from .sides import Side, fdinfo, open_side, within

HOST = "host"
_MOST_MEMBERS = 8  # to be asked for a path that their pod does not have


class Seen(NamedTuple):
    """What the other side calls it.

    Attributes:
        value: a PID, a uid, a path, or an address and port.
        note: how that is known, in a few words.
    """

    value: str
    note: str


def open_place(word: str) -> Side:
    """A side of a translation: "host" is where we are."""
    return open_side(str(os.getpid()))._replace(word=HOST) if word == HOST else open_side(word)


# ---- PIDs ----

def pid(value: int, a: Side, b: Side) -> Seen:
    """The number that process `value` of `a`'s PID namespace has in `b`'s.

    Raises:
        PodNotFound: `a` knows no such process. NsboxError: `b` does not see it.
    """
    for found in _processes():
        if _number_in(found, a) == value:
            number = _number_in(found, b)
            if number:
                return Seen(str(number), f"{_name(found)}, process {found} out here")
            raise NsboxError(f"cannot translate PID {value}: {b.word} does not see {_name(found)}, "
                             f"process {found} out here",
                             hint="a PID namespace sees itself and what lies in it, nothing else")  # fmt: skip
    raise PodNotFound(f"cannot translate PID {value}: {a.word} has no such process")


def _processes() -> Iterator[int]:
    yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _name(number: int) -> str:
    try:
        return inside.status_of(number)["Name"]
    except OSError:
        return "a process"


def _number_in(number: int, side: Side) -> int:
    """What a process is called in a PID namespace, or 0. Its numbers are told from the outermost in."""
    try:
        numbers = [int(word) for word in inside.status_of(number)["NSpid"].split()]
        fd = os.open(f"/proc/{number}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, KeyError):
        return 0
    for called in reversed(numbers):
        try:
            if os.fstat(fd).st_ino == side.ids["pid"]:
                return called
            above = nsfs.parent(fd)
        except OSError:
            return 0
        finally:
            os.close(fd)
        fd = above
    os.close(fd)
    return 0


# ---- users ----

def uid(value: int, a: Side, b: Side) -> Seen:
    """The uid that user `value` of `a`'s user namespace has in `b`'s. See user_namespaces(7).

    Raises:
        NsboxError: one of them does not map it.
    """
    outside = next((out + value - low for low, out, count in _map(a) if low <= value < low + count), None)
    if outside is None:
        raise NsboxError(f"cannot translate uid {value}: {a.word} does not map it",
                         hint="its files belong to nobody in there, and nobody can become it")  # fmt: skip
    found = next((low + outside - out for low, out, count in _map(b) if out <= outside < out + count), None)
    if found is None:
        raise NsboxError(f"cannot translate uid {value}: it is uid {outside} out here, which {b.word} does not map",
                         hint=f"to {b.word} its files belong to {_overflow()}")  # fmt: skip
    return Seen(str(found), f"uid {outside} out here")


def _map(side: Side) -> list[tuple[int, int, int]]:
    with open(f"/proc/{side.pid}/uid_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    return [(low, out, count) for low, out, count in rows]


def _overflow() -> str:
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        return file.read().strip()


# ---- paths ----

class _File(NamedTuple):
    """A file as one side has it: its identity, its real path, the mount that it is on; and all mounts there."""

    identity: list[int]
    path: str
    mount_id: int
    table: list[mounts.MountEntry]


def path(value: str, a: Side, b: Side) -> Seen:
    """A path by which `b` reaches the file that is at `value` for `a`.

    By the mounts of both: a file system that both have mounted, and a part of it that shows the file.

    Raises:
        NsboxError: there is no such file, or nothing that `b` has mounted shows it.
    """
    try:
        return _path(value, a, b)
    except NsboxError as err:
        if hint := _by_a_member(value, a, b):
            raise NsboxError(str(err), hint=hint) from err.__cause__
        raise


def _by_a_member(value: str, a: Side, b: Side) -> str:
    """A pod stands for the root of its PID 1: which of its members with a root of their own is the way, in words."""
    for option, pod in (("--from", a), ("--to", b)):
        ways = []
        for member in _elsewhere(pod):
            with contextlib.suppress(NsboxError, OSError):
                side = open_side(str(member))
                try:
                    _path(value, *((side, b) if pod is a else (a, side)))
                    ways.append(member)
                finally:
                    side.found.close()
        if ways:
            others = f", as have {', '.join(map(str, ways[1:]))}" if ways[1:] else ""
            return f"its member {ways[0]} has a root file system of its own{others}: {option} {ways[0]}"
    return ""


def _elsewhere(side: Side) -> list[int]:
    """Some of the members of a pod that do not share its mounts."""
    if side.found.pod is None:
        return []
    found = [one.pid for one in inside.processes(side.found.pod) if "mnt" not in one.shared and one.state != "Z"]
    return found[:_MOST_MEMBERS]


def _path(value: str, a: Side, b: Side) -> Seen:
    found = _look_up(a, value)
    place = next((entry for entry in found.table if entry.mount_id == found.mount_id), None)
    if place is not None:
        in_filesystem = _joined(place.root, found.path[len(place.target.rstrip("/")) :])
        ways = [(entry, _joined(entry.target, in_filesystem[len(entry.root.rstrip("/")) :]))
                for entry in reversed(_table(b))
                if entry.device == place.device and _is_below(in_filesystem, entry.root)]  # fmt: skip
        for (entry, way), identity in zip(ways, _identities(b, [way for _, way in ways]), strict=True):
            if identity == found.identity:  # nothing else lies on top
                return Seen(way, f"on the {entry.fstype} that is mounted at {entry.target}")
    door = _door(a)
    if door and "pid" not in b.apart and "mnt" not in b.apart:
        return Seen(f"/proc/{door}/root{found.path}", f"by way of process {door}")
    raise NsboxError(f"cannot translate path {value!r}: nothing that {b.word} has mounted shows it",
                     hint=f"out here it is /proc/{door}/root{found.path}" if door else "")  # fmt: skip


def _joined(directory: str, rest: str) -> str:
    return directory.rstrip("/") + "/" + rest.lstrip("/") if rest.strip("/") else directory


def _is_below(value: str, directory: str) -> bool:
    return value == directory or value.startswith(directory.rstrip("/") + "/")


def _door(side: Side) -> int:
    """A process whose root is that of `side`: the pause of a pod has an empty one."""
    if side.found.pod is None or side.found.pod.init:
        return side.pid
    return next((one.pid for one in inside.processes(side.found.pod)
                 if one.pid != side.pid and "mnt" in one.shared and one.state != "Z"), 0)  # fmt: skip


def _look_up(side: Side, value: str) -> _File:
    proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def look() -> list[object]:
        side.go_to_root()
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = mounts.open_in_root(root_fd, value, os.O_PATH)
        facts = os.fstat(fd)
        real = os.readlink(f"self/fd/{fd}", dir_fd=proc_fd)
        return [[facts.st_dev, facts.st_ino], real, fdinfo(proc_fd, fd, "mnt_id"), _rows(proc_fd)]

    try:
        identity, real, mount_id, rows = within(side, "mnt", look)
    except NsboxError as err:
        raise NsboxError(f"cannot translate path {value!r}: {side.word} has none it could be: "
                         + one_line(err).removeprefix("cannot try it: ")) from None  # fmt: skip
    finally:
        os.close(proc_fd)
    return _File(identity, real, mount_id, [mounts.MountEntry(*row) for row in rows])


def _table(side: Side) -> list[mounts.MountEntry]:
    proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def look() -> list[object]:
        side.go_to_root()
        return _rows(proc_fd)

    try:
        return [mounts.MountEntry(*row) for row in within(side, "mnt", look)]
    finally:
        os.close(proc_fd)


def _rows(proc_fd: int) -> list[object]:
    """The mounts that we see where we are, by a /proc from before."""
    with open(os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd), "rb") as file:
        return [mounts.parse_mountinfo(line) for line in file.read().splitlines()]


def _identities(side: Side, ways: list[str]) -> list[list[int] | None]:
    def look() -> list[list[int] | None]:
        side.go_to_root()
        found: list[list[int] | None] = []
        for way in ways:
            try:
                facts = os.stat(way)
            except OSError:
                found.append(None)
            else:
                found.append([facts.st_dev, facts.st_ino])
        return found

    answer: list[list[int] | None] = within(side, "mnt", look)
    return answer


# ---- ports ----

def port(value: int, proto: str, a: Side, b: Side) -> Seen:
    """Where `b` reaches what listens on a port of `a`.

    Raises:
        NsboxError: no way is known.
    """
    if a.ids["net"] == b.ids["net"]:
        return Seen(f"127.0.0.1:{value}", "they share the network namespace")
    for name, row in _published():
        if row["proto"] != proto:
            continue
        pod_net = _net_of(name)
        if pod_net == a.ids["net"] and row["pod_port"] == value and "net" not in b.apart:
            return Seen(f"{row['host_address']}:{row['host_port']}", f"published by pod {name}")
        if pod_net == b.ids["net"] and row["host_port"] == value and "net" not in a.apart:
            return Seen(f"127.0.0.1:{row['pod_port']}", f"published by pod {name}")
    hint = f"nsbox publish {a.word} HOST:{value}" if a.found.pod is not None else "no port of it is published"
    raise NsboxError(f"cannot translate port {value}: nothing leads from {b.word} to that of {a.word}", hint=hint)


def _published() -> Iterator[tuple[str, dict[str, object]]]:
    for entry in store.entries():
        if entry.status == "running":
            for row in publish.published(entry.name):
                yield entry.name, row


def _net_of(name: str) -> int:
    record = store.look(name).record
    return dict(record.kinds).get("net", -1) if record is not None else -1
