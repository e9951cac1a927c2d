"""How processes are guarded, as lines for a person: what pod/posture.py found, each value once.

Processes that are guarded alike are told together. What a pod does not promise its members has a "!".
"""

from collections.abc import Iterator, Sequence
from typing import Any

from .text import command_line, printable

Facts = dict[str, Any]
_MOST_DEVICES = 24


def of_processes(rows: Sequence[Facts]) -> Iterator[str]:
    """The processes of a pod, each with its posture.

    Args:
        rows: as report.everything() has them: `security` is how one is guarded, `differs` in what
            otherwise than the pod's members.
    """
    groups: list[list[Facts]] = []
    for row in rows:
        like = next((group for group in groups if _alike(group[0], row)), None)
        if like is None:
            groups.append(like := [])
        like.append(row)
    for group in groups:
        for row in group:
            numbers = "  ".join(f"{key}={row[key]}" for key in ("pid", "pod_pid", "ppid", "state"))
            yield f"- {numbers}  shares={' '.join(row['shares'])}  command={command_line(row['command'])}"
        if group[0]["security"] is None:
            yield "  security: not read: it has ended, or is another user's"
            continue
        for key, value in (group[0]["differs"] or {}).items():
            yield f"  ! {key}: {_value(key, value)}"
        yield from (f"  {line}" for line in of_security(group[0]["security"]))


def _alike(one: Facts, other: Facts) -> bool:
    return bool(one["security"] == other["security"] and one["differs"] == other["differs"])


def of_security(found: Facts) -> Iterator[str]:
    """The posture of one process."""
    unread = found["unread"]

    def said(key: str, words: str) -> str:
        why = f"not read: {printable(unread[key])}" if key in unread else ""
        return f"{key}: {why if found[key] is None else words + (f' ({why})' if why else '')}"

    yield f"user: {_user(found)}"
    yield f"groups: {_words(found['groups'])}"
    yield f"root_is_uid: {'-' if found['root_is_uid'] is None else found['root_is_uid']}"
    for key in ("uid_map", "gid_map"):
        yield f"{key}: {', '.join(_words(row) for row in found[key]) or '-'}"
    yield from _capabilities(found["capabilities"])
    yield f"no_new_privs: {found['no_new_privs']}"
    yield f"seccomp: {found['seccomp']}" + (f" ({found['seccomp_filters']})" if found["seccomp_filters"] else "")
    yield said("root_read_only", str(found["root_read_only"]))
    for key in ("read_only", "masked", "open"):
        yield f"{key}: {_words(found[key])}"
    yield said("devices", _devices(found["devices"] or []))
    yield f"device_mounts: {_words(found['device_mounts'])}"
    yield f"limits: {_limits(found['limits'])}"
    keyring = found["session_keyring"]
    yield f"session_keyring: {keyring}" + (": the kernel shows it to the process alone" if keyring == "unknown" else "")
    yield f"terminal: {found['terminal'] or '-'}"
    yield f"oom_score_adj: {found['oom_score_adj']}"


def _words(values: Sequence[object]) -> str:
    return " ".join(printable(str(value)) for value in values) or "-"


def _user(found: Facts) -> str:
    """Inside, and here where that is another number; the others of its ids where they are not the same."""
    here = [found["uid"], found["gid"]]
    inside = [found["uid_inside"], found["gid_inside"]]
    said = "{}:{}".format(*("?" if number is None else number for number in inside))
    if inside != here:
        said += " inside, {}:{} here".format(*here)
    for key in ("uids", "gids"):
        if len(set(found[key].values())) > 1:
            said += f"; {key} here: " + " ".join(f"{name}={number}" for name, number in found[key].items())
    return said


def _capabilities(sets: dict[str, list[str]]) -> Iterator[str]:
    """The sets, those that are the same in one line."""
    yield "capabilities:"
    told: set[str] = set()
    for name, names in sets.items():
        if name not in told:
            alike = [other for other in sets if sets[other] == names]
            told.update(alike)
            yield f"  {', '.join(alike)}: {_words(names)}"


def _devices(nodes: Sequence[Facts]) -> str:
    """Their names below /dev; of many, what is most: how many there are, and the disks among them."""
    names = [node["path"].removeprefix("/dev/") for node in nodes]
    if len(names) <= _MOST_DEVICES:
        return _words(names)
    disks = [name for name, node in zip(names, nodes, strict=True) if node["type"] == "block"]
    shown = disks[:_MOST_DEVICES]
    more = f" and {len(disks) - len(shown)} more" if len(disks) > len(shown) else ""
    return f"{len(names)}, of which block devices: {_words(shown)}{more}; all by --json"


def _limits(limits: dict[str, Facts]) -> str:
    """soft:hard, or one number for both; those that limit nothing last, by their names."""
    bounds = [f"{printable(name)}={_bound(one)}" for name, one in limits.items() if set(one.values()) != {"unlimited"}]
    free = [printable(name) for name, one in limits.items() if set(one.values()) == {"unlimited"}]
    return " ".join(bounds) + (f"{'; ' if bounds else ''}unlimited: {' '.join(free)}" if free else "")


def _bound(one: Facts) -> str:
    return f"{one['soft']}" if one["soft"] == one["hard"] else f"{one['soft']}:{one['hard']}"


def _value(key: str, value: Any) -> str:
    if key == "user":
        return ":".join("?" if number is None else str(number) for number in value)
    if key == "limits":
        return _limits(value)
    return _words(value) if isinstance(value, list) else str(value)
