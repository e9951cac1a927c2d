"""Makes a Debian tree with mmdebstrap(1)."""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator

from ..errors import NsboxError
from ..words import printable
from . import apt, command, entries, stage, tree
from .command import LineHandler
from .recipe import Recipe

_OFFLINE = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect|Network is unreachable"
    r"|Unable to connect|Cannot initiate the connection|Connection timed out|No route to host"
)
_IDLE_TALK = re.compile(r"I: (running --|main\(\)|success in|chroot architecture|finding correct)")
_RIGHTS = "run it as root, or give yourself subordinate ids: package uidmap, subuid(5), subgid(5)"
# What dpkg leaves out of a slim tree. The licences stay. See dpkg(1).
_SLIM = (
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
)
_TOOLS, _STAYS = "making the tree with the tools", "making the tree that stays"
_Origin = tuple[str, list[str], str]
# The last words of mmdebstrap only repeat that the command before failed.
_ECHO = re.compile(r"(setup failed|mmdebstrap failed|.*-oAPT::Status-Fd)")


def make(
    recipe: Recipe, packages: tuple[str, ...], place: entries.Workplace, step: LineHandler
) -> str:
    """Make the tree in place.entry/rootfs; the name of its Debian release.

    Raises:
        NsboxError: no mmdebstrap, no network, no such package, no space, ...
    """
    _require_program(place.name)
    root = os.path.join(place.entry, "rootfs")
    origin = _origin(recipe, place.work, apt.lend_sources)
    suite, _, own_mirror = origin
    options = _options(recipe, apt.lend_conf(place.work))
    if recipe.stage:
        more = _options_of_stage(options, stage.hook_that_builds(recipe.stage, recipe.folder, place))
        step(_TOOLS)
        _bootstrap(_argv(stage.root_of(place), recipe.stage.include, more, origin), place, step)
        options.append(f"--customize-hook={stage.hook_that_copies(place)}")
        step(_STAYS)
    _bootstrap(_argv(root, packages, options, origin), place, step)
    step("taking the lent apt settings back")
    apt.leave_public_sources(root, suite, own_mirror)
    for name in ("etc/hostname", "etc/resolv.conf"):  # the host's, copied in by mmdebstrap
        tree.put_file(root, name, b"")
    return suite


def foretold(recipe: Recipe, packages: tuple[str, ...], place: entries.Workplace) -> Iterator[tuple[str, list[str]]]:
    """What :func:`make` would run, in its order: what for, and the words. Nothing is written.

    Raises:
        NsboxError: no mmdebstrap.
    """
    _require_program(place.name)
    origin = _origin(recipe, place.work, lambda work, release: list(apt.lent_sources(work, release)))
    yield "", apt.CONFIG_DUMP
    options, doing = _options(recipe, os.path.join(place.work, apt.LENT_CONF)), ""
    if recipe.stage:
        more = _options_of_stage(options, stage.foretold_hook(recipe.stage, recipe.folder, place))
        yield _TOOLS, command.line_of(_argv(stage.root_of(place), recipe.stage.include, more, origin))
        options.append(f"--customize-hook={stage.hook_that_copies(place)}")
        doing = _STAYS
    yield doing, command.line_of(_argv(os.path.join(place.entry, "rootfs"), packages, options, origin))


def _require_program(name: str) -> None:
    if not shutil.which("mmdebstrap", path=command.environment()["PATH"]):
        why = f"cannot build rootfs '{name}': mmdebstrap is not installed"
        raise NsboxError(why, hint="apt-get install mmdebstrap")


def _options(recipe: Recipe, lent_conf: str) -> list[str]:
    lend = f'cp {shlex.quote(lent_conf)} "$1"/etc/apt/apt.conf.d/'
    slim = [f"--dpkgopt={choice}" for choice in _SLIM] if recipe.slim == "yes" else []
    return [f"--variant={recipe.variant}", f"--setup-hook={lend}", *slim]


def _options_of_stage(options: list[str], build: str) -> list[str]:
    """Nobody needs the stage after a power cut."""
    return [*options, "--dpkgopt=force-unsafe-io", f"--customize-hook={build}"]


def _argv(root: str, packages: Iterable[str], options: Iterable[str], origin: _Origin) -> list[str]:
    """What makes the tree `root`."""
    suite, mirrors, _ = origin
    more = [f"--include={','.join(packages)}"] if (packages := tuple(packages)) else []
    return ["mmdebstrap", "--mode=root", "--format=directory", *options, *more, suite, root, *mirrors]


def _bootstrap(argv: list[str], place: entries.Workplace, step: LineHandler) -> None:
    """Let mmdebstrap make a tree."""
    said = _Listener(step)
    env = command.environment(TMPDIR=place.work)  # else a killed one leaves files in /tmp
    if command.run(argv, env, place.lock_fd, said, cwd=place.work) != 0:
        raise said.error(place.name)


def _origin(recipe: Recipe, work: str, lend: Callable[[str, str], list[str]]) -> _Origin:
    """(release, where mmdebstrap gets it from: files or an address, the recipe's mirror if used).

    No place at all means mmdebstrap's own default, Debian's public mirror.
    """
    release = apt.host_release() if recipe.sources == "host" else ""
    if release:
        return release, lend(work, release), ""
    return recipe.suite, [recipe.mirror] if recipe.mirror else [], recipe.mirror


class _Listener:
    """Hears what mmdebstrap and apt say: steps are passed on, complaints kept."""

    def __init__(self, step: LineHandler) -> None:
        self._step = step
        self._offline = ""
        self._complaints: list[str] = []
        self._last = ""

    def __call__(self, line: str) -> None:
        if line.startswith("I: "):
            if not _IDLE_TALK.match(line):
                self._step(line[3:].rstrip("."))
        elif _OFFLINE.search(line):
            self._offline = self._offline or line.removeprefix("E: ")
        elif line.startswith(("E: ", "dpkg: error")) and not _ECHO.match(line.removeprefix("E: ")):
            self._complaints.append(line.removeprefix("E: "))
        self._last = line or self._last

    def error(self, name: str) -> NsboxError:
        """What to tell after a failure, in one line."""
        if self._offline:
            why = f"cannot build rootfs '{name}': cannot reach the package mirror: {self._offline}"
            hint = "look at the network and at apt's proxy settings"
            return NsboxError(printable(why), hint=hint)
        reason = (self._complaints or [self._last or "it gave no reason"])[0]
        if reason.startswith(("unshare: ", "newuidmap: ", "newgidmap: ")):
            return NsboxError(printable(f"cannot build rootfs '{name}': {reason}"), hint=_RIGHTS)
        return NsboxError(printable(f"cannot build rootfs '{name}': mmdebstrap: {reason}"))
