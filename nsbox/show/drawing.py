"""Shapes with places, of which an SVG is made: the matrix and the trees. All sizes are pixels.

All text is in a font in which each character is 0.6 of its size wide, so that what fits can be
told without measuring.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .node import Node
from .rows import Block, Row
from .view import SHAPES, Cell

CHAR = 7.8  # of 13 pixels, the size of all text but headings
ROW = 26
MARK = 26  # how wide a namespace is, as shape and letter
_HEADS = {"cgroup": "cgrp"}
SIGNS = {"new": "+", "gone": "−", "moved": "~"}


class Text(NamedTuple):
    """Words; x is where they begin, or end with anchor "end"; y is the base line."""

    x: float
    y: float
    text: str
    style: str = ""
    anchor: str = "start"
    faded: bool = False
    what: str = "text"


class Mark(NamedTuple):
    """A namespace; x and y are its middle."""

    x: float
    y: float
    cell: Cell
    label: str
    faded: bool = False
    what: str = "mark"


class Box(NamedTuple):
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    style: str = "box"
    what: str = "box"


class Line(NamedTuple):
    """A path; d as SVG writes it."""

    d: str
    style: str = "guide"
    label: str = ""
    what: str = "line"


Item = Text | Mark | Box | Line


class Drawing(NamedTuple):
    """Things that are drawn one after the other, and the room that they take."""

    width: float
    height: float
    items: tuple[Item, ...]


def cut(text: str, width: float) -> str:
    """As much of a text as fits into so many pixels."""
    most = int(width / CHAR)
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def length(text: str) -> float:
    """How wide a text is."""
    return len(text) * CHAR


# ---- the matrix ----

_PID_END, _NAME, _NAME_WIDTH, _CELL = 64, 78, 150, 44
_FIRST_CELL = _NAME + _NAME_WIDTH
_NOTE_WIDTH = 230


def matrix(found: Sequence[Block], kinds: Sequence[str], *, compared: bool = False) -> Drawing:
    """Processes × kinds, a panel for each group.

    Args:
        compared: what did not change is faded.
    """
    items: list[Item] = [
        Text(_FIRST_CELL + _CELL * number + _CELL / 2, 14, _HEADS.get(kind, kind), "head", "middle")
        for number, kind in enumerate(kinds)
    ]
    width, y = _FIRST_CELL + _CELL * len(kinds) + 16 + _NOTE_WIDTH, 26.0
    for block in found:
        titled = block.what != "host"
        height = ROW * (len(block.rows) + titled) + 12
        items.append(Box(0, y, width, height))
        y += 6
        if titled:
            items.append(Text(14, y + 18, cut(block.title, _FIRST_CELL - 20), "strong"))
            items.append(Text(_FIRST_CELL + 8, y + 18, cut(block.summary, width - _FIRST_CELL - 16), "muted"))
            y += ROW
        for row in block.rows:
            drawn = _matrix_row(row, block, y + ROW / 2)
            items += (item._replace(faded=True) for item in drawn) if compared and not row.change else drawn
            y += ROW
        y += 6 + 10
    items += _legend(y + 12)
    return Drawing(width, y + 26, tuple(items))


def _legend(middle: float) -> Iterator[Item]:
    """What the shapes mean."""
    x = 14.0
    for shape, letter in zip(("own", "shared", "alone"), "ABC"):
        yield Mark(x + MARK / 2, middle, Cell("", letter, shape, 0), SHAPES[shape])
        yield Text(x + MARK + 8, middle + 4.5, SHAPES[shape], "muted")
        x += MARK + 20 + length(SHAPES[shape])
    yield Text(x, middle + 4.5, "same letter in a column: same namespace", "muted")


def _matrix_row(row: Row, block: Block, middle: float) -> list[Text | Mark]:
    base = middle + 4.5
    if block.what == "host" and " process" in row.name:
        own = "you, " * (row.cells[0].shape == "own")
        items: list[Text | Mark] = [Text(14, base, cut(own + row.name, _FIRST_CELL - 20), "strong" if own else "muted")]
    else:
        items = [Text(_PID_END, base, f"{SIGNS.get(row.change, '')} {row.pids[0]}".lstrip(), "muted", "end"),
                 Text(_NAME, base, cut(row.name, _NAME_WIDTH))]  # fmt: skip
    for number, cell in enumerate(row.cells):
        label = f"{row.name}: {cell.kind} {cell.letter or '?'}" + (f", was {cell.was}" if cell.was else "")
        items.append(Mark(_FIRST_CELL + _CELL * number + _CELL / 2, middle, cell, label))
    end = _FIRST_CELL + _CELL * len(row.cells) + 16
    return [*items, Text(end, base, cut(row.note, _NOTE_WIDTH), "muted")]


# ---- trees ----

_INDENT = 24
_WIDTH_MAX = 900


def tree(nodes: Sequence[Node], *, compared: bool = False) -> Drawing:
    """Lines that hang below each other.

    Args:
        compared: what did not change is faded.
    """
    items: list[Item] = []
    y, width = 0.0, 0.0
    for node in nodes:
        y, width = _branch(node, 0, y, width, items, compared)
    return Drawing(width, y, tuple(items))


def _branch(
    node: Node, depth: int, y: float, width: float, items: list[Item], compared: bool
) -> tuple[float, float]:
    middle = y + ROW / 2
    x = _words(node, depth * _INDENT, middle, items, compared and not node.change)
    y, width = y + ROW, max(width, x)
    for number, child in enumerate(node.children):
        corner = depth * _INDENT + MARK / 2 - 4
        top = middle + (12 if number == 0 else -ROW / 2)
        items.append(Line(f"M{corner:g} {top:g}V{y + ROW / 2:g}H{corner + _INDENT - 12:g}"))
        below = y
        y, width = _branch(child, depth + 1, y, width, items, compared)
        if number < len(node.children) - 1 and y > below + ROW:
            items.append(Line(f"M{corner:g} {below + ROW / 2:g}V{y:g}"))
        middle = y
    return y, width


def _words(node: Node, x: float, middle: float, items: list[Item], faded: bool) -> float:
    words = (*([SIGNS[node.change]] if node.change else []), *node.line)
    for number, word in enumerate(words):
        if isinstance(word, Cell):
            items.append(Mark(x + MARK / 2 - 2, middle, word, f"{word.kind} {word.letter}", faded))
            x += MARK + 6
        else:
            text = cut(word, _WIDTH_MAX - x)
            items.append(Text(x, middle + 4.5, text, "" if number else "strong", faded=faded))
            followed = number + 1 < len(words) and isinstance(words[number + 1], Cell)
            x += length(text) + (6 if followed else CHAR)
    return x


# ---- put together ----

_GAP_X, _GAP_Y, _HEADING = 48, 30, 34
_PAGE_WIDTH = 860


def stack(parts: Sequence[tuple[str, Drawing]]) -> Drawing:
    """Drawings with a heading each, below each other; beside each other where there is room."""
    items: list[Item] = []
    x, y, bottom, width = 0.0, 0.0, 0.0, 0.0
    for heading, part in parts:
        wide = max(part.width, length(heading) * 1.25)
        if x + wide > max(_PAGE_WIDTH, width):
            x, y = 0.0, bottom + _GAP_Y
        down = y + _HEADING * bool(heading)
        if heading:
            items.append(Text(x, y + 18, heading, "title"))
        items += (moved(item, x, down) for item in part.items)
        bottom, width = max(bottom, down + part.height), max(width, x + wide)
        x += wide + _GAP_X
    return Drawing(width, bottom, tuple(items))


def moved(item: Item, right: float, down: float) -> Item:
    """The same somewhere else. A line moves by its first point only if it is written in steps."""
    if isinstance(item, Line):
        return item._replace(d=_shifted(item.d, right, down))
    return item._replace(x=item.x + right, y=item.y + down)


def _shifted(d: str, right: float, down: float) -> str:
    """A path of absolute M, L, C, H and V somewhere else."""
    import re

    def step(found: "re.Match[str]") -> str:
        letter, numbers = found[1], [float(word) for word in found[2].split()]
        by = {"H": (right, right), "V": (down, down)}.get(letter, (right, down))
        return letter + " ".join(f"{number + by[place % 2]:g}" for place, number in enumerate(numbers))

    return re.sub(r"([MLCHV])([^MLCHV]*)", step, d)
