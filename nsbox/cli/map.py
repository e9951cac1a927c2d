"""`nsbox map`: the picture of who is in which namespace."""

import argparse
import json
import sys
from typing import Any

from . import options

_EXAMPLE = """\
example:
  sudo nsbox map
  sudo nsbox map web
  sudo nsbox map web 4711 --json

The same letter in a column is the same namespace; A is your own. Pods come first, then the
processes of other programs. Without root you see your own processes, and how many others there are.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = options.verb(verbs, "map", "show which process is in which namespace", _EXAMPLE, "map:draw")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="a pod's name or a host PID; none: all there is")
    parser.add_argument("--all", action="store_true", help="a row for each process, however alike they are")
    parser.add_argument("--ascii", action="store_true",
                        help="nothing but ASCII; so it is too where the locale has no more")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="answer in JSON: everything, whatever the targets are")


def draw(args: argparse.Namespace) -> int:
    """Look once, and print."""
    from ..show import picture, rows

    wanted = _pids(args.targets)
    taken = picture.take()
    if args.json:
        print(json.dumps(taken))
        return 0
    _print_matrix(rows.blocks(taken, wanted, unfold=args.all), taken, args)
    return 0


def _pids(targets: list[str]) -> list[int]:
    from ..pod import target

    found = []
    for word in targets:
        one = target.find(word)
        one.close()
        found.append(one.pid)
    return found


def _print_matrix(found: Any, taken: dict[str, Any], args: argparse.Namespace) -> None:
    from rich.console import Console

    from ..show import matrix

    console = Console(highlight=False, soft_wrap=True)
    style = matrix.Style(console.width, not args.ascii and (sys.stdout.encoding or "").lower().startswith("utf"))
    with console.capture() as captured:
        for line in matrix.draw(found, taken["kinds"], style):
            console.print(line)
    print(captured.get(), end="")
    for words in unread_lines(taken):
        print(words)


def unread_lines(taken: dict[str, Any]) -> list[str]:
    """What could not be seen, in words."""
    found = []
    for row in taken["unread"]:
        thing, many = ("namespace", "s") if row["what"] == "owner" else ("process", "es")
        count = f"{len(row['pids'])} {thing}{many * (len(row['pids']) != 1)}"
        found.append(f"not seen: {row['what']} of {count} ({row['why']})")
    return found
