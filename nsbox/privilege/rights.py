"""Giving up what a process may do, before it becomes another program. See capabilities(7).

By calls of our own, not python-prctl's: a newer kernel has capabilities which that does not know,
and they are to be dropped first of all.
"""

import errno

from ..capabilities import MOST, NOTHING, SETPCAP, Keep, names_of
from ..errors import NsboxError
from ..linux import syscalls
from ..linux.flags import RLIMIT_CORE


def known() -> int:
    """All capabilities that the kernel knows, one bit each."""
    return (1 << len(_bounding_set())) - 1


def own() -> int:
    """Those that the caller has, and keeps over an execve(2) as root; one bit each."""
    return syscalls.capget()[1] & sum(has << number for number, has in enumerate(_bounding_set()))


def _bounding_set() -> list[bool]:
    """Whether it has each capability that the kernel knows, by number. /proc is not asked: there may be none here."""
    found: list[bool] = []
    try:
        while len(found) < MOST:
            found.append(syscalls.capbset_read(len(found)))
    except OSError:  # EINVAL: the kernel has none of that number
        pass
    return found


def require(keep: Keep, doing: str) -> None:
    """See that the caller has what is asked for by name.

    Args:
        doing: what it is for, in words, for the error message.

    Raises:
        NsboxError: it lacks something.
    """
    if keep.named and (lacking := names_of(keep.named & ~own())):
        names = ", ".join(f"CAP_{name}" for name in lacking)
        raise NsboxError(
            f"cannot {doing} with {names}: nsbox does not have that itself",
            hint="a container, or what else started nsbox, keeps it back; or the kernel is too old for it",
        )


def cut_bounding_set(keep: Keep) -> None:
    """Drop all but `keep` from what execve(2) could ever give the caller. See capabilities(7).

    To be called while the caller has CAP_SETPCAP, so before it becomes an ordinary user. Who never
    had it keeps the set as it is: with no_new_privs nothing comes out of it any more.

    Raises:
        OSError: the set cannot be cut, and nothing else would limit the program.
    """
    if keep.no_new_privs and not syscalls.capget()[0] >> SETPCAP & 1:
        return
    try:
        for number in range(MOST):  # the last one is found by trying, see above
            if keep.bits >> number & 1:
                syscalls.capbset_read(number)
            else:
                syscalls.capbset_drop(number)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise


def forbid_core_files() -> None:
    """Neither the caller nor what comes of it leaves a copy of its memory in a file. See core(5)."""
    syscalls.set_limit(RLIMIT_CORE, "RLIMIT_CORE", "{rlim_cur=0, rlim_max=0}", (0, 0))


def keep_only(keep: Keep) -> None:
    """Give up all capabilities but `keep`, none of them inheritable or ambient.

    What the caller does not have, as after it became an ordinary user, is not asked for.
    """
    bits = keep.bits & syscalls.capget()[1]
    syscalls.capset(bits, bits, 0)
    if keep.no_new_privs:
        syscalls.set_no_new_privs()


def give_up_all() -> None:
    """Give up every capability of the caller for good, and what execve(2) could bring back.

    Raises:
        OSError: a capability stays.
    """
    cut_bounding_set(NOTHING)
    keep_only(NOTHING)


def leave_session_keyring() -> None:
    """Leave the session keyring of whoever called nsbox for a new, empty one. See session-keyring(7).

    Where the kernel has no keys nothing is left behind; nor where a filter of system calls
    around us forbids keyctl(2): what comes of us cannot call it either.
    """
    try:
        syscalls.join_new_session_keyring()
    except OSError as err:
        if err.errno not in (errno.ENOSYS, errno.EPERM):
            raise
