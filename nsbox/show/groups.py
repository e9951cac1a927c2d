"""Which processes belong together: those of the host, of each pod, and of other programs."""

from typing import Any, Iterable, Iterator, Sequence

from ..linux.procfs import Process
from ..linux.world import World
from ..pod.record import PodRecord

# Kinds by which a process belongs to a pod. Many that have nothing to do with each other share a
# user, cgroup or time namespace.
_TELLING = ("pid", "net", "ipc", "uts", "mnt")

Group = dict[str, Any]


def form(world: World, pods: Sequence[PodRecord], proxies: frozenset[int]) -> Iterator[Group]:
    """The host's own processes, then the pods in the order of their names, then all others.

    Args:
        proxies: PIDs of those that serve the ports of pods.
    """
    members: dict[str, list[int]] = {}
    owner = {(kind, number): record.name for record in pods for kind, number in record.kinds if kind in _TELLING}
    others: list[int] = []
    for pid, one in world.processes.items():
        if one.kernel and one.namespaces == world.own or one.problem or _is_at_home(one, world.own):
            members.setdefault("", []).append(pid)
        elif name := _pod_of(one, owner):
            members.setdefault(name, []).append(pid)
        else:
            others.append(pid)
    yield {"what": "host", "name": "host", "pause": None, "pids": members.pop("", []), "proxies": []}
    pauses = {record.name: record.pause.pid if record.pause else None for record in pods}
    for name in sorted(members):
        # The pause first. The proxy of the ports last: it is in the pod's network, and no member.
        pids = sorted(members[name], key=lambda pid: (pid in proxies, pid != pauses[name], pid))
        yield {"what": "pod", "name": name, "pause": pauses[name], "pids": pids,
               "proxies": [pid for pid in pids if pid in proxies]}
    for cluster in _clusters(world, others):
        yield {"what": "other", "name": world.processes[cluster[0]].name, "pause": None, "pids": cluster,
               "proxies": []}


def _is_at_home(one: Process, own: dict[str, int]) -> bool:
    return not one.strays and all(own.get(kind) == number for kind, number in one.namespaces.items())


def _pod_of(one: Process, owner: dict[tuple[str, int], str]) -> str:
    """Who shares the network alone with one pod, and more with another, is of the other."""
    found = {kind: owner[kind, number] for kind, number in one.namespaces.items() if (kind, number) in owner}
    return next((name for kind, name in found.items() if kind != "net"), found.get("net", ""))


def _clusters(world: World, pids: Iterable[int]) -> list[list[int]]:
    """Processes that share a namespace which is not the caller's, directly or by way of others."""
    chief = {pid: pid for pid in pids}  # of each, one of its cluster; at last the same for all of them

    def chief_of(pid: int) -> int:
        while chief[pid] != pid:
            chief[pid] = chief[chief[pid]]
            pid = chief[pid]
        return pid

    first: dict[tuple[str, int], int] = {}
    for pid in chief:
        for kind, number in world.processes[pid].namespaces.items():
            if world.own.get(kind) != number:
                chief[chief_of(pid)] = chief_of(first.setdefault((kind, number), pid))
    clusters: dict[int, list[int]] = {}
    for pid in chief:
        clusters.setdefault(chief_of(pid), []).append(pid)
    return sorted(clusters.values())
