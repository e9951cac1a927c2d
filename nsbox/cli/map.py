"""`nsbox map`: the picture of who is in which namespace."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ..words import quote
from . import options

if TYPE_CHECKING:
    from ..show.view import View

_EXAMPLE = """\
example:
  sudo nsbox map
  sudo nsbox map web
  sudo nsbox map web 4711 --only matrix,networks
  sudo nsbox map --json > before.json

The same letter in a column is the same namespace; A is your own. Pods come first, then the
processes of other programs. Without root you see your own processes, and how many others there are.
"""


PARTS = ("matrix", "networks", "pids", "owners")


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = options.verb(verbs, "map", "show which process is in which namespace", _EXAMPLE, "map:draw")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="a pod's name or a host PID; none: all there is")
    parser.add_argument("--only", metavar="PARTS", default=",".join(PARTS),
                        help=f"which of {', '.join(PARTS)}, with commas between; all by default")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="a row for each process, however alike they are")
    parser.add_argument("--ascii", action="store_true",
                        help="nothing but ASCII; so it is too where the locale has no more")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="answer in JSON: everything, whatever the targets are")


def draw(args: argparse.Namespace) -> int:
    """Look once, and print."""
    from ..show import picture, view

    args.only = _parts(args.only)
    wanted = _pids(args.targets)
    taken = picture.take(nets=args.json or "networks" in args.only)
    if args.json:
        print(json.dumps(taken))
        return 0
    _print_text(view.View(taken, wanted), args)
    return 0


def _parts(text: str) -> list[str]:
    from ..errors import SpecError

    words = text.split(",")
    for word in words:
        if word not in PARTS:
            raise SpecError(f"cannot use part {quote(word)}", hint=f"parts are: {', '.join(PARTS)}")
    return words


def _pids(targets: list[str]) -> list[int]:
    from ..pod import target

    found = []
    for word in targets:
        one = target.find(word)
        one.close()
        found.append(one.pid)
    return found


def _print_text(seen: "View", args: argparse.Namespace) -> None:
    from rich.console import Console

    from ..show import rows, terminal, trees

    console = Console(highlight=False, soft_wrap=True)
    style = terminal.Style(console.width, not args.ascii and (sys.stdout.encoding or "").lower().startswith("utf"))
    parts = []
    if "matrix" in args.only:
        parts.append(terminal.matrix(rows.blocks(seen, unfold=args.all), seen.picture["kinds"], style))
    for name, make in trees.TREES.items():
        if name in args.only:
            parts.append(terminal.tree(trees.HEADINGS[name], make(seen), style))
    with console.capture() as captured:
        for number, lines in enumerate(parts):
            console.print(*[""] * bool(number), *lines, sep="\n")
    print(captured.get(), end="")
    if unread := unread_lines(seen.picture):
        print("", *unread, sep="\n")


def unread_lines(taken: dict[str, Any]) -> list[str]:
    """What could not be seen, in words."""
    found = []
    for row in taken["unread"]:
        thing, many = ("namespace", "s") if row["what"] == "owner" else ("process", "es")
        count = f"{len(row['pids'])} {thing}{many * (len(row['pids']) != 1)}"
        found.append(f"not seen: {row['what']} of {count} ({row['why']})")
    return found
