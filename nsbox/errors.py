"""What can go wrong, in words for a person, and the exit status that goes with it.

Owns the exception classes, the exit statuses and the hints. Imports nothing of nsbox
and touches nothing: the rooms that act raise these, the command line prints them.
"""

import errno
import os

# Exit statuses, the rule of chroot(1) and podman-run(1).
EXIT_USAGE = 2
EXIT_FAILED = 125
EXIT_CANNOT_INVOKE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128


def exit_status_of(code: int) -> int:
    """The shell's number for an exit code that is negative for a signal: 128 + n for signal n."""
    return code if code >= 0 else EXIT_SIGNAL_BASE - code


class NsboxError(Exception):
    """Base of all nsbox errors. ``str(err)`` is one line for a person, without a full stop.

    The cause, if it is an OSError, says which call failed and why; :func:`one_line`
    joins the two.

    Attributes:
        hint: what the person may do about it, or "".
        exit_status: what the command line ends with.
    """

    exit_status = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_spelled(message))
        self.hint = _spelled(hint)


def _spelled(message: str) -> str:
    """A byte that is no text as \\xff, which is how it is shown everywhere, and not as repr() calls it, \\udcff."""
    if "\\udc" not in message:
        return message
    import re  # rarely needed

    return re.sub(r"(?<!\\)((?:\\\\)*)\\udc([89a-f][0-9a-f])", r"\1\\x\2", message)


class SpecError(NsboxError, ValueError):
    """The request itself is wrong; nothing was touched."""

    exit_status = EXIT_USAGE


class PodNotFound(NsboxError, LookupError):
    """There is no such pod, or no such process."""


class PodExists(NsboxError):
    """A pod of that name is there already."""


class PodDead(NsboxError):
    """The pod's PID 1 is gone, so nobody can be joined to it."""


class CommandError(NsboxError):
    """The member's command could not be executed: not found (127) or not executable (126)."""

    def __init__(self, message: str, *, hint: str = "", exit_status: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


class KernelError(NsboxError):
    """The kernel, or its policy, does not offer what was asked."""


class Interrupted(BaseException):
    """A signal asked the command to end. Not an Exception: nothing but the front may swallow it.

    Attributes:
        signum: the signal; the command ends with 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


_LIMITS = "a limit on namespaces is reached: nesting depth 32, or one of /proc/sys/user/max_*_namespaces"
_NO_FILTERS = "the kernel loads no such filter of system calls; --seccomp unconfined does without one"
_ROOT_OR_USERNS = "run it as root, or allow user namespaces for ordinary users"

_UNMAPPED = "its user namespace has no such user or group: create --userns gives a pod 65536 of each"
_NOT_ROOT = "only root, in a pod its root, becomes somebody else"

# What to do about it, keyed by (call, errno).
HINTS = {
    ("clone3", errno.EPERM): _ROOT_OR_USERNS,
    ("clone3", errno.ENOSPC): _LIMITS,
    ("clone3", errno.EUSERS): _LIMITS,
    ("clone3", errno.ENOSYS): "needs Linux 5.3 and a seccomp policy that allows clone3",
    ("unshare", errno.EPERM): _ROOT_OR_USERNS,
    ("unshare", errno.ENOSPC): _LIMITS,
    ("unshare", errno.EUSERS): _LIMITS,
    ("setns", errno.EPERM): "joining needs root, or to own the target's user namespace and share it too",
    ("setns", errno.ESRCH): "the target has ended",
    ("mount", errno.EINVAL): "the root directory here is no mount of its own, as in a plain chroot",
    ("pivot_root", errno.EINVAL): "the current root cannot be pivoted (an initramfs?): see --chroot",
    ("seccomp", errno.ENOSYS): _NO_FILTERS,
    ("seccomp", errno.EINVAL): _NO_FILTERS,
    ("mount_setattr", errno.ENOSYS): "needs Linux 5.12",
    ("openat2", errno.ENOSYS): "needs Linux 5.6 and a seccomp policy that allows openat2",
    ("setgroups", errno.EPERM): "no supplementary groups can be had here: name one group, as in USER:GROUP",
    ("setgroups", errno.EINVAL): _UNMAPPED,
    ("setresgid", errno.EPERM): _NOT_ROOT,
    ("setresgid", errno.EINVAL): _UNMAPPED,
    ("setresuid", errno.EPERM): _NOT_ROOT,
    ("setresuid", errno.EINVAL): _UNMAPPED,
    ("write uid_map", errno.EPERM): "this machine's policy may forbid user namespaces (AppArmor, seccomp)",
    ("write uid_map", errno.EACCES): "this machine's policy may forbid user namespaces (AppArmor, seccomp)",
}


def hint_for(call: str, code: int | None) -> str:
    """What a person may do about `call` having failed with errno `code`, or ""."""
    return HINTS.get((call, code or 0), "")


def is_want_of_memory(err: BaseException) -> bool:
    """Whether an exception says that there was too little memory: to a library that is loaded it is another one.

    The interpreter itself may lose the exception then, and says that.
    """
    if isinstance(err, SystemError):
        return "without setting an exception" in str(err) or "without exception set" in str(err)
    if isinstance(err, ImportError):
        return "failed to map segment" in str(err) or os.strerror(errno.ENOMEM) in str(err)
    return isinstance(err, MemoryError)


def one_line(err: NsboxError) -> str:
    """'cannot PURPOSE: CALL: REASON'. The file, where one is known, stands between the two."""
    cause = err.__cause__
    if not isinstance(cause, OSError):
        return str(err)
    name = "" if cause.filename is None else _text(cause.filename)
    where = f"{name}: " if name and name not in str(err) else ""  # once is enough
    return f"{err}: {where}{cause.strerror or cause}"


def _text(name: object) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)
