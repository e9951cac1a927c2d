"""Giving up what root may do. See capabilities(7)."""

import prctl  # type: ignore[import-untyped]


def give_up_all() -> None:
    """Give up every capability of the caller for good, and what execve(2) could bring back.

    The bounding set stays where the caller has no CAP_SETPCAP to empty it; with PR_SET_NO_NEW_PRIVS
    nothing comes out of it any more.

    Raises:
        OSError: a capability stays.
    """
    prctl.set_no_new_privs(1)
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())  # the kernel may be older than python-prctl
    known = [cap for cap in prctl.ALL_CAPS if cap <= last]
    try:
        prctl.capbset.drop(*known)
    except PermissionError:
        pass
    prctl.set_caps(*((known, flag, False) for flag in prctl.ALL_FLAGS))
