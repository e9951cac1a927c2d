"""Structures that system calls take, as the kernel's headers lay them out. No action."""

import ctypes
from ctypes import c_char_p, c_int, c_uint, c_uint64, c_ushort


class CloneArgs(ctypes.Structure):
    """struct clone_args, 88 bytes (CLONE_ARGS_SIZE_VER2). See clone3(2)."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
            "stack_size", "tls", "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class OpenHow(ctypes.Structure):
    """struct open_how, 24 bytes. See openat2(2)."""

    _fields_ = [("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64)]


class CapHeader(ctypes.Structure):
    """struct __user_cap_header_struct, 8 bytes. See capget(2)."""

    _fields_ = [("version", c_uint), ("pid", c_int)]


class CapData(ctypes.Structure):
    """Two of struct __user_cap_data_struct, 24 bytes: the lower half of each set, then the upper."""

    _fields_ = [
        (f"{name}_{half}", c_uint)
        for half in ("low", "high") for name in ("effective", "permitted", "inheritable")
    ]  # fmt: skip


class MountAttrStruct(ctypes.Structure):
    """struct mount_attr, 32 bytes. See mount_setattr(2)."""

    _fields_ = [(name, c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class SockFprog(ctypes.Structure):
    """struct sock_fprog: a filter program and its length in instructions of 8 bytes. See seccomp(2)."""

    _fields_ = [("len", c_ushort), ("filter", c_char_p)]
