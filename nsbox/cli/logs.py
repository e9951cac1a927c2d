"""`nsbox logs`."""

import argparse
import os
import sys
from typing import Any

from . import options

_EXAMPLE = """\
example:
  sudo nsbox logs web
  sudo nsbox logs -f 4711

TARGET is a pod, for all its detached members, or the host PID of one of them. The newest
8 to 16 MiB of each are kept. On a terminal control characters are spelled out.
"""


def add_parser(verbs: Any) -> None:
    """Add `logs`."""
    parser = options.verb(verbs, "logs", "show what a detached member has printed", _EXAMPLE, "logs:run")
    parser.add_argument("target", metavar="TARGET", help="a pod's name, or a detached member's host PID")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")


def run(args: argparse.Namespace) -> int:
    """Copy the logs to stdout."""
    from ..errors import NsboxError
    from ..pod import wait

    found = wait.members_of(args.target)
    if args.follow and len(found) > 1:
        pids = " ".join(str(member.process.pid) for _, member in found if member.process)
        raise NsboxError(f"cannot follow {len(found)} logs at once", hint=f"name one by its PID: {pids}")
    spelled = _Speller() if os.isatty(1) else None
    for pod, member in found:
        if len(found) > 1 and member.process is not None:
            print(f"==> {member.process.pid} <==", file=sys.stderr, flush=True)
        for data in wait.log(pod, member, follow=args.follow):
            sys.stdout.buffer.write(spelled(data) if spelled else data)
            sys.stdout.buffer.flush()
    return 0


class _Speller:
    """Spells control characters out, which must not reach the terminal; line ends and tabs may."""

    def __init__(self) -> None:
        import codecs

        # What is no UTF-8 becomes what printable() spells as bytes; a character may come in two pieces.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def __call__(self, data: bytes) -> bytes:
        from ..show.text import printable

        return "".join(c if c in "\n\t" else printable(c) for c in self._decoder.decode(data)).encode()
