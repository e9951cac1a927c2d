"""`nsbox xlate`."""

import argparse
import json
from typing import Any

from .. import parse
from ..errors import SpecError
from ..show.text import printable
from . import options

_EXAMPLE = """\
example:
  sudo nsbox xlate pid 7 --from web
  sudo nsbox xlate uid 0 --from web --to host
  sudo nsbox xlate path /etc/hosts --from web
  sudo nsbox xlate port 80 --from web

A side is a pod's name, a host PID, or "host", the place where you are; that is what is left out.
"""
_PID_MAX, _UID_MAX, _PORT_MAX = 2**22, 2**32 - 2, 65535


def add_parser(verbs: Any) -> None:
    """Add `xlate`."""
    parser = options.verb(verbs, "xlate", "the same process, user, path or port as another side calls it", _EXAMPLE,
                          "xlate:run")  # fmt: skip
    parser.add_argument("what", choices=("pid", "uid", "path", "port"), help="what VALUE is")
    parser.add_argument("value", metavar="VALUE", help="as the first side calls it; a port may be 53/udp too")
    parser.add_argument("--from", metavar="A", dest="a", default="host", help="the side that VALUE is of")
    parser.add_argument("--to", metavar="B", dest="b", default="host", help="the side that is asked for")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def run(args: argparse.Namespace) -> int:
    """Print what the other side calls it."""
    words = _words(args.what, args.value)
    from ..why import translate

    a = translate.open_place(args.a)
    try:
        b = translate.open_place(args.b)
        try:
            seen = getattr(translate, args.what)(*words, a, b)
        finally:
            b.found.close()
    finally:
        a.found.close()
    if args.json:
        print(json.dumps({"what": args.what, "from": args.a, "to": args.b, **seen._asdict()}, indent=2))
    else:
        print(printable(seen.value))
    return 0


def _words(what: str, word: str) -> tuple[Any, ...]:
    if what == "pid":
        return (parse.parse_integer(word, "pid", 1, _PID_MAX),)
    if what == "uid":
        return (parse.parse_integer(word, "uid", 0, _UID_MAX),)
    if what == "path":
        return (word,)
    number, slash, proto = word.partition("/")
    if slash and proto not in ("tcp", "udp"):
        raise SpecError(f"cannot use port {parse.quote(word)}: after / stands tcp or udp")
    return parse.parse_integer(number, "port", 1, _PORT_MAX), proto or "tcp"
