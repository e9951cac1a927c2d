"""What can be done to a pod by its name: stop, kill, remove, prune."""

import os

from ..errors import NsboxError, PodNotFound
from ..linux import process
from . import create, files, rivals, statedir, store, target
from .ending import Say, end, signal_members, silent
from .record import PodRecord


_ITS_FILES = ("net.json", "ports.json")


def stop(name: str, timeout_s: float | None = None, *, say: Say = silent) -> None:
    """End a pod's processes and keep its record: exit statuses and logs can still be read.

    Args:
        timeout_s: seconds between TERM and KILL; None is the pod's own.

    Raises:
        PodNotFound: there is none. NsboxError: a process does not go away.
    """
    try:
        held = store.lock(name)
    except PodNotFound:
        if not _stop_lent(name, timeout_s, say):
            raise
        return
    with held:
        entry, is_copy = rivals.judged(store.look(name))
        _refuse_elsewhere(entry, "stop")
        if entry.record is None:
            raise _corrupt(entry, "stop")
        _refuse_newer(held, "stop")
        if entry.status == "broken":
            create.undo(held)
        elif not is_copy and entry.status in ("running", "dead"):
            end(entry.record, _grace(entry.record, timeout_s), say)
            create.unplug(held)


def _stop_lent(name: str, timeout_s: float | None, say: Say) -> bool:
    """End a pod of root's that the caller owns; False if there is none. Root's record stays."""
    if not any(record.name == name for record in target.lent()):
        return False
    found = target.find(name)
    try:
        if found.pod is not None:
            end(found.pod, _grace(found.pod, timeout_s), say)
        return True
    finally:
        found.close()


def remove(
    name: str, *, force: bool = False, timeout_s: float | None = None, say: Say = silent
) -> None:
    """Stop a pod and forget it. With `force` at once, and a missing or corrupt one is no error.

    Raises:
        PodNotFound: there is none. NsboxError: a process does not go away; the record is kept.
    """
    try:
        held = store.lock(name)
    except PodNotFound:
        if any(record.name == name for record in target.lent()):
            raise NsboxError(f"cannot remove pod {name!r}: root made it for you",
                             hint=f"nsbox stop {name} ends it, and root's prune forgets it") from None  # fmt: skip
        if not force:
            raise
        store.discard(name)
        return
    with held:
        entry, is_copy = rivals.judged(store.look(name))
        if entry.record is None:
            if not force:
                raise _corrupt(entry, "remove")
        elif not force:
            _refuse_elsewhere(entry, "remove")
            _refuse_newer(held, "remove")
        if entry.status == "elsewhere":
            say(f"the processes of pod {name!r}, if any run, are not ended: they are not known from here")
        elif entry.record is not None and entry.record.pause is not None and not is_copy:
            end(entry.record, 0.0 if force else _grace(entry.record, timeout_s), say)
        try:
            if not is_copy:
                create.unplug(held)
        except NsboxError as err:
            if not force:
                raise
            say(f"not put back: {err}")
        held.forget()


def _corrupt(entry: store.Entry, doing: str) -> NsboxError:
    return NsboxError(
        f"cannot {doing} pod {entry.name!r}: its record is corrupt ({entry.problem})",
        hint="its processes, if any run, cannot be known from it; "
        f"to remove the record: nsbox rm --force {entry.name}",
    )


def _refuse_newer(held: store.Locked, doing: str) -> None:
    """What leads to the pod cannot be taken away by who does not know what it is."""
    if what := files.newer(held.fd, *_ITS_FILES):
        raise NsboxError(f"cannot {doing} pod {held.name!r}: {what}",
                         hint=f"use that one; to end the pod all the same: nsbox rm --force {held.name}")  # fmt: skip


def _refuse_elsewhere(entry: store.Entry, doing: str) -> None:
    if entry.status == "elsewhere":
        raise NsboxError(
            f"cannot {doing} pod {entry.name!r}: it was made in another PID or time namespace",
            hint="do it from where it was made; if that place has ended: nsbox rm --force " + entry.name,
        )


def _grace(record: PodRecord, timeout_s: float | None) -> float:
    return record.stop_timeout_s if timeout_s is None else timeout_s


def kill(name: str, signum: int) -> int:
    """Send a signal to every member of a pod, not to its PID 1; return how many got it.

    Raises:
        PodNotFound: there is none. PodDead: its PID 1 has ended.
    """
    found = target.find(name)
    try:
        if found.pod is not None and not store.is_lent(found.pod):
            rivals.refuse_copy(found.pod.name, "kill")
        if found.pod is None:
            return int(process.send_signal(found.pidfd, signum))
        return signal_members(found.pod, signum)
    finally:
        found.close()


def prune() -> list[str]:
    """Remove what is dead or was cut off, and only that; return the names of the pods removed."""
    removed = []
    entries = store.entries()
    copies = rivals.copies(entries)
    for entry in entries:
        try:
            if entry.status == "dead" and _prune_dead(entry.name, entry.name in copies):
                removed.append(entry.name)
            elif entry.status == "broken" and create.mend(entry.name):
                removed.append(entry.name)
        except PodNotFound:
            continue
    store.sweep()
    _tidy_networks()
    _tidy_owners()
    return removed


def _tidy_owners() -> None:
    """What a command that was killed left for owners of pods."""
    if os.geteuid() != 0:
        return
    from . import lent, owners

    lent.sweep()
    owners.tidy()


def _tidy_networks() -> None:
    """What a command that was killed left of networks, where there are any."""
    if not statedir.has_nets():
        return
    from . import netend

    netend.tidy()


def _prune_dead(name: str, is_copy: bool) -> bool:
    with store.lock(name) as held:
        entry = store.look(name)
        if entry.status != "dead" or entry.record is None or files.newer(held.fd, *_ITS_FILES):
            return False
        if not is_copy:
            end(entry.record, 0.0)
            create.unplug(held)
        held.forget()
        return True
