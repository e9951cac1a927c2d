"""Which mounts a path leads to: of those in mountinfo many are under others. See mount_namespaces(7)."""

from collections.abc import Sequence

from .mounts import MountEntry


def visible(entries: Sequence[MountEntry]) -> dict[str, MountEntry]:
    """The mounts that can be reached by their path, by target; what others cover is left out.

    A new /proc over an old one covers all that was mounted below the old one, at whatever place of the
    list it stands. Whose root was changed by chroot(2) may see none at "/".

    Args:
        entries: of one process, as read_mountinfo() returns them.
    """
    ids = {one.mount_id for one in entries}
    # The parent of what stands at our root is a mount that we do not see: one of no number.
    below = {(one.parent_id if one.parent_id in ids and one.parent_id != one.mount_id else -1, one.target): one
             for one in entries}  # fmt: skip
    found = {}
    for entry in entries:
        on_top = _at(entry.target, below)
        if on_top is not None and on_top.mount_id == entry.mount_id:
            found[entry.target] = entry
    return found


def _at(path: str, below: dict[tuple[int, str], MountEntry]) -> MountEntry | None:
    """The mount on top at `path`: walked from the root, as the kernel does.

    What stands on the root itself covers nothing of it: a path begins below. Who is on top of another mount
    at "/" does not have that one in its list.
    """
    here = below.get((-1, "/"))
    mount_id = -1 if here is None else here.mount_id
    for place in _places(path)[1:]:
        seen = set[int]()
        while (upper := below.get((mount_id, place))) is not None and upper.mount_id not in seen:
            seen.add(upper.mount_id)
            here, mount_id = upper, upper.mount_id
    return here


def _places(path: str) -> list[str]:
    """The directories on the way, as ["/", "/proc", "/proc/sys"]."""
    parts = [part for part in path.split("/") if part]
    return ["/", *("/" + "/".join(parts[: count + 1]) for count in range(len(parts)))]


def holding(path: str, shown: dict[str, MountEntry]) -> MountEntry | None:
    """The one of the visible mounts that `path` is on, or None where its mount is not seen."""
    return next(reversed(passed(path, shown)), None)


def passed(path: str, shown: dict[str, MountEntry]) -> list[MountEntry]:
    """The visible mounts on the way to `path`, the one that it is on last."""
    return [shown[place] for place in _places(path) if place in shown]
