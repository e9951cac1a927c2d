"""`nsbox rootfs build | ls | rm`: the store of root file systems.

Imports the store and everything heavy only in the verb that was asked for.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..linux import syscalls
from . import options

if TYPE_CHECKING:
    from ..images.entries import Entry

_BUILD_HELP = """\
example:
  nsbox rootfs build busybox
  nsbox rootfs build debian --include curl,iproute2
  nsbox rootfs build ./mine          a folder with recipe.ini, and perhaps files/
  nsbox create web --rootfs busybox

Progress goes to stderr; stdout carries the path of the tree, alone on a line.
"""
_LS_HELP = """\
example:
  nsbox rootfs ls
  nsbox rootfs ls --json
"""
_RM_HELP = """\
example:
  nsbox rootfs rm busybox debian
"""


def add_parser(verbs: Any) -> None:
    """Add `rootfs` and its verbs to the subparsers of the command line."""
    group = options.verb(verbs, "rootfs", "build, list and remove root file systems", _BUILD_HELP, "rootfs:run")
    below = group.add_subparsers(title="verbs", metavar="VERB", required=True)

    build = options.verb(below, "build", "build a root file system from a recipe", _BUILD_HELP, "rootfs:run_build",
                         foretold=True)
    build.add_argument("recipe", metavar="NAME|DIR", help="a recipe's name, or a folder with one")
    build.add_argument("--include", metavar="PKG,PKG", action="append", default=[],
                       help="more Debian packages (may be repeated)")
    build.add_argument("--force", action="store_true", help="replace one of the same name")
    build.add_argument("--json", action="store_true", help="answer in JSON")

    ls = options.verb(below, "ls", "list the root file systems", _LS_HELP, "rootfs:run_ls")
    ls.add_argument("--json", action="store_true", help="answer in JSON")

    rm = options.verb(below, "rm", "remove root file systems", _RM_HELP, "rootfs:run_rm", foretold=True)
    rm.add_argument("names", metavar="NAME", nargs="+")


def run(args: argparse.Namespace) -> int:
    """Never called: a verb is required."""
    raise SpecError("cannot do nothing: nsbox rootfs needs a verb", hint="see: nsbox rootfs --help")


def run_build(args: argparse.Namespace) -> int:
    """Build one entry; print the path of its tree."""
    from ..images.build import build

    with _progress() as step:
        entry = build(args.recipe, include=packages(args), force=args.force, step=step)
    if args.json:
        _print_json(_described(entry))
    else:
        print(entry.path)
    return 0


def packages(args: argparse.Namespace) -> list[str]:
    """The words of --include."""
    return [name for words in args.include for name in words.split(",") if name]


def run_ls(args: argparse.Namespace) -> int:
    """Print what the store holds."""
    from ..images.entries import listed

    found = listed()
    if args.json:
        _print_json([_described(entry) for entry in found])
    else:
        _print_table(found)
    return 0


def run_rm(args: argparse.Namespace) -> int:
    """Remove entries; says nothing if all went well."""
    from ..images.entries import remove

    remove(args.names)
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A function that shows one step on stderr: in place on a terminal, else a line each."""
    if not sys.stderr.isatty():
        yield lambda text: _say(text, lambda: print(f"nsbox: {text}", file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("starting") as status:
        yield lambda text: _say(text, lambda: status.update(escape(text)))


def _say(text: str, show: Callable[[], None]) -> None:
    """Show what is being done, and note it for whoever hears which programs are run for it."""
    syscalls.purpose = text
    show()


def _described(entry: "Entry") -> dict[str, Any]:
    return {"name": entry.name, "path": entry.path, **entry.meta}


def _print_json(answer: object) -> None:
    import json

    print(json.dumps(answer, indent=2))


def _print_table(found: "list[Entry]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAME", "RECIPE", "SIZE", "CREATED", "PATH"):
        table.add_column(title, overflow="fold", justify="right" if title == "SIZE" else "left")
    for entry in found:
        table.add_row(*_cells(entry))
    # Wide when nobody looks: a pipe must get one whole line for each entry.
    console = Console(width=None if sys.stdout.isatty() else 5000, highlight=False)
    with console.capture() as captured:  # else it says by itself what became of a pipe
        console.print(table)
    print(captured.get(), end="")


def _cells(entry: "Entry") -> "list[Any]":
    from rich.text import Text

    size = entry.meta.get("size_bytes")
    packages = entry.meta.get("packages") or []
    more = f" +{len(packages)}" if isinstance(packages, list) and packages else ""
    words = (
        entry.name,
        f"{entry.meta.get('recipe', '?')}{more}",
        f"{size / 1e6:.1f} MB" if isinstance(size, int) else "?",
        str(entry.meta.get("created", "?")),
        entry.path,
    )
    return [Text(word) for word in words]
