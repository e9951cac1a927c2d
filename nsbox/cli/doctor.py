"""`nsbox doctor`."""

import argparse
import contextlib
import json
import os
from typing import Any

from ..show import text
from . import options

_EXAMPLE = """\
example:
  nsbox doctor
  sudo nsbox doctor --json

Everything is tried in namespaces of its own, and nothing of the machine is changed. Without root
it says what an ordinary user can do. The exit status is 1 if something is missing.

After "labs" stand those lessons of a course on namespaces that cannot be done by hand on this
machine, L01 (UTS) to L16 (a whole pod by hand), each with its subject. They are the course's, and
no commands of nsbox.
"""


def add_parser(verbs: Any) -> None:
    """Add `doctor`."""
    parser = options.verb(verbs, "doctor", "find out what this machine allows, and how to mend it", _EXAMPLE,
                          "doctor:run")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def run(args: argparse.Namespace) -> int:
    """Print what is found; 1 if something is missing."""
    from ..doctor import checks
    from ..doctor.finding import MISSING

    rows = []
    with _Progress() as progress:
        for found in checks.findings(progress.say):
            rows.append(found)
    missing = [row for row in rows if row.status == MISSING]
    if args.json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
        return int(bool(missing))
    print(*text.table(("", "WHAT", "FOUND"), [(row.status, row.title, row.seen) for row in rows]), sep="\n")
    for row in missing:
        print(f"\nmissing: {row.title}")
        labs = [f"{lab} {checks.LABS[lab]}" for lab in row.labs]
        for name, value in (("found", row.seen), ("costs", row.costs), ("labs", _labs(labs, len(checks.LABS))),
                            ("mend", row.mend)):  # fmt: skip
            if value:
                print(f"  {name:<6} {text.printable(value)}")
    print(f"\n{len(rows) - len(missing)} of {len(rows)} are fine" + (f", {len(missing)} missing" if missing else ""))
    return int(bool(missing))


def _labs(labs: list[str], every: int) -> str:
    return "all" if len(labs) == every else ", ".join(labs)


class _Progress:
    """What is being tried, on a terminal only: one line of stderr that is wiped at the end."""

    def __init__(self) -> None:
        self._on = os.isatty(2)

    def __enter__(self) -> "_Progress":
        return self

    def say(self, title: str) -> None:
        """Show the title of the next check."""
        self._show(f"trying {title}")

    def __exit__(self, *exc: object) -> None:
        self._show("")

    def _show(self, line: str) -> None:
        if self._on:
            with contextlib.suppress(OSError):
                os.write(2, b"\r\x1b[K" + line.encode())
