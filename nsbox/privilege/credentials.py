"""Becoming another user, for good. See credentials(7)."""

import os
from typing import Sequence

from ..errors import NsboxError, hint_for
from ..linux import trouble
from . import attributes


def become(uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Be this user and no other from here on: real, effective and saved, and the groups besides.

    Another user than root has no capability left by that, see capabilities(7). What the change
    takes away too, and who needs it has to set again: to be hidden from others (PR_SET_DUMPABLE)
    and the signal at the parent's death (PR_SET_PDEATHSIG).

    Raises:
        NsboxError: the kernel refuses, or does something else.
    """
    step = "setgroups"
    try:
        if groups:
            os.setgroups(list(groups))
        else:
            attributes.drop_groups()
        step = "setresgid"  # before the user, or there would be no right to
        os.setresgid(gid, gid, gid)
        step = "setresuid"
        os.setresuid(uid, uid, uid)
    except OSError as err:
        cause = trouble.failed(step, err.errno, *{"setresuid": (uid,), "setresgid": (gid,)}.get(step, groups))
        raise NsboxError(_purpose(uid, gid, groups), hint=hint_for(step, err.errno)) from cause
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise NsboxError(f"{_purpose(uid, gid, groups)}: the kernel made it somebody else")


def _purpose(uid: int, gid: int, groups: Sequence[int]) -> str:
    more = f", and in {' '.join(str(one) for one in groups)}" if groups else ""
    return f"cannot be user {uid} in group {gid}{more}"
