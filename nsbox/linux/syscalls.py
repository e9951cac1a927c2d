"""The system calls nsbox makes: one table, one function per call. With structs.py the only user of ctypes.

Law: a function here does its one call and returns or raises OSError("call: reason"); it
knows no purpose. Every call goes through :func:`_call`, the one place where a listener
(:func:`listen`) sees name, arguments and result. `shown` gives the arguments where the ones
handed to libc are pointers or bare numbers; they stand in the order of the manual page.
"""

import ctypes
import errno
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong
from typing import Any, Callable, Sequence

from . import flags as fl
from . import trouble
from .flags import CloneFlag, MountAttr, MountFlag, MoveMountFlag, OpenTreeFlag, Resolve
from .structs import CapData, CapHeader, CloneArgs, MountAttrStruct, OpenHow, SockFprog

# CDLL(None) needs no find_library, which would start a compiler or ldconfig.
_LIBC = ctypes.CDLL(None, use_errno=True)
# For clone3 alone: CDLL would let go of the interpreter lock across the clone.
_LIBC_KEEP_GIL = ctypes.PyDLL(None, use_errno=True)

_listener: "Listener | None" = None
purpose = ""  # what the calls that follow are for, in words; kept by whoever knows, read by the listener


class Listener:
    """Who is told of every call that nsbox makes, here and in the processes forked from here.

    Attributes:
        fds: what it needs open. A process that closes what it does not know closes these too, and
            is not heard any more, unless it keeps them.
        patient: somebody is asked before each call, and may think for as long as he likes.
    """

    fds: tuple[int, ...] = ()
    patient = False

    def begin(self, call: str, args: tuple[object, ...]) -> None:
        """The call is about to be made. What this raises comes out of it, and it is not made."""

    def end(self, call: str, args: tuple[object, ...], result: int, code: int) -> None:
        """It has been made: its result, and its errno or 0. Not for an execve(2) that succeeds."""

    def close(self) -> None:
        """It is told no more in this process."""


def _bind(name: str, *argtypes: Any) -> Any:
    func: Any = _LIBC[name]  # by index: an object of our own, so its argtypes are ours alone
    func.argtypes, func.restype = argtypes, c_int
    func.label = name
    return func


def _number(name: str, number: int, *argtypes: Any) -> Any:
    """A call for which libc has no wrapper. From 424 up the numbers are the same everywhere."""
    func: Any = _LIBC["syscall"]
    func.argtypes, func.restype = (c_long, *argtypes), c_long
    func.label, func.number = name, number
    return func


_NR_KEYCTL = {"x86_64": 250, "i686": 288, "armv7l": 311, "ppc64le": 271, "s390x": 280}
_NR_SECCOMP = {"x86_64": 317, "i686": 354, "armv7l": 383, "ppc64le": 358, "s390x": 348}

# fmt: off
#                        name              arguments                                         manual page
_unshare       = _bind("unshare",          c_int)                                          # unshare(2)
_setns         = _bind("setns",            c_int, c_int)                                   # setns(2)
_mount         = _bind("mount",            c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)  # mount(2)
_umount2       = _bind("umount2",          c_char_p, c_int)                                # umount2(2)
_pivot_root    = _number("pivot_root",     {"aarch64": 41}.get(os.uname().machine, 155),
                         c_char_p, c_char_p)                                               # pivot_root(2)
_sethostname   = _bind("sethostname",      c_char_p, c_size_t)                             # sethostname(2)
_setdomainname = _bind("setdomainname",    c_char_p, c_size_t)                             # setdomainname(2)
_shmget        = _bind("shmget",           c_int, c_size_t, c_int)                         # shmget(2)
_shmctl        = _bind("shmctl",           c_int, c_int, ctypes.c_void_p)                  # shmctl(2)
_socket        = _bind("socket",           c_int, c_int, c_int)                            # socket(2)
_memfd_create  = _bind("memfd_create",     c_char_p, c_uint)                               # memfd_create(2)
_prctl         = _bind("prctl",            c_int, c_ulong, c_ulong, c_ulong, c_ulong)      # prctl(2)
_capget        = _bind("capget",           ctypes.POINTER(CapHeader), ctypes.POINTER(CapData))  # capget(2)
_capset        = _bind("capset",           ctypes.POINTER(CapHeader), ctypes.POINTER(CapData))  # capset(2)
_prlimit       = _bind("prlimit64",        c_int, c_uint, ctypes.POINTER(c_uint64 * 2), ctypes.c_void_p)  # prlimit(2)
_keyctl        = _number("keyctl",         _NR_KEYCTL.get(os.uname().machine, 219),
                         c_int, c_ulong)                                                   # keyctl(2)
_execveat      = _number("execveat",       {"aarch64": 281}.get(os.uname().machine, 322),
                         c_int, c_char_p, ctypes.POINTER(c_char_p),
                         ctypes.POINTER(c_char_p), c_int)                                  # execveat(2)
_seccomp       = _number("seccomp",        _NR_SECCOMP.get(os.uname().machine, 277),
                         c_uint, c_uint, ctypes.POINTER(SockFprog))                        # seccomp(2)
_pidfd_signal  = _number("pidfd_send_signal", 424, c_int, c_int, ctypes.c_void_p, c_uint)  # pidfd_send_signal(2)
_open_tree     = _number("open_tree",      428, c_int, c_char_p, c_uint)                   # open_tree(2)
_move_mount    = _number("move_mount",     429, c_int, c_char_p, c_int, c_char_p, c_uint)  # move_mount(2)
_fsopen        = _number("fsopen",         430, c_char_p, c_uint)                          # fsopen(2)
_fsconfig      = _number("fsconfig",       431, c_int, c_uint, c_char_p, c_char_p, c_int)  # fsconfig(2)
_fsmount       = _number("fsmount",        432, c_int, c_uint, c_uint)                     # fsmount(2)
_close_range   = _number("close_range",    436, c_uint, c_uint, c_uint)                    # close_range(2)
_getauxval     = _bind("getauxval",        c_ulong)                                        # getauxval(3)
_pidfd_getfd   = _number("pidfd_getfd",    438, c_int, c_int, c_uint)                      # pidfd_getfd(2)
_openat2       = _number("openat2",        437, c_int, c_char_p,
                         ctypes.POINTER(OpenHow), c_size_t)                                # openat2(2)
_mount_setattr = _number("mount_setattr",  442, c_int, c_char_p, c_uint,
                         ctypes.POINTER(MountAttrStruct), c_size_t)                        # mount_setattr(2)
# fmt: on
_clone3 = _LIBC_KEEP_GIL["syscall"]
_clone3.argtypes, _clone3.restype = (c_long, ctypes.POINTER(CloneArgs), c_size_t), c_long
_NR_CLONE3 = 435


def listen(listener: Listener | None) -> None:
    """Let `listener` see every call, in place of the one before. None: nobody any more."""
    global _listener
    before, _listener = _listener, listener
    if before is not None and before is not listener:
        before.close()


def listener() -> Listener | None:
    """Who listens, if anybody does."""
    return _listener


def listening_fds() -> tuple[int, ...]:
    """What is to be kept open so that the listener still hears this process."""
    return _listener.fds if _listener is not None else ()


def _call(func: Any, *args: Any, shown: tuple[object, ...] = ()) -> int:
    """Make one call; return its result or raise OSError. Retried when a signal cut it short."""
    number = getattr(func, "number", None)
    if _listener is not None:
        _listener.begin(func.label, shown or args)
    while True:
        result = int(func(*args) if number is None else func(number, *args))
        code = ctypes.get_errno() if result == -1 else 0
        if code != errno.EINTR:
            break
    if _listener is not None:
        _listener.end(func.label, shown or args, result, code)
    if code:
        raise trouble.failed(func.label, code, *(shown or args))
    return result


def errno_of(call: str, *args: object) -> int:
    """The errno of a call of the table with these arguments, or 0: for finding out, so nobody is told of it."""
    if call == "clone3":
        return 0 if _clone3(_NR_CLONE3, *args) >= 0 else ctypes.get_errno()
    func = next(one for one in globals().values() if getattr(one, "label", "") == call)
    number = getattr(func, "number", None)
    return 0 if (func(*args) if number is None else func(number, *args)) != -1 else ctypes.get_errno()


def at_secure() -> bool:
    """Whether execve(2) gave this process rights that its caller did not have: AT_SECURE, getauxval(3)."""
    return bool(_getauxval(fl.AT_SECURE))


def unshare(flags: CloneFlag) -> None:
    """Move the caller into new namespaces. See unshare(2).

    CLONE_NEWPID and CLONE_NEWTIME take effect for the next child only, never for the caller.
    """
    _call(_unshare, int(flags), shown=(flags,))


def setns(fd: int, flags: CloneFlag) -> None:
    """Join namespaces by a pidfd (all of `flags` or none), or by a namespace file. See setns(2).

    CLONE_NEWPID takes effect for the next child. A dead PID namespace lets itself be
    joined by a namespace file, and the next fork fails with ENOMEM; by pidfd it is ESRCH.
    """
    _call(_setns, fd, int(flags), shown=(fd, flags))


def clone3(flags: CloneFlag, exit_signal: int = 0) -> int:
    """Fork into new namespaces; return 0 in the new process. See clone3(2).

    Only for a process with one thread: the child has this thread alone, and the
    allocator's lock as it was. With CLONE_PARENT `exit_signal` must be 0.
    """
    args = CloneArgs(flags=int(flags), exit_signal=exit_signal)
    if _listener is not None:
        _listener.begin("clone3", (flags, exit_signal))
    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    pid = int(_clone3(_NR_CLONE3, ctypes.byref(args), ctypes.sizeof(args)))
    if pid == 0:
        api.PyOS_AfterFork_Child()  # before anything else of Python runs here
        return 0
    code = ctypes.get_errno()
    api.PyOS_AfterFork_Parent()
    if _listener is not None:
        _listener.end("clone3", (flags, exit_signal), pid, code if pid < 0 else 0)
    if pid < 0:
        raise trouble.failed("clone3", code, flags, exit_signal)
    return pid


def mount_propagation(target: str, flags: MountFlag) -> None:
    """Change how mounts at `target` propagate. See mount_namespaces(7)."""
    _call(_mount, None, os.fsencode(target), None, int(flags), None, shown=(None, target, None, flags, None))


def umount_detach(target: str) -> None:
    """Take the mount at `target` out of the tree now, free it when unused. See umount2(2)."""
    _call(_umount2, os.fsencode(target), fl.MNT_DETACH, shown=(target, fl.MNT_DETACH))


def pivot_root(new_root: str, put_old: str) -> None:
    """Swap the root mount of the caller's mount namespace. See pivot_root(2)."""
    _call(_pivot_root, os.fsencode(new_root), os.fsencode(put_old))


def sethostname(name: str) -> None:
    """Set the hostname of the caller's UTS namespace, at most 64 bytes. See sethostname(2)."""
    raw = os.fsencode(name)
    _call(_sethostname, raw, len(raw))


def setdomainname(name: bytes) -> None:
    """Set the NIS domain name of the UTS namespace. See setdomainname(2)."""
    _call(_setdomainname, name, len(name))


def shmget(key: int, size_bytes: int, flags: int) -> int:
    """The id of a segment of System V shared memory. See shmget(2)."""
    return _call(_shmget, key, size_bytes, flags)


def shm_remove(shm_id: int) -> None:
    """Remove a segment when nobody has it attached any more. See IPC_RMID in shmctl(2)."""
    _call(_shmctl, shm_id, fl.IPC_RMID, None)


def socket(family: int, kind: int) -> int:
    """A descriptor for ioctls on interfaces, without loading Python's socket module. See socket(2)."""
    return _call(_socket, family, kind | os.O_CLOEXEC, 0)


def memfd_create(name: str) -> int:
    """An anonymous file in memory that can be sealed. See memfd_create(2)."""
    return _call(_memfd_create, os.fsencode(name), fl.MFD_CLOEXEC | fl.MFD_ALLOW_SEALING)


def execveat(fd: int, argv: Sequence[bytes], env: Sequence[bytes]) -> None:
    """Become the program that `fd` refers to; returns only by raising. See execveat(2)."""
    arguments = (c_char_p * (len(argv) + 1))(*argv, None)
    environment = (c_char_p * (len(env) + 1))(*env, None)
    _call(_execveat, fd, b"", arguments, environment, fl.AT_EMPTY_PATH, shown=(fd, "", argv, env, fl.AT_EMPTY_PATH))


def capbset_read(capability: int) -> bool:
    """Whether a capability is in the caller's bounding set; EINVAL: the kernel has none of that number.

    See PR_CAPBSET_READ in prctl(2).
    """
    return bool(_call(_prctl, fl.PR_CAPBSET_READ, capability, 0, 0, 0, shown=("PR_CAPBSET_READ", capability)))


def capbset_drop(capability: int) -> None:
    """Take a capability out of the caller's bounding set, for good. Errors as :func:`capbset_read`."""
    _call(_prctl, fl.PR_CAPBSET_DROP, capability, 0, 0, 0, shown=("PR_CAPBSET_DROP", capability))


def set_no_new_privs() -> None:
    """No execve(2) gives the caller, or what comes of it, more rights. See PR_SET_NO_NEW_PRIVS in prctl(2)."""
    _call(_prctl, fl.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, shown=("PR_SET_NO_NEW_PRIVS", 1, 0, 0, 0))


def capget() -> tuple[int, int, int]:
    """The caller's effective, permitted and inheritable capabilities, one bit each. See capget(2)."""
    data = CapData()
    _call(_capget, ctypes.byref(CapHeader(fl.LINUX_CAPABILITY_VERSION_3)), ctypes.byref(data), shown=())
    return (
        data.effective_high << 32 | data.effective_low,
        data.permitted_high << 32 | data.permitted_low,
        data.inheritable_high << 32 | data.inheritable_low,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the caller's capabilities. What is not inheritable is not ambient either. See capset(2)."""
    sets = (effective, permitted, inheritable)
    data = CapData(*(one & 0xFFFF_FFFF for one in sets), *(one >> 32 for one in sets))
    _call(_capset, ctypes.byref(CapHeader(fl.LINUX_CAPABILITY_VERSION_3)), ctypes.byref(data), shown=sets)


def set_limit(number: int, name: str, written: str, bounds: tuple[int, int]) -> None:
    """Set the soft and the hard limit of the caller and of what comes of it. See prlimit(2).

    Lowered, a hard limit comes back by CAP_SYS_RESOURCE alone. `name` and `written` are for the listener.
    """
    _call(_prlimit, 0, number, (c_uint64 * 2)(*bounds), None, shown=(0, name, written, None))


def join_new_session_keyring() -> None:
    """Leave the session keyring for a new one without a name. See KEYCTL_JOIN_SESSION_KEYRING in keyctl(2)."""
    _call(_keyctl, fl.KEYCTL_JOIN_SESSION_KEYRING, 0, shown=("KEYCTL_JOIN_SESSION_KEYRING", None))


def seccomp_filter(program: bytes, flags: int) -> None:
    """Have the kernel ask `program` about every call of the caller and its children, for good. See seccomp(2).

    EACCES: that needs no_new_privs, or CAP_SYS_ADMIN in the caller's user namespace.
    """
    how, fprog = fl.SECCOMP_SET_MODE_FILTER, SockFprog(len(program) // 8, program)
    _call(_seccomp, how, flags, ctypes.byref(fprog), shown=(how, flags, fprog.len))


def open_tree(dir_fd: int, path: str, flags: OpenTreeFlag) -> int:
    """A descriptor of a mount; with OPEN_TREE_CLONE of a detached copy. See open_tree(2)."""
    return _call(_open_tree, dir_fd, os.fsencode(path), int(flags | OpenTreeFlag.OPEN_TREE_CLOEXEC))


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the mount behind one descriptor at the place behind another. See move_mount(2)."""
    flags = MoveMountFlag.MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlag.MOVE_MOUNT_T_EMPTY_PATH
    _call(_move_mount, mount_fd, b"", target_fd, b"", int(flags), shown=(mount_fd, "", target_fd, "", flags))


def fsopen(fstype: str) -> int:
    """Begin a new file system of `fstype`; to be configured by fsconfig. See fsopen(2)."""
    return _call(_fsopen, fstype.encode(), fl.FSOPEN_CLOEXEC)


def fsconfig_string(fs_fd: int, key: str, value: str) -> None:
    """Set one option; the value may hold any byte but NUL, commas too. See fsconfig(2)."""
    _call(_fsconfig, fs_fd, fl.FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def fsconfig_flag(fs_fd: int, key: str) -> None:
    """Set one option that has no value. See fsconfig(2)."""
    _call(_fsconfig, fs_fd, fl.FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsconfig_create(fs_fd: int) -> None:
    """Make the file system as configured. See fsconfig(2)."""
    _call(_fsconfig, fs_fd, fl.FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fs_fd: int, attributes: MountAttr) -> int:
    """A descriptor of a detached mount of the file system made. See fsmount(2)."""
    return _call(_fsmount, fs_fd, fl.FSMOUNT_CLOEXEC, int(attributes))


def mount_setattr(
    mount_fd: int, attributes: MountAttr, *, recursive: bool,
    propagation: MountFlag = MountFlag(0), userns_fd: int = 0,
) -> None:  # fmt: skip
    """Add attributes to a mount, with `recursive` to all mounts below it too. See mount_setattr(2).

    With MOUNT_ATTR_IDMAP the owners of files are seen through the maps of `userns_fd`: once, for a
    mount that was never attached, by who has CAP_SYS_ADMIN over the file system.
    """
    attr = MountAttrStruct(attr_set=int(attributes), propagation=int(propagation), userns_fd=userns_fd)
    where = fl.AT_EMPTY_PATH | (int(OpenTreeFlag.AT_RECURSIVE) if recursive else 0)
    _call(
        _mount_setattr, mount_fd, b"", where, ctypes.byref(attr), ctypes.sizeof(attr),
        shown=(mount_fd, "", where, attributes, ctypes.sizeof(attr)),
    )  # fmt: skip


_OPENAT2_TRIES = 128


def openat2(dir_fd: int, path: str, flags: int, resolve: Resolve, mode: int = 0) -> int:
    """Open `path` walking as `resolve` allows. See openat2(2).

    EAGAIN means that something on the way was renamed meanwhile, so that the kernel could
    not be sure: tried again, but not for ever, since a hostile rename loop must not hold us.
    """
    how = OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=int(resolve))
    for attempt in range(_OPENAT2_TRIES):
        try:
            return _call(
                _openat2, dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how),
                shown=(dir_fd, path, flags | os.O_CLOEXEC, mode, resolve, ctypes.sizeof(how)),
            )  # fmt: skip
        except BlockingIOError:
            if attempt == _OPENAT2_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def close_range(first: int, last: int = 0xFFFF_FFFF, *, cloexec_only: bool) -> None:
    """Close the descriptors `first` to `last`, or mark them close-on-exec. See close_range(2)."""
    _call(_close_range, first, last, fl.CLOSE_RANGE_CLOEXEC if cloexec_only else 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A descriptor of our own for a file that another process has open. See pidfd_getfd(2)."""
    return _call(_pidfd_getfd, pidfd, number, 0)
