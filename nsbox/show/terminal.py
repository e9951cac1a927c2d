"""The picture in the terminal: 80 columns are enough, and so is ASCII without colours."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ..words import SPELLED
from .node import Node
from .pieces import Line, Piece, cut, fitted, width_of
from .rows import Block, Row
from .text import printable
from .view import SHAPES, Cell

if TYPE_CHECKING:
    from .changes import Change

_PID, _NAME, _CELL = 7, 15, 5
_HEAD = {"cgroup": "cgrp"}
_GLYPHS = {"own": "○", "shared": "■", "alone": "◆", "hidden": "?", "none": "-"}
_ASCII = {"own": ".", "shared": "#", "alone": "*", "hidden": "?", "none": "-"}
_SIGNS = {"new": "+", "gone": "-", "moved": "~"}
_GUIDES = ("├─ ", "└─ ", "│  ", "   ")
_ASCII_GUIDES = ("|- ", "`- ", "|  ", "   ")
_SIGNS_MEAN = "Signs: + new  - gone  ~ different"
_REPLACED = str.maketrans({"×": "x", "·": "|", "…": "~", "↔": "=", "→": "->"})
# Told apart with each of the common kinds of colour blindness, on dark and on light.
_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red", "bright_cyan", "bright_magenta")


class Style(NamedTuple):
    """What the terminal can do.

    Attributes:
        width: columns.
        unicode: it can show more than ASCII.
    """

    width: int
    unicode: bool

    def mark(self, cell: Cell) -> str:
        """A namespace as shape and letter."""
        return (_GLYPHS if self.unicode else _ASCII)[cell.shape] + cell.letter

    def plain(self, text: str) -> str:
        """The text as this terminal can show it, and nothing in it that would steer the terminal."""
        text = printable(text)
        return text if self.unicode else text.translate(_REPLACED).encode("ascii", SPELLED).decode()


def matrix(
    found: Sequence[Block], kinds: Sequence[str], style: Style, *, signs: bool = False, compared: bool = False
) -> list[Line]:
    """The lines of the matrix, each at most as wide as the terminal.

    Args:
        signs: say what the signs of a comparison mean.
        compared: what did not change shall not catch the eye.
    """
    heads = "".join(_HEAD.get(kind, kind).ljust(_CELL) for kind in kinds)
    lines = [[Piece(" " * (_PID + 1 + _NAME + 1) + heads, "bold")]]
    for block in found:
        if block.what != "host":
            lines += [[], [Piece(style.plain(block.title), "bold underline")]]
        for row in block.rows:
            line = _line(row, block, style)
            lines.append(_dimmed(line) if compared and not row.change else line)
        if block.summary:
            lines.append([Piece(" " * (_PID + 1) + style.plain(block.summary), "italic")])
    meaning = [[Piece(_SIGNS_MEAN, "dim")]] if signs else []
    return _fitted([*lines, [], *_legend(style), *meaning], style)


def _line(row: Row, block: Block, style: Style) -> Line:
    if block.what == "host" and " process" in row.name:
        head = f"{'you, ' if row.cells[0].shape == 'own' else ''}{row.name}".ljust(_PID + 1 + _NAME)
    else:
        sign = _SIGNS.get(row.change, "")
        head = f"{sign}{row.pids[0]:>{_PID - len(sign)}} {_padded(style.plain(row.name), _NAME, style)}"
    line = [Piece(head + " ")]
    for cell in row.cells:
        mark = style.mark(cell)
        if cell.was:
            line += (Piece(mark, f"reverse {colour(cell)}"), Piece(" " * (_CELL - len(mark))))
        else:
            line.append(Piece(mark.ljust(_CELL), colour(cell)))
    line.append(Piece(style.plain(row.note)))
    return line


def _dimmed(line: Line) -> Line:
    return [Piece(text, f"dim {style}") for text, style in line]


def differences(found: "Sequence[Change]", since: str, style: Style) -> list[Line]:
    """What is different, one line each."""
    lines = [[Piece(f"Changes since {since}", "bold underline")]]
    lines += [[Piece(style.plain(f"{change.sign} {change.what} {change.text}"))] for change in found]
    return _fitted(lines if found else [*lines, [Piece("none", "dim")]], style)


def tree(
    heading: str, nodes: Sequence[Node], style: Style, *, signs: bool = False, compared: bool = False
) -> list[Line]:
    """The lines of a tree, each at most as wide as the terminal.

    Args:
        signs: begin each line with what came of it in a comparison.
        compared: what did not change shall not catch the eye.
    """
    lines = [[Piece(style.plain(heading), "bold underline")]]
    for node, line in (found for top in nodes for found in _drawn(top, "", "", style)):
        if signs:
            line = [Piece(_SIGNS.get(node.change, " ") + " ", "bold"), *line]
        lines.append(_dimmed(line) if compared and not node.change else line)
    return _fitted(lines, style)


def _drawn(node: Node, lead: str, below: str, style: Style) -> Iterator[tuple[Node, Line]]:
    line = [Piece(lead, "dim")]
    for number, word in enumerate(node.line):
        if number:
            line.append(Piece(" "))
        line.append(Piece(style.mark(word), colour(word)) if isinstance(word, Cell) else Piece(style.plain(word)))
    yield node, line
    branch, last, down, empty = _GUIDES if style.unicode else _ASCII_GUIDES
    for number, child in enumerate(node.children, 1):
        final = number == len(node.children)
        yield from _drawn(child, below + (last if final else branch), below + (empty if final else down), style)


def colour(cell: Cell) -> str:
    """By its letter. What is the caller's own is dim: the eye shall go to what differs."""
    return "dim" if cell.shape in ("own", "hidden", "none") else _colour(cell.letter)


@cache
def _colour(letter: str) -> str:
    return f"bold {_COLOURS[(hue(letter) - 1) % len(_COLOURS)]}"


def hue(letter: str) -> int:
    """A number for a letter: A is 0, so that equal letters look alike in every drawing."""
    number = 0
    for char in letter:
        number = number * 26 + ord(char) - ord("A") + 1
    return number - 1


def _legend(style: Style) -> list[Line]:
    shapes = "  ".join(
        f"{style.mark(Cell('', '', shape, 0))} {means}" for shape, means in list(SHAPES.items())[:3]
    )  # fmt: skip
    return [[Piece("The same letter in a column is the same namespace.", "dim")], [Piece(shapes, "dim")]]


def _fitted(lines: Sequence[Line], style: Style) -> list[Line]:
    return [fitted(line, style.width, "…" if style.unicode else "") for line in lines]


def _padded(text: str, width: int, style: Style) -> str:
    """Exactly so many columns of a text."""
    if width_of(text) > width:
        text = cut(text, width - 1) + ("…" if style.unicode else "~")
    return text + " " * (width - width_of(text))
