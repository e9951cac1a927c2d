"""Three trees of a picture: who owns whom, the numbers of a process at each level, and the networks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .compare import IDLE, folded, merged
from .node import Node
from .view import Cell, View

_ALL_IDS = 0xFFFF_FFFF  # in a map of all users: that number itself is nobody


# ---- owners ----

def _owners(view: View) -> list[Node]:
    """User namespaces, each with those that it owns: rights over these come from there."""
    users = view.drawn("user")
    known = {row["id"] for row in users}
    return [_user(row, users, view) for row in users if row["owner"] not in known]


def _user(row: dict[str, Any], users: Sequence[dict[str, Any]], view: View) -> Node:
    words: list[str | Cell] = ["user", view.cell(row["id"]), view.name_of(row["id"])]
    if row["owner"] is not None:
        words.append(f"made by uid {row['uid']}")
    words.append(ids_in_words(row["uid_map"]))
    children = [*_owned(row["id"], view), *(_user(one, users, view) for one in users if one["owner"] == row["id"])]
    return Node(tuple(filter(None, words)), tuple(children), key=("user", row["letter"]))


def _owned(user: int, view: View) -> Iterator[Node]:
    """What a user namespace owns, one line for those of one group."""
    lines: dict[str, list[Cell]] = {}
    for row in view.picture["namespaces"]:
        if row["owner"] == user and row["kind"] != "user" and row["id"] in view.scope:
            lines.setdefault(view.name_of(row["id"]), []).append(view.cell(row["id"]))
    for name, cells in lines.items():
        words: list[str | Cell] = [name]
        for kind in view.picture["kinds"]:
            of_kind = [cell for cell in cells if cell.kind == kind]
            words += [kind, *of_kind] if of_kind else []
        yield Node(tuple(words), key=("owned", name))


def ids_in_words(uid_map: list[list[int]] | None) -> str:
    """The uid map in words: which number inside is which outside."""
    if uid_map is None:
        return ""
    if not uid_map:
        return "no uid is mapped"
    if all(inside == outside for inside, outside, _ in uid_map) and sum(row[2] for row in uid_map) >= _ALL_IDS:
        return "every uid is itself"
    parts = [f"{_range(inside, count)} is {_range(outside, count)} outside" for inside, outside, count in uid_map]
    return "uid " + ", ".join(parts)


def _range(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


# ---- PIDs ----

def _towers(view: View) -> list[Node]:
    """PID namespaces below each other; each process with its number at every level."""
    spaces = view.drawn("pid")
    known = {row["id"] for row in spaces}
    return [_space(row, spaces, view) for row in spaces if row["parent"] not in known]


def _space(row: dict[str, Any], spaces: Sequence[dict[str, Any]], view: View) -> Node:
    own = row["id"] == view.picture["own"].get("pid")
    words: list[str | Cell] = ["pid", view.cell(row["id"]), view.name_of(row["id"])]
    count = f"{len(row['pids'])} processes" if own else ""
    inside = [] if own else list(_numbers([view.processes[pid] for pid in row["pids"] if pid in view.processes]))
    below = [_space(one, spaces, view) for one in spaces if one["parent"] == row["id"]]
    return Node(tuple(filter(None, words)), (*inside, *below), key=("pid", row["letter"]), aside=count)


def _numbers(processes: Sequence[dict[str, Any]]) -> Iterator[Node]:
    for one in sorted(processes, key=lambda one: int(one["pids"][-1])):
        said = f"{one['name']}{' zombie' * (one['state'] == 'Z')}"
        words: tuple[str, ...] = (" = ".join(map(str, one["pids"])), said)
        alike = said if one["pids"][-1] != 1 else ""
        yield Node(words, key=(one["pid"], one["start_time"]), alike=alike)


# ---- networks ----

def _networks(view: View) -> list[Node]:
    """Network namespaces with their links, who listens, and what is published into them."""
    rows = {row["id"]: row for row in view.picture["nets"]}
    found = []
    for space in view.drawn("net"):
        net = rows.get(space["id"])
        lines = list(_net(net, view)) if net else []
        cell = view.cell(space["id"])
        words: tuple[str | Cell, ...] = ("net", cell, view.name_of(space["id"]))
        alike = IDLE if is_idle(net, view) and cell.shape != "own" else ""
        found.append(Node(tuple(filter(None, words)), tuple(lines), key=("net", space["letter"]), alike=alike))
    return found


def is_idle(net: dict[str, Any] | None, view: View) -> bool:
    """Whether there is nothing in a network but lo: no link, nobody who listens, no published port."""
    if net is None or net["problem"] or net["listens"] or len(net["links"]) > 1:
        return False
    return all(row["net"] != net["id"] for row in view.picture["published"])


def _net(net: dict[str, Any], view: View) -> Iterator[Node]:
    if net["problem"]:
        yield Node((f"cannot be looked at: {net['problem']}",), key=("problem",))
    numbers = {link["index"] for link in net["links"]}
    for link in net["links"]:
        if link["master"] not in numbers:
            ports = (_node(one, view) for one in net["links"] if one["master"] == link["index"])
            yield _node(link, view)._replace(children=tuple(ports))
    for one in net["listens"]:
        yield Node(tuple(_listener(one, net["id"], view)), key=("listens", one["proto"], one["address"], one["port"]))


def _node(link: dict[str, Any], view: View) -> Node:
    return Node(_link(link, view), key=("link", link["index"]))


def _link(link: dict[str, Any], view: View) -> tuple[str | Cell, ...]:
    words: list[str | Cell] = [link["name"], link["kind"] if link["kind"] != "veth" else ""]
    words += [address for address in link["addresses"] if not address.startswith("fe80:")]
    if not link["up"]:
        words.append("down")
    if link["peer"] is not None:
        far = link["peer"]["net"]
        words += ["↔", far_name(link, view)]
        words += ["of", view.cell(far), view.name_of(far)] if far in view.named else []
    return tuple(filter(None, words))


def far_name(link: dict[str, Any], view: View) -> str:
    """What the other end of a cable is called over there."""
    for net in view.picture["nets"]:
        if net["id"] == link["peer"]["net"]:
            for other in net["links"]:
                if other["index"] == link["peer"]["index"]:
                    return str(other["name"])
    return "a network that is not seen"


def _listener(one: dict[str, Any], net: int, view: View) -> Iterator[str | Cell]:
    yield "listens"
    yield endpoint(one["address"], one["port"], one["proto"])
    if one["pid"] in view.processes:
        yield f"{view.processes[one['pid']]['name']}"
    for row in view.picture["published"]:
        same = (row["proto"], row["host_address"], row["host_port"]) == (one["proto"], one["address"], one["port"])
        if same and net == view.picture["own"].get("net") and row["net"] in view.named:
            yield "→"
            yield f"{row['pod_port']} of"
            yield view.cell(row["net"])
            yield f"pod {row['pod']}"


def endpoint(address: str, port: int, proto: str) -> str:
    """Where somebody listens: 80/tcp for all addresses, else 127.0.0.1:80/tcp."""
    if address in ("0.0.0.0", "::"):
        return f"{port}/{proto}"
    return f"[{address}]:{port}/{proto}" if ":" in address else f"{address}:{port}/{proto}"


_ALL: dict[str, Callable[[View], list[Node]]] = {"networks": _networks, "pids": _towers, "owners": _owners}
NAMES = tuple(_ALL)


def tree(name: str, view: View) -> tuple[Node, ...]:
    """One of them, with what is different from the earlier picture if the view has one."""
    nodes = _ALL[name](view)
    return folded(merged(nodes, _ALL[name](view.earlier)) if view.earlier else nodes)


HEADINGS = {
    "networks": "Networks: links, cables between them, who listens",
    "pids": "PIDs: one process has a number at each level",
    "owners": "Owners: rights over a namespace come from the user namespace that owns it",
}
