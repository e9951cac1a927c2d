"""Which processes are in a pod, read from the host's /proc. Nothing of the pod is executed."""

import os
from typing import NamedTuple, Sequence

from ..linux import process
from . import portfile, store
from .record import PodRecord

# Kinds by which a process belongs to a pod. Not user, cgroup, time: these say nothing of it.
_TELLING = ("pid", "net", "ipc", "uts", "mnt")


# What says that a process is none of ours. Anything else, as too many open files, says that we do
# not know: then nobody may be passed over.
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


class Inside(NamedTuple):
    """One process of a pod.

    Attributes:
        pid: on the host.
        pod_pid: in its own PID namespace, which is the pod's unless it has a deeper one.
        state: one letter, see proc_pid_stat(5).
        uid: effective user id on the host.
        seccomp: whether it has a filter of system calls, as :func:`seccomp_mode` says it.
        shared: which kinds of namespaces it shares with the pod.
        command: its arguments, or its name in brackets where it has none.
    """

    pid: int
    pod_pid: int
    ppid: int
    state: str
    uid: int
    start_time: int
    seccomp: str
    shared: frozenset[str]
    command: tuple[str, ...]


def processes(record: PodRecord) -> list[Inside]:
    """All processes of a running pod, its PID 1 first.

    Only while the pod's PID 1 runs: afterwards another namespace may have the same number.
    """
    # What root made for its caller has its ports in root's records, and who looks may have no records at all.
    proxies = portfile.proxy_pids([] if store.is_lent(record) else [record.name])
    wanted = {name: number for name, number in record.kinds if name in _TELLING}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                one = _look(int(name), wanted)
            except (*_GONE, ValueError, IndexError):
                continue  # it ended meanwhile, or is somebody else's
            if one is not None and (one.pid, one.start_time) not in proxies:
                found.append(one)
    if any(one.shared == {"net"} for one in found):
        guests = _Others(record)
        found = [one for one in found if one.shared != {"net"} or not guests.have(one)]
    return sorted(found, key=lambda one: (record.pause is None or one.pid != record.pause.pid, one.pid))


class _Others:
    """The other pods that run. One of them may share the network of `host`, and is none of its."""

    def __init__(self, host: PodRecord) -> None:
        self._kinds: set[tuple[str, int]] = set()
        self._pauses: set[int] = set()
        for entry in store.entries(missing_ok=True):
            if entry.record is None or entry.record.id == host.id or entry.status not in ("running", "creating"):
                continue
            self._kinds |= {(kind, number) for kind, number in entry.record.kinds if kind in _TELLING}
            if entry.record.pause:
                self._pauses.add(entry.record.pause.pid)

    def have(self, one: Inside) -> bool:
        """Whether a process belongs to one of them."""
        return one.pid in self._pauses or any(
            (kind, _inode(one.pid, kind)) in self._kinds for kind in _TELLING if kind != "net"
        )


def census(records: Sequence[PodRecord]) -> dict[str, int]:
    """How many processes each running pod has besides its PID 1, by the pod's id. One pass."""
    owner = {
        (kind, number): one.id for one in records for kind, number in one.kinds if kind in _TELLING
    }
    others = {one.pause.pid for one in records if one.pause}
    others |= {pid for pid, _ in portfile.proxy_pids([one.name for one in records])}
    counts = {one.id: 0 for one in records}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in others:
            for pod in _pods_of(int(name), owner):
                counts[pod] += 1
    return counts


def _pods_of(pid: int, owner: dict[tuple[str, int], str]) -> set[str]:
    ids = [(kind, _inode(pid, kind)) for kind in _TELLING]
    # Who shares the network alone with one pod, and more with another, is of the other.
    pods = {owner[one] for one in ids if one in owner and one[0] != "net"}
    pods = pods or {owner[one] for one in ids if one in owner}
    try:
        return pods if not pods or process.stat_fields(pid)[0] != "Z" else set()
    except OSError:
        return set()


def _look(pid: int, wanted: dict[str, int]) -> Inside | None:
    shared = frozenset(name for name, number in wanted.items() if _inode(pid, name) == number)
    if not shared:
        return None
    fields = process.stat_fields(pid)
    status = status_of(pid)
    return Inside(
        pid,
        int(status["NSpid"].split()[-1]),
        int(fields[1]),
        fields[0],
        int(status["Uid"].split()[1]),
        int(fields[19]),
        seccomp_mode(status),
        shared,
        command_of(pid, status["Name"]),
    )


def seccomp_mode(status: dict[str, str]) -> str:
    """Of /proc/PID/status: "filter", "off", or "strict", which nobody uses any more. See seccomp(2)."""
    return {"0": "off", "1": "strict", "2": "filter"}.get(status.get("Seccomp", "0"), "unknown")


def _inode(pid: int, kind: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except _GONE:
        return -1  # a zombie has only its PID namespace left


def status_of(pid: int, tid: int | None = None) -> dict[str, str]:
    """What proc_pid_status(5) says of a process, or of one of its threads."""
    with open(f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status", "rb") as file:
        text = os.fsdecode(file.read())
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.split("\n"))}


def tracer_of(pid: int) -> int:
    """Who traces a process, also a zombie; 0 if nobody does, or it has gone. See ptrace(2)."""
    try:
        return int(status_of(pid)["TracerPid"])
    except (OSError, KeyError, ValueError):
        return 0


def signals_awaited(pid: int) -> int:
    """The mask of signals that a process catches or blocks. See proc_pid_status(5)."""
    status = status_of(pid)
    return int(status["SigCgt"], 16) | int(status["SigBlk"], 16)


def command_of(pid: int, name: str) -> tuple[str, ...]:
    """Its arguments, or its name in brackets where it has none."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    while words and not words[-1]:
        words.pop()
    return tuple(os.fsdecode(word) for word in words) or (f"[{name}]",)
