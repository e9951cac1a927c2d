"""Access control lists of files: who may read what is not theirs. See acl(5)."""

import os
import struct

_VERSION = 2  # POSIX_ACL_XATTR_VERSION, linux/posix_acl_xattr.h
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFF_FFFF
_READ_SEARCH, _ALL = 5, 7


def open_directory_to(fd: int, uid: int) -> None:
    """Let one user, besides its owner, read and search a directory; nobody else.

    Raises:
        OSError: EOPNOTSUPP, its file system has no such lists.
    """
    entries = (
        (_USER_OBJ, _ALL, _NO_ID), (_USER, _READ_SEARCH, uid), (_GROUP_OBJ, 0, _NO_ID),
        (_MASK, _READ_SEARCH, _NO_ID), (_OTHER, 0, _NO_ID),
    )  # fmt: skip
    value = struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(fd, "system.posix_acl_access", value)
    except OSError as err:
        raise OSError(err.errno, f"setxattr: {err.strerror}") from None
