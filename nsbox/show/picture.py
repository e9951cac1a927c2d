"""The picture of a machine's namespaces as plain values: what `map --json` prints and every drawing draws.

    processes    each with the id of the namespace of each kind that it is in
    namespaces   each with its letter, its owner and parent, and what keeps it alive
    groups       which processes belong together: the host's, a pod's, those of another program
    nets         what there is in each network namespace: links, cables between them, who listens
    published    which port of the host leads to which pod
    unread       what could not be seen, and why
"""

import os
import time
from functools import partial
from typing import Any, Callable

from ..errors import NsboxError
from ..linux import discovery, process, procfs
from ..linux.world import Namespace, World
from ..pod import portfile, store, target
from ..pod.record import PodRecord
from . import groups, letters

FORMAT = "nsbox map 1"
Picture = dict[str, Any]


def take(earlier: Picture | None = None, *, nets: bool = True) -> Picture:
    """Look at the machine now.

    Args:
        earlier: a picture of the same boot; namespaces that are in both have its letters.
        nets: look into the network namespaces too, which takes longest.
    """
    world = discovery.discover()
    pods = [one.record for one in store.entries(missing_ok=True) if one.record and one.status == "running"]
    ports = portfile.of_pods([record.name for record in pods])
    proxies = frozenset(one.proxy.pid for one in ports.values() if one.proxy)
    formed = list(groups.form(world, pods + target.lent(), proxies))
    named = letters.assign(world, [pid for group in formed for pid in group["pids"]], earlier)
    return {
        "format": FORMAT,
        "taken": time.time(),
        "boot_id": process.boot_id(),
        "hostname": os.uname().nodename,
        "viewer": {"pid": procfs.own_pid(), "uid": os.geteuid()},
        "kinds": list(letters.COLUMNS),
        "own": world.own,
        "groups": formed,
        "processes": [_process(one) for one in world.processes.values()],
        "namespaces": [
            _namespace(row, named[row.id])
            for row in sorted(world.namespaces.values(), key=lambda row: letters.place(row.kind, named[row.id]))
        ],
        "nets": _nets(world) if nets else [],
        "published": _published([record for record in pods if record.name in ports]),
        "unread": [one._asdict() | {"pids": list(one.pids)} for one in world.unread],
    }


def _process(one: discovery.Process) -> dict[str, Any]:
    return {
        **one._asdict(),
        "pids": list(one.pids),
        "command": list(one.command),
        "strays": [{"thread": thread, "kind": kind, "id": number} for thread, kind, number in one.strays],
    }


def _namespace(row: Namespace, letter: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "letter": letter,
        "serial": row.serial,
        "owner": row.owner,
        "parent": row.parent,
        "uid": row.uid,
        "uid_map": _uid_map(row.pids) if row.kind == "user" else None,
        "pids": list(row.pids),
        "holders": [holder._asdict() for holder in row.holders],
    }


def _uid_map(pids: tuple[int, ...]) -> list[list[int]] | None:
    """Ranges of (inside, outside, how many), or None where nobody is left to be asked."""
    for pid in pids:
        try:
            return [list(row) for row in procfs.id_map(pid)]
        except OSError:
            continue
    return None


# ---- networks ----

def _nets(world: World) -> list[dict[str, Any]]:
    from ..net import survey  # pyroute2 comes along

    def openers(kind: str) -> dict[int, Callable[[], int]]:
        return {
            row.id: partial(discovery.open_namespace, row)
            for row in world.namespaces.values()
            if row.kind == kind and row.id != (world.own.get(kind) if kind == "user" else None)
        }

    owners = {row.id: row.owner for row in world.namespaces.values() if row.kind == "net"}
    found = survey.survey_all(openers("net"), owners, openers("user"))
    for row in found.values():
        for listener in row["listens"]:
            listener["pid"] = world.sockets.get(listener.pop("inode"))
    return [{"id": number, **row} for number, row in found.items()]


def _published(pods: list[PodRecord]) -> list[dict[str, Any]]:
    found = []
    for record in pods:
        from ..pod import publish  # only pods with ports need it

        try:
            net = dict(record.kinds).get("net")
            found += [{"pod": record.name, "net": net, **row} for row in publish.published(record.name)]
        except NsboxError:
            continue  # it ended meanwhile, or its file cannot be read: a map must not end with one pod
    return found
