"""Where something can be tried: namespaces that end with the process that makes them."""

import os

from ..linux import namespaces, syscalls
from ..linux.flags import CloneFlag
from . import idmaps


def in_new(kinds: frozenset[str]) -> None:
    """Enter new namespaces of these kinds; without root, in a user namespace of one's own. For a child.

    Raises:
        OSError: the call that was refused is in it.
    """
    with_user = "user" in kinds or os.geteuid() != 0
    own = os.geteuid(), os.getegid()
    syscalls.unshare(namespaces.flags_of(kinds - {"user"}) | (CloneFlag.CLONE_NEWUSER if with_user else 0))
    if with_user:
        idmaps.map_self(*own)
