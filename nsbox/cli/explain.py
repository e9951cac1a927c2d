"""`nsbox explain`, and --explain, --dry-run, --step, --sh and --events of the verbs that act."""

import argparse
import contextlib
import json
import os
import sys
from typing import Any, Callable, Iterator, Mapping, Sequence

from .. import parse
from ..errors import NsboxError, SpecError
from ..explain import text
from ..explain.byhand import Hand
from ..explain.teller import Teller, Told
from ..linux import doors, syscalls
from ..net import doors as network
from ..privilege import doors as rights
from . import options

Act = Callable[[argparse.Namespace], int]

_EXAMPLE = """\
example:
  sudo nsbox explain create web --rootfs busybox          what it would do, call by call
  sudo nsbox explain --sh run --rootfs busybox -- ls      the same by hand, as a shell script
  sudo nsbox explain --json join web -- hostname
  nsbox explain error unshare EPERM CLONE_NEWUSER         why that can be, and what of it is so here

  sudo nsbox explain publish web 8080:80
  sudo nsbox explain --sh net connect web lan             with the lines of ip and nft

While it acts a verb tells the same:
  sudo nsbox create web --net bridge --explain
  nsbox rootfs build busybox --events -

It is VERB --dry-run, for all verbs that act but prune. Of stop, kill and rm it says who would get
which signal, of rootfs which programs would be run. The others are rehearsed: really done, told,
and taken away again; no command of yours is executed, the host's network is a copy, and for a pod
that runs somebody stands in. VERB --explain does it and tells.

error CALL ERRNO [ARGUMENT]: what the manual pages know as the reason, each held against this shell.
ARGUMENT is CLONE_ flags, a PID of setns, a path, a type of file system, ADDRESS:PORT, or a map's
line. Without ERRNO the rules of the call, without CALL the calls are listed.
"""


def add_parser(verbs: Any) -> None:
    """Add `explain`."""
    parser = options.verb(verbs, "explain", "tell what a verb would do, call by call, and the same by hand", _EXAMPLE,
                          "explain:run")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="answer in JSON, a line for each call")
    form.add_argument("--sh", action="store_true", help="the same by hand, as a shell script")
    parser.add_argument("words", metavar="VERB …", nargs="*", help="a verb that acts, with its words")


def run(args: argparse.Namespace) -> int:
    """Foretell a verb."""
    from . import front

    verb = args.about[0] if args.about else ""
    if not verb:
        raise SpecError("cannot explain nothing: there is no verb", hint="as in: nsbox explain create web")
    if verb == "error":
        if args.sh:
            raise SpecError("cannot write an error as a script")
        from . import advice

        return advice.run(args.about[1:], args.json)
    if verb not in front.VERBS:
        raise SpecError(f"cannot find a verb {parse.quote(verb)}", hint="see: nsbox --help")
    act, about = front.parsed(args.about)
    if not hasattr(about, "explain"):
        raise SpecError(f"cannot explain {verb}: it changes nothing")
    if not hasattr(about, "dry_run"):
        raise SpecError(f"cannot say beforehand what {verb} does: that depends on what it finds then",
                        hint="its own --explain does it, and tells each call")  # fmt: skip
    about.dry_run = True
    about.sh, about.events = "-" if args.sh else about.sh, "-" if args.json else about.events
    return tell(act, about)


def tell(act: Act, args: argparse.Namespace) -> int:
    """Do it, tell what is done, and write down what was asked for; its exit status."""
    if getattr(args, "dry_run", False):
        from . import foretell

        return foretell.tell(act, args)
    store = args.handler.startswith("nsbox.cli.rootfs:")
    teller, reasons = Teller(_screen(args), who="store" if store else "nsbox"), dict[int, Any]()
    try:
        with failing(teller, reasons, shown=args.explain or args.step), listening(teller):
            return int(act(args))
    finally:
        write_down(args, teller.told, reasons)


@contextlib.contextmanager
def failing(teller: Teller, reasons: dict[int, Any], *, shown: bool) -> Iterator[None]:
    """Tell which rules can be why, if a call is refused."""
    try:
        yield
    except (NsboxError, OSError) as err:
        from . import advice  # only what goes wrong needs it

        reasons.update(advice.told_of(err, teller, shown=shown))
        raise


def _screen(args: argparse.Namespace) -> text.Screen | None:
    if not args.step:
        return text.Screen(2) if args.explain else None
    if not os.isatty(0):
        raise SpecError("cannot go step by step: stdin is no terminal", hint="--explain tells the same without asking")
    from ..explain.step import Steps

    return Steps(2, 0)


@contextlib.contextmanager
def listening(teller: Teller) -> Iterator[None]:
    doors.open_doors((*rights.DOORS, *network.all_of()))
    syscalls.listen(teller)
    try:
        yield
    finally:
        syscalls.listen(None)


# ---- afterwards ----

def write_down(args: argparse.Namespace, told: Sequence[Told], reasons: Mapping[int, Any] = {}) -> None:
    if args.sh:
        from ..explain.script import Script
        from ..show.text import command_line

        user = "root" if os.geteuid() == 0 else "yourself"
        words = [word for word in sys.argv[1:] if word not in ("--explain", "--dry-run")]
        _write(args.sh, list(Script(told).lines(command_line(["nsbox", *words]), user)), "the script")
    if args.events:
        _write(args.events, [json.dumps(event) for event in _events(told, reasons)], "the events")


def _events(told: Sequence[Told], reasons: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
    """What of it is for others: the values may hold what nobody else should see, as a command's variables do."""
    hands: dict[int, Hand] = {}
    for one in told:
        event = one._asdict()
        del event["values"]
        hand = hands.setdefault(one.task, Hand())
        secret = one.call in ("execve", "execveat") and not one.is_of_nsbox
        event["by_hand"] = [] if secret else hand.lines(one)
        if one.number in reasons:
            event["advice"] = reasons[one.number]
        yield event


def _write(path: str, lines: Sequence[str], what: str) -> None:
    content = os.fsencode("".join(line + "\n" for line in lines))  # a word may be of any bytes
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as err:
        raise NsboxError(f"cannot write {what} to {path!r}") from err
