"""`--explain` of the verbs that act: the verb is done, and every system call of it is told."""

import argparse
import contextlib
import json
import os
import sys
from typing import Any, Callable, Iterator, Sequence

from ..errors import NsboxError, SpecError
from ..explain import text
from ..explain.teller import Teller, Told
from ..linux import doors, syscalls
from ..privilege import doors as rights

Act = Callable[[argparse.Namespace], int]


def tell(act: Act, args: argparse.Namespace) -> int:
    """Do it, tell what is done, and write down what was asked for; its exit status."""
    teller = Teller(_screen(args))
    try:
        with _listening(teller):
            return int(act(args))
    finally:
        if args.sh:
            _write_script(args, teller.told)
        if args.events:
            _write(args.events, [json.dumps(_event(one)) for one in teller.told], "the events")


def _screen(args: argparse.Namespace) -> text.Screen | None:
    if not args.step:
        return text.Screen(2) if args.explain else None
    if not os.isatty(0):
        raise SpecError("cannot go step by step: stdin is no terminal", hint="--explain tells the same without asking")
    from ..explain.step import Steps

    return Steps(2, 0)


@contextlib.contextmanager
def _listening(teller: Teller) -> Iterator[None]:
    doors.open_doors(rights.DOORS)
    syscalls.listen(teller)
    try:
        yield
    finally:
        syscalls.listen(None)


def _event(told: Told) -> dict[str, Any]:
    """What of it is for others: the values may hold what nobody else should see."""
    event = told._asdict()
    del event["values"]
    return event


def _write_script(args: argparse.Namespace, told: Sequence[Told]) -> None:
    from ..explain.script import Script
    from ..show.text import command_line

    user = "root" if os.geteuid() == 0 else "yourself"
    words = ["nsbox", *(word for word in sys.argv[1:] if word != "--explain")]
    _write(args.sh, list(Script(told).lines(command_line(words), user)), "the script")


def _write(path: str, lines: Sequence[str], what: str) -> None:
    content = "".join(line + "\n" for line in lines)
    if path == "-":
        sys.stdout.write(content)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    except OSError as err:
        raise NsboxError(f"cannot write {what} to {path!r}") from err
