"""What is remembered of a pod's published ports: pods/NAME/ports.json.

It says what is wanted, and is written before the proxy does it: killed in between, a command
leaves a port that is listed as down, never one that is open and not known.
"""

import os
from typing import NamedTuple, Sequence

from ..errors import NsboxError
from ..linux.process import Identity
from . import statedir, store
from .files import CorruptFile, NewerFile, check_version, read_json, unknown_keys, write_json

FILE = "ports.json"
Row = tuple[str, str, int, int]


class Ports(NamedTuple):
    """The ports of a pod.

    Attributes:
        rows: (proto, host_address, host_port, pod_port) of each, with its real host port.
        proxy: the process that serves them, if there ever was one. It is in the pod's network
            namespace and no member.
    """

    rows: tuple[Row, ...] = ()
    proxy: Identity | None = None


def read(dir_fd: int) -> Ports:
    """The ports in a pod's directory. Raises NsboxError: the file is corrupt."""
    try:
        data = read_json(dir_fd, FILE)
        check_version(data)
        rows = tuple((str(a), str(b), int(c), int(d)) for a, b, c, d in data["ports"])
        if data["proxy"] is None:
            return Ports(rows)
        boot_id, pid, start_time = data["proxy"]
        return Ports(rows, Identity(str(boot_id), int(pid), int(start_time)))
    except FileNotFoundError:
        return Ports()
    except NewerFile as err:
        raise NsboxError(f"cannot read which ports the pod publishes: {FILE} is of {err}") from None
    except (CorruptFile, KeyError, TypeError, ValueError):
        raise NsboxError(
            "cannot read which ports the pod publishes: its ports.json is corrupt",
            hint="the ports close with the pod: nsbox rm --force",
        ) from None


def exists(dir_fd: int) -> bool:
    """Whether anything was ever published: one look, without reading."""
    try:
        os.stat(FILE, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write(dir_fd: int, ports: Ports) -> None:
    """Replace the file; without a port and a proxy there is none."""
    try:
        more = unknown_keys(dir_fd, FILE, ("ports", "proxy"))
        if ports != Ports() or more:
            rows = [list(row) for row in ports.rows]
            who = None if ports.proxy is None else list(ports.proxy)
            return write_json(dir_fd, FILE, {**more, "ports": rows, "proxy": who})
        if exists(dir_fd):
            os.unlink(FILE, dir_fd=dir_fd)
    except OSError as err:
        raise NsboxError("cannot write which ports the pod publishes") from err


def proxy_pids(names: Sequence[str]) -> frozenset[tuple[int, int]]:
    """(PID, start time) of the proxies of these pods: they share a network and are no members."""
    found = (ports.proxy for ports in of_pods(names).values())
    return frozenset((proxy.pid, proxy.start_time) for proxy in found if proxy is not None)


def of_pods(names: Sequence[str]) -> dict[str, Ports]:
    """The ports of those of these pods that ever had one, and whose file can be read."""
    if not names:
        return {}
    pods_fd, found = statedir.pods_fd(), {}
    try:
        for name in names:
            try:
                dir_fd = os.open(store.checked(name), statedir.DIR, dir_fd=pods_fd)
            except (OSError, NsboxError):
                continue  # it has ended
            try:
                if (ports := read(dir_fd)) != Ports():
                    found[name] = ports
            except NsboxError:
                continue
            finally:
                os.close(dir_fd)
    finally:
        os.close(pods_fd)
    return found
