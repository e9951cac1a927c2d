"""Builds a root file system from a recipe and puts it into the store."""

import datetime
import importlib.metadata
import os
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import NsboxError, SpecError
from . import busybox, command, debian, entries, recipe, tree

Step = Callable[[str], None]
WRITING = "writing to the disk"


def build(
    name_or_dir: str, *, include: Iterable[str] = (), force: bool = False,
    step: Step = lambda _: None,
) -> entries.Entry:
    """Build the recipe of that name, or in that folder, and store it under its name.

    The entry appears whole or not at all, also if the builder is killed.

    Args:
        include: names of more Debian packages.
        force: replace an entry of the same name.
        step: is told in a few words, again and again, what is being done.

    Raises:
        SpecError: the recipe or a package name is wrong; nothing was touched.
        NsboxError: the entry exists already, or the build failed; nothing is left.
    """
    made_of, packages = wanted(name_or_dir, include, force=force)
    with entries.workplace(made_of.name) as place:
        try:
            meta = _make(made_of, packages, place, step)
            entries.write_meta(place, meta)
            path = entries.commit(place, force=force)
        except OSError as err:
            raise NsboxError(f"cannot build rootfs '{made_of.name}'") from err
    return entries.Entry(made_of.name, path, meta)


def wanted(name_or_dir: str, include: Iterable[str], *, force: bool) -> tuple[recipe.Recipe, tuple[str, ...]]:
    """The recipe and all of its packages. Raises as :func:`build` does before anything is touched."""
    made_of = recipe.find(name_or_dir)
    packages = recipe.check_packages((*made_of.include, *include))
    if packages and made_of.kind != "mmdebstrap":
        raise SpecError(f"cannot include packages: a {made_of.kind} root file system has none")
    entries.refuse_existing(made_of.name, force=force)
    return made_of, packages


def _make(
    made_of: recipe.Recipe, packages: tuple[str, ...], place: entries.Workplace, step: Step
) -> dict[str, Any]:
    """Make the tree, finished and on the disk; what meta.json shall say."""
    root = os.path.join(place.entry, "rootfs")
    suite = ""
    if made_of.kind == "busybox":
        busybox.make(place, step)
    else:
        suite = debian.make(made_of, packages, place, step)
    own_files = os.path.join(made_of.folder, "files")
    if os.path.isdir(own_files):
        step("copying the recipe's own files")
        tree.overlay(own_files, root)
    step(WRITING)
    # After a power cut a renamed directory must not hold files without content: syncfs(2).
    subprocess.run(sync(root), env=command.environment(), stdin=subprocess.DEVNULL, check=False)
    return {
        "recipe": made_of.name,
        "kind": made_of.kind,
        "suite": suite,
        "packages": list(packages),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "size_bytes": tree.size_bytes(root),
        "arch": os.uname().machine,
        "nsbox": _version(),
    }


def sync(root: str) -> list[str]:
    """What writes a tree to the disk. See sync(1)."""
    return ["sync", "-f", root]


def _version() -> str:
    try:
        return importlib.metadata.version("nsbox")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
