"""Rights that the caller does not have: nsbox works with none.

Installed setuid, or by an interpreter that is setuid or has file capabilities, it would let
everybody do as root what it does for its caller: read files, mount, join. See execve(2).
"""

import os

from ..errors import NsboxError
from . import syscalls


def refuse() -> None:
    """Raises NsboxError: the process was started with more rights than its caller has."""
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid() or syscalls.at_secure():
        raise NsboxError(
            "cannot work with rights that the caller does not have",
            hint="nsbox and its interpreter must be neither setuid nor setgid, and have no file capabilities: use sudo",
        )
