"""An error on its way from one process to another: the one that failed is not the one that tells.

With it travels what explains it afterwards: `asked`, what the call was given, and `scene`, what only
the process that failed can see, for a while. explain/advice reads both.
"""

import errno
import json
import os
from typing import Any

from .. import errors

# What the first steps of a pod of an ordinary user are refused by, where a machine has a rule against them.
_RULED = ("clone3", "unshare", "write uid_map", "write gid_map", "sethostname", "mount", "fsopen", "fsmount")


# What the failed process looks like: see proc(5). The report goes through a pipe, so it has an end.
_SCENE = ("status", "uid_map", "gid_map", "setgroups", "mountinfo")
_SCENE_MAX_BYTES = 24_000
_LINKS = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time", "pid_for_children")


def failed(call: str, code: int | None, *asked: Any) -> OSError:
    """OSError("call: reason") that remembers what the call was given. See :func:`asked_of`."""
    err = OSError(code, f"{call}: {os.strerror(code or 0)}")
    given = [_plain(one) for one in asked]
    vars(err)["asked"] = [*given, _behind(given[0])] if call == "setns" and given else given
    return err


def asked_of(err: BaseException) -> list[Any]:
    """The arguments of the call that failed, as JSON holds them; of a setns what is behind its descriptor, too."""
    return list(getattr(err, "asked", ()))


def likewise(err: BaseException, same: OSError) -> OSError:
    """`same`, which takes the place of `err`, with what that remembers."""
    vars(same).update(asked=asked_of(err), scene=scene_of(err))
    return same


def remember(err: OSError, more: str) -> None:
    """Add to what the failed call was given: of a descriptor what it stands for."""
    vars(err)["asked"] = [*asked_of(err), more]


def of_process(pid: int | str, name: str) -> str:
    """A small file of /proc about a process, or ""."""
    return _read_some(f"/proc/{pid}/{name}")


def scene_of(err: BaseException) -> dict[str, str]:
    """What the process that failed looked like, if that was another one: see :func:`scene`."""
    return dict(getattr(err, "scene", {}))


def scene() -> dict[str, str]:
    """What the caller looks like now. Nothing of it is missed where it cannot be read."""
    found = {"euid": str(os.geteuid()), "egid": str(os.getegid())}
    for name in _SCENE:
        found[name] = _read_some(f"/proc/self/{name}")
    for name in _LINKS:
        found[f"ns/{name}"] = _link(f"/proc/self/ns/{name}")
    for name in ("root", "cwd"):
        found[name] = _link(f"/proc/self/{name}")
        found[f"{name} mount"] = mount_of(f"/proc/self/{name}")
    return {name: value for name, value in found.items() if value}


_proc_fd: int | None = None


def see_by(proc_fd: int) -> None:
    """From here on the caller looks at itself by this /proc: the one at /proc may be of a pod it is not in."""
    global _proc_fd
    _proc_fd = proc_fd


def _place(path: str) -> tuple[str, int | None]:
    return (path, None) if _proc_fd is None else (path.removeprefix("/proc/"), _proc_fd)


def _plain(value: Any) -> Any:
    if isinstance(value, (int, str)) or value is None:
        return value
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _read_some(path: str) -> str:
    try:
        name, proc_fd = _place(path)
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
    except OSError:
        return ""
    try:
        parts, left = [], _SCENE_MAX_BYTES
        while left > 0 and (part := os.read(fd, left)):
            parts.append(part)
            left -= len(part)
        text = os.fsdecode(b"".join(parts))
        return text if left > 0 else text[: text.rfind("\n") + 1]
    except OSError:
        return ""
    finally:
        os.close(fd)


def _link(path: str) -> str:
    try:
        name, proc_fd = _place(path)
        return os.readlink(name, dir_fd=proc_fd)
    except OSError:
        return ""


def _behind(fd: int) -> str:
    """"pidfd:4711", or a namespace as "user:[4026531837]"."""
    place = _link(f"/proc/self/fd/{fd}")
    if place != "anon_inode:[pidfd]":
        return place
    lines = _read_some(f"/proc/self/fdinfo/{fd}").splitlines()
    return next((f"pidfd:{line.split()[1]}" for line in lines if line.startswith("Pid:")), "")


def mount_of(path: str) -> str:
    """The number that mountinfo has for the mount that a directory is in."""
    try:
        name, proc_fd = _place(path)
        fd = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=proc_fd)
    except OSError:
        return ""
    try:
        lines = _read_some(f"/proc/self/fdinfo/{fd}").splitlines()
        return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    finally:
        os.close(fd)


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
    """The most likely one of the limits in /proc/sys/user, with its value."""
    try:
        from . import policy

        name, value = min(policy.limits().items(), key=lambda one: one[1])
    except (ImportError, OSError, ValueError):
        return ""  # no /proc here, or another root by now: the message does without
    return f" (the lowest is {name} = {value})"


def encode(err: errors.NsboxError, seen: dict[str, str] | None = None) -> bytes:
    """An error as JSON, so that another process can raise the same one.

    Args:
        seen: the :func:`scene`, for who is to explain the error.
    """
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
            "asked": asked_of(cause) if cause else [],
            "scene": scene_of(cause) or seen if cause else None,
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
        vars(err.__cause__).update(asked=data["asked"], scene=data["scene"] or {})
        if hint(err.__cause__).startswith(err.hint):  # there they could not ask for the machine's rules
            err.hint = advice(err.__cause__)
    return err
