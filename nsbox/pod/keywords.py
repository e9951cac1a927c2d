"""The keywords of the library's functions, made into specs as the command line makes its words."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import parse
from ..errors import SpecError
from ..filters import Filter
from ..images import store as images
from ..spec import POD_KINDS, MemberSpec, RootSpec, member_spec_from_dict, member_spec_to_dict
from ..ulimits import Ulimits

Word = str | bytes | os.PathLike[str]
Args = Word | Sequence[Word]


def root_of(
    rootfs: str | os.PathLike[str] | None, volumes: Iterable[str], tmpfs: Iterable[str], **flags: bool
) -> RootSpec:
    """The root of a pod or member; path "" if there is none."""
    path = "" if rootfs is None else images.resolve(os.fspath(rootfs))
    bound = tuple(parse.parse_volume(word) for word in volumes)
    memory = tuple(parse.parse_tmpfs(word) for word in tmpfs)
    parse.check_targets(bound, memory)
    return RootSpec(path, volumes=bound, tmpfs=memory, **flags)


def kinds_of(kinds: Iterable[str] | None) -> frozenset[str] | None:
    """What members share; None where that is not said."""
    if kinds is None:
        return None
    return parse.parse_share(kinds if isinstance(kinds, str) else ",".join(kinds) or "none", POD_KINDS)


def filter_of(name: str | os.PathLike[str] | None) -> Filter | None:
    """The filter of `seccomp`, if it is given."""
    return None if name is None else parse.parse_seccomp(os.fspath(name))


def ulimits_of(ulimits: Mapping[str, str | int] | None) -> Ulimits:
    """The limits of `ulimits`."""
    return parse.parse_ulimits(f"{name}={value}" for name, value in (ulimits or {}).items())


def words_of(args: Args) -> list[Word]:
    """The command, at least one word. Raises SpecError."""
    words: list[Word] = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if not words or not os.fspath(words[0]):
        raise SpecError("cannot run nothing: there is no command")
    return words


def user_of(user: str | int | None) -> str:
    """`user` as a spec has it; "" if it is not given."""
    if user is None:
        return ""
    parse.parse_user(str(user))
    return str(user)


def member_spec(
    args: Args,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | bytes | os.PathLike[str] | None = None,
    rootfs: str | os.PathLike[str] | None = None,
    volumes: Iterable[str] = (),
    tmpfs: Iterable[str] = (),
    share: Iterable[str] | None = None,
    hostname: str | None = None,
    user: str | int | None = None,
    cap_add: Iterable[str] = (),
    cap_drop: Iterable[str] = (),
    privileged: bool = False,
    seccomp: str | os.PathLike[str] | None = None,
    ulimits: Mapping[str, str | int] | None = None,
) -> dict[str, Any]:
    """A member by its keywords, every value checked, as plain values. Raises SpecError."""
    root = root_of(rootfs, volumes, tmpfs)
    spec = MemberSpec(
        argv=tuple(os.fsencode(word) for word in words_of(args)),
        share=kinds_of(share),
        root=root if root.path or root.volumes or root.tmpfs else None,
        env=tuple((os.fsencode(key), os.fsencode(value)) for key, value in (env or {}).items()),
        workdir=None if cwd is None else os.fsencode(cwd),
        hostname=hostname,
        user=user_of(user),
        rights=parse.parse_rights(cap_add, cap_drop, privileged),
        seccomp=filter_of(seccomp),
        ulimits=ulimits_of(ulimits),
    )
    plain = member_spec_to_dict(spec)
    member_spec_from_dict(plain)  # checks every value
    return plain
