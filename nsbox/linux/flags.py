"""Numbers of the kernel's headers, under the names of the man pages. No action."""

import enum


class CloneFlag(enum.IntFlag):
    """Namespace flags of clone3(2), unshare(2) and setns(2). From linux/sched.h."""

    CLONE_NEWTIME = 0x0000_0080
    CLONE_FILES = 0x0000_0400
    CLONE_PARENT = 0x0000_8000
    CLONE_NEWNS = 0x0002_0000
    CLONE_NEWCGROUP = 0x0200_0000
    CLONE_NEWUTS = 0x0400_0000
    CLONE_NEWIPC = 0x0800_0000
    CLONE_NEWUSER = 0x1000_0000
    CLONE_NEWPID = 0x2000_0000
    CLONE_NEWNET = 0x4000_0000


class MountFlag(enum.IntFlag):
    """Flags of mount(2). From linux/mount.h."""

    MS_REC = 0x4000
    MS_PRIVATE = 0x4_0000
    MS_SLAVE = 0x8_0000


class MountAttr(enum.IntFlag):
    """Attributes of fsmount(2) and mount_setattr(2). From linux/mount.h."""

    MOUNT_ATTR_RDONLY = 0x01
    MOUNT_ATTR_NOSUID = 0x02
    MOUNT_ATTR_NODEV = 0x04
    MOUNT_ATTR_NOEXEC = 0x08
    MOUNT_ATTR_IDMAP = 0x10_0000


class OpenTreeFlag(enum.IntFlag):
    """Flags of open_tree(2). From linux/mount.h and linux/fcntl.h."""

    OPEN_TREE_CLONE = 0x1
    AT_SYMLINK_NOFOLLOW = 0x100
    AT_EMPTY_PATH = 0x1000
    AT_RECURSIVE = 0x8000
    OPEN_TREE_CLOEXEC = 0o2000000


class MoveMountFlag(enum.IntFlag):
    """Flags of move_mount(2). From linux/mount.h."""

    MOVE_MOUNT_F_EMPTY_PATH = 0x04
    MOVE_MOUNT_T_EMPTY_PATH = 0x40


class Resolve(enum.IntFlag):
    """How openat2(2) walks a path. From linux/openat2.h."""

    RESOLVE_NO_XDEV = 0x01
    RESOLVE_NO_MAGICLINKS = 0x02
    RESOLVE_NO_SYMLINKS = 0x04
    RESOLVE_BENEATH = 0x08
    RESOLVE_IN_ROOT = 0x10


# umount2(2), linux/fs.h
MNT_DETACH = 0x2
# close_range(2), linux/close_range.h
CLOSE_RANGE_CLOEXEC = 0x4
# memfd_create(2) and fcntl(2), linux/memfd.h and linux/fcntl.h
MFD_CLOEXEC = 0x1
MFD_ALLOW_SEALING = 0x2
F_ADD_SEALS = 1033
F_SEAL_ALL = 0xF  # SEAL, SHRINK, GROW, WRITE: nobody can change the bytes any more
# prctl(2), capget(2): linux/prctl.h, linux/capability.h
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
LINUX_CAPABILITY_VERSION_3 = 0x2008_0522
# setrlimit(2), asm-generic/resource.h: the same number on all machines that have the small pause
RLIMIT_CORE = 4
# keyctl(2), linux/keyctl.h
KEYCTL_JOIN_SESSION_KEYRING = 1
# seccomp(2), linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
# fsopen(2), fsconfig(2), linux/mount.h
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
# execveat(2), linux/fcntl.h
AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
O_PATH = 0o10000000
# shmget(2), shmctl(2), linux/ipc.h
IPC_CREAT = 0o1000
IPC_EXCL = 0o2000
IPC_RMID = 0
# getcwd(2) and others without flags need nothing here.

# getauxval(3), linux/auxvec.h
AT_SECURE = 23
