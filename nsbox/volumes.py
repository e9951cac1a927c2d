"""The words that bring files into a root: --volume, --mount, --tmpfs.

Touches nothing: a path is judged by its spelling. Those who mount resolve the links, inside
the root. A colon in a path needs --mount, a comma there needs quotes as in a CSV file.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .decode import bytes_fault
from .errors import SpecError
from .spec import Tmpfs, Volume, normal_path, target_fault
from .words import parse_size, quote

_NEED_MOUNT = "a path that holds ':' needs --mount type=bind,src=SRC,dst=DST"
_VOLUME_OPTIONS = "the options are ro and rw"
_TMPFS_OPTIONS = "the options are size=64m mode=1777 ro rw [no]exec [no]suid [no]dev"
_MODE = re.compile(r"[0-7]{1,5}")
_CSV_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|\Z)')

# Words without a value: the field that each sets.
_ACCESS = {"ro": ("read_only", True), "rw": ("read_only", False)}
_TMPFS_FLAGS = _ACCESS | {
    "noexec": ("noexec", True), "exec": ("noexec", False),
    "nosuid": ("nosuid", True), "suid": ("nosuid", False),
    "nodev": ("nodev", True), "dev": ("nodev", False),
}
# The keys of --mount, as podman has them: the field that each sets.
_BIND_KEYS = {
    "src": "source", "source": "source",
    "dst": "target", "target": "target", "destination": "target",
    "ro": "read_only", "readonly": "read_only",
}
_TMPFS_KEYS = {
    "dst": "target", "target": "target", "destination": "target",
    "ro": "read_only", "readonly": "read_only",
    "tmpfs-size": "size_bytes", "tmpfs-mode": "mode",
}
_TRUTH = {"": True, "true": True, "1": True, "false": False, "0": False}


class _Complaint:
    """Makes the errors about one word, which all begin in the same way."""

    __slots__ = ("_about",)

    def __init__(self, what: str, word: str) -> None:
        self._about = f"cannot use {what} {quote(word)}"

    def __call__(self, why: str, hint: str = "") -> SpecError:
        return SpecError(f"{self._about}: {why}", hint=hint)


def parse_volume(text: str, cwd: str | None = None) -> Volume:
    """The volume "SRC:DST" or "SRC:DST:ro". A relative SRC starts at `cwd`, else where we are.

    Raises:
        SpecError: SRC is not a path, DST is not allowed, or an option is unknown.
    """
    wrong = _Complaint("volume", text)
    fields = text.split(":")
    if len(fields) not in (2, 3):
        raise wrong("not SRC:DST or SRC:DST:ro", _NEED_MOUNT if len(fields) > 3 else "")
    source, target = fields[:2]
    if source and "/" not in source and not source.startswith("."):
        raise wrong(f"{quote(source)} is a name, not a path", f"a directory here is './{source}'"
                    if source.isprintable() else "")
    values = _flags(fields[2].split(","), _ACCESS, wrong, _VOLUME_OPTIONS) if fields[2:] else {}
    return Volume(_source(source, cwd, wrong), _target(target, wrong), **values)


def parse_tmpfs(text: str) -> Tmpfs:
    """The tmpfs "DST" or "DST:OPTION,…"; options are those of _TMPFS_OPTIONS."""
    wrong = _Complaint("tmpfs", text)
    target, colon, options = text.partition(":")
    values: dict[str, Any] = {}
    words = options.split(",") if colon else []
    for word in [word for word in words if "=" in word]:
        key, _, value = word.partition("=")
        field = {"size": "size_bytes", "mode": "mode"}.get(key)
        if not field or field in values:
            raise wrong(f"{'second' if field else 'unknown'} option {quote(key)}", _TMPFS_OPTIONS)
        values[field] = _value(field, value, wrong)
    flags = [word for word in words if "=" not in word]
    values |= _flags(flags, _TMPFS_FLAGS, wrong, _TMPFS_OPTIONS)
    return Tmpfs(_target(target, wrong), **values)


def parse_mount(text: str, cwd: str | None = None) -> Volume | Tmpfs:
    """podman's long form: "type=bind,src=SRC,dst=DST[,ro]", "type=tmpfs,dst=DST[,tmpfs-size=64m]".

    A field with a comma or a quote in it is quoted as in CSV: 'type=bind,"src=/a,b",dst=/c'.
    """
    wrong = _Complaint("mount", text)
    pairs = [field.partition("=")[::2] for field in _csv_fields(text, wrong)]
    types = [value for key, value in pairs if key == "type"]
    if types not in (["bind"], ["tmpfs"]):
        raise wrong("it needs one type, type=bind or type=tmpfs")
    keys = _BIND_KEYS if types == ["bind"] else _TMPFS_KEYS
    values = _mount_values([pair for pair in pairs if pair[0] != "type"], keys, wrong)
    target = _target(values.pop("target", ""), wrong)
    if types == ["tmpfs"]:
        return Tmpfs(target, **values)
    return Volume(_source(values.pop("source", ""), cwd, wrong), target, **values)


def check_targets(volumes: Iterable[Volume], tmpfs: Iterable[Tmpfs]) -> None:
    """Refuse two mounts at one destination: the second would hide the first.

    Raises:
        SpecError: a destination is there twice.
    """
    seen: set[str] = set()
    targets = [volume.target for volume in volumes] + [mount.target for mount in tmpfs]
    for target in map(normal_path, targets):
        if target in seen:
            raise SpecError(f"cannot mount two things at {quote(target)}")
        seen.add(target)


def _source(path: str, cwd: str | None, wrong: _Complaint) -> str:
    if not path:
        raise wrong("the source is empty")
    if why := bytes_fault(path):
        raise wrong(why)
    try:
        return normal_path(os.path.abspath(path if cwd is None else os.path.join(cwd, path)))
    except OSError as err:  # a relative path, and the current directory was removed
        raise wrong("the source is relative and there is no current directory") from err


def _target(path: str, wrong: _Complaint) -> str:
    if not path:
        raise wrong("the destination is empty")
    if why := target_fault(path):
        raise wrong(why)
    return normal_path(path)


def _flags(
    words: Iterable[str], known: Mapping[str, tuple[str, bool]], wrong: _Complaint, hint: str
) -> dict[str, bool]:
    """The fields that `words` set, each once: "ro,rw" is somebody's mistake."""
    values: dict[str, bool] = {}
    for word in words:
        if word not in known:
            raise wrong(f"unknown option {quote(word)}", hint)
        field, value = known[word]
        if field in values:
            raise wrong(f"option {quote(word)} comes after another of its kind")
        values[field] = value
    return values


def _mount_values(
    pairs: Iterable[Sequence[str]], keys: Mapping[str, str], wrong: _Complaint
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key not in keys:
            raise wrong(f"unknown key {quote(key)}", f"the keys are type {' '.join(keys)}")
        if keys[key] in values:
            raise wrong(f"key {quote(key)} comes after another of its kind")
        values[keys[key]] = _value(keys[key], value, wrong)
    return values


def _value(field: str, text: str, wrong: _Complaint) -> str | int | bool:
    if field == "size_bytes":
        return parse_size(text, "tmpfs size")
    if field == "mode":
        if not _MODE.fullmatch(text) or int(text, 8) > 0o7777:
            raise wrong(f"{quote(text)} is not a mode from 0 to 7777, in octal")
        return int(text, 8)
    if field == "read_only":
        if text not in _TRUTH:
            raise wrong(f"{quote(text)} is neither 'true' nor 'false'")
        return _TRUTH[text]
    return text


def _csv_fields(text: str, wrong: _Complaint) -> list[str]:
    """Split at commas outside quotes. Not csv: that refuses a newline in a bare field."""
    fields, at = [], 0
    while match := _CSV_FIELD.match(text, at):
        quoted, bare, comma = match.groups()
        fields.append(bare if quoted is None else quoted.replace('""', '"'))
        if not comma:
            return fields
        at = match.end()
    raise wrong("stray quote", "quote the whole field, and double a quote in it: '\"src=/a,b\"'")
