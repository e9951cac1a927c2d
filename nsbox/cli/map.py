"""`nsbox map`: the picture of who is in which namespace."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import NsboxError, SpecError
from ..words import SPELLED, parse_integer, parse_seconds, quote
from . import clean, options

if TYPE_CHECKING:
    from ..show.picture import Picture
    from ..show.view import View

_EXAMPLE = """\
example:
  sudo nsbox map
  sudo nsbox map web 4711 --only matrix,networks
  sudo nsbox map --html -o map.html
  sudo nsbox map --json > before.json
  sudo nsbox map --diff before.json
  sudo nsbox map --serve 8000

The same letter in a column is the same namespace; A is your own. Pods come first, then the
processes of other programs. Without root you see your own processes, and how many others there are.
"""

PARTS = ("matrix", "networks", "pids", "owners")
_FORMS = {
    "json": "answer in JSON: everything, whatever the targets are",
    "svg": "a picture, light or dark as its reader likes",
    "html": "one page with everything in it, that needs no network",
    "dot": "a graph for Graphviz",
}
INTERVAL_MAX_S = 3600.0


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = options.verb(verbs, "map", "show which process is in which namespace", _EXAMPLE, "map:draw")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="a pod's name or a host PID; none: all there is")
    parser.add_argument("--only", metavar="PARTS", default=",".join(PARTS),
                        help=f"which of {', '.join(PARTS)}, with commas between; all by default")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="a row for each process, however alike they are")
    parser.add_argument("--ascii", action="store_true",
                        help="nothing but ASCII; so it is too where the locale has no more")
    parser.add_argument("--diff", metavar="FILE", help="light what is different from this earlier answer of --json")
    forms = parser.add_argument_group("forms, text by default").add_mutually_exclusive_group()
    for form, words in _FORMS.items():
        forms.add_argument(f"--{form}", action="store_const", dest="form", const=form, default="text", help=words)
    forms.add_argument("--watch", action="store_const", dest="form", const="watch",
                       help="text that renews itself; what changed is lit for a moment")
    forms.add_argument("--serve", metavar="PORT", nargs="?", const="0", help="the page, live, on 127.0.0.1")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of stdout")
    parser.add_argument("--interval", metavar="SECONDS", default="1", help="for --watch and --serve (default 1)")


def draw(args: argparse.Namespace) -> int:
    """Look once and print, or keep looking."""
    args.only = _parts(args.only)
    interval_s = _interval(args.interval)
    port = None if args.serve is None else parse_integer(args.serve, "port", 0, 65535)
    keeps_looking = port is not None or args.form == "watch"
    if keeps_looking and (args.output or args.diff):
        raise SpecError(f"cannot use {'--output' if args.output else '--diff'} with --watch or --serve")
    wanted = _pids(args.targets)
    if keeps_looking:
        from . import mapwatch

        if port is not None:
            return mapwatch.serve(args, wanted, port, interval_s)
        return mapwatch.watch(args, wanted, interval_s)
    _write(_answer(args, wanted), args.output)
    return 0


def _parts(text: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in PARTS:
            raise SpecError(f"cannot use part {quote(word)}", hint=f"parts are: {', '.join(PARTS)}")
    return words


def _interval(text: str) -> float:
    seconds = parse_seconds(text, "interval")
    if not 0.1 <= seconds <= INTERVAL_MAX_S:
        raise SpecError(f"cannot use interval {quote(text)}: not from 0.1 to {INTERVAL_MAX_S:.0f} seconds")
    return seconds


def _pids(targets: list[str]) -> list[int]:
    from ..pod import target

    found = []
    for word in targets:
        one = target.find(word)
        one.close()
        found.append(one.pid)
    return found


def _answer(args: argparse.Namespace, wanted: list[int]) -> str:
    from ..linux import process
    from ..show import picture, view

    earlier = None
    if args.diff:
        from ..show import changes

        earlier = changes.load(args.diff, process.boot_id())
    taken = picture.take(earlier, nets=args.form in ("json", "dot") or bool(args.diff) or "networks" in args.only)
    seen = view.View(taken, wanted, earlier)
    if args.form == "text":
        return text_of(seen, args)
    if args.form == "json":
        return json.dumps(_with_changes(taken, seen))
    from ..show import page

    if args.form == "svg":
        return page.svg(seen, args.only, unfold=args.all)
    return page.html(seen, args.only, unfold=args.all) if args.form == "html" else page.dot(seen)


def _with_changes(taken: "Picture", seen: "View") -> dict[str, Any]:
    if seen.earlier is None:
        return taken
    from ..show import changes

    return {**taken, "changes": [change._asdict() for change in changes.between(seen, seen.earlier)]}


def _write(answer: str, path: str | None) -> None:
    """Print it, or write a file as the caller's shell would have made it."""
    answer = answer.rstrip("\n") + "\n"
    if path is None:
        print(answer, end="")
        return
    try:
        mask = os.umask(clean.callers_umask)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        finally:
            os.umask(mask)
        with open(fd, "w", encoding="utf-8", errors=SPELLED) as file:
            file.write(answer)
    except OSError as err:
        raise NsboxError("cannot write the picture") from err


# ---- text ----

def _is_unicode() -> bool:
    """Whether the caller's locale says so; Python itself writes UTF-8 in the locale C too. See locale(7)."""
    env = dict(os.environ)
    if sys.flags.utf8_mode:
        env.pop("LC_CTYPE", None)  # Python may have put it there
    said = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "C"
    return "utf" in said.lower() and (sys.stdout.encoding or "").lower().startswith("utf")


def text_of(seen: "View", args: argparse.Namespace) -> str:
    """The parts that are asked for, as lines with the escapes that stdout wants."""
    from ..show import pieces, rows, terminal, text, trees, unread

    style = terminal.Style(pieces.terminal_width(), not args.ascii and _is_unicode())
    signs, compared = bool(args.diff) or args.form == "watch", bool(args.diff)
    parts: list[list[pieces.Line]] = []
    if seen.earlier and args.diff:
        from ..show import changes

        since = text.clock(seen.earlier.picture["taken"])
        parts.append(terminal.differences(changes.between(seen, seen.earlier), since, style))
    if "matrix" in args.only:
        found = rows.blocks(seen, unfold=args.all)
        parts.append(terminal.matrix(found, seen.picture["kinds"], style, signs=signs, compared=compared))
    for name in (name for name in trees.NAMES if name in args.only):
        nodes = trees.tree(name, seen)
        parts.append(terminal.tree(trees.HEADINGS[name], nodes, style, signs=signs, compared=compared))
    if blind := unread.lines(seen.picture):
        parts.append([[pieces.Piece(style.plain(line))] for line in blind])
    lines: list[pieces.Line] = []
    for part in parts:
        lines += [[], *part] if lines else part
    return pieces.printed(lines)
