"""Options that several verbs have, and how they become specs."""

import argparse
import os
import signal
from typing import Any, Sequence

from .. import parse
from ..capabilities import Rights
from ..errors import NsboxError, SpecError
from ..filters import Filter
from ..spec import RootSpec, Tmpfs, Volume


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are, and spares every command line an import of shutil.

    argparse makes a formatter for each option that is added, and asks shutil for the width.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 0
        super().__init__(prog, width=min(columns or 80, 100) - 2)


class AnyOrder(argparse.ArgumentParser):
    """argparse that takes options anywhere among a verb's words.

    By itself it gives a list of words only what stands before the first option, be it nothing.
    """

    _sorting = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options first, then the words. A command's words, and those of verbs below, are not ours to sort."""
        wants = {action.nargs for action in self._get_positional_actions()}
        if self._sorting or wants <= {None, "?"} or wants & {argparse.PARSER, argparse.REMAINDER}:
            return super().parse_known_args(args, namespace)
        self._sorting = True
        # It changes its own rules meanwhile, and falls over putting them back when it is interrupted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._sorting = False
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def verb(
    verbs: Any, name: str, purpose: str, example: str, handler: str, *, acts: bool = False, foretold: bool = False
) -> argparse.ArgumentParser:
    """A parser for one verb, with its example in --help.

    Args:
        acts: it changes something, and can say how: --explain and the like.
        foretold: and can say it before: --dry-run.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=purpose,
        description=purpose,
        epilog=example,
        allow_abbrev=False,
        formatter_class=Formatter,
    )
    parser.set_defaults(handler=f"nsbox.cli.{handler}")
    if acts or foretold:
        _add_telling_options(parser, foretold)
    return parser


def _add_telling_options(parser: argparse.ArgumentParser, foretold: bool) -> None:
    """--explain and what belongs to it. That they are given is seen in front.py."""
    group = parser.add_argument_group("what it does")
    if foretold:
        group.add_argument("--dry-run", action="store_true", help="tell it on stdout, and leave nothing of it")
    group.add_argument("--explain", action="store_true", help="tell each system call on stderr: what for, and where "
                       "to read about it")
    group.add_argument("--step", action="store_true",
                       help="the same, but wait for Enter before each; q ends and undoes")
    group.add_argument("--sh", metavar="FILE", help="write the same by hand as a shell script; - is stdout")
    group.add_argument("--events", metavar="FILE",
                       help="write each system call as a line of JSON; - is stdout")  # fmt: skip


def add_root_options(parser: argparse.ArgumentParser) -> None:
    """--rootfs and what belongs to it."""
    group = parser.add_argument_group("root file system")
    group.add_argument("--rootfs", metavar="DIR|NAME", help="a directory, or a name of nsbox rootfs ls")
    group.add_argument("--in-place", action="store_true",
                       help="write to the rootfs itself; else changes are copied on write and forgotten")
    group.add_argument("--chroot", action="store_true",
                       help="plain chroot instead of pivot_root: not a boundary")
    group.add_argument("--read-only", action="store_true", help="nothing can be written to the root")
    group.add_argument("-v", "--volume", metavar="SRC:DST[:ro]", action="append", default=[],
                       help="bind a file or directory of the host (may be repeated)")
    group.add_argument("--mount", metavar="type=…,src=…,dst=…", action="append", default=[],
                       help="the same in podman's long form; type bind or tmpfs")
    group.add_argument("--tmpfs", metavar="DST[:OPTIONS]", action="append", default=[],
                       help="a file system in memory; options size=64m, mode=1777, ro, exec …")  # fmt: skip


def root_spec(args: argparse.Namespace) -> RootSpec:
    """The root that the options describe; path "" if there is no --rootfs."""
    volumes: list[Volume] = [parse.parse_volume(word) for word in args.volume]
    tmpfs: list[Tmpfs] = [parse.parse_tmpfs(word) for word in args.tmpfs]
    for word in args.mount:
        mount = parse.parse_mount(word)
        if isinstance(mount, Volume):
            volumes.append(mount)
        else:
            tmpfs.append(mount)
    parse.check_targets(volumes, tmpfs)
    if args.rootfs is None:
        for option in ("in_place", "chroot", "read_only"):
            if getattr(args, option):
                raise SpecError(f"cannot use --{option.replace('_', '-')} without --rootfs")
        path = ""
    else:
        from ..images import store

        try:
            path = store.resolve(args.rootfs)
        except OSError as err:  # a relative path, and the current directory has been removed
            raise NsboxError(f"cannot use rootfs {parse.quote(args.rootfs)}") from err
    return RootSpec(path, args.in_place, args.chroot, args.read_only, tuple(volumes), tuple(tmpfs))


def add_member_options(parser: argparse.ArgumentParser, verbs: Any) -> None:
    """What describes a command that is run as a member."""
    group = parser.add_argument_group("the command")
    group.add_argument("-e", "--env", metavar="KEY[=VALUE]", action="append", default=[],
                       help="set a variable, or pass the caller's (may be repeated)")
    group.add_argument("--env-file", metavar="FILE", action="append", default=[],
                       help="read variables from a file, one KEY=VALUE a line")
    group.add_argument("-w", "--workdir", metavar="DIR", help="work directory inside; / if not given")
    add_user(group)
    group.add_argument("-i", "--interactive", action="store_true",
                       help="pass stdin on: always done, accepted for podman's sake")
    terminal = group.add_mutually_exclusive_group()
    terminal.add_argument("-t", "--tty", action="store_true", help="give the command a terminal of its own: "
                          "done anyway if stdin and stdout are one, but for a job in the background")
    terminal.add_argument("-T", "--no-tty", action="store_true", help="never give it a terminal")
    if verbs.dashes:  # the command is cut off already, and our options may stand anywhere
        parser.set_defaults(command=[])
    else:
        group.add_argument("command", metavar="-- CMD", nargs=argparse.REMAINDER,
                           help="the command and its arguments")  # fmt: skip


def add_user(group: Any) -> None:
    """--user."""
    group.add_argument("-u", "--user", metavar="USER[:GROUP]", help="who runs it: numbers, or names of the "
                       "root's own /etc/passwd and group; root if not given")  # fmt: skip


def user(args: argparse.Namespace) -> str:
    """--user, checked; "" if it is not given."""
    if args.user is None:
        return ""
    parse.parse_user(args.user)
    return str(args.user)


def add_rights_options(parser: argparse.ArgumentParser) -> None:
    """What a member may do, in its pod and to the kernel."""
    group = parser.add_argument_group("privileges")
    group.add_argument("--cap-add", metavar="NAME", action="append", default=[],
                       help="a capability that members keep besides the short list, as NET_ADMIN; or ALL "
                       "(may be repeated)")
    group.add_argument("--cap-drop", metavar="NAME", action="append", default=[],
                       help="one that they do not keep; or ALL (may be repeated)")
    group.add_argument("--privileged", action="store_true",
                       help="keep all that nsbox has, and let setuid programs give more")  # fmt: skip


def rights(args: argparse.Namespace) -> Rights:
    """What the options of :func:`add_rights_options` say."""
    return parse.parse_rights(args.cap_add, args.cap_drop, args.privileged)


def add_ulimit_option(parser: argparse.ArgumentParser) -> None:
    """--ulimit."""
    parser.add_argument("--ulimit", metavar="NAME=SOFT[:HARD]", action="append", default=[],
                        help="what one process, or of nproc one user, may use at most, as nofile=1024:4096 or "
                        "core=unlimited; the names and units of setrlimit(2) (may be repeated)")  # fmt: skip


def add_seccomp_option(parser: argparse.ArgumentParser) -> None:
    """--seccomp."""
    parser.add_argument("--seccomp", metavar="FILTER", help="which system calls a member may make: default; nested, "
                        "to make namespaces inside too; unconfined; or a file with a profile, in the OCI form or "
                        "docker's")  # fmt: skip


def seccomp(args: argparse.Namespace) -> Filter | None:
    """The filter that --seccomp chooses, if it was given."""
    return None if args.seccomp is None else parse.parse_seccomp(args.seccomp)


def member_argv(args: argparse.Namespace) -> tuple[bytes, ...]:
    """The user's command, as the bytes that were typed.

    Without "--" it is what stands after the last word of ours, and must not look like an option.
    """
    words: Sequence[str] = args.command
    if args.after_dashes is not None:
        words = args.after_dashes
    elif words and words[0].startswith("-"):
        raise SpecError(f"cannot tell whether {parse.quote(words[0])} is an option or the command",
                        hint="put -- before the command, and options before that")  # fmt: skip
    if not words or not words[0]:
        raise SpecError("cannot run nothing: there is no command", hint="put it after --, as in: -- hostname")
    return tuple(parse.encode(word, "argument") for word in words)


def member_env(args: argparse.Namespace) -> tuple[tuple[bytes, bytes], ...]:
    """The variables of --env-file and --env."""
    return parse.parse_env(args.env, args.env_file, os.environ)


def workdir(args: argparse.Namespace) -> bytes | None:
    """--workdir as bytes."""
    return None if args.workdir is None else parse.encode(args.workdir, "work directory")


def wants_tty(args: argparse.Namespace) -> bool:
    """Whether the command gets a pty: asked for, or because we are on a terminal, in the foreground.

    Raises:
        SpecError: -t, and stdin is no terminal.
    """
    if args.no_tty:
        return False
    if args.tty and not os.isatty(0):
        raise SpecError("cannot give it a terminal: stdin is none", hint="leave -t out")
    return bool(args.tty) or (os.isatty(0) and os.isatty(1) and not _is_in_background())


def _is_in_background() -> bool:
    """Whether we are a job that somebody put there with "&": taking the terminal would stop us. See tcgetpgrp(3)."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:
        return False  # the terminal is not that of our session


def seconds(text: str | None, what: str) -> float | None:
    """A number of seconds, or None where none was given."""
    return None if text is None else parse.parse_seconds(text, what)
