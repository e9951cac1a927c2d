"""Files to keep and to show: SVG, DOT, and one HTML page with all in it. Made from templates.

Names of processes, paths and links are somebody else's words: templates escape every one of
them, and control characters are spelled out before that.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import changes, drawing, graph, plan, rows, trees
from .terminal import hue
from .text import clock, printable
from .unread import lines
from .view import SHAPES, View

_COMMON: dict[str, Any] = {
    "loader": jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True,
}  # fmt: skip
_HEADINGS = {"networks": "Networks", "pids": "PIDs at each level", "owners": "Owners"}
HUES = 8


@cache
def _environment() -> jinja2.Environment:
    """For SVG and HTML."""
    found = jinja2.Environment(**_COMMON, autoescape=True, finalize=_finalize)
    found.globals |= {"num": _number, "hue": _hue}
    return found


@cache
def _for_dot() -> jinja2.Environment:
    return jinja2.Environment(**_COMMON, autoescape=False, finalize=_dot)


def _finalize(value: Any) -> Any:
    """What comes from a machine, made printable; what a template made itself is left alone."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _dot(value: Any) -> Any:
    """The same inside of double quotes in DOT, where a backslash before a letter means something too."""
    return printable(value).replace("\\", "\\\\").replace('"', '\\"') if isinstance(value, str) else value


def _number(value: float) -> str:
    return f"{value:.5g}" if value < 10_000 else f"{value:.0f}"


def _hue(letter: str) -> int:
    return (hue(letter) - 1) % HUES


def svg(view: View, parts: Sequence[str], *, unfold: bool = False) -> str:
    """The picture as one SVG that needs nothing else, light or dark as its reader likes."""
    drawings = []
    compared = view.earlier is not None
    for part in parts:
        if part == "matrix":
            found = rows.blocks(view, unfold=unfold)
            drawings.append(("", drawing.matrix(found, view.picture["kinds"], compared=compared)))
        elif part == "networks":
            drawings.append((_HEADINGS[part], plan.draw(view)))
        else:
            drawings.append((_HEADINGS[part], drawing.tree(trees.tree(part, view), compared=compared)))
    return _environment().get_template("picture.svg.j2").render(
        drawing=drawing.stack(drawings), title=f"Namespaces of {view.picture['hostname']}", description=describe(view)
    )  # fmt: skip


def dot(view: View) -> str:
    """The picture as a graph for Graphviz."""
    return _for_dot().get_template("graph.dot.j2").render(graph.values(view))


def describe(view: View) -> str:
    """What a picture shows, for who cannot see it: each group in one sentence."""
    words = ["The same letter in a column is the same namespace; A is the caller's own."]
    for block in rows.blocks(view):
        names = ", ".join(dict.fromkeys(row.name for row in block.rows))
        words.append(f"{block.title}: {names}." + (f" {block.summary}." if block.summary else ""))
    return " ".join(words)


def html(view: View, parts: Sequence[str], *, unfold: bool = False, live: bool = False) -> str:
    """One page with everything in it: it loads nothing, and needs its script for looking closer only.

    Args:
        live: it is served, and renews itself.
    """
    style, script = Markup("\n").join(map(_text, ("colours.css", "shapes.css", "page.css"))), _text("page.js")
    return _environment().get_template("page.html.j2").render(
        **_everything(view, parts, unfold), live=live, hostname=view.picture["hostname"], counts=_counts(view),
        style=style, script=script, style_hash=_hash(style), script_hash=_hash(script),
    )  # fmt: skip


def _text(name: str) -> Markup:
    """A template without words of others in it: it is not escaped."""
    return Markup(_environment().get_template(name).render())


def _hash(text: str) -> str:
    """For a Content-Security-Policy: only this text may be style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _everything(view: View, parts: Sequence[str], unfold: bool) -> dict[str, Any]:
    return {
        "parts": list(parts),
        "kinds": view.picture["kinds"],
        "blocks": rows.blocks(view, unfold=unfold),
        "plan": plan.draw(view),
        "trees": {name: trees.tree(name, view) for name in trees.NAMES},
        "shapes_mean": SHAPES,
        "unread": lines(view.picture),
        "about": {str(row["id"]): _about(row, view) for row in view.picture["namespaces"] if row["id"] in view.scope},
        "changes": changes.between(view, view.earlier) if view.earlier else None,
        "earlier_taken": clock(view.earlier.picture["taken"]) if view.earlier else "",
    }


def _counts(view: View) -> str:
    pods = sum(group["what"] == "pod" for group in view.groups)
    processes, namespaces = len(view.picture["processes"]), len(view.named)
    numbers = ((processes, "process", "es"), (pods, "pod", "s"), (namespaces, "namespace", "s"))
    words = " · ".join(f"{number} {name}{many * (number != 1)}" for number, name, many in numbers)
    return f"{words} · taken {clock(view.picture['taken'])}"


# ---- what the page says of one namespace ----

_MOST_NAMES = 12


def _about(row: dict[str, Any], view: View) -> dict[str, Any]:
    cell = view.cell(row["id"])
    facts: list[tuple[str, Any]] = []
    if row["kind"] == "user":
        facts += [("made by", f"uid {row['uid']}"), ("ids", trees.ids_in_words(row["uid_map"]))]
    for name in ("owner", "parent"):
        if row[name] in view.named:
            above = view.named[row[name]]
            facts.append((name, f"{above['kind']} {above['letter']}, {view.name_of(row[name])}"))
    facts.append(("in it", _names(row["pids"], view)))
    if held := [view.held(holder) for holder in row["holders"]]:
        facts.append(("kept by", held[:_MOST_NAMES]))
    return {
        "kind": row["kind"],
        "letter": row["letter"],
        "shape": cell.shape,
        "hue": _hue(row["letter"]),
        "name": view.name_of(row["id"]),
        "facts": [(name, _printable(value)) for name, value in facts if value],
    }


def _names(pids: Sequence[int], view: View) -> list[str] | str:
    names = [f"{pid} {view.processes[pid]['name']}" for pid in pids if pid in view.processes]
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return [*names[:_MOST_NAMES], *more] or "nobody"


def _printable(value: list[str] | str) -> list[str] | str:
    return printable(value) if isinstance(value, str) else [printable(one) for one in value]

