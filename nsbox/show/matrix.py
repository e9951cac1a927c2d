"""The matrix in the terminal: 80 columns are enough, and so is ASCII without colours."""

from typing import TYPE_CHECKING, NamedTuple, Sequence

from .rows import SHAPES, Block, Cell, Row
from .text import printable

if TYPE_CHECKING:
    from rich.text import Text

_PID, _NAME, _CELL = 7, 15, 5
_HEAD = {"cgroup": "cgrp"}
_GLYPHS = {"own": "○", "shared": "●", "alone": "◆", "hidden": "?", "none": "-"}
_ASCII = {"own": ".", "shared": "#", "alone": "*", "hidden": "?", "none": "-"}
# Told apart with each of the common kinds of colour blindness, on dark and on light; the eighth is plain.
_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red", "bright_cyan", "bright_magenta")


class Style(NamedTuple):
    """What the terminal can do.

    Attributes:
        width: columns.
        unicode: it can show more than ASCII.
    """

    width: int
    unicode: bool

    @property
    def glyphs(self) -> dict[str, str]:
        """The shapes, as one character each."""
        return _GLYPHS if self.unicode else _ASCII


def draw(found: Sequence[Block], kinds: Sequence[str], style: Style) -> "list[Text]":
    """The lines of the matrix, each at most as wide as the terminal."""
    from rich.text import Text

    lines = [Text(" " * (_PID + 1 + _NAME + 1) + "".join(_HEAD.get(kind, kind).ljust(_CELL) for kind in kinds), "bold")]
    for block in found:
        if block.what != "host":
            lines += [Text(), Text(printable(block.title), "bold underline")]
        lines += [_line(row, block, style) for row in block.rows]
        if block.summary:
            lines.append(Text(" " * (_PID + 1) + _plain(block.summary, style), "italic"))
    lines += [Text(), *legend(style)]
    for line in lines:
        line.truncate(style.width, overflow="ellipsis" if style.unicode else "crop")
        line.rstrip()
    return lines


def _line(row: Row, block: Block, style: Style) -> "Text":
    from rich.text import Text

    if block.what == "host" and " process" in row.name:
        head = f"{'you, ' if row.cells[0].shape == 'own' else ''}{row.name}".ljust(_PID + 1 + _NAME)
    else:
        head = f"{row.pids[0]:>{_PID}} {_cut(printable(row.name), _NAME, style):<{_NAME}}"
    line = Text(_plain(head, style) + " ")
    for cell in row.cells:
        line.append(f"{style.glyphs[cell.shape]}{cell.letter}".ljust(_CELL), _colour(cell))
    return line.append(_plain(printable(row.note), style))


def _colour(cell: Cell) -> str:
    """By its letter. What is the caller's own is dim: the eye shall go to what differs."""
    if cell.shape in ("own", "hidden", "none"):
        return "dim"
    number = sum(ord(char) - ord("A") for char in cell.letter) - 1
    return f"bold {_COLOURS[number % len(_COLOURS)]}"


def legend(style: Style) -> "list[Text]":
    """What letters and shapes mean, in two lines."""
    from rich.text import Text

    shapes = "  ".join(f"{style.glyphs[shape]} {means}" for shape, means in list(SHAPES.items())[:3])
    return [Text(_plain("The same letter in a column is the same namespace.", style), "dim"), Text(shapes, "dim")]


def _cut(text: str, width: int, style: Style) -> str:
    if len(text) <= width:
        return text
    return text[: width - 1] + ("…" if style.unicode else "~")


def _plain(text: str, style: Style) -> str:
    """The text as this terminal can show it."""
    if style.unicode:
        return text
    return text.replace("×", "x").replace("·", "|").replace("…", "~").encode("ascii", "backslashreplace").decode()
