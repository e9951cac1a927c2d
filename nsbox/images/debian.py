"""Makes a Debian tree with mmdebstrap(1)."""

import os
import re
import shlex
import shutil
from collections.abc import Iterable

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
    if not shutil.which("mmdebstrap", path=command.environment()["PATH"]):
        why = f"cannot build rootfs '{place.name}': mmdebstrap is not installed"
        raise NsboxError(why, hint="apt-get install mmdebstrap")
    root = os.path.join(place.entry, "rootfs")
    origin = _origin(recipe, place.work)
    suite, _, own_mirror = origin
    lend = f'cp {shlex.quote(apt.lend_conf(place.work))} "$1"/etc/apt/apt.conf.d/'
    options = [f"--variant={recipe.variant}", f"--setup-hook={lend}"]
    if recipe.slim == "yes":
        options += [f"--dpkgopt={choice}" for choice in _SLIM]
    if recipe.stage:
        build = stage.hook_that_builds(recipe.stage, recipe.folder, place)
        step("making the tree with the tools")
        # Nobody needs the stage after a power cut.
        more = (*options, "--dpkgopt=force-unsafe-io", f"--customize-hook={build}")
        _bootstrap(stage.root_of(place), recipe.stage.include, more, origin, place, step)
        options.append(f"--customize-hook={stage.hook_that_copies(place)}")
        step("making the tree that stays")
    _bootstrap(root, packages, options, origin, place, step)
    step("taking the lent apt settings back")
    apt.leave_public_sources(root, suite, own_mirror)
    for name in ("etc/hostname", "etc/resolv.conf"):  # the host's, copied in by mmdebstrap
        tree.put_file(root, name, b"")
    return suite


def _bootstrap(
    root: str, packages: Iterable[str], options: Iterable[str], origin: _Origin,
    place: entries.Workplace, step: LineHandler,
) -> None:
    """Let mmdebstrap make the tree `root`."""
    suite, mirrors, _ = origin
    argv = ["mmdebstrap", "--mode=root", "--format=directory", *options]
    if packages := tuple(packages):
        argv.append(f"--include={','.join(packages)}")
    said = _Listener(step)
    env = command.environment(TMPDIR=place.work)  # else a killed one leaves files in /tmp
    if command.run([*argv, suite, root, *mirrors], env, place.lock_fd, said, cwd=place.work) != 0:
        raise said.error(place.name)


def _origin(recipe: Recipe, work: str) -> _Origin:
    """(release, where mmdebstrap gets it from: files or an address, the recipe's mirror if used).

    No place at all means mmdebstrap's own default, Debian's public mirror.
    """
    release = apt.host_release() if recipe.sources == "host" else ""
    if release:
        return release, apt.lend_sources(work, release), ""
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
