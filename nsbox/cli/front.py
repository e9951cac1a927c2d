"""The front: a clean process, one verb, one line on failure, the right exit status."""

import argparse
import errno
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn, Sequence

from ..errors import (
    EXIT_FAILED,
    EXIT_SIGNAL_BASE,
    EXIT_USAGE,
    Interrupted,
    NsboxError,
    SpecError,
    hint_for,
    one_line,
)
from ..words import quote
from .options import Formatter

# verb -> (module, what it does). A module is imported only when its verb is used.
VERBS = {
    "create": ("create", "make a pod and print the host PID of its pause"),
    "join": ("join", "run a command as a member of a pod, or beside any process"),
    "run": ("run", "make a pod, run a command in it, remove the pod"),
    "ls": ("look", "list the pods"),
    "inspect": ("look", "show everything about a pod or a process"),
    "ps": ("look", "list the processes of a pod"),
    "logs": ("logs", "show what a detached member has printed"),
    "wait": ("end", "wait for detached members and print their exit statuses"),
    "stop": ("end", "end the processes of pods, and keep their records"),
    "kill": ("end", "send a signal to the members of pods, or to a process"),
    "rm": ("end", "stop pods and remove them"),
    "prune": ("end", "remove what is dead or was cut off"),
    "rootfs": ("rootfs", "build, list and remove root file systems"),
    "completion": ("completion", "print completions for bash, zsh or fish"),
}
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Parser(argparse.ArgumentParser):
    """argparse with errors as nsbox prints them: one line and a hint."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(message, hint=f"see: {self.prog} --help")


def run(argv: Sequence[str] | None) -> int:
    """Do what the words say; return the exit status."""
    _clean_process()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words[:1]
    try:
        status = _dispatch(words[1:] if debug else words)
        sys.stdout.flush()
        return status
    except NsboxError as err:
        return _fail(err, debug)
    except Interrupted as stop:
        return EXIT_SIGNAL_BASE + stop.signum
    except BrokenPipeError:
        return _nobody_reads()
    except OSError as err:
        return _fail(_wrapped(err, words), debug)
    except SystemExit as end:  # argparse, after --help and --version
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    except Exception as err:
        if debug:
            raise
        print(f"nsbox: cannot {_verb(words)}: {quote(repr(err))}", file=sys.stderr)
        print("hint: this is a bug of nsbox; --debug before the verb shows where", file=sys.stderr)
        return EXIT_FAILED


def _verb(words: Sequence[str]) -> str:
    return next((word for word in words if word in VERBS), "do that")


def _wrapped(err: OSError, words: Sequence[str]) -> NsboxError:
    call = (err.strerror or "").partition(":")[0]
    failure = NsboxError(f"cannot {_verb(words)}", hint=hint_for(call, err.errno))
    failure.__cause__ = err
    return failure


def _fail(err: NsboxError, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(err)
    line = one_line(err)
    print(f"nsbox: {line if line.isprintable() else quote(line)}", file=sys.stderr)
    if err.hint:
        print(f"hint: {err.hint}", file=sys.stderr)
    return err.exit_status


def _nobody_reads() -> int:
    # Python would try to flush once more at its end, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return EXIT_SIGNAL_BASE + signal.SIGPIPE


def _clean_process() -> None:
    """Undo what a caller may have left: closed stdio, ignored or blocked signals, a wild umask."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError as err:
            if err.errno == errno.EBADF:  # else the next open would become stdin or stdout
                os.open(os.devnull, os.O_RDWR)
    os.umask(0o077)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would eat exit statuses
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in _ENDING:
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup(1) shall stay what it is
            signal.signal(signum, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


def _dispatch(words: list[str]) -> int:
    verb = words[0] if words else ""
    if verb in VERBS:
        before, command = _split_command(words)
        parser = build_parser([verb], dashes=command is not None)
        args = parser.parse_args(before)
        args.after_dashes = command
        module, _, function = args.handler.partition(":")
        return int(getattr(import_module(module), function)(args))
    parser = build_parser(list(VERBS))
    if not words:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    parser.parse_args(words)
    return EXIT_USAGE


def _split_command(words: list[str]) -> tuple[list[str], list[str] | None]:
    """Cut at the first "--": what follows is the user's command and is never parsed."""
    if "--" not in words:
        return words, None
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


_TOP_EXAMPLE = """\
example:
  sudo nsbox create web --rootfs busybox
  sudo nsbox join web -- hostname
  sudo nsbox ps web
  sudo nsbox rm web

`nsbox VERB --help` shows an example of each.
"""


def build_parser(verbs: Sequence[str], *, dashes: bool = False) -> Parser:
    """A parser of these verbs; `dashes` if the user's command is cut off already."""
    parser = Parser(
        prog="nsbox",
        description="Pods out of raw Linux namespaces: a pause process holds them, members join.",
        epilog=_TOP_EXAMPLE,
        allow_abbrev=False,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help="before the verb: show tracebacks")
    group: Any = parser.add_subparsers(title="verbs", metavar="VERB", required=True, prog="nsbox")
    group.dashes = dashes
    done = set()
    for verb in verbs:
        module, _ = VERBS[verb]
        if module not in done:
            done.add(module)
            import_module(f"nsbox.cli.{module}").add_parser(group)
    return parser


class _Version(argparse.Action):
    """--version: the package's metadata is read only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> NoReturn:
        from importlib.metadata import version

        print(f"nsbox {version('nsbox')}")
        parser.exit(0)
