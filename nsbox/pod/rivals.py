"""Copies of records, made by hand, or by who put a state directory together from two.

Whose pause runs is the first, or else who was written first. A copy is said to be one, and nothing that
it names is ended or taken away in its name. See claims.py for what leads to pods.
"""

import os
from contextlib import suppress
from typing import Hashable, Iterator, Sequence

from ..errors import NsboxError, PodNotFound, SpecError
from ..spec import name_fault
from . import statedir, store
from .record import PodRecord
from .store import Entry

_RECORD_MAX = 1 << 16

def copies(entries: Sequence[Entry]) -> dict[str, str]:
    """By name the records that are copies, and the names of the pods that they are copies of.

    An id is given to one pod, and a process is the pause of one.
    """
    found: dict[str, str] = {}
    groups: dict[Hashable, list[Entry]] = {}
    for entry in entries:
        for what in (entry.record.id, entry.record.pause) if entry.record else ():
            if what is not None:
                groups.setdefault(what, []).append(entry)
    for group in groups.values():
        if len(group) > 1:
            first = min(group, key=lambda entry: (entry.status != "running", _written_ns(entry.name), entry.name))
            found.update({entry.name: first.name for entry in group if entry is not first})
    return found


def _written_ns(name: str) -> int:
    """When a record got its place, which nobody sets: a record is written when its pod is made, and never after."""
    pods_fd = statedir.pods_fd()
    try:
        return os.stat(f"{name}/{store.RECORD}", dir_fd=pods_fd, follow_symlinks=False).st_ctime_ns
    except OSError:
        return 0
    finally:
        os.close(pods_fd)


def marked(entries: Sequence[Entry]) -> list[Entry]:
    """The same, but copies that name the pause of another pod are corrupt."""
    whose = copies([entry for entry in entries if entry.status == "running"])
    return [_corrupt(entry, whose[entry.name]) if entry.name in whose else entry for entry in entries]


def _corrupt(entry: Entry, original: str) -> Entry:
    return Entry(entry.name, "corrupt", None, f"it is a copy of the record of pod {original!r}")


def judged(entry: Entry) -> tuple[Entry, bool]:
    """What stands under one name, and whether it is a copy: then what it names is another pod's.

    Looks at all records, which the ways to create, join and run have no time for.
    """
    if entry.record is None:
        return entry, False
    others: list[Entry] = []
    for name in _names_like(entry.record):
        with suppress(PodNotFound):  # removed meanwhile: pods made in one moment look alike from afar
            others.append(store.look(name))
    original = copies([entry, *others]).get(entry.name)
    if original is None:
        return entry, False
    return (_corrupt(entry, original) if entry.status == "running" else entry), True


def refuse_copy(name: str, doing: str) -> None:
    """Do nothing to a pod by the name of a copy. Raises NsboxError; whether there is a pod is the caller's to say."""
    with suppress(PodNotFound, SpecError):
        entry, is_copy = judged(store.look(name))
        if is_copy and entry.record is None:
            hint = f"to remove it: nsbox rm --force {name}"
            raise NsboxError(f"cannot {doing} pod {name!r}: {entry.problem}", hint=hint)


def _raw(pods_fd: int, name: str) -> bytes:
    """What a record holds, without judging it; nothing where it cannot be read."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(f"{name}/{store.RECORD}", flags, dir_fd=pods_fd)
        try:
            return os.read(fd, _RECORD_MAX)
        finally:
            os.close(fd)
    except OSError:
        return b""


def _is_of_same(raw: bytes, record: PodRecord) -> bool:
    """Whether a record names this pod's pause or id: pods made in one moment have the same start time, and no more."""
    import json

    try:
        data = json.loads(raw)
        return bool(data["id"] == record.id or record.pause and data["pause"] == list(record.pause))
    except (ValueError, KeyError, TypeError, RecursionError):
        return True  # somebody has to look at it


def _names_like(record: PodRecord) -> Iterator[str]:
    """The other names whose records may be of the same pod, by a look that costs little."""
    words = [record.id.encode()] + ([b"%d" % record.pause.start_time] if record.pause else [])
    pods_fd = statedir.pods_fd()
    try:
        for name in store.names():
            if name == record.name or name_fault(name):  # what is no name of a pod is the backup of somebody
                continue
            raw = _raw(pods_fd, name)
            if any(word in raw for word in words) and _is_of_same(raw, record):
                yield name
    finally:
        os.close(pods_fd)
