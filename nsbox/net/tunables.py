"""Settings of the kernel's network under /proc/sys/net, of the namespace of who opens them.

See the kernel's Documentation/networking/ip-sysctl.rst.
"""

import errno
import os
from collections.abc import Iterable

from ..errors import NsboxError

_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_CONF = "/proc/sys/net/ipv4/conf"


def forwarding() -> bool:
    """Whether this host forwards v4 packets between its links."""
    try:
        return _read(_IP_FORWARD) != "0"
    except OSError as err:
        raise NsboxError("cannot read whether this host forwards packets") from err


def set_forwarding(on: bool) -> None:
    """Let this host forward v4 packets, or no longer. Nothing is written if it is so already.

    To write it sets the same for every link (net.ipv4.conf.*.forwarding).

    Raises:
        NsboxError: not allowed, or /proc/sys is read-only.
    """
    if forwarding() == on:
        return
    try:
        _write(_IP_FORWARD, "1" if on else "0")
    except OSError as err:
        hint = "set net.ipv4.ip_forward=1 yourself, or use a network that is --internal" if on else ""
        raise NsboxError(f"cannot switch packet forwarding {'on' if on else 'off'}", hint=hint) from err


def bound_to_forwarding() -> list[tuple[str, str]]:
    """What the kernel changes too when forwarding goes on or off: (LINK/NAME, value now).

    On takes ICMP redirects for all links away and off gives them; and whatever a single link has,
    on makes it forward and off makes it not. Those that do not forward now are left out.
    """
    try:
        found = [("all/accept_redirects", _read(f"{_CONF}/all/accept_redirects"))]
        for link in sorted(os.listdir(_CONF)):
            if link != "all" and _read(f"{_CONF}/{link}/forwarding") != "0":
                found.append((f"{link}/forwarding", "1"))
    except OSError as err:
        raise NsboxError("cannot read what belongs to packet forwarding") from err
    return found


def put_back(settings: Iterable[tuple[str, str]]) -> None:
    """Write settings of :func:`bound_to_forwarding` again; a link that has gone has none.

    Raises:
        NsboxError: one cannot be written; the others are.
    """
    failed: OSError | None = None
    for name, value in settings:
        try:
            if _read(f"{_CONF}/{name}") != value:
                _write(f"{_CONF}/{name}", value)
        except FileNotFoundError:
            continue
        except OSError as err:
            failed = failed or err
    if failed is not None:
        raise NsboxError("cannot put net.ipv4.conf back as it was") from failed


def refuse_advertisements(ifname: str) -> None:
    """Believe no v6 router advertisement that comes by this link.

    Who sends one becomes the router of all that believe it. Without v6 there is none to believe.
    Where /proc/sys is read-only it stays as it is: there the rules of the bridge drop them.

    Raises:
        OSError: anything else.
    """
    try:
        _write(f"/proc/sys/net/ipv6/conf/{ifname}/accept_ra", "0")
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.EROFS):
            raise


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode("ascii").strip()
    finally:
        os.close(fd)


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)
