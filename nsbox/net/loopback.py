"""The loopback interface of a new network namespace. Needs no netlink, so no pyroute2."""

import fcntl
import os
import struct

from ..linux import syscalls

_AF_INET, _SOCK_DGRAM = 2, 1
_SIOCSIFFLAGS = 0x8914  # linux/sockios.h
_IFF_UP = 0x1


def bring_up() -> None:
    """Set the interface `lo` of the caller's network namespace up. See netdevice(7).

    The kernel then gives it 127.0.0.1 and ::1 by itself.
    """
    fd = syscalls.socket(_AF_INET, _SOCK_DGRAM)
    try:
        fcntl.ioctl(fd, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    finally:
        os.close(fd)
