"""The picture of a machine's namespaces as plain values: what `map --json` prints and every drawing draws.

    processes    each with the id of the namespace of each kind that it is in
    namespaces   each with its letter, owner, parent, and what keeps it alive
    groups       which processes belong together: the host's, a pod's, those of another program
    unread       what could not be seen, and why

Letters are given by kind: A is the caller's own namespace, so equal letters in one column are one
namespace. An earlier picture can lend its letters, and what is still there keeps them.
"""

import os
import time
from typing import Any, Iterable, Iterator

from ..linux import discovery, process
from ..linux.discovery import World
from ..linux.namespaces import KINDS
from ..pod import store
from ..pod.record import PodRecord

FORMAT = "nsbox map 1"
# In the order in which they are drawn: rights first, then what a program sees, then its clock.
COLUMNS = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time")
# Kinds by which processes belong together. Many that have nothing to do with each other share a
# user, cgroup or time namespace.
_TELLING = ("pid", "net", "ipc", "uts", "mnt")

Picture = dict[str, Any]


def take(earlier: Picture | None = None) -> Picture:
    """Look at the machine now.

    Args:
        earlier: a picture of the same boot; namespaces that are in both have its letters.
    """
    world = discovery.discover()
    groups = list(_groups(world, _running_pods()))
    return {
        "format": FORMAT,
        "taken": time.time(),
        "boot_id": process.boot_id(),
        "hostname": os.uname().nodename,
        "viewer": {"pid": os.getpid(), "uid": os.geteuid()},
        "kinds": list(COLUMNS),
        "own": world.own,
        "groups": groups,
        "processes": [_process(one) for one in world.processes.values()],
        "namespaces": _namespaces(world, groups, earlier),
        "unread": [one._asdict() | {"pids": list(one.pids)} for one in world.unread],
    }


def _process(one: discovery.Process) -> dict[str, Any]:
    return {
        **one._asdict(),
        "pids": list(one.pids),
        "command": list(one.command),
        "strays": [{"thread": thread, "kind": kind, "id": number} for thread, kind, number in one.strays],
    }


# ---- groups ----

def _running_pods() -> list[PodRecord]:
    return [entry.record for entry in store.entries() if entry.record and entry.status == "running"]


def _groups(world: World, pods: list[PodRecord]) -> Iterator[dict[str, Any]]:
    """The host's own processes, then the pods in the order of their names, then all others."""
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
    yield {"what": "host", "name": "host", "pause": None, "pids": members.pop("", [])}
    pauses = {record.name: record.pause.pid if record.pause else None for record in pods}
    for name in sorted(members):
        first = [pid for pid in members[name] if pid == pauses[name]]
        rest = [pid for pid in members[name] if pid != pauses[name]]
        yield {"what": "pod", "name": name, "pause": pauses[name], "pids": first + rest}
    for cluster in _clusters(world, others):
        yield {"what": "other", "name": world.processes[cluster[0]].name, "pause": None, "pids": cluster}


def _is_at_home(one: discovery.Process, own: dict[str, int]) -> bool:
    return not one.strays and all(own.get(kind) == number for kind, number in one.namespaces.items())


def _pod_of(one: discovery.Process, owner: dict[tuple[str, int], str]) -> str:
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


# ---- namespaces and their letters ----

def _namespaces(world: World, groups: list[dict[str, Any]], earlier: Picture | None) -> list[dict[str, Any]]:
    letters = _letters(world, groups, earlier)
    return [
        {
            "id": row.id,
            "kind": row.kind,
            "letter": letters[row.id],
            "serial": row.serial,
            "owner": row.owner,
            "parent": row.parent,
            "uid": row.uid,
            "pids": list(row.pids),
            "holders": [holder._asdict() for holder in row.holders],
        }
        for row in sorted(world.namespaces.values(), key=lambda row: _place(row.kind, letters[row.id]))
    ]


def _letters(world: World, groups: list[dict[str, Any]], earlier: Picture | None) -> dict[int, str]:
    """A letter for each id: the caller's own first, then in the order in which the rows are drawn."""
    lent = lend(earlier)
    found: dict[int, str] = {}
    for kind in COLUMNS:
        ids = dict.fromkeys([world.own[kind]] if kind in world.own else [])
        for group in groups:
            for pid in group["pids"]:
                ids |= dict.fromkeys(filter(None, [world.processes[pid].namespaces.get(kind)]))
        ids |= dict.fromkeys(row.id for row in world.namespaces.values() if row.kind == kind)
        keys = {number: key_of(kind, number, world.namespaces[number].serial) for number in ids}
        kept = {number: lent[key] for number, key in keys.items() if key in lent}
        taken = {*kept.values(), *(letter for (of, _, _), letter in lent.items() if of == kind)}
        free = (letter for letter in _all_letters() if letter not in taken)
        for number in ids:
            found[number] = kept.get(number) or next(free)
    return found


def lend(earlier: Picture | None) -> dict[tuple[str, int, int | None], str]:
    """The letters of a picture, by what tells its namespaces from all others."""
    rows = earlier["namespaces"] if earlier else ()
    return {key_of(row["kind"], row["id"], row["serial"]): row["letter"] for row in rows}


def key_of(kind: str, number: int, serial: int | None) -> tuple[str, int, int | None]:
    """What is the same in two pictures if, and only if, it is the same namespace."""
    return kind, number, serial


def _all_letters() -> Iterator[str]:
    """A to Z, then AA to ZZ, and so on."""
    number = 0
    while True:
        number += 1
        left, letters = number, ""
        while left:
            left, digit = divmod(left - 1, 26)
            letters = chr(ord("A") + digit) + letters
        yield letters


def _place(kind: str, letter: str) -> tuple[int, int, str]:
    """For sorting: column by column, A to Z before AA."""
    return COLUMNS.index(kind), len(letter), letter


assert set(COLUMNS) == {kind.name for kind in KINDS}
