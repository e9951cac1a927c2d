"""What a person gives as the arguments of a failed call, in the form that a Case holds them."""

from typing import Any, Sequence

from ...errors import SpecError
from ...linux import trouble
from ...linux.flags import CloneFlag, MountAttr
from ...words import quote

# What people call it, who write to /proc by hand.
SHORT = {"uid_map": "write uid_map", "gid_map": "write gid_map", "fork": "clone", "mknod": "mknodat"}
_NAMESPACES = ("unshare", "clone3", "clone")
_TYPES = ("fsopen", "fsconfig", "fsmount")
_IDS = ("setresuid", "setresgid", "setreuid", "setregid", "setuid", "setgid", "setgroups")
_PORT_MAX = 65535
_DIGITS_MAX = 19


def arguments(call: str, words: Sequence[str]) -> list[Any]:
    """The arguments of `call`: CLONE_ flags, a PID, a path, a type of file system, an address with a port, ids.

    Raises:
        SpecError: a word is none of what the call takes.
    """
    if not words:
        return []
    if call in _NAMESPACES:
        return [_flags(words[0], CloneFlag)]
    if call == "setns":
        flags = _flags(words[1], CloneFlag) if len(words) > 1 else None
        return [-1, flags, f"pidfd:{_number(words[0])}"]
    if call == "mount":
        return [None, words[0], None] if words[0].startswith((".", "/")) else [None, None, words[0]]
    if call == "mount_setattr":
        return [-1, "", 0, _flags(words[0], MountAttr)]
    if call == "bind":
        return _place(words[0])
    if call in ("write uid_map", "write gid_map"):
        return _map(words)
    if call in _IDS:
        return [_number(word) for word in words]
    return list(words)


def _flags(word: str, names: Any) -> int:
    value = 0
    for name in word.replace(",", "|").split("|"):
        if name not in names.__members__:
            some = "|".join(list(names.__members__)[-2:])
            raise SpecError(f"cannot find a flag {quote(name)}", hint=f"as in: {some}")
        value |= int(names[name])
    return value


def _number(word: str) -> int:
    if not word.isascii() or not word.isdigit() or len(word) > _DIGITS_MAX:
        raise SpecError(f"cannot use {quote(word)}: it is no number, or too large")
    return int(word)


def _place(word: str) -> list[Any]:
    where, _, proto = word.partition("/")
    address, _, port = where.rpartition(":")
    number = _number(port)
    if number > _PORT_MAX:
        raise SpecError(f"cannot use port {number}: there are {_PORT_MAX}")
    return [proto or "tcp", address.strip("[]") or "127.0.0.1", number]


def _map(words: Sequence[str]) -> list[Any]:
    """The line of a map, and, where it is for a process, what that has already: "0 1000 1" 4711."""
    text = words[0]
    if len(words) == 1:
        return [text]
    return [text, *(trouble.of_process(_number(words[1]), name) for name in ("uid_map", "gid_map", "setgroups"))]
