"""What is known about pods and processes, as plain values for tables and JSON."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ..errors import NsboxError, PodNotFound
from ..linux import mounts, namespaces, nsfs, process
from ..privilege import subids
from . import guarded, inside, keyring, launch, members, netmodes, portfile, posture, rivals, statedir, store, target
from .record import MemberRecord, PodRecord
from .store import Entry


def summaries() -> list[dict[str, Any]]:
    """All pods for a list, with one look at /proc for all of them.

    Root's pods that the caller owns are among them.
    """
    lent = [store.Entry(record.name, "running", record) for record in target.lent()]
    found = sorted(store.entries(missing_ok=bool(lent)) + lent, key=lambda entry: entry.name)
    counts = inside.census([entry.record for entry in found if entry.record and entry.status == "running"])
    return [_summary(entry, counts) for entry in found]


def _summary(entry: Entry, counts: dict[str, int]) -> dict[str, Any]:
    """One pod for a list: name, pid, status, number of members, and so on."""
    record = entry.record
    if record is None:
        return {"name": entry.name, "status": entry.status, "problem": entry.problem, "pid": None,
                "members": 0, "created": None, "rootfs": "", "labels": {}, "ports": []}  # fmt: skip
    running = entry.status == "running"
    return {
        "name": entry.name,
        "status": entry.status,
        "pid": record.pause.pid if record.pause and running else None,
        "members": counts.get(record.id, 0),
        "created": record.created_s,
        "rootfs": record.rootfs,
        "labels": dict(record.labels),
        "id": record.id,
        "ports": [] if store.is_lent(record) else _ports(entry.name),
    }


def _ports(name: str) -> list[dict[str, Any]]:
    """What a pod publishes; [] too where that cannot be read: a list of pods must not end with one."""
    try:
        dir_fd = store.directory(name)
        try:
            if not portfile.exists(dir_fd):
                return []
        finally:
            os.close(dir_fd)
        from . import publish  # only pods with ports need it

        return publish.published(name)
    except NsboxError:
        return []


def _links(record: PodRecord) -> dict[str, Any]:
    if record.net == "none" and not statedir.has_nets():
        return {}
    from . import netreport  # only pods with networks need it

    return netreport.of_pod(record)


def process_rows(record: PodRecord) -> list[dict[str, Any]]:
    """The processes of a running pod, PID 1 first."""
    return [_process_row(one) for one in inside.processes(record)]


def _process_row(one: inside.Inside) -> dict[str, Any]:
    return {
        "pid": one.pid,
        "pod_pid": one.pod_pid,
        "ppid": one.ppid,
        "state": one.state,
        "uid": one.uid,
        "seccomp": one.seccomp,
        "shares": sorted(one.shared),
        "command": list(one.command),
    }


def everything(text: str) -> dict[str, Any]:
    """All about a pod (a dead one too) or a process.

    Raises:
        PodNotFound: there is neither.
    """
    if not (text.isascii() and text.isdigit()):
        with contextlib.suppress(PodNotFound):  # it may be lent, and else that is said below
            entry, _ = rivals.judged(store.look(text))
            if entry.status != "running":
                return {**_summary(entry, {}), "members": [_member_row(one, {}) for one in _detached(entry.name)]}
    found = target.find(text)
    try:
        facts = _facts(found)
        if process.has_ended(found.pidfd):  # its number may be another's already
            raise _gone(found)
        return facts
    except OSError:
        if process.has_ended(found.pidfd):  # of a zombie the kernel says for some files that they are invalid
            raise _gone(found) from None
        raise
    finally:
        found.close()


def _facts(found: target.Target) -> dict[str, Any]:
    """Raises OSError: it has ended meanwhile."""
    about: dict[str, Any] = {
        "pid": found.pid,
        "namespaces": namespaces.ids_of(found.pid),
        "differs_from_caller": sorted(found.kinds),
        "userns_owner": _owner(found.pid),
        "security": posture.of_process(found.pid),
    }
    if found.pod is None:
        return {**about, "mounts": _mount_rows(found.pid)}
    about["security"]["session_keyring"] = keyring.of_pause(found.pod, about["security"])
    return {**_pod_facts(found.pod), **about}


def _gone(found: target.Target) -> NsboxError:
    if found.pod is not None:
        return target.dead(found.pod.name)
    return PodNotFound(f"cannot find {found.label}: it has ended")


def _owner(pid: int) -> dict[str, Any]:
    """Who has every right over what is in the user namespace of a process."""
    uid = nsfs.owner_uid_of(pid)
    return {"uid": uid, "name": subids.name_of(uid)}


def _pod_facts(record: PodRecord) -> dict[str, Any]:
    lent = store.is_lent(record)
    promised, detached = posture.of_members(record), [] if lent else _detached(record.name)
    recorded = {(one.process.pid, one.process.start_time): one for one in detached if one.process}
    ulimits = {name: _bounds(*bounds) for name, bounds in record.ulimits}
    guards = guarded.rows(record, recorded, {**promised, "limits": ulimits})
    pause_pid = record.pause.pid if record.pause else 0
    viewpoint = next((one.pid for one, _ in guards if one.state != "Z" and one.pid != pause_pid), pause_pid)
    by_identity = {(one.pid, one.start_time): guard for one, guard in guards}
    return {
        "name": record.name,
        "id": record.id,
        "status": "running",
        "hostname": record.hostname,
        "created": record.created_s,
        "rootfs": record.rootfs,
        "root_change": "chroot" if record.chroot else ("pivot_root" if record.rootfs else "none"),
        "userns": record.userns or None,
        **({} if lent else {"network": netmodes.describe(record), **_links(record)}),
        "holds": [name for name, _ in record.kinds],
        "share": sorted(record.share) if record.share is not None else None,
        "init": list(record.init) or None,
        **_programs(record),
        "labels": dict(record.labels),
        "sysctls": dict(record.sysctls),
        "ulimits": ulimits,
        "stop_timeout_s": record.stop_timeout_s,
        "ports": [] if lent else _ports(record.name),
        "members_get": promised,
        "processes": [{**_process_row(one), **guard} for one, guard in guards],
        "members": [_member_row(one, by_identity) for one in detached],
        "mounts": _mount_rows(viewpoint),
    }


def _bounds(soft: int, hard: int) -> dict[str, Any]:
    """A limit; "unlimited" where it is, for most readers of JSON would not keep 2^64-1."""
    from ..ulimits import INFINITY, UNLIMITED  # few pods have limits of their own

    return {name: UNLIMITED if one == INFINITY else one for name, one in (("soft", soft), ("hard", hard))}


def _programs(record: PodRecord) -> dict[str, Any]:
    """What runs as PID 1, and what executes the commands: files of the host show in the pod as /proc/PID/exe."""
    try:
        exe = os.readlink(f"/proc/{record.pause.pid}/exe") if record.pause else None
    except OSError:
        exe = None  # it belongs to another user by now, or has ended
    kind = "init" if record.init else "static" if exe and exe.startswith("/memfd:") else "python"
    sealed = os.uname().machine in launch.MACHINES
    return {"pause": kind, "exe": exe, "launcher": "sealed" if sealed else "interpreter"}


def _detached(name: str) -> list[MemberRecord]:
    try:
        return members.of_pod(name)
    except PodNotFound:
        return []


def _member_row(member: MemberRecord, guards: Mapping[tuple[int, int], dict[str, Any]]) -> dict[str, Any]:
    """A detached member; what runs of it has `security` and `differs` as among the processes."""
    who = member.process
    nothing = {"security": None, "differs": None}
    return {
        "id": member.id,
        "pid": who.pid if who else None,
        "started": member.started_s,
        "exit_status": member.exit_status,
        "command": list(member.argv),
        **(guards.get((who.pid, who.start_time), nothing) if who else nothing),
    }


def _mount_rows(pid: int) -> list[dict[str, str]]:
    try:
        return [
            {"target": entry.target, "type": entry.fstype, "source": entry.source,
             "root": entry.root, "options": entry.options}
            for entry in mounts.read_mountinfo(pid)
        ]  # fmt: skip
    except OSError:
        return []
