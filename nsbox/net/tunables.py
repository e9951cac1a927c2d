"""Settings of the kernel's network under /proc/sys/net, of the namespace of who opens them.

See the kernel's Documentation/networking/ip-sysctl.rst.
"""

import errno
import os

from ..errors import NsboxError

_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


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
