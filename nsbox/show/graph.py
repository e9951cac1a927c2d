"""The picture as a graph, for Graphviz: who is in what, who owns what, which cable leads where.

In a comparison what is new, gone or different has a sign in its label, and a line of its own kind
besides its colour: Graphviz may draw in black and white.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from . import changes
from .drawing import SIGNS
from .trees import endpoint, far_name
from .view import View, title

_SHAPES = {"own": "circle", "shared": "box", "alone": "diamond"}
_KINDS = {"inside": "", "above": "style=dashed", "cable": "dir=none, penwidth=2", "published": "style=bold"}
# Of two attributes of one name in DOT the later one holds, so these stand last.
_LOOKS = {
    "node new": "shape=box, style=bold, color=forestgreen, fontcolor=forestgreen",
    "node gone": "shape=box, style=dashed, color=crimson, fontcolor=crimson",
    "node moved": "shape=box, style=dotted, color=darkorange3, fontcolor=darkorange3",
    "edge new": "penwidth=2, color=forestgreen, fontcolor=forestgreen",
    "edge gone": "style=dotted, color=crimson, fontcolor=crimson",
    "faded": "color=gray60, fontcolor=gray40",
}


class _Node(NamedTuple):
    """A process or a namespace. `look` is as DOT writes it, `lines` are those of its label."""

    name: str
    shape: str
    lines: tuple[str, ...]
    look: str = ""


class _Edge(NamedTuple):
    """From one node to another, by their names; `kind` is a key of _KINDS."""

    kind: str
    near: str
    far: str
    text: str = ""


_HOME = "host"  # the title of the group that most are in

Key = tuple[Any, ...]  # what is the same in an earlier picture if it is the same thing


class _Graph(NamedTuple):
    """What is drawn of one view. A node is known by its key; its group is "" where it is in none."""

    nodes: dict[Key, tuple[str, _Node]]
    edges: dict[Key, _Edge]


def values(view: View) -> dict[str, Any]:
    """What the template draws. Of the host's processes and the caller's namespaces only what leads somewhere."""
    graph = _graph(view)
    titles: dict[str, str] = {}
    looks: dict[Key, str] = {}
    if view.earlier:
        graph, titles, looks = _compared(graph, _graph(view.earlier), view, view.earlier)
    groups: dict[str, list[_Node]] = {}
    for group, node in graph.nodes.values():
        groups.setdefault(group, []).append(node)
    loose = groups.pop("", [])
    return {
        "hostname": view.picture["hostname"],
        "groups": [*((titles.get(name, name), nodes) for name, nodes in groups.items()), ("", loose)],
        "edges": [(edge, ", ".join(filter(None, (_KINDS[edge.kind], looks.get(key, "")))))
                  for key, edge in graph.edges.items()],
    }  # fmt: skip


# ---- one picture ----

def _graph(view: View) -> _Graph:
    own = set(view.picture["own"].values())
    nodes: dict[Key, tuple[str, _Node]] = {}
    for group in view.groups:
        processes = [view.processes[pid] for pid in group["pids"]]
        if group["what"] == "host":
            processes = [one for one in processes if one["pid"] in view.targets]
        for one in processes:
            text = f"{one['pid']} {one['name']}"
            nodes["p", one["pid"], one["start_time"]] = title(group), _Node(f"p{one['pid']}", "plaintext", (text,))
        for number in dict.fromkeys(number for one in processes for number in one["namespaces"].values()):
            if number not in own:
                nodes.setdefault(_key(number, view), (title(group), _namespace(number, view)))
    edges = {}
    for kind, near, far, text in (*_above(view), *_cables(view), *_published(view)):
        for number in (near, far):
            nodes.setdefault(_key(number, view), ("", _namespace(number, view)))
        edges[kind, _key(near, view), _key(far, view), text] = _Edge(kind, f"n{near}", f"n{far}", text)
    inside = {}
    for key in [key for key in nodes if key[0] == "p"]:
        for number in view.processes[key[1]]["namespaces"].values():
            if number not in own and _key(number, view) in nodes:
                inside["inside", key, _key(number, view)] = _Edge("inside", f"p{key[1]}", f"n{number}")
    return _Graph(nodes, inside | edges)


def _key(number: int, view: View) -> Key:
    return "n", *changes.key_of_row(view.named[number])


def _namespace(number: int, view: View) -> _Node:
    cell = view.cell(number)
    return _Node(f"n{number}", _SHAPES[cell.shape], (cell.kind, cell.letter))


def _above(view: View) -> Iterator[tuple[str, int, int, str]]:
    """Parents, and owners where these are not the caller's: all would own what is theirs."""
    own = view.picture["own"]
    for row in view.named.values():
        if row["id"] not in view.scope:
            continue
        if row["parent"] in view.named:
            yield "above", row["parent"], row["id"], "parent"
        elif row["owner"] in view.named and row["owner"] != own.get("user"):
            yield "above", row["owner"], row["id"], "owner"


def _cables(view: View) -> Iterator[tuple[str, int, int, str]]:
    for net in view.picture["nets"]:
        for link in net["links"]:
            peer = link["peer"]
            if peer and peer["net"] in view.scope and net["id"] in view.scope:
                if (net["id"], link["index"]) < (peer["net"], peer["index"]):
                    yield "cable", net["id"], peer["net"], f"{link['name']} = {far_name(link, view)}"


def _published(view: View) -> Iterator[tuple[str, int, int, str]]:
    own = view.picture["own"].get("net")
    for row in view.picture["published"]:
        if own in view.scope and row["net"] in view.scope:
            where = endpoint(row["host_address"], row["host_port"], row["proto"])
            yield "published", own, row["net"], f"{where} to {row['pod_port']}"


# ---- compared with an earlier one ----

def _compared(now: _Graph, before: _Graph, view: View, earlier: View) -> tuple[_Graph, dict[str, str], dict[Key, str]]:
    """Both as one, the titles of groups that came or went, and how its edges look."""
    nodes = {}
    for key, (group, node) in now.nodes.items():
        change, said = _change(key, group, view, earlier)
        nodes[key] = group, _marked(node, change, said)
    for key, (group, node) in before.nodes.items():
        if key not in nodes:
            went = not _is_there(key, view)
            # Another may have its number now.
            gone = _marked(node, "gone")._replace(name=f"gone-{node.name}")
            nodes[key] = (group, gone) if went else ("", _marked(node, ""))
    edges, looks = {}, {}
    for key, edge in now.edges.items():
        edges[key], looks[key] = _signed(edge, "" if key in before.edges else "new")
    for key, edge in before.edges.items():
        if key not in edges:
            ends = edge._replace(near=nodes[key[1]][1].name, far=nodes[key[2]][1].name)
            edges[key], looks[key] = _signed(ends, "gone")
    groups_now, groups_then = ({group for group, _ in graph.nodes.values()} for graph in (now, before))
    titles = {name: f"{SIGNS['new']} {name}" for name in groups_now - groups_then}
    titles |= {name: f"{SIGNS['gone']} {name}" for name in groups_then - groups_now}
    return _Graph(nodes, edges), titles, looks


def _is_there(key: Key, view: View) -> bool:
    if key[0] == "p":
        return key[1:] in view.known
    return key[1:] in {changes.key_of_row(row) for row in view.named.values()}


def _change(key: Key, group: str, view: View, earlier: View) -> tuple[str, str]:
    """What became of something that is drawn now, and in which way it is different."""
    if not _is_there(key, earlier):
        return "new", ""
    if key[0] == "p":
        said = ", ".join(changes.different(view.known[key[1:]], view, earlier, is_at_home=group == _HOME))
    else:
        said = changes.remapped(view.named[key[2]], earlier.named[key[2]])
    return "moved" if said else "", said


def _marked(node: _Node, change: str, said: str = "") -> _Node:
    if not change:
        return node._replace(look=_LOOKS["faded"])
    lines = (f"{SIGNS[change]} {node.lines[0]}", *node.lines[1:], *filter(None, [said]))
    look = _LOOKS[f"node {change}"]
    return node._replace(lines=lines, look=look if node.shape == "plaintext" else look.removeprefix("shape=box, "))


def _signed(edge: _Edge, change: str) -> tuple[_Edge, str]:
    if not change:
        return edge, _LOOKS["faded"]
    return edge._replace(text=f"{SIGNS[change]} {edge.text}".rstrip()), _LOOKS[f"edge {change}"]
