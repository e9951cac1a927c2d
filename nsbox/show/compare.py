"""Two trees of one kind as one: what came, what went and what says something else now is marked.

Nodes are the same when their keys are. Letters are the same in both pictures, so that the key of a
namespace is its letter: its number may have been given out again.
"""

from collections.abc import Iterator, Sequence

from .node import Node
from .rows import FOLD_FROM
from .view import Cell

IDLE = "idle"  # networks with nothing in them


def merged(now: Sequence[Node], before: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes of now in their order, then those that are gone."""
    old: dict[tuple[object, ...], list[Node]] = {}
    for node in before:
        old.setdefault(node.key, []).append(node)
    found = []
    for node in now:
        alike = old.get(node.key)
        found.append(_compared(node, alike.pop(0)) if alike else _marked(node, "new"))
    return (*found, *(_marked(node, "gone") for alike in old.values() for node in alike))


def _compared(node: Node, before: Node) -> Node:
    moved = [*map(_said, node.words)] != [*map(_said, before.words)]
    return node._replace(words=tuple(_words(node, before)) if moved else node.words, change="moved" * moved,
                         children=merged(node.children, before.children))


def _words(node: Node, before: Node) -> Iterator[str | Cell]:
    """Its words, a plus before what came, and at the end what it said before."""
    now, then = [*map(_said, node.words)], [*map(_said, before.words)]
    lost = [said for said in then if said not in now]
    came = [word for word, said in zip(node.words, now, strict=True) if said not in then]
    telling = Cell if lost or any(isinstance(word, Cell) for word in came) else (Cell, str)
    for word in node.words:
        if word in came and isinstance(word, telling):
            yield "+"
        yield word
    if lost:
        yield f"(was {' '.join(lost)})"


def _said(word: str | Cell) -> str:
    return f"{word.kind} {word.letter}" if isinstance(word, Cell) else word


def _marked(node: Node, change: str) -> Node:
    return node._replace(change=change, children=tuple(_marked(child, change) for child in node.children))


def folded(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Those that say the same, as one: processes of one name, and networks with nothing in them."""
    groups: dict[tuple[str | int, ...], list[Node]] = {}
    for number, node in enumerate(nodes):
        may_fold = node.alike and node.change != "moved" and _is_all(node, node.change)
        key = (node.alike, node.change) if may_fold else (number,)
        groups.setdefault(key, []).append(node._replace(children=folded(node.children)))
    found = [one for key, alike in groups.items() for one in _together(alike, len(key) == 2)]
    return tuple(sorted(found, key=lambda node: node.alike == IDLE))


def _together(alike: Sequence[Node], may_fold: bool) -> Iterator[Node]:
    first = alike[0]
    if may_fold and first.alike == IDLE:
        cells = [word for node in alike for word in node.words if isinstance(word, Cell)]
        yield Node(("nothing but lo, and nobody listens:", *cells), change=first.change, alike=IDLE)
    elif may_fold and len(alike) >= FOLD_FROM:
        yield first._replace(aside=f"and {len(alike) - 1} more")
    else:
        yield from alike


def _is_all(node: Node, change: str) -> bool:
    return node.change == change and all(_is_all(child, change) for child in node.children)
