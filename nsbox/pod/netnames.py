"""The names that a pod with a network finds: its /etc/hosts and /etc/resolv.conf.

    pods/NAME/hosts         its own names, then those of the pods that it can reach
    pods/NAME/resolv.conf   the host's name servers that can be reached from elsewhere

Both are bound into the pod and its members, read-only, and rewritten in place: whoever runs sees
the change. A volume of the user's in their place wins.
"""

import ipaddress
import os
import stat
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Iterator, Mapping, Sequence

from ..errors import NsboxError, PodNotFound
from ..linux import mounts
from ..spec import HOSTNAME_MAX_BYTES, RootSpec, Volume, target_fault
from . import netrecord, statedir, store
from .record import PodRecord

TARGETS = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf"}
_MARK = "# pods that can be reached; nsbox rewrites what follows"
_HEAD = "# written by nsbox"
_NONE = "# no name server: those of the host are on its loopback, which no pod reaches"
_KEPT = ("search", "domain", "options", "sortlist")
_SOURCES = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_MAX_BYTES = 1 << 20
_LINKS_MAX = 8


def write(name: str, dir_fd: int, hostname: str, addresses: Sequence[str]) -> None:
    """Write both files of a pod, in place where they exist; what refresh() wrote stays.

    Args:
        addresses: the pod's own, bare; of one without any its name leads to 127.0.1.1.

    Raises:
        NsboxError: they cannot be written.
    """
    own = " ".join(dict.fromkeys((hostname, name)))
    lines = [_HEAD, "127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {own}" for address in addresses or ("127.0.1.1",)]
    try:
        _, mark, peers = _read(dir_fd, "hosts").partition(_MARK + "\n")
        _overwrite(dir_fd, "hosts", "\n".join(lines) + "\n" + mark + peers)
        _overwrite(dir_fd, "resolv.conf", resolvers())
    except OSError as err:
        raise NsboxError(f"cannot write the names that pod {name!r} finds") from err


def tell_own(record: PodRecord, dir_fd: int) -> None:
    """Write both files of a pod, with the addresses that it has on networks and cables now.

    Raises:
        NsboxError: they cannot be written, or what connects the pod cannot be read.
    """
    links = netrecord.read_pod(dir_fd)
    addresses = [address for plug in links.plugs for address in (plug.v4, plug.v6)]
    write(record.name, dir_fd, record.hostname, addresses + [tie.address for tie in links.ties])
    if links == netrecord.PodNet():  # nobody tells it of others then
        refresh({record.name: ()})


def refresh(peers: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Tell pods whom they can reach: pod -> (address, name) of each. A pod without files is passed over.

    Raises:
        NsboxError: a file cannot be written; the others are.
    """
    failed: NsboxError | None = None
    for pod, rows in peers.items():
        try:
            dir_fd = store.directory(pod)
        except PodNotFound:
            continue
        try:
            own, mark, _ = _read(dir_fd, "hosts").partition(_MARK + "\n")
            if own:
                lines = [f"{address} {name}" for address, name in rows if _is_plain(address) and _is_plain(name)]
                _overwrite(dir_fd, "hosts", own + "\n".join([_MARK, *lines]) + "\n")
        except OSError as err:
            failed = NsboxError(f"cannot write the names that pod {pod!r} finds")
            failed.__cause__ = err
        finally:
            os.close(dir_fd)
    if failed is not None:
        raise failed


@lru_cache(maxsize=4096)  # each pod's name is in the file of each other one
def _is_plain(word: str) -> bool:
    return 0 < len(word) <= 4 * HOSTNAME_MAX_BYTES and word.isascii() and all(
        char.isalnum() or char in "._-:" for char in word
    )


def _read(dir_fd: int, name: str) -> str:
    """The file, or "" where there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, _MAX_BYTES).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _overwrite(dir_fd: int, name: str, text: str) -> None:
    """The same inode, or who has it mounted would keep the old one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o644, dir_fd=dir_fd)
    try:
        raw = text.encode()
        done = 0
        while done < len(raw):
            done += os.pwrite(fd, raw[done:], done)
        os.ftruncate(fd, len(raw))
        os.fchmod(fd, 0o644)  # whatever the umask: users inside read it too
    finally:
        os.close(fd)


def resolvers() -> str:
    """A resolv.conf with those name servers of the host that are not on its loopback. See resolv.conf(5)."""
    kept: list[str] = []
    for path in _SOURCES:
        servers, others = _parse_resolvers(path)
        kept = kept or others
        if servers:
            return "\n".join([_HEAD, *(f"nameserver {one}" for one in servers), *kept]) + "\n"
    return "\n".join([_HEAD, _NONE, *kept]) + "\n"


def _parse_resolvers(path: str) -> tuple[list[str], list[str]]:
    """The name servers that a pod can reach, and the other lines that mean something."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file.read(_MAX_BYTES).splitlines()]
    except OSError:
        return [], []
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver" and _is_far(words[1])]
    return servers, [" ".join(words) for words in lines if len(words) > 1 and words[0] in _KEPT]


def _is_far(address: str) -> bool:
    """Whether an address means the same machine in a pod as on the host."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return not any(one.is_loopback or one.is_unspecified for one in (found, mapped or found)) and not (
        found.version == 6 and found.is_link_local
    )


def volumes(name: str, root: RootSpec) -> tuple[Volume, ...]:
    """The files of pod `name` as volumes for `root`; what it does not have, or the user mounts, is left out.

    A rootfs gets a place for them made in its copy, but not with --in-place; the host's tree never.
    """
    return _volumes(root, {target: f"{directory_of(name)}/{file}" for file, target in TARGETS.items()})


def directory_of(name: str) -> str:
    """Where the files of a pod stand."""
    return f"{statedir.state_dir()}/pods/{name}"


def has_files(name: str) -> bool:
    """Whether a pod has files with names: those with a network, and those that were connected later."""
    return os.path.exists(f"{directory_of(name)}/hosts")


@contextmanager
def as_before(name: str, dir_fd: int) -> Iterator[None]:
    """If the block fails, a pod that had no such files has none again."""
    had = has_files(name)
    try:
        yield
    except BaseException:
        for file in TARGETS if not had else ():
            with suppress(FileNotFoundError):
                os.unlink(file, dir_fd=dir_fd)
        raise


def volumes_of_host(root: RootSpec) -> tuple[Volume, ...]:
    """The host's own files as volumes for a `root` that lives in the host's network; its tree has them."""
    return _volumes(root, {target: target for target in TARGETS.values()}) if root.path else ()


def _volumes(root: RootSpec, wanted: Mapping[str, str]) -> tuple[Volume, ...]:
    """`wanted`: target -> file."""
    taken = [volume.target for volume in root.volumes]
    below = [f"{volume.target}/" for volume in root.volumes]
    found = []
    for target, file in wanted.items():
        if target in taken or target.startswith(tuple(below)) or not os.path.exists(file):
            continue
        place = _place(root, target)
        if place:
            found.append(Volume(file, place, read_only=True))
    return tuple(found)


def _place(root: RootSpec, target: str) -> str:
    """Where to mount for `target` to be found, or "". A link leads on, also to what is not there yet."""
    try:
        root_fd = os.open(root.path or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""  # whoever mounts the root says why
    try:
        target = follow(root_fd, target)
        if not target or target_fault(target):
            return ""
        fd = mounts.open_in_root(root_fd, target, os.O_PATH)
        try:
            return target if stat.S_ISREG(os.fstat(fd).st_mode) else ""
        finally:
            os.close(fd)
    except FileNotFoundError:
        return target if root.path and not root.in_place else ""
    except OSError:
        return ""
    finally:
        os.close(root_fd)


def follow(root_fd: int, target: str) -> str:
    """`target` with the links of its last part resolved inside the root; "" in a circle of them."""
    for _ in range(_LINKS_MAX):
        parent, _, last = target.rpartition("/")
        try:
            parent_fd = mounts.open_in_root(root_fd, parent or "/", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return target
        try:
            link = os.readlink(last, dir_fd=parent_fd)
        except OSError:
            return target  # no link, or nothing
        finally:
            os.close(parent_fd)
        target = os.path.normpath(os.path.join(parent or "/", link))
    return ""
