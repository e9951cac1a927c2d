"""The entries of the store: listed, put in place, taken away, and tidied after a crash.

Who changes the store works in a directory of his own and holds its flock(2) all the time:

    .build-NAME-ID/entry   what is being built, later NAME
    .build-NAME-ID/work    scratch files of the build
    .build-NAME-ID/old     what --force replaces, between two renames
    .trash-NAME-ID         an entry on its way out

.lock is held only for moments, to take these locks and to rename. A directory whose lock
is free was left by somebody who was killed, and anybody may clear it away. Every entry
appears and disappears by one rename(2).
"""

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import NsboxError
from ..spec import name_fault
from . import store, tree

_LEFTOVER = re.compile(r"\.(build|trash)-(.+)-([0-9a-f]{8})")


class Entry(NamedTuple):
    """One root file system of the store.

    Attributes:
        path: the tree, absolute.
        meta: what meta.json says; empty if it cannot be read.
    """

    name: str
    path: str
    meta: dict[str, Any]


class Workplace(NamedTuple):
    """The directory of one build, and the descriptor that holds its lock."""

    name: str
    path: str
    lock_fd: int

    @property
    def entry(self) -> str:
        """Where the entry is made: the tree in rootfs/ below it."""
        return os.path.join(self.path, "entry")

    @property
    def work(self) -> str:
        """Scratch directory, private to the builder."""
        return os.path.join(self.path, "work")


def listed() -> list[Entry]:
    """All entries by name. What a killed build left is cleared away first."""
    where = store.store_dir()
    if not store.check_owner(where):
        return []
    sweep()
    names = sorted(name for name in os.listdir(where) if not name_fault(name))
    found = [(name, store.tree_of(name)) for name in names]
    return [Entry(name, path, _read_meta(path)) for name, path in found if os.path.isdir(path)]


def remove(names: list[str]) -> None:
    """Remove the entries, all or, if one of the names is unknown, none.

    Raises:
        NsboxError: there is no such entry.
    """
    where = store.store_dir()
    if store.check_owner(where):
        sweep()
    refuse_unknown(names)
    for name in dict.fromkeys(names):
        with _locked_store(where):
            try:
                trash, fd = _put_aside(where, name)
            except FileNotFoundError:
                continue  # somebody else removed it
        _delete_held(trash, fd)


def refuse_unknown(names: list[str]) -> None:
    """Raise if one of them is no entry, or something is mounted in it."""
    where = store.store_dir()
    store.check_owner(where)
    for name in names:
        if name_fault(name) or not os.path.isdir(os.path.join(where, name)):
            raise NsboxError(f"no rootfs '{name}'", hint="nsbox rootfs ls shows what there is")
        tree.refuse_mounts(os.path.join(where, name))


@contextmanager
def workplace(name: str) -> Iterator[Workplace]:
    """A locked directory for one build of `name`, gone after the block whatever happens.

    Raises:
        NsboxError: another command builds the same name right now.
    """
    where = _made_store()
    sweep()
    with _locked_store(where):
        refuse_second_builder(where, name)
        path = new_path(where, "build", name)
        os.mkdir(path, 0o700)
        lock_fd = _try_lock(path)
        assert lock_fd is not None, "a new directory, and .lock keeps all others away"
    try:
        place = Workplace(name, path, lock_fd)
        os.mkdir(place.work, 0o700)
        os.mkdir(place.entry, 0o755)
        os.chmod(place.entry, 0o755)
        yield place
    finally:
        _delete_held(path, lock_fd)


def refuse_existing(name: str, *, force: bool) -> None:
    """Raise if the entry is there already and may not be replaced."""
    if not force and os.path.lexists(os.path.join(store.store_dir(), name)):
        raise NsboxError(f"there is a rootfs '{name}' already", hint="--force replaces it")


def commit(place: Workplace, *, force: bool) -> str:
    """Put the finished entry in place. Return its tree.

    A kill between the two renames of a replacement loses nothing: sweep() puts the old
    one back.
    """
    where = os.path.dirname(place.path)
    target = os.path.join(where, place.name)
    with _locked_store(where):
        refuse_existing(place.name, force=force)
        if os.path.lexists(target):
            os.rename(target, os.path.join(place.path, "old"))
        os.rename(place.entry, target)
    return os.path.join(target, "rootfs")


def sweep() -> None:
    """Clear away what killed commands left: directories of theirs whose lock is free."""
    where = store.store_dir()
    if not any(map(_LEFTOVER.fullmatch, os.listdir(where))):
        return
    with _locked_store(where):
        held = list(_leftovers(where))
        for path, name, _ in held:
            old, target = os.path.join(path, "old"), os.path.join(where, name)
            if os.path.isdir(old) and not os.path.lexists(target):
                os.rename(old, target)
    for path, _, fd in held:
        _delete_held(path, fd)


def write_meta(place: Workplace, meta: dict[str, Any]) -> None:
    """Write meta.json beside the finished tree."""
    with open(os.path.join(place.entry, "meta.json"), "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=2)
        file.write("\n")
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())


def _read_meta(path: str) -> dict[str, Any]:
    try:
        with open(os.path.join(os.path.dirname(path), "meta.json"), encoding="utf-8") as file:
            meta = json.load(file)
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _made_store() -> str:
    where = store.store_dir()
    try:
        os.makedirs(os.path.dirname(where), exist_ok=True)
        os.mkdir(where, 0o755 if os.geteuid() == 0 else 0o700)
        os.chmod(where, 0o755 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        pass
    except OSError as err:
        raise NsboxError("cannot make the rootfs store") from err
    store.check_owner(where)
    return where


@contextmanager
def _locked_store(where: str) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(where, ".lock"), flags, 0o600)
    except OSError as err:
        raise NsboxError("cannot lock the rootfs store") from err
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _leftovers(where: str) -> Iterator[tuple[str, str, int]]:
    """(path, name, descriptor that now holds the lock) of every directory nobody holds."""
    for file_name in os.listdir(where):
        if match := _LEFTOVER.fullmatch(file_name):
            path = os.path.join(where, file_name)
            if (fd := _try_lock(path)) is not None:
                yield path, match[2], fd


def refuse_second_builder(where: str, name: str) -> None:
    """Raise if somebody builds it right now."""
    for file_name in os.listdir(where):
        match = _LEFTOVER.fullmatch(file_name)
        if not match or match[1] != "build" or match[2] != name:
            continue
        fd = _try_lock(os.path.join(where, file_name))
        if fd is None:
            raise NsboxError(f"cannot build rootfs '{name}': another command builds it right now")
        os.close(fd)


def _try_lock(path: str) -> int | None:
    """Open and lock the directory; None if somebody holds it or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _put_aside(where: str, name: str) -> tuple[str, int]:
    """Rename the entry to a trash directory; (its path, descriptor that holds its lock)."""
    path = new_path(where, "trash", name)
    os.rename(os.path.join(where, name), path)
    fd = _try_lock(path)
    if fd is None:
        raise NsboxError(f"cannot remove rootfs '{name}': {path} cannot be locked")
    return path, fd


def new_path(where: str, kind: str, name: str) -> str:
    """A name for a directory of one build ("build"), or for an entry on its way out ("trash")."""
    return os.path.join(where, f".{kind}-{name}-{secrets.token_hex(4)}")


def _delete_held(path: str, lock_fd: int) -> None:
    """Delete a directory whose lock we hold, then let go."""
    try:
        tree.delete(path)
    finally:
        os.close(lock_fd)
