"""An error on its way from one process to another: the one that failed is not the one that tells."""

import errno
import json
import os

from .. import errors

# What the first steps of a pod of an ordinary user are refused by, where a machine has a rule against them.
_RULED = ("clone3", "unshare", "write uid_map", "write gid_map", "sethostname", "mount", "fsopen", "fsmount")


def hint(err: OSError) -> str:
    """What a person may do about the failed call that `err` names, or ""."""
    call = (err.strerror or "").partition(":")[0]
    hint = errors.hint_for("write uid_map" if call in ("write gid_map", "write setgroups") else call, err.errno)
    return hint + _lowest_limit() if hint and err.errno in (errno.ENOSPC, errno.EUSERS) else hint


def advice(err: OSError) -> str:
    """The same, or which rule of this machine it most likely is, where that can still be imported."""
    call = (err.strerror or "").partition(":")[0]
    if err.errno in (errno.EPERM, errno.EACCES) and call in _RULED and not _is_root():
        try:
            from . import policy  # only what goes wrong needs it
        except ImportError:
            return hint(err)
        if rule := policy.against_user_namespaces():
            return f"{rule.what}: {rule.mend}"
    return hint(err)


def _is_root() -> bool:
    """Of the machine, to whom none of the rules applies."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def _lowest_limit() -> str:
    """The most likely one of the limits in /proc/sys/user, with its value. See namespaces(7)."""
    found = []
    try:
        for name in os.listdir("/proc/sys/user"):
            if name.endswith("_namespaces"):
                found.append((_read_number(f"/proc/sys/user/{name}"), name))
    except (OSError, ValueError):
        pass  # no /proc here: the message does without
    return f" (the lowest is {min(found)[1]} = {min(found)[0]})" if found else ""


def _read_number(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 64))
    finally:
        os.close(fd)


def encode(err: errors.NsboxError) -> bytes:
    """An error as JSON, so that another process can raise the same one."""
    cause = err.__cause__ if isinstance(err.__cause__, OSError) else None
    filename = cause.filename if cause else None
    if isinstance(filename, bytes):
        filename = os.fsdecode(filename)
    return json.dumps(
        {
            "class": type(err).__name__,
            "message": str(err),
            "hint": err.hint or (hint(cause) if cause else ""),
            "exit_status": err.exit_status,
            "errno": cause.errno if cause else None,
            "strerror": cause.strerror if cause else None,
            "filename": filename if isinstance(filename, str) else None,
        }
    ).encode()


def decode(report: bytes) -> errors.NsboxError:
    """The error that :func:`encode` wrote down, cause and all."""
    data = json.loads(report)
    kind = getattr(errors, data["class"], errors.NsboxError)
    if kind is errors.CommandError:
        err: errors.NsboxError = errors.CommandError(
            data["message"], hint=data["hint"], exit_status=data["exit_status"]
        )
    else:
        err = kind(data["message"], hint=data["hint"])
    if data["errno"] is not None:
        err.__cause__ = OSError(data["errno"], data["strerror"], data["filename"])
        if err.hint == hint(err.__cause__):  # there they could not ask for the machine's rules
            err.hint = advice(err.__cause__)
    return err
