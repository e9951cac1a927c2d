"""The users and groups of a pod that has ranges of ids of its own: chosen, mapped, and seen in its files.

    root's pod      0.. -> 65536 ids that no other pod has: of root's lines in /etc/subuid and
                    /etc/subgid, or of RESERVED where there are none; files by idmapped mounts
    a user's pod    0 -> the user, 1.. -> the user's lines in these files; files as they are

An id belongs to a pod while there is a record of it, so that nothing of a dead one is alive under it.

A pod of root's may be owned by an ordinary user, who is root in it. What he can write there and finds
again on the host must not be root's: of volumes, and of a rootfs in place, his own files are the pod's
root's, and no others anybody's.
"""

import fcntl
import os
import stat
import time
from typing import Callable, Iterable, NamedTuple

from ..errors import NsboxError, SpecError
from ..idranges import COUNT, MODES, IdMap, IdRange, around, first_free, is_identity, read_map
from ..linux import mounts, nsfs, process, syscalls
from ..linux.flags import CloneFlag
from ..privilege import attributes, subids, userns
from ..spec import Owner, PodSpec, RootSpec
from . import lent, statedir, store
from .record import PodRecord
from .rootfs import Sources
from .target import Target, dead

# 1879048192 to 2147352575: nobody's. The ids below are for containers of systemd-nspawn, those above
# for files of other machines. See "Users, Groups, UIDs and GIDs on systemd Systems".
RESERVED = (0x7000_0000, 0x7FFE_0000 - 0x7000_0000)


# ---- which ids ----

def reserve(
    record: PodRecord, wanted: str, owner: Owner | None, take: Callable[[PodRecord], store.Locked]
) -> tuple[PodRecord, store.Locked]:
    """Choose the ids of a new pod and take its name, in one step for all who do that at the same time.

    Root's pod is its owner's only if root did not choose the ids: they might be of somebody else.
    `take` may lock pods, so who holds a pod's lock must not come here.

    Raises:
        SpecError: root cannot have this. NsboxError: no range is free, given or allowed.
    """
    fd = statedir.pods_fd()
    statedir.wait_for_lock(fd, "the ids of pods", time.monotonic() + store.LOCK_TIMEOUT_S, fcntl.LOCK_EX)
    try:
        owner = owner if wanted == "auto" and _can_own(owner) else None
        uids, gids = _choose(wanted, owner)
        _check_known(uids, "uid")
        _check_known(gids, "gid")
        if owner is not None:
            lent.note(owner.uid, uids, gids)
        mode = wanted if wanted in MODES else "map"
        record = record._replace(userns=mode, uid_map=uids, gid_map=gids, owner=owner)
        return record, take(record)
    finally:
        os.close(fd)


def _can_own(owner: Owner | None) -> bool:
    """Whether we are root, and the user is known in our own user namespace."""
    if owner is None or (os.getuid(), os.geteuid()) != (0, 0):
        return False
    return all(_is_known((number, 1), what) for number, what in zip(owner, ("uid", "gid"), strict=True))


def _choose(wanted: str, owner: Owner | None) -> tuple[IdMap, IdMap]:
    if wanted not in MODES:
        ids = read_map(wanted)
        return ids, ids
    if os.geteuid() == 0:
        if wanted == "keep-id":
            raise SpecError("cannot keep the id of root: root of the pod would be root of the host",
                            hint="--userns auto gives it other ids; what you ask for is --userns 0:0:1")  # fmt: skip
        return _of_root("uid", owner), _of_root("gid", owner)
    spans = subids.largest("uid"), subids.largest("gid")
    own = os.geteuid(), os.getegid()
    if wanted == "keep-id":
        if spans[0] is None or spans[1] is None:
            return (IdRange(own[0], own[0], 1),), (IdRange(own[1], own[1], 1),)
        return around(own[0], *spans[0]), around(own[1], *spans[1])
    return _of_user("uid", own[0], spans[0]), _of_user("gid", own[1], spans[1])


def _of_user(what: str, own: int, span: tuple[int, int] | None) -> IdMap:
    if span is None:
        raise subids.missing(what, "no line")
    return IdRange(0, own, 1), IdRange(1, *span)


def _of_root(what: str, owner: Owner | None) -> IdMap:
    """65536 ids that no record of a pod names, and that were not another owner's."""
    records = []
    for entry in store.entries():
        if entry.record is None:
            raise _unreadable(entry.name)
        records.append(entry.record)
    used = [
        (outside, count)
        for record in records
        for inside, outside, count in (record.uid_map if what == "uid" else record.gid_map)
        if inside != outside  # those are the host's own, and nobody's alone
    ]
    used += lent.to_others(owner.uid if owner else 0, what)
    given = [(max(first, subids.FIRST), first + count - max(first, subids.FIRST))
             for first, count in subids.of_user(what, 0)]  # fmt: skip
    if not given:
        used += [(first, count) for _, first, count in subids.lines(what)]  # of others
    start = first_free(given or [RESERVED], used, COUNT)
    if start is None and given:
        raise subids.missing(what, f"no line with {COUNT} free ids from {subids.FIRST} on")
    if start is None:
        raise NsboxError(f"cannot find {COUNT} {what}s that no other pod has", hint="remove dead pods: nsbox prune")
    return (IdRange(0, start, COUNT),)


def _unreadable(name: str) -> NsboxError:
    return NsboxError(f"cannot tell which ids are free: the record of pod {name!r} is corrupt",
                      hint=f"remove it with: nsbox rm --force {name}")  # fmt: skip


def _check_known(ids: IdMap, what: str) -> None:
    """Refuse ids that our own user namespace does not know: the kernel would say EPERM and no more."""
    for _, outside, count in ids:
        if not _is_known((outside, count), what):
            raise NsboxError(f"cannot map {what}s {outside} to {outside + count - 1}: we are in a user namespace "
                             "ourselves, which does not know them all")  # fmt: skip


def _is_known(span: tuple[int, int], what: str) -> bool:
    return any(inside <= span[0] and sum(span) <= inside + size
               for inside, _, size in userns.map_of("self", f"{what}_map"))


# ---- the namespace, and files in it ----

class Users(NamedTuple):
    """The user namespace of a pod that is being made.

    Attributes:
        sources: those of the pod's root, with its ids.
    """

    userns_fd: int
    sources: Sources
    owned: bool

    def enter(self) -> None:
        """Enter it; runs in the middle process of spawn_in. What is made then belongs to it."""
        attributes.hide_from_others()  # who owns it could look into our memory from now on
        syscalls.setns(self.userns_fd, CloneFlag.CLONE_NEWUSER)

    def close(self) -> None:
        """Let go of what was opened here."""
        os.close(self.userns_fd)
        if self.owned:
            self.sources.close()


def make(record: PodRecord, spec: PodSpec, sources: Sources) -> Users:
    """The user namespace that the record describes. Only for a process with one thread.

    Raises:
        NsboxError: the kernel refuses the maps, or a file system cannot be idmapped.
    """
    uids, gids = (tuple(IdRange(*one) for one in ids) for ids in (record.uid_map, record.gid_map))
    userns_fd = userns.make(uids, gids, record.owner)
    try:
        mapped = sources
        if _needs_mapping((*uids, *gids)):
            mapped = _mapped(spec.root, sources, userns_fd, record)
        return Users(userns_fd, mapped, owned=mapped is not sources)
    except BaseException:
        os.close(userns_fd)
        raise


def for_member(target: Target, root: RootSpec, sources: Sources) -> Sources:
    """The sources of a member's root with the ids of the target's user namespace; takes the given ones over.

    Raises:
        NsboxError: as for :func:`make`. PodDead: the target has ended.
    """
    try:
        ids = (*userns.map_of(target.pid, "uid_map"), *userns.map_of(target.pid, "gid_map"))
        if not _needs_mapping(ids):
            return sources
        userns_fd = os.open(f"/proc/{target.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if process.has_ended(target.pidfd):  # then the number may be another's
                raise ProcessLookupError
            mapped = _mapped(root, sources, userns_fd, target.pod)
        finally:
            os.close(userns_fd)
    except (FileNotFoundError, ProcessLookupError):
        sources.close()
        raise dead(target.pod.name) if target.pod else NsboxError(f"cannot join {target.label}: it has ended") from None
    except BaseException:
        sources.close()
        raise
    sources.close()
    return mapped


def _needs_mapping(ids: Iterable[tuple[int, int, int]]) -> bool:
    """Whether files must be idmapped. Who is not root cannot, and sees them as they are: they are the user's own."""
    return os.geteuid() == 0 and not is_identity(ids)


def _mapped(root: RootSpec, sources: Sources, userns_fd: int, pod: PodRecord | None) -> Sources:
    """Detached copies of the mounts behind `sources`, whose files belong to the ids of the namespace."""
    lasting_fd = userns_fd
    root_fd, volume_fds = -1, list[int]()
    try:
        if root.in_place or root.volumes:
            lasting_fd = _lasting(root, sources, userns_fd, pod)
        if root.path:  # an overlay shows one mount of what it is made from, a bind all below it too
            whose_fd = lasting_fd if root.in_place else userns_fd
            root_fd = _clone(f"rootfs {root.path!r}", sources.root_fd, whose_fd, recursive=root.in_place)
        for volume, fd in zip(root.volumes, sources.volume_fds, strict=True):
            whose_fd = -1 if volume.read_only and _is_open_to_all(fd) else lasting_fd
            volume_fds.append(_clone(f"volume {volume.source!r}", fd, whose_fd, recursive=True))
    except BaseException:
        Sources(root_fd, tuple(volume_fds)).close()
        raise
    finally:
        if lasting_fd not in (userns_fd, -1):
            os.close(lasting_fd)
    return Sources(root_fd, tuple(volume_fds), idmapped=True)


def _lasting(root: RootSpec, sources: Sources, userns_fd: int, pod: PodRecord | None) -> int:
    """Whose files are whose where what is written lasts: a user namespace, or -1 for as it is on the host.

    Raises:
        SpecError: a rootfs is used in place that is not its owner's.
    """
    if pod is None:
        return -1 if nsfs.owner_uid(userns_fd) != os.geteuid() else userns_fd
    if pod.owner is None:
        return userns_fd
    if root.in_place and os.fstat(sources.root_fd).st_uid != pod.owner.uid:
        raise SpecError(f"cannot write to rootfs {root.path!r}: it does not belong to the owner of the pod, "
                        f"user {pod.owner.uid}", hint="leave --in-place out")  # fmt: skip
    uids, gids = ((IdRange(own, next(outside for inside, outside, _ in ids if inside == 0), 1),)
                  for own, ids in zip(pod.owner, (pod.uid_map, pod.gid_map), strict=True))
    return userns.make(uids, gids)


def _is_open_to_all(fd: int) -> bool:
    """Whether it is a file that all may read: to be read only, it need not be the pod's.

    What is not the pod's stays unwritten too if its root makes the mount writable again.
    """
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o004)


def _clone(what: str, fd: int, userns_fd: int, *, recursive: bool) -> int:
    try:
        return mounts.clone_apart(fd, recursive=recursive, userns_fd=userns_fd)
    except OSError as err:
        where = f"what is mounted in it, or its {mounts.filesystem_of(fd)}," if recursive else mounts.filesystem_of(fd)
        raise NsboxError(
            f"cannot show {what} with the ids of the pod",
            hint=f"{where} cannot be idmapped; ext4, xfs, btrfs and, since Linux 6.3, tmpfs can",
        ) from err
