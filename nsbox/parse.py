"""The words of the command line and of manifests, made into the data of spec.py.

Touches nothing but the env files it is given. A word is wrong in one way only: SpecError,
in one line that quotes it. Words that are alike live in words.py and volumes.py; all are
found here under one roof.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .capabilities import Rights, name_fault as capability_fault, rights_fault
from .decode import bytes_fault
from .errors import NsboxError, SpecError
from .filters import NAMES, Filter
from .runas import parse_user
from .spec import (
    EXTRA_KINDS, ID_MAX, KIND_NAMES, NET_MODES, Owner, net_fault, normal_path, userns_fault, v4_fault,
)
from .volumes import check_targets, parse_mount, parse_tmpfs, parse_volume
from .words import (
    check_hostname, check_name, encode, hostname_of, parse_integer, parse_seconds, parse_size,
    quote,
)

__all__ = [
    "check_hostname", "check_name", "check_targets", "encode", "hostname_of", "parse_env",
    "parse_integer", "parse_ip", "parse_label", "parse_mount", "parse_net", "parse_rights", "parse_seccomp",
    "parse_seconds",
    "parse_share", "parse_signal", "parse_size", "parse_sysctl", "parse_tmpfs", "parse_ulimits", "parse_user",
    "parse_userns",
    "parse_volume", "parse_with", "quote", "split_init", "sudo_caller",
]

if TYPE_CHECKING:
    from .ulimits import Ulimits

PROFILE_MAX_BYTES = 2**17  # it is kept in the pod's record
ENV_FILE_MAX_BYTES = 16 * 2**20  # more than execve(2) takes; /dev/zero has no end

_NO_SHELL = "each line is KEY=VALUE as it stands: no 'export', no quotes, no spaces around '='"
_KIND_ALIASES = {"mount": "mnt", "network": "net"}


def parse_share(text: str, default: Iterable[str]) -> frozenset[str]:
    """The kinds of "pid,net", of "+pid" (those of `default` and pid), or of "none".

    Raises:
        SpecError: a kind is unknown, or the forms are mixed.
    """
    words = text.split(",")
    if words == ["none"]:
        return frozenset()
    added = [word for word in words if word.startswith("+")]
    if added and len(added) < len(words):
        raise SpecError(f"cannot share {quote(text)}: '+' stands before all kinds or before none")
    if "none" in words:
        raise SpecError(f"cannot share {quote(text)}: 'none' stands alone")
    kinds = _kinds([word.removeprefix("+") for word in words], KIND_NAMES, f"share {quote(text)}")
    return kinds | frozenset(default) if added else kinds


def parse_rights(added: Iterable[str], dropped: Iterable[str], privileged: bool) -> Rights:
    """The rights of --cap-add, --cap-drop and --privileged.

    Raises:
        SpecError: a capability is unknown, or both added and dropped.
    """
    rights = Rights(_capabilities(added, "add"), _capabilities(dropped, "drop"), privileged)
    if why := rights_fault(rights):
        raise SpecError(f"cannot change capabilities: {why}")
    return rights


def _capabilities(words: Iterable[str], doing: str) -> frozenset[str]:
    """Names with or without "CAP_", in any case. See capabilities(7)."""
    names = {word: word.upper().removeprefix("CAP_") for word in words}
    for word, name in names.items():
        if capability_fault(name):
            raise SpecError(
                f"cannot {doing} capability {quote(word)}: there is none of that name",
                hint="one name each, as NET_ADMIN or CAP_NET_ADMIN; or ALL: see capabilities(7)",
            )
    return frozenset(names.values())


def parse_seccomp(word: str) -> Filter:
    """The filter of system calls of that name, or the profile in the file of that name.

    Raises:
        SpecError: there is neither. NsboxError: the file cannot be read.
    """
    if word in NAMES:
        return Filter(word)
    if "/" not in word and not os.path.exists(encode(word, "seccomp filter")):
        raise SpecError(f"cannot use seccomp filter {quote(word)}: there is none of that name, and no such file",
                        hint=f"it is one of {', '.join(NAMES)}, or a file with a profile")  # fmt: skip
    raw = _read_file(word, "seccomp profile", PROFILE_MAX_BYTES)
    try:
        return Filter(word, raw.decode())
    except UnicodeDecodeError:
        raise SpecError(f"cannot use seccomp profile {quote(word)}: it is not UTF-8") from None


def parse_with(text: str) -> frozenset[str]:
    """The kinds of "time,user" that a pod gets besides the five it always has."""
    return _kinds(text.split(","), sorted(EXTRA_KINDS), f"add {quote(text)}")


def _kinds(words: Iterable[str], allowed: Sequence[str], doing: str) -> frozenset[str]:
    kinds = [_KIND_ALIASES.get(word, word) for word in words]
    for kind in kinds:
        if kind not in allowed:
            raise SpecError(
                f"cannot {doing}: no such kind here: {quote(kind)}",
                hint=f"possible are {' '.join(allowed)}, with commas between",
            )
    return frozenset(kinds)


def parse_env(
    items: Sequence[str], files: Sequence[str], environ: Mapping[str, str]
) -> tuple[tuple[bytes, bytes], ...]:
    """The variables of all env files, then of "K=V" and "K" in `items`; the last one wins.

    "K" alone is taken from `environ`, or left out where that lacks it.

    Raises:
        SpecError: a variable has no name, or holds a NUL.
        NsboxError: a file cannot be read; the cause is the OSError.
    """
    def lookup(key: bytes) -> bytes | None:
        value = environ.get(os.fsdecode(key))
        return None if value is None else encode(value, "variable")

    env: dict[bytes, bytes] = {}
    for path in files:
        for what, line in _env_lines(path):
            _add_variable(env, line, what, lookup)
    for item in items:
        _add_variable(env, encode(item, "variable"), f"variable {quote(item)}", lookup)
    return tuple(env.items())


def _add_variable(
    env: dict[bytes, bytes], item: bytes, what: str, lookup: Callable[[bytes], bytes | None]
) -> None:
    key, equals, value = item.partition(b"=")
    if not key:
        raise SpecError(f"cannot use {what}: it has no name before '='")
    if b"\0" in item:
        raise SpecError(f"cannot use {what}: it holds a NUL")
    found = value if equals else lookup(key)
    if found is not None:
        env[key] = found


def _env_lines(path: str) -> Iterable[tuple[str, bytes]]:
    """(what to call it, line) for each line that is neither blank nor a comment."""
    for number, line in enumerate(_read_file(path, "env file", ENV_FILE_MAX_BYTES).split(b"\n"), 1):
        line = line.removesuffix(b"\r").lstrip()
        what = f"line {number} of env file {quote(path)}"
        if not line or line.startswith(b"#"):
            continue
        key = line.partition(b"=")[0]
        if key != b"".join(key.split()):
            raise SpecError(f"cannot use {what}: there is a space in the name", hint=_NO_SHELL)
        yield what, line


def _read_file(path: str, what: str, most_bytes: int) -> bytes:
    try:
        with open(encode(path, what), "rb") as file:
            text = file.read(most_bytes + 1)
    except OSError as err:
        raise NsboxError(f"cannot read {what} {quote(path)}") from err
    if len(text) > most_bytes:
        raise NsboxError(f"cannot read {what} {quote(path)}: it is too big")
    return text.removeprefix(b"\xef\xbb\xbf")  # the mark that some editors put before UTF-8


def parse_label(text: str) -> tuple[str, str]:
    """The label "KEY=VALUE"; VALUE may be empty."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise SpecError(f"cannot use label {quote(text)}: not KEY=VALUE")
    if why := bytes_fault(text):
        raise SpecError(f"cannot use label {quote(text)}: {why}")
    return key, value


def parse_net(text: str) -> str:
    """Where a pod's network comes from: "none", "bridge", "host", "user", a network's name, "pod:NAME",
    "ns:/PATH"; "ns:NAME" is the one that ip-netns(8) calls so.

    Raises:
        SpecError: it is none of these.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "ns" and rest and "/" not in rest:
        rest = "" if rest in (".", "..") else f"/run/netns/{rest}"
        text = f"ns:{rest}"
    elif colon and kind == "ns" and rest.startswith("/") and ".." not in rest.split("/"):
        text = f"ns:{normal_path(rest)}"
    if why := net_fault(text):
        raise SpecError(f"cannot use network {quote(text)}: {why}", hint=_NET_FORMS)
    return text


_NET_FORMS = f"it is {', '.join(NET_MODES)}, the name of a network, pod:NAME or ns:PATH"


def parse_ip(text: str) -> str:
    """A v4 address for a pod: four plain numbers."""
    if why := v4_fault(text):
        raise SpecError(f"cannot use address {quote(text)}: {why}", hint="for example --ip 10.77.0.9")
    return text


def parse_sysctl(text: str) -> tuple[str, str]:
    """The setting "KEY=VALUE" of --sysctl. Raises SpecError, as :func:`sysctls.parse_sysctl` does."""
    from . import sysctls  # here, because few pods have one

    return sysctls.parse_sysctl(text)


def parse_ulimits(texts: Iterable[str]) -> "Ulimits":
    """The limits "NAME=SOFT[:HARD]" of --ulimit; of a name that comes again the last counts.

    Raises:
        SpecError: as :func:`ulimits.parse_ulimit` does.
    """
    words = list(texts)
    if not words:
        return ()
    from . import ulimits  # as above

    return ulimits.settle(map(ulimits.parse_ulimit, words))


def parse_userns(text: str) -> str:
    """Which ids a user namespace has: "auto", "keep-id", or a map "INSIDE:OUTSIDE:COUNT,..."."""
    if not text:
        raise SpecError("cannot use user namespace '': it is empty", hint=_USERNS_FORMS)
    if why := userns_fault(text):
        raise SpecError(f"cannot use user namespace {quote(text)}: {why}", hint=_USERNS_FORMS)
    return text


def sudo_caller(environ: Mapping[str, str]) -> Owner | None:
    """The user who called sudo(8), as it says in SUDO_UID and SUDO_GID; None is nobody but root."""
    ids = [environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if not all(word.isascii() and word.isdigit() and len(word) <= 10 for word in ids):
        return None
    owner = Owner(*map(int, ids))
    return owner if all(0 < number <= ID_MAX for number in owner) else None


_USERNS_FORMS = "as in --userns=auto, or --userns=0:100000:65536; a pod's name stands before a bare --userns"


def parse_signal(text: str) -> int:
    """The number of the signal "TERM", "SIGTERM", "15" or "RTMIN+1". See signal(7)."""
    import re      # here, because only some verbs come by
    import signal

    if text.isdigit():
        return parse_integer(text, "signal", 1, signal.SIGRTMAX)
    name = text.upper().removeprefix("SIG") if text.isascii() else ""  # "\u0131".upper() is "I"
    if match := re.fullmatch(r"RT(MIN\+|MAX-)([0-9]{1,2})", name):
        up = match[1] == "MIN+"
        number = signal.SIGRTMIN + int(match[2]) if up else signal.SIGRTMAX - int(match[2])
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise SpecError(
            f"cannot use signal {quote(text)}: there is no such signal",
            hint="a signal is a name such as TERM or SIGTERM, or a number: signal(7)",
        )
    return found.value


def split_init(text: str) -> tuple[bytes, ...]:
    """The argv of --init "CMD ARG…", split as a shell splits it, nothing expanded.

    Raises:
        SpecError: there is no word in it, or a quote is left open.
    """
    import shlex   # here, because few pods come with --init

    try:
        words = shlex.split(text)
    except ValueError as err:
        raise SpecError(f"cannot use init {quote(text)}: {str(err).lower()}") from err
    if not words or not words[0]:
        raise SpecError(f"cannot use init {quote(text)}: it is empty")
    return tuple(encode(word, "init") for word in words)
