"""What a build or a removal would do, worked out by the same rules without doing it.

Programs and renames, as the doors of explain hear them; files that Python copies are not among them there
either. What a download will be called is not known before: VERSION and ARCH stand for that.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from . import apt, build, busybox, command, debian, entries, store

_DOWNLOAD = "busybox-static_VERSION_ARCH.deb"


class Step(NamedTuple):
    """One step.

    Attributes:
        doing: what for, as the builder says it.
        words: of a program; of a rename the old and the new path.
        env: the variables of a program; None for a rename.
    """

    doing: str
    words: list[str]
    env: Mapping[str, str] | None = None


def of_build(name_or_dir: str, *, include: Iterable[str], force: bool) -> Iterator[Step]:
    """The steps of :func:`build.build`. Raises as it does, where that can be known."""
    made_of, packages = build.wanted(name_or_dir, include, force=force)
    where = store.store_dir()
    if store.check_owner(where):
        entries.refuse_second_builder(where, made_of.name)
    place = entries.Workplace(made_of.name, entries.new_path(where, "build", made_of.name), -1)
    scratch = command.environment(TMPDIR=place.work)
    if made_of.kind == "busybox":
        yield from _busybox(place, scratch)
    else:
        for doing, words in debian.foretold(made_of, packages, place):
            yield Step(doing, words, command.environment() if words == apt.CONFIG_DUMP else scratch)
    yield Step(build.WRITING, build.sync(os.path.join(place.entry, "rootfs")), command.environment())
    target = os.path.join(where, made_of.name)
    if os.path.lexists(target):
        yield Step(build.WRITING, [target, os.path.join(place.path, "old")])
    yield Step(build.WRITING, [place.entry, target])


def _busybox(place: entries.Workplace, scratch: Mapping[str, str]) -> Iterator[Step]:
    program = busybox.installed()
    if not program:
        busybox.why_not(place.name)
        for words in (busybox.FETCH, busybox.unpack(_DOWNLOAD)):
            yield Step(busybox.FETCHING, command.line_of(words, own_world=False), scratch)
        program = os.path.join(place.work, "deb", "unpacked", "bin", "busybox")
    yield Step(busybox.LINKING, busybox.list_applets(program), command.environment())


def of_removal(names: list[str]) -> Iterator[Step]:
    """The steps of :func:`entries.remove`. Raises as it does."""
    entries.refuse_unknown(names)
    where = store.store_dir()
    for name in dict.fromkeys(names):
        yield Step("", [os.path.join(where, name), entries.new_path(where, "trash", name)])
