"""The limits of --ulimit: tried before anything is made, allowed early, and set last of all. See setrlimit(2).

Early, by `allow`: a hard limit above ours, while the caller has all that nsbox has; and outside of the
pod's user namespace, for inside of one the kernel grants that to nobody.

Last, by the launcher or by `put`: everything. Until then nsbox works with its own limits, so that few
descriptors, processes or bytes for the program do not fail its set-up; and to lower a limit takes no right.
"""

import errno
import os
import resource
import struct

from ..errors import NsboxError
from ..linux import syscalls
from ..ulimits import INFINITY, Bounds, Ulimits, word_of

ALLOWING, LIMITING = "allow a hard limit", "limit the program"  # what is said of the calls: see syscalls.purpose

_LOCKS = 10  # RLIMIT_LOCKS of asm/resource.h: Python has no name for it, and it is the same on every machine
_BYTES = struct.Struct("<QQQ")
_NR_OPEN = "/proc/sys/fs/nr_open"


class Limits:
    """Those of one process to come. Imported and made before the fork."""

    def __init__(self, ulimits: Ulimits) -> None:
        self._ulimits = ulimits
        # What the launcher reads of each: which, soft, hard.
        self.packed = b"".join(_BYTES.pack(_number_of(name), *bounds) for name, bounds in ulimits)

    def check(self, doing: str) -> None:
        """See that the caller may give these limits; nothing of it stays.

        Only to raise a hard limit takes a right, CAP_SYS_RESOURCE of the initial user namespace. Whether we
        have that is found out by trying, of which nobody is told.

        Args:
            doing: what they are for, in words, for the error message.

        Raises:
            NsboxError: one cannot be given.
        """
        for name, (_, hard) in self._ulimits:
            if hard <= _own(name)[1] and not (name == "nofile" and 0 < _nr_open() < hard):
                continue
            number = _number_of(name)
            before = resource.getrlimit(number)
            try:
                resource.prlimit(0, number, (before[0], _signed(hard)))
            except (ValueError, OSError) as err:  # ValueError and PermissionError are Python's words for EPERM
                code = getattr(err, "errno", None) or errno.EPERM
                raise _refused(name, hard, doing) from OSError(code, f"prlimit64: {os.strerror(code)}")
            resource.prlimit(0, number, before)

    def allow(self) -> None:
        """Raise the caller's hard limits as far as they are wanted; the soft ones stay. Raises OSError."""
        for name, (_, hard) in self._ulimits:
            soft, here = _own(name)
            if hard > here:
                _set(name, (soft, hard), ALLOWING)

    def put(self) -> None:
        """Give the caller these limits. Raises OSError: a hard one is above the caller's."""
        for name, bounds in self._ulimits:
            _set(name, bounds, LIMITING)

    def foretell(self) -> None:
        """Tell the listener what :meth:`put` would: the launcher does it, and nobody hears that."""
        listener = syscalls.listener()
        if listener is None:
            return
        before, syscalls.purpose = syscalls.purpose, LIMITING
        for name, bounds in self._ulimits:
            args = (0, *_shown(name, bounds), None)
            listener.begin("prlimit64", args)
            listener.end("prlimit64", args, 0, 0)
        syscalls.purpose = before

    def has(self, name: str) -> bool:
        """Whether this one is said."""
        return any(name == one for one, _ in self._ulimits)


def _number_of(name: str) -> int:
    return int(getattr(resource, f"RLIMIT_{name.upper()}", _LOCKS))


def _own(name: str) -> Bounds:
    soft, hard = resource.getrlimit(_number_of(name))
    return soft & INFINITY, hard & INFINITY  # Python has -1 for what is infinite


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _refused(name: str, hard: int, doing: str) -> NsboxError:
    here = f"the hard limit here is {word_of(_own(name)[1])}"
    hint = f"{here}; to raise it takes CAP_SYS_RESOURCE, outside of any user namespace"
    if name == "nofile" and (most := _nr_open()) and hard > most:
        hint = f"{here}; nobody gets more than fs.nr_open, {most}"
    return NsboxError(f"cannot {doing} with a hard limit of {word_of(hard)} for {name}", hint=hint)


def _nr_open() -> int:
    """The most that RLIMIT_NOFILE may be, see proc_sys_fs(5); 0 where that cannot be read."""
    try:
        with open(_NR_OPEN, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _set(name: str, bounds: Bounds, purpose: str) -> None:
    before, syscalls.purpose = syscalls.purpose, purpose
    try:
        syscalls.set_limit(_number_of(name), *_shown(name, bounds), bounds)
    finally:
        syscalls.purpose = before


def _shown(name: str, bounds: Bounds) -> tuple[str, str]:
    """The limit's name and its bounds as strace(1) writes them."""
    soft, hard = map(_strace, bounds)
    return f"RLIMIT_{name.upper()}", f"{{rlim_cur={soft}, rlim_max={hard}}}"


def _strace(number: int) -> str:
    if number == INFINITY:
        return "RLIM64_INFINITY"
    return f"{number // 1024}*1024" if number > 1024 and number % 1024 == 0 else str(number)
