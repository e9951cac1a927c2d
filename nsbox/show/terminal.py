"""The picture in the terminal: 80 columns are enough, and so is ASCII without colours."""

from typing import TYPE_CHECKING, NamedTuple, Sequence

from .changes import Change
from .rows import Block, Row
from .text import printable
from .trees import Node
from .view import SHAPES, Cell

if TYPE_CHECKING:
    from rich.text import Text

_PID, _NAME, _CELL = 7, 15, 5
_HEAD = {"cgroup": "cgrp"}
_GLYPHS = {"own": "○", "shared": "■", "alone": "◆", "hidden": "?", "none": "-"}
_ASCII = {"own": ".", "shared": "#", "alone": "*", "hidden": "?", "none": "-"}
_SIGNS = {"new": "+", "gone": "-", "moved": "~"}
_GUIDES = ("├─ ", "└─ ", "│  ", "   ")
_ASCII_GUIDES = ("|- ", "`- ", "|  ", "   ")
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
        return text if self.unicode else text.translate(_REPLACED).encode("ascii", "backslashreplace").decode()


def matrix(found: Sequence[Block], kinds: Sequence[str], style: Style, *, compared: bool = False) -> "list[Text]":
    """The lines of the matrix, each at most as wide as the terminal.

    Args:
        compared: what did not change shall not catch the eye.
    """
    from rich.text import Text

    lines = [Text(" " * (_PID + 1 + _NAME + 1) + "".join(_HEAD.get(kind, kind).ljust(_CELL) for kind in kinds), "bold")]
    for block in found:
        if block.what != "host":
            lines += [Text(), Text(style.plain(block.title), "bold underline")]
        for row in block.rows:
            line = _line(row, block, style)
            if compared and not row.change:
                line.stylize("dim")
            lines.append(line)
        if block.summary:
            lines.append(Text(" " * (_PID + 1) + style.plain(block.summary), "italic"))
    return _cropped([*lines, Text(), *_legend(style)], style)


def _line(row: Row, block: Block, style: Style) -> "Text":
    from rich.text import Text

    if block.what == "host" and " process" in row.name:
        head = f"{'you, ' if row.cells[0].shape == 'own' else ''}{row.name}".ljust(_PID + 1 + _NAME)
    else:
        sign = _SIGNS.get(row.change, "")
        head = f"{sign}{row.pids[0]:>{_PID - len(sign)}} {_cut(style.plain(row.name), _NAME, style):<{_NAME}}"
    line = Text(head + " ")
    for cell in row.cells:
        line.append(style.mark(cell).ljust(_CELL), f"reverse {colour(cell)}" if cell.was else colour(cell))
    return line.append(style.plain(row.note))


def differences(found: Sequence[Change], since: str, style: Style) -> "list[Text]":
    """What is different, one line each."""
    from rich.text import Text

    lines = [Text(f"Changes since {since}", "bold underline")]
    lines += [Text(style.plain(f"{change.sign} {change.what} {change.text}")) for change in found]
    return _cropped(lines if found else [*lines, Text("none", "dim")], style)


def tree(heading: str, nodes: Sequence[Node], style: Style) -> "list[Text]":
    """The lines of a tree, each at most as wide as the terminal."""
    from rich.text import Text

    lines = [Text(style.plain(heading), "bold underline")]
    for node in nodes:
        _draw(node, "", "", style, lines)
    return _cropped(lines, style)


def _draw(node: Node, lead: str, below: str, style: Style, lines: "list[Text]") -> None:
    from rich.text import Text

    line = Text(lead, "dim")
    for number, word in enumerate(node.words):
        line.append(" " if number else "")
        if isinstance(word, Cell):
            line.append(style.mark(word), colour(word))
        else:
            line.append(style.plain(word))
    lines.append(line)
    branch, last, down, empty = _GUIDES if style.unicode else _ASCII_GUIDES
    for number, child in enumerate(node.children, 1):
        final = number == len(node.children)
        _draw(child, below + (last if final else branch), below + (empty if final else down), style, lines)


def colour(cell: Cell) -> str:
    """By its letter. What is the caller's own is dim: the eye shall go to what differs."""
    if cell.shape in ("own", "hidden", "none"):
        return "dim"
    return f"bold {_COLOURS[(hue(cell.letter) - 1) % len(_COLOURS)]}"


def hue(letter: str) -> int:
    """A number for a letter: A is 0, so that equal letters look alike in every drawing."""
    number = 0
    for char in letter:
        number = number * 26 + ord(char) - ord("A") + 1
    return number - 1


def _legend(style: Style) -> "list[Text]":
    from rich.text import Text

    shapes = "  ".join(
        f"{style.mark(Cell('', '', shape, 0))} {means}" for shape, means in list(SHAPES.items())[:3]
    )  # fmt: skip
    return [Text("The same letter in a column is the same namespace.", "dim"), Text(shapes, "dim")]


def _cropped(lines: "list[Text]", style: Style) -> "list[Text]":
    for line in lines:
        line.truncate(style.width, overflow="ellipsis" if style.unicode else "crop")
        line.rstrip()
    return lines


def _cut(text: str, width: int, style: Style) -> str:
    if len(text) <= width:
        return text
    return text[: width - 1] + ("…" if style.unicode else "~")
