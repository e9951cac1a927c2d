"""Whom to join: a pod by its name or its pause's PID, or any process of any program."""

import os
from typing import NamedTuple

from ..errors import NsboxError, PodDead, PodNotFound
from ..linux import namespaces, process
from ..spec import POD_KINDS
from . import store
from .record import PodRecord


class Target(NamedTuple):
    """A process whose namespaces can be joined, held by a pidfd.

    Attributes:
        label: how a message calls it: "pod 'web'" or "process 4711".
        pod: the record, if it is the pause of a pod.
        kinds: the kinds in which it differs from the caller.
        root_fd: its root directory (O_PATH), or -1 to use the root of its mount namespace.
    """

    label: str
    pid: int
    pidfd: int
    pod: PodRecord | None
    kinds: frozenset[str]
    root_fd: int

    def close(self) -> None:
        """Let go of the descriptors."""
        os.close(self.pidfd)
        if self.root_fd >= 0:
            os.close(self.root_fd)


def find(text: str) -> Target:
    """The target that `text` names: digits are a host PID, anything else is a pod.

    Raises:
        PodNotFound: no such pod, no such process. PodDead: the pod's PID 1 has ended.
    """
    if text.isascii() and text.isdigit():
        return _of_pid(int(text[:20]))  # of more digits there is none either
    return _of_pod(text)


def _of_pod(name: str) -> Target:
    try:
        entry = store.look(name)
    except PodNotFound:
        records = [record for record in lent() if record.name == name]
        if not records:
            raise
        return _of_lent(records)
    if entry.record is None:
        raise NsboxError(
            f"cannot use pod {name!r}: its record is corrupt ({entry.problem})",
            hint=f"remove it with: nsbox rm --force {name}",
        )
    if entry.status == "elsewhere":
        raise NsboxError(
            f"cannot use pod {name!r}: it was made in another PID or time namespace",
            hint="join it from where it was made, or by the PID that its PID 1 has here",
        )
    if entry.status in ("creating", "broken"):
        raise NsboxError(f"cannot use pod {name!r}: it was not made completely", hint="try: nsbox prune")
    if entry.record.pause is None:
        raise dead(name)
    try:
        pidfd = process.open_process(entry.record.pause)
    except ProcessLookupError:
        raise dead(name) from None
    return _of_record(entry.record, entry.record.pause.pid, pidfd)


def lent() -> list[PodRecord]:
    """The pods of root's that the caller owns."""
    if os.geteuid() == 0:
        return []
    from . import owners

    return owners.mine()


def _of_lent(records: list[PodRecord]) -> Target:
    if len(records) > 1:  # of several state directories of root's
        pids = ", ".join(str(record.pause.pid) for record in records if record.pause)
        raise NsboxError(f"cannot tell which pod {records[0].name!r} is meant: processes {pids} are PID 1 of one",
                         hint="give the PID instead of the name")  # fmt: skip
    [record] = records
    if record.pause is None:
        raise dead(record.name)
    try:
        pidfd = process.open_process(record.pause)
    except ProcessLookupError:
        raise dead(record.name) from None
    return _of_record(record, record.pause.pid, pidfd)


def dead(name: str) -> PodDead:
    """The error for a pod whose PID 1 has ended."""
    return PodDead(f"cannot use pod {name!r}: it is dead, its PID 1 has ended", hint=f"remove it with: nsbox rm {name}")


def _of_record(record: PodRecord, pid: int, pidfd: int) -> Target:
    try:
        root_fd = _root_of(pid) if record.chroot else -1
        return Target(f"pod {record.name!r}", pid, pidfd, record, namespaces.kinds_that_differ(pid), root_fd)
    except ProcessLookupError:
        os.close(pidfd)
        raise dead(record.name) from None
    except OSError as err:
        os.close(pidfd)
        raise NsboxError(f"cannot look at pod {record.name!r}", hint=_why_not(pid)) from err


def _why_not(pid: int) -> str:
    """Why the kernel does not show us a process. See ptrace(2), PTRACE_MODE_READ."""
    if os.geteuid() != 0:
        return "it belongs to somebody else: try as root"
    from ..capabilities import NAMES
    from .inside import status_of

    try:
        lacking = int(status_of(pid)["CapPrm"], 16) & ~int(status_of(os.getpid())["CapPrm"], 16)
    except (OSError, KeyError, ValueError):
        return ""
    names = [name for number, name in enumerate(NAMES) if lacking >> number & 1]
    return f"it has capabilities that you lack: {' '.join(names)}; SYS_PTRACE stands for all" if names else ""


def _of_pid(pid: int) -> Target:
    try:
        pidfd = process.open_pid(pid)
    except ProcessLookupError:
        raise PodNotFound(f"cannot find process {pid}", hint="a pod is also known by its name: nsbox ls") from None
    try:
        record = _pod_of_pause(pid)
    except NsboxError:
        os.close(pidfd)
        raise
    if record is not None:
        return _of_record(record, pid, pidfd)
    if records := [one for one in lent() if one.pause and one.pause.pid == pid]:
        os.close(pidfd)
        return _of_lent(records)
    try:
        kinds, root_fd = namespaces.kinds_that_differ(pid), _foreign_root_of(pid)
    except (ProcessLookupError, FileNotFoundError):
        os.close(pidfd)
        raise PodNotFound(f"cannot find process {pid}: it has ended") from None
    except OSError as err:
        os.close(pidfd)
        raise NsboxError(f"cannot look at process {pid}", hint=_why_not(pid)) from err
    return Target(f"process {pid}", pid, pidfd, None, kinds, root_fd)


def _pod_of_pause(pid: int) -> PodRecord | None:
    """The pod whose PID 1 has this number.

    Raises:
        PodDead: it had, since the machine was booted. Who asks for the pod by its number shall not
            get another process instead, and run a command beside that.
    """
    for entry in store.entries(missing_ok=True):
        pause = entry.record.pause if entry.record else None
        if entry.record and pause and pause.pid == pid and pause.boot_id == process.boot_id():
            if entry.status == "running":
                return entry.record
            if entry.status == "dead":
                raise dead(entry.name)
    return None


def _foreign_root_of(pid: int) -> int:
    """As :func:`_root_of`, but -1 for an empty one: the pause of somebody else's pod has that."""
    root_fd = _root_of(pid)
    if os.listdir(f"/proc/{pid}/root"):
        return root_fd
    os.close(root_fd)
    return -1


def _root_of(pid: int) -> int:
    return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def identity_in(target: Target) -> tuple[int, int] | None:
    """The user and group that a member is in the target's user namespace; None is who the caller is.

    Its root. Where it has none and is another's than the caller's, the host's root becomes who the target
    is: staying root, the member would have all that root has on the host's disks, and run the programs of
    whoever chose what is mounted there.

    Raises:
        NsboxError: the caller is root, and nobody is known in there; or the target has ended.
    """
    if target.pod is not None:
        return None if target.pod.userns == "keep-id" else (0, 0)
    from ..linux import nsfs  # pods are known without
    from ..privilege import userns

    try:
        with open(f"/proc/{target.pid}/status", encoding="utf-8", errors="replace") as file:
            lines = (line.split() for line in file)
            ids = {words[0]: int(words[2]) for words in lines if words[0] in ("Uid:", "Gid:")}
        maps = userns.map_of(target.pid, "uid_map"), userns.map_of(target.pid, "gid_map")
        owner = nsfs.owner_uid_of(target.pid)
    except (FileNotFoundError, ProcessLookupError):
        raise NsboxError(f"cannot join {target.label}: it has ended") from None
    if all(any(one.inside == 0 for one in ranges) for ranges in maps):
        return 0, 0
    if os.geteuid() != 0 or owner == 0:
        return None
    uids, gids = ([one.inside + own - one.outside for one in ranges if one.outside <= own < one.outside + one.size]
                  for own, ranges in zip((ids["Uid:"], ids["Gid:"]), maps, strict=True))  # fmt: skip
    if not uids or not gids:
        raise NsboxError(f"cannot join {target.label}: its user namespace knows neither root nor its own user",
                         hint="leave user out, as in: --share net,uts,ipc,pid,mnt")  # fmt: skip
    return uids[0], gids[0]


class Plan(NamedTuple):
    """What a member shares, enters and gets new.

    Attributes:
        enter: kinds joined by setns(2); "mnt" also where the member then copies it.
        new: kinds made for this member alone.
    """

    enter: frozenset[str]
    new: frozenset[str]


def plan(target: Target, share: frozenset[str] | None, own_root: bool) -> Plan:
    """Work out the namespaces of a member.

    What a member does not share with a pod is new for it. What it does not share with a
    process of another program stays the caller's, as with nsenter(1).

    Args:
        share: the kinds asked for, or None for the target's default.
        own_root: the member has a root file system of its own.
    """
    if share is None:
        share = target.pod.share if target.pod and target.pod.share is not None else target.kinds
    share = share & target.kinds
    if own_root:
        share -= {"mnt"}
    new = frozenset[str]()
    if target.pod is not None:
        new = (POD_KINDS & target.kinds) - share
    if own_root:
        new |= {"mnt"}
    enter = share
    if "mnt" in new and not own_root:
        enter |= {"mnt"}  # the copy is made of the pod's tree, not of the caller's
    if "user" in target.kinds and target.pod is not None:
        enter |= {"user"}  # it owns the others, and what is new belongs below it
    return Plan(enter, new)
