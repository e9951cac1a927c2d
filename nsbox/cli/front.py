"""The front: a clean process, one verb, one line on failure, the right exit status."""

import argparse
import errno
import os
import signal
import sys
from importlib import import_module
from typing import Any, Callable, NoReturn, Sequence

from ..errors import (
    EXIT_FAILED,
    EXIT_SIGNAL_BASE,
    EXIT_USAGE,
    Interrupted,
    NsboxError,
    SpecError,
    hint_for,
    is_want_of_memory,
    one_line,
)
from ..words import quote
from . import clean
from .options import AnyOrder, Formatter

# verb -> (module, what it does). A module is imported only when its verb is used.
VERBS = {
    "create": ("create", "make a pod and print the host PID of its pause"),
    "join": ("join", "run a command as a member of a pod, or beside any process"),
    "run": ("run", "make a pod, run a command in it, remove the pod"),
    "ls": ("look", "list the pods"),
    "inspect": ("look", "show everything about a pod or a process"),
    "ps": ("look", "list the processes of a pod"),
    "map": ("map", "show which process is in which namespace"),
    "logs": ("logs", "show what a detached member has printed"),
    "wait": ("end", "wait for detached members and print their exit statuses"),
    "stop": ("end", "end the processes of pods, and keep their records"),
    "why": ("why", "what two processes share, and the proof"),
    "xlate": ("xlate", "the same process, user, path or port as another side calls it"),
    "kill": ("end", "send a signal to the members of pods, or to a process"),
    "rm": ("end", "stop pods and remove them"),
    "prune": ("end", "remove what is dead or was cut off"),
    "publish": ("publish", "make ports of a running pod reachable on the host"),
    "unpublish": ("publish", "close published ports of a pod"),
    "net": ("net", "make networks, and connect pods to them"),
    "rootfs": ("rootfs", "build, list and remove root file systems"),
    "explain": ("explain", "tell what a verb would do, call by call, and the same by hand"),
    "doctor": ("doctor", "find out what this machine allows, and how to mend it"),
    "completion": ("completion", "print completions for bash, zsh or fish"),
}
_TELLING = ("explain", "dry_run", "step", "events", "sh")  # of options.add_telling_options()
_WITH_COMMAND = ("create", "join", "run")  # create takes none, and says so better than argparse


Act = Callable[[argparse.Namespace], int]


class Parser(AnyOrder):
    """argparse with errors as nsbox prints them: one line and a hint."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(f"cannot use these words: {message}", hint=f"see: {self.prog} --help")


def run(argv: Sequence[str] | None) -> int:
    """Do what the words say; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words[:1]
    try:
        return _run(words[1:] if debug else words)
    except NsboxError as err:
        return _fail(err, debug, words)
    except Interrupted as stop:
        return EXIT_SIGNAL_BASE + stop.signum
    except BrokenPipeError:
        return EXIT_SIGNAL_BASE + signal.SIGPIPE
    except OSError as err:
        return _fail(_wrapped(err, words), debug, words)
    except Exception as err:
        if is_want_of_memory(err):
            return _fail(_no_memory(words), debug, words)
        if debug:
            raise
        clean.tell(f"nsbox: cannot {_verb(words)}: {quote(repr(err))}",
                   "hint: this is a bug of nsbox; --debug before the verb shows where")  # fmt: skip
        return EXIT_FAILED


def _run(words: list[str]) -> int:
    clean.begin()
    try:
        return _dispatch(words)
    except SystemExit as end:  # argparse, after --help and --version
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    finally:
        clean.flush_answer()


def _verb(words: Sequence[str]) -> str:
    return next((word for word in words if word in VERBS), "do that")


def _no_memory(words: Sequence[str]) -> NsboxError:
    failure = NsboxError(f"cannot {_verb(words)}", hint="see what is free, and the limit that holds for it: ulimit -v")
    failure.__cause__ = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    return failure


def _wrapped(err: OSError, words: Sequence[str]) -> NsboxError:
    call = (err.strerror or "").partition(":")[0]
    failure = NsboxError(f"cannot {_verb(words)}", hint=hint_for(call, err.errno))
    failure.__cause__ = err
    return failure


def _fail(err: NsboxError, debug: bool, words: Sequence[str]) -> int:
    if debug:
        import traceback

        clean.tell_text("".join(traceback.format_exception(err)))
    lines = [f"nsbox: {one_line(err)}"]
    if hint := _hint(err, words):
        lines.append(f"hint: {hint}")
    clean.tell(*lines)
    return err.exit_status


def _hint(err: NsboxError, words: Sequence[str]) -> str:
    """What to do about it: where a call failed, the rule that is known to be why, and the next command."""
    if not isinstance(err.__cause__, OSError) or ":" not in (err.__cause__.strerror or ""):
        return err.hint
    from ..explain import advice  # only what goes wrong needs it

    explained = any(word in words for word in ("--explain", "--step", "--dry-run", "explain"))
    return advice.hint(err, explained=explained)


def _dispatch(words: list[str]) -> int:
    verb = words[0] if words else ""
    if verb not in VERBS:
        return _without_verb(words)
    about: list[str] = []
    if verb == "explain":  # what it is about is not ours to parse yet
        cut = next((at for at, word in enumerate(words[1:], 1) if not word.startswith("-")), len(words))
        words, about = words[:cut], words[cut:]
    act, args = parsed(words)
    if verb == "explain":
        args.about = about
    elif any(getattr(args, option, None) for option in _TELLING):
        from . import explain

        return explain.tell(act, args)
    return int(act(args))


def parsed(words: list[str]) -> tuple[Act, argparse.Namespace]:
    """A verb with its words: what does it, and what it is given.

    Raises:
        SpecError: a word is wrong.
    """
    verb = words[0]
    before, command = _split_command(words) if verb in _WITH_COMMAND else (words, None)
    parser = build_parser([verb], dashes=command is not None)
    args, unknown = parser.parse_known_args(before)
    if unknown := [word for word in unknown if word != "--"]:
        if command is not None and not unknown[0].startswith("-"):
            raise SpecError(f"cannot use argument {quote(unknown[0])} before --",
                            hint="the command stands after -- as a whole")  # fmt: skip
        raise _unknown(unknown[0], f"nsbox {verb}")
    args.after_dashes = command
    module, _, function = args.handler.partition(":")
    return getattr(import_module(module), function), args


def _unknown(word: str, prog: str) -> SpecError:
    kind = "option" if word.startswith("-") else "argument"
    hint = f"see: {prog} --help"
    if word == "--debug":
        hint = "it stands before the verb: nsbox --debug VERB"
    return SpecError(f"cannot use {kind} {quote(word)}: {prog} has none like it here", hint=hint)


def _without_verb(words: list[str]) -> int:
    """Help, the version, or a mistake."""
    parser = build_parser(list(VERBS))
    if not words:
        clean.tell_text(parser.format_help())
        return EXIT_USAGE
    if not words[0].startswith("-"):
        import difflib  # only mistakes need it

        near = difflib.get_close_matches(words[0], VERBS, 1)
        hint = f"did you mean: nsbox {near[0]}; all verbs: nsbox --help" if near else "see: nsbox --help"
        raise SpecError(f"cannot find a verb {quote(words[0])}", hint=hint)
    if words[0] not in ("-h", "--help", "--version", "--debug"):
        raise _unknown(words[0], "nsbox")
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
