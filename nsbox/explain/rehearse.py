"""A rehearsal: the verb is really done, but beside the stage, and taken away before anybody is there.

What is told is what the kernel really answered. Nothing stays, because

- nsbox's records are a copy, in a file system in memory that belongs to one process, the keeper, and so is what
  tells an owner of his pods;
- a pod that is made is ended again by the keeper, also if this command is killed;
- a member goes as far as its last step, and ends there: no command of the user's is executed.

- what changes the host's network is done in a copy of it, in a network namespace of its own;
- what changes a pod that runs is done to somebody who stands in for it: standins.py.

A rootfs that is written to in place is refused.
"""

import contextlib
import json
import os
import shutil
import signal
import stat
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

from ..errors import NsboxError
from ..linux import mounts, namespaces, process, spawn, syscalls, trouble
from ..linux.flags import CloneFlag, MountFlag
from ..net import copied, podlinks
from ..pod import lifecycle, owners, statedir, store
from . import standins, where

_STAGES = ("/run", "/tmp", "/mnt", "/dev/shm")  # where the keeper sees its file system; any directory will do
_SIZE = "64m"


@contextlib.contextmanager
def stage(*, covered: bool = False, network: bool = False, pods: Collection[str] | None = None) -> Iterator[None]:
    """For the length of the block nsbox's records are a copy; what is made by it is gone afterwards.

    Args:
        covered: the copy covers the records, in a mount namespace of ours: needed where files of it are
            mounted, as those with names are for a pod on a network. For root alone.
        network: the host's network is a copy, too. For root alone.
        pods: names of those that something is done to, if any: somebody stands in for them, and with
            `network` for all that have links.

    Raises:
        NsboxError: there is no place for a copy, or something cannot be copied.
    """
    given, told = os.environ.get("NSBOX_STATE"), owners.TOP
    real = _real_state()
    here = next((path for path in _STAGES if os.path.isdir(path)), "/")
    before = namespaces.ids_of("self")
    parts = standins.parts(pods, linked=network) if pods is not None and os.path.isdir(real) else []
    seen, loose_fd = _enter_copy(parts, before) if network else (None, -1)
    if covered and real:
        os.environ["NSBOX_STATE"] = place = _cover(real)
        owners.TOP = f"{place}/owners"
        here, real = "", ""
    where.cast({}, {number: before[kind] for kind, number in namespaces.ids_of("self").items()})
    said_r, said_w = os.pipe2(os.O_CLOEXEC)
    over_r, over_w = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        os.close(said_r)
        os.close(over_w)
        _Keeper(real, here, parts if pods is not None else None, pods or (), seen, loose_fd).keep(said_w, over_r)
    os.close(said_w)
    os.close(over_r)
    try:
        pids = _hear(said_r)
        if here:
            os.environ["NSBOX_STATE"] = f"/proc/{keeper}/root{here}/state"
            owners.TOP = f"/proc/{keeper}/root{here}/owners"
        standins.serve(parts, pids)
        yield
    finally:
        if given is None:
            os.environ.pop("NSBOX_STATE", None)
        else:
            os.environ["NSBOX_STATE"] = given
        owners.TOP = told
        os.close(said_r)
        os.close(over_w)
        os.waitpid(keeper, 0)


def _enter_copy(parts: Sequence[standins.Part], before: dict[str, int]) -> tuple[copied.Seen, int]:
    """Of several pods in one network one has its links."""
    apart = {part.ids.get("net"): part for part in parts if part.ids.get("net") != before.get("net")}
    fds = {part.pid: os.pidfd_open(part.pid) for part in apart.values()}
    try:
        seen = copied.look(fds)
    finally:
        for fd in fds.values():
            os.close(fd)
    return seen, copied.enter(seen)


def _hear(said_r: int) -> dict[str, int]:
    """What the keeper says when all is there: who stands in for each pod."""
    said = b""
    while part := os.read(said_r, 1 << 16):
        said += part
    if not said:
        raise NsboxError("cannot rehearse: there is no place for a copy of the records")
    answer = json.loads(said)
    if "error" in answer:
        raise trouble.decode(answer["error"].encode())
    where.cast(dict(answer["pids"]), dict(answer["ids"]))
    return dict(answer["pods"])


def _real_state() -> str:
    try:
        return statedir.state_dir()
    except NsboxError:
        return ""  # then there are no records to copy


class _Keeper:
    """Holds the copy until the command has ended, however that was; then clears away.

    Args:
        real, here: the records, and where their copy is to be; "" if it is made already.
        parts: the pods that somebody is to stand in for, or None: then no other pod is touched.
        names: of those that something is done to.
        seen: how the network was that we are in a copy of, and loose_fd what enter() gave for it.
    """

    def __init__(
        self, real: str, here: str, parts: Sequence[standins.Part] | None, names: Collection[str],
        seen: copied.Seen | None, loose_fd: int,
    ) -> None:  # fmt: skip
        self._real, self._here, self._parts, self._seen, self._loose_fd = real, here, parts, seen, loose_fd
        self._names = names
        self._doubles: list[standins.Double] = []

    def keep(self, said_w: int, over_r: int) -> NoReturn:
        """The life of the process. A signal to all that a terminal runs is for the command alone."""
        signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDING_SIGNALS)
        try:
            try:
                said = self._begin()
            except NsboxError as err:
                said = {"error": trouble.encode(err).decode()}
            view = memoryview(json.dumps(said).encode())
            while view:
                view = view[os.write(said_w, view) :]
            os.close(said_w)
            known = _known() if "error" not in said else frozenset()
            while os.read(over_r, 1):
                pass
            standins.end(self._doubles)
            if "error" not in said:
                _remove_all_but(known)
        finally:
            os._exit(0)

    def _begin(self) -> dict[str, Any]:
        """Who stands in comes first: in the user namespace of the copy there is no right to a pod."""
        for part in self._parts or ():
            self._doubles.append(standins.make(part, with_mounts=self._seen is not None))
        if self._here:
            _set_up(self._real, self._here)
            os.environ["NSBOX_STATE"] = f"{self._here}/state"
            owners.TOP = f"{self._here}/owners"
        if self._parts is None:
            _forget_ties()
        _known()
        if self._parts is not None:
            _refuse_unplayed(self._parts, self._names, linked=self._seen is not None)
        played: dict[int, int] = {}
        for double in self._doubles:
            played |= standins.write_down(double)
        if self._seen is not None:
            looked_at = {one.part.pid: one.pidfd for one in self._doubles if one.part.pid in self._seen.links}
            podlinks.Copies(self._seen.links, self._seen.ways, copied.HOST, self._loose_fd).furnish(looked_at)
        return {"pids": list(played.items()), "ids": list(standins.mirrored(self._doubles).items()),
                "pods": {double.part.record.name: double.pid for double in self._doubles}}  # fmt: skip


def _remove_all_but(known: frozenset[str]) -> None:
    for entry in store.entries():
        if entry.name not in known:
            with contextlib.suppress(NsboxError, OSError):
                lifecycle.remove(entry.name, force=True)


def _known() -> frozenset[str]:
    """The pods in the copy. Those that are being made, or were cut off, are none of ours to mend."""
    for entry in store.entries():
        if entry.status in ("creating", "broken"):
            shutil.rmtree(f"{statedir.state_dir()}/pods/{entry.name}")
    return frozenset(entry.name for entry in store.entries())


def _refuse_unplayed(parts: Sequence[standins.Part], names: Collection[str], *, linked: bool) -> None:
    """A pod that was started, or connected, after the looking: what is done to it would really be done."""
    from ..pod import netrecord

    ids = {part.record.id for part in parts}
    for entry in store.entries():
        if entry.status != "running" or entry.record is None or entry.record.id in ids:
            continue
        dir_fd = store.directory(entry.name)
        is_linked = linked and netrecord.POD_FILE in os.listdir(dir_fd)
        os.close(dir_fd)
        if is_linked or entry.name in names:
            raise NsboxError(f"cannot rehearse: pod {entry.name!r} has changed meanwhile", hint="try it again")


def _cover(real: str) -> str:
    """Put the copy over the records, for this process and those that it will make; where it is.

    Where there are no records yet, there is no directory to put it over, and none is made in the
    host's file system: then it lies over one that no pod is likely to ask for.
    """
    syscalls.unshare(CloneFlag.CLONE_NEWNS)
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    if not os.path.isdir(real):
        spare = next((path for path in reversed(_STAGES) if os.path.isdir(path)), "/")
        spare_fd = os.open(spare, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(mounts.new_filesystem("tmpfs", {"mode": "0700", "size": _SIZE}, mounts.MNT_BASE_ATTRS), spare_fd)
        return spare
    source_fd = os.open(real, statedir.DIR)
    mounts.attach(mounts.new_filesystem("tmpfs", {"mode": "0700", "size": _SIZE}, mounts.MNT_BASE_ATTRS), source_fd)
    _copy(source_fd, os.open(real, statedir.DIR))
    os.close(source_fd)
    return real


def _forget_ties() -> None:
    """Cables between pods lie in the pods themselves, which are no copies: nobody is to mend them."""
    from ..pod import netrecord

    for name in store.names():
        dir_fd = store.directory(name)
        try:
            if netrecord.POD_FILE in os.listdir(dir_fd):
                netrecord.write_pod(dir_fd, netrecord.read_pod(dir_fd)._replace(ties=()))
        except NsboxError:
            pass  # a record that cannot be read stops the rehearsal as it would the verb
        finally:
            os.close(dir_fd)


def _set_up(real: str, here: str) -> None:
    """Make the file system and the copy in it."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(CloneFlag.CLONE_NEWNS if uid == 0 else CloneFlag.CLONE_NEWNS | CloneFlag.CLONE_NEWUSER)
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    source_fd = os.open(real, statedir.DIR) if os.path.isdir(real) else -1
    place_fd = os.open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.attach(mounts.new_filesystem("tmpfs", {"mode": "0711", "size": _SIZE}, mounts.MNT_BASE_ATTRS), place_fd)
    os.mkdir(f"{here}/state", 0o700)
    if source_fd >= 0:
        _copy(source_fd, os.open(f"{here}/state", statedir.DIR))


def _copy(source_fd: int, target_fd: int) -> None:
    """Directories and files; sockets are not to be talked to in a rehearsal."""
    for name in os.listdir(source_fd):
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(name, stat.S_IMODE(found.st_mode), dir_fd=target_fd)
                below = [os.open(name, statedir.DIR, dir_fd=fd) for fd in (source_fd, target_fd)]
                _copy(*below)
                for fd in below:
                    os.close(fd)
            elif stat.S_ISREG(found.st_mode):
                _copy_file(name, stat.S_IMODE(found.st_mode), source_fd, target_fd)


def _copy_file(name: str, mode: int, source_fd: int, target_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd), "rb") as source:
        with open(os.open(name, flags, mode, dir_fd=target_fd), "wb") as target:
            shutil.copyfileobj(source, target)


def leave(who: str) -> NoReturn:
    """In the place of the execve of a user's command: what comes after it is for the real run."""
    syscalls.listen(None)
    spawn.stay_as_it()
    while who == "pause":  # a PID 1 stays, so that members can be told about too
        syscalls.close_range(3, cloexec_only=False)
        signal.pause()
    os._exit(0)
