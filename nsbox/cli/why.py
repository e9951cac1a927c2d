"""`nsbox why`."""

import argparse
import json
from typing import Any

from ..show import text
from . import options

_EXAMPLE = """\
example:
  sudo nsbox why web 4711
  sudo nsbox why --json web db

For each kind of namespace: what the kernel's ids say, what a probe between the two shows (a
signal, a connection, shared memory, a name, a file, a right), why, and what would change it.
What the probes make is gone when they end.
"""
_WORDS = {"same": "same", "different": "different", "inside": "nested", "around": "nested", "": "?"}


def add_parser(verbs: Any) -> None:
    """Add `why`."""
    parser = options.verb(verbs, "why", "what two processes share, and the proof", _EXAMPLE, "why:run")
    parser.add_argument("a", metavar="A", help="a pod's name, or a host PID")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def run(args: argparse.Namespace) -> int:
    """Print the answer for each kind."""
    from ..why import sides, verdict

    a = sides.open_side(args.a)
    try:
        b = sides.open_side(args.b)
        try:
            rows = verdict.compare(a, b)
        finally:
            b.found.close()
    finally:
        a.found.close()
    if args.json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
        return 0
    together = [row.kind for row in rows if (row.relation or row.proved) == "same"]
    untold = [row.kind for row in rows if not (row.relation or row.proved)]
    not_so = [row.kind for row in rows if row.kind not in (*together, *untold)]
    print(f"{text.printable(f'{args.a} and {args.b}')} share: {' '.join(together) or 'nothing'}")
    print(f"and do not share: {' '.join(not_so) or 'nothing'}")
    print(f"not to be told: {' '.join(untold)}\n" if untold else "")
    for row in rows:
        _print(row, args.a, args.b)
    return 0


def _print(row: Any, a: str, b: str) -> None:
    how = row.relation or row.proved
    word = _WORDS[how]
    if how in ("inside", "around"):
        outer, inner = (b, a) if how == "inside" else (a, b)
        word = f"nested: that of {inner} lies in that of {outer}"
    mark = {True: "proved", False: "BUT THE PROBE SAYS OTHERWISE", None: "shown" if row.proved else "not proved"}
    print(f"{row.kind:<7} {text.printable(word)}")
    for name, value in ((mark[row.agree], row.probe), ("because", row.reason), ("change", row.change)):
        if value:
            print(f"        {name + ':':<11} {text.printable(value)}")
