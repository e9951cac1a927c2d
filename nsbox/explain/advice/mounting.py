"""Rules of mounts: mount(2), the calls by descriptor, pivot_root(2), umount2(2)."""

import os
from shlex import quote

from ...errors import NsboxError
from ...linux import apart, mounts, nsfs, policy, syscalls
from ...linux.flags import CloneFlag
from . import machine
from .case import Case, Rule, Seen, known, lacks, setting, unknown

_CHANGING = ("mount", "umount2", "pivot_root", "fsopen", "fsmount", "move_mount", "open_tree", "mount_setattr")
_NEW = ("fsconfig", "fsmount", "mount")
_RIGHTS_OVER = {"proc": "pid", "sysfs": "net", "mqueue": "ipc", "cgroup2": "cgroup"}
# Types that a user namespace of one's own may mount (FS_USERNS_MOUNT), as far as nsbox uses them.
_FOR_USERS = frozenset({"tmpfs", "proc", "sysfs", "mqueue", "devpts", "overlay", "ramfs", "cgroup", "cgroup2", "bpf",
                        "fuse", "binfmt_misc", "binder"})  # fmt: skip
_NO_SIGHT = "/proc/PID/mountinfo could not be read there"


def _fstype(case: Case) -> str:
    at = 2 if case.call == "mount" else len(case.asked) - 1
    return case.text(at) if case.asked else ""


def _foreign_mounts(case: Case) -> Seen:
    """Whether the mount namespace belongs to another user namespace than the process is in."""
    if case.elsewhere:
        return unknown("the process that failed was in other namespaces, and is gone")
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner_fd = nsfs.owner(fd)
    except PermissionError:
        return known(True, "it belongs to a user namespace outside of the process's own", "unshare --mount …")
    finally:
        os.close(fd)
    try:
        owner = f"user:[{os.fstat(owner_fd).st_ino}]"
    finally:
        os.close(owner_fd)
    own = case.scene.get("ns/user", "")
    return known(owner != own, f"it belongs to {owner}, the process is in {own}")


def _covered_proc(case: Case) -> Seen:
    """Whether the process sees no /proc (or /sys) without masks, so that a new one would show more than it may see."""
    fstype = _fstype(case)
    if fstype not in ("proc", "sysfs", ""):
        return known(False, f"it was {fstype}, not proc or sysfs")
    if case.in_first_user_namespace:
        return known(False, "it was in the first user namespace, whose mount namespaces see everything")
    if not case.mounts:
        return unknown(_NO_SIGHT)
    place = "/sys" if fstype == "sysfs" else "/proc"
    if not any(one.fstype == (fstype or "proc") and one.root == "/" for one in case.mounts):
        return known(True, f"no whole {place} is mounted in sight", f"findmnt -t {fstype or 'proc'}")
    over = [one.target for one in case.mounts if one.target.startswith(place + "/")]
    over = policy.over_proc(case.mounts) if place == "/proc" else [one for one in over if "/fs/cgroup" not in one]
    return known(bool(over),
                 f"over parts of {place} lie mounts: {', '.join(over[:4])}{' ...' if over[4:] else ''}" if over
                 else f"nothing lies over parts of {place}", f"findmnt -R {place}")  # fmt: skip


def _reserved(case: Case) -> Seen:
    fstype = _fstype(case)
    if not fstype or case.in_first_user_namespace is None:
        return unknown("which type it was, or where, is not known")
    if case.in_first_user_namespace:
        return known(False, "it was in the first user namespace")
    return known(fstype not in _FOR_USERS,
                 f"{fstype} is {'not ' if fstype not in _FOR_USERS else ''}among those that may")


def _foreign_content(case: Case) -> Seen:
    """Of proc, sysfs and mqueue: whether what they would show belongs to another user namespace."""
    kind = _RIGHTS_OVER.get(_fstype(case))
    if kind is None:
        return known(False, f"{_fstype(case) or 'it'} shows no namespace")
    if case.elsewhere:
        return unknown(f"who owns the {kind} namespace that it would show is not to be seen: the process is gone",
                       f"unshare --user --map-root-user --{'pid --fork' if kind == 'pid' else kind} …")  # fmt: skip
    fd = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(nsfs.owner(fd))
    except PermissionError:
        return known(True, f"its {kind} namespace belongs to a user namespace outside of its own")
    finally:
        os.close(fd)
    return known(False, f"its {kind} namespace belongs to its own user namespace")


def _plain_root(case: Case) -> Seen:
    """Whether "/" is no mount point."""
    if not case.mounts:
        return unknown(_NO_SIGHT)
    entry = case.mount_of("root")
    target = entry.target if entry else ""
    return known(target != "/", "/ is " + ("a mount point" if target == "/" else "a directory of some mount only"),
                 "findmnt / || nsbox doctor")  # fmt: skip


def _target(case: Case) -> str:
    return case.text(1 if case.call == "mount" else 0)


def _no_mount_point(case: Case) -> Seen:
    """Whether the place that was named is no mount point."""
    place = _place(case)
    if place is None:
        return unknown(_NO_SIGHT)
    return known(not any(one.target == place for one in case.mounts), f"mountinfo has "
                 f"{'' if any(one.target == place for one in case.mounts) else 'no '}mount at {place}",
                 f"findmnt {quote(place)}")


def _place(case: Case) -> str | None:
    """The path that was meant; "." is the work directory."""
    named = _target(case) or "/"
    if not case.mounts:
        return None
    if named in (".", ""):
        return case.scene.get("cwd")
    return os.path.realpath(named) if not case.elsewhere else named


def _entry(case: Case, place: str) -> mounts.MountEntry | None:
    """The mount on top at a place, or the one around it."""
    found = [one for one in case.mounts if place == one.target or place.startswith(one.target.rstrip("/") + "/")]
    return max(enumerate(found), key=lambda one: (len(one[1].target), one[0]))[1] if found else None


def _shared(case: Case) -> Seen:
    """Whether new root, its parent, or the parent of the present root pass mounts on."""
    place = _place(case)
    if place is None:
        return unknown(_NO_SIGHT)
    new, by_id = _entry(case, place), {one.mount_id: one for one in case.mounts}
    looked = [one for one in (new, by_id.get(new.parent_id) if new else None) if one]
    shared = [one.target for one in looked if "shared:" in one.optional]
    shown = ", ".join(f"{one.target} is {'shared' if 'shared:' in one.optional else 'private'}" for one in looked)
    where = shared[0] if shared else place
    return known(bool(shared), shown or f"nothing is mounted at {place}",
                 f"findmnt -o TARGET,PROPAGATION {quote(where)}; mount --make-rprivate {quote(where)}")  # fmt: skip


def _same_mount(case: Case) -> Seen:
    place = _place(case)
    if place is None:
        return unknown(_NO_SIGHT)
    new, root = _entry(case, place), case.mount_of("root")
    same = new is not None and root is not None and new.mount_id == root.mount_id
    return known(same, f"{place} is {'' if same else 'not '}on the mount that is the root already",
                 f"findmnt --target {quote(place)}")


def _initial_root(case: Case) -> Seen:
    root = case.mount_of("root")
    if root is None:
        return unknown("the root's mount is not in mountinfo")
    return known(root.fstype == "rootfs", f"the root is {root.fstype}", "findmnt -n -o FSTYPE /")


def _locked(case: Case) -> Seen:
    """Whether a mount came from a more privileged mount namespace: tried where it does no harm."""
    place = _place(case)
    if place is None or case.elsewhere or not any(one.target == place for one in case.mounts):
        return unknown("nothing is mounted there that could be tried", "findmnt")

    def work() -> int:
        syscalls.unshare(CloneFlag.CLONE_NEWNS)
        return syscalls.errno_of("umount2", os.fsencode(place), 2)

    try:
        said = apart.run("try it", work)
    except NsboxError as err:
        return unknown(f"it cannot be tried: {err}")
    foreign = case.in_first_user_namespace is False
    return known(bool(said) and foreign, f"taking it off in a copy of the mount namespace is "
                 f"{'refused too' if said else 'done'}", f"findmnt {quote(place)}; nsbox map")  # fmt: skip


def _too_many(case: Case) -> Seen:
    most = policy.read("/proc/sys/fs/mount-max")
    if most is None or not case.mounts:
        return unknown("/proc/sys/fs/mount-max cannot be read")
    return known(len(case.mounts) >= int(most) * 9 // 10, f"fs.mount-max = {most}, in sight: {len(case.mounts)}")


def _no_overlay_layer(case: Case) -> Seen:
    fstype = _fstype(case)
    if fstype != "overlay":
        return known(False, f"it was {fstype or 'another type'}")
    return unknown("the kernel says which layer only in its log", "sudo dmesg | grep overlayfs | tail -3")


def _idmap(case: Case) -> Seen:
    wanted = len(case.asked) > 3 and isinstance(case.asked[3], int) and bool(case.asked[3] & 0x10_0000)
    if case.asked and not wanted:
        return known(False, "MOUNT_ATTR_IDMAP was not asked for")
    return unknown("which file system it was is not known any more", "nsbox doctor")


def _first_root_alone(case: Case) -> Seen:
    where = case.in_first_user_namespace
    if where is None:
        return unknown("in which user namespace it was is not known")
    right = case.has("MKNOD")
    if where and right is None:
        return unknown("its capabilities are not known")
    return known(not where or not right, "it was in a user namespace of its own" if not where else
                 f"it has {'' if right else 'no '}CAP_MKNOD")  # fmt: skip


RULES = (
    Rule((*_CHANGING, "fsconfig"), ("EPERM", "EACCES", "ENOSYS"), "a seccomp filter refuses the call", "seccomp(2)",
         machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule((*_CHANGING, "fsconfig", "openat2"), ("ENOSYS",), "the kernel is too old", "mount_setattr(2)",
         machine.old_kernel,
         "uname -r"),
    Rule(("openat2",), ("ENOSYS", "EPERM"), "a seccomp filter refuses the call", "seccomp(2)", machine.denied_by_filter,
         "grep Seccomp /proc/self/status"),
    Rule(_NEW, ("EPERM",), "who sees only a masked /proc or /sys is given no new, unmasked one",
         "user_namespaces(7)", _covered_proc, "findmnt -R /proc"),
    Rule(_NEW, ("EPERM",),
         "a new /proc, /sys or mqueue needs rights over the PID, network or IPC namespace that it shows",
         "pid_namespaces(7)", _foreign_content, "lsns"),
    Rule(("fsopen", "fsconfig", "fsmount", "mount"), ("EPERM",),
         "in a user namespace only some types of file systems may be "
         "mounted", "user_namespaces(7)", _reserved, "sudo nsbox …"),
    Rule(_CHANGING, ("EPERM",), "changing mounts needs CAP_SYS_ADMIN", "capabilities(7)", lacks("SYS_ADMIN"),
         "grep CapEff /proc/self/status; sudo nsbox …"),
    Rule(_CHANGING, ("EPERM",),
         "the mount namespace belongs to another user namespace, so rights in this one do not count",
         "mount_namespaces(7)", _foreign_mounts, "unshare --mount …"),
    Rule((*_CHANGING, "fsconfig"), ("EPERM", "EACCES"), "AppArmor lets ordinary users do nothing in a user namespace",
         "apparmor(7)", setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"), "nsbox doctor"),
    Rule((*_CHANGING, "fsconfig"), ("EPERM", "EACCES"), "a security module refuses it", "apparmor(7), selinux(8)",
         machine.security_module, "cat /sys/kernel/security/lsm"),
    Rule(("fsopen", "mount"), ("ENODEV",), "the kernel has no such type of file system", "filesystems(5)",
         machine.without_filesystem, "cat /proc/filesystems"),
    Rule(("mount",), ("EINVAL",), "the root directory here is no mount of its own, as in a plain chroot",
         "mount_namespaces(7)", _plain_root, "findmnt /", when=lambda case: _target(case) in ("/", "")),
    Rule(("mount", "umount2"), ("EINVAL",), "only at a mount point can mounts be changed or taken off", "umount(2)",
         _no_mount_point, "findmnt", when=lambda case: _target(case) != "/"),
    Rule(("umount2",), ("EINVAL",), "mounts that came from a more privileged mount namespace are locked together",
         "mount_namespaces(7)", _locked, "findmnt; nsbox map"),
    Rule(("umount2",), ("EBUSY",), "somebody works in it, or something is mounted below it", "umount(2)",
         lambda case: unknown("who, is not to be seen from here",
                              f"fuser -vm {quote(_place(case) or 'DIR')}; findmnt -R"),
         "fuser -vm DIR"),
    Rule(("open_tree", "mount_setattr", "move_mount"), ("EINVAL",),
         "it is no mount of this mount namespace, it is unbindable, or "
         "mounts below it are locked", "mount_namespaces(7)",
         lambda case: unknown("what the descriptor stood for is closed by now", "findmnt -R -o TARGET,PROPAGATION"),
         "findmnt -R -o TARGET,PROPAGATION"),
    Rule(("mount_setattr",), ("EINVAL", "EPERM"), "the file system, or the mount, cannot be shown with other ids",
         "mount_setattr(2)", _idmap, "nsbox doctor"),
    Rule(("fsconfig",), ("EINVAL",), "overlayfs does not take a layer: one on another overlay, or without attributes",
         "mount(8)", _no_overlay_layer, "sudo dmesg | tail"),
    Rule(("mount", "move_mount", "open_tree", "mount_setattr"), ("ENOSPC",), "the mount namespace is full",
         "mount_namespaces(7)", _too_many, "sysctl fs.mount-max; findmnt | wc -l"),
    Rule(("pivot_root",), ("EINVAL",), "the new root is no mount point", "pivot_root(2)", _no_mount_point, "findmnt"),
    Rule(("pivot_root",), ("EINVAL",), "the new root, or the mount around it, passes mounts on (shared)",
         "pivot_root(2)",
         _shared, "findmnt -o TARGET,PROPAGATION"),
    Rule(("pivot_root",), ("EINVAL",), "the present root is no mount point, as in a chroot", "pivot_root(2)",
         _plain_root,
         "findmnt /"),
    Rule(("pivot_root",), ("EINVAL",), "the present root is the kernel's first one (an initramfs): see --chroot",
         "pivot_root(2)", _initial_root, "findmnt -n -o FSTYPE /"),
    Rule(("pivot_root",), ("EBUSY",), "the new root is on the mount that is the root already", "pivot_root(2)",
         _same_mount, "findmnt --target DIR"),
    Rule(("chroot",), ("EPERM",), "chroot(2) needs CAP_SYS_CHROOT", "chroot(2)", lacks("SYS_CHROOT"),
         "grep CapEff /proc/self/status"),
    Rule(("mknodat",), ("EPERM",), "a device is made by who has CAP_MKNOD in the first user namespace", "mknod(2)",
         _first_root_alone, "nsbox explain error mknodat EPERM; sudo nsbox …"),
)  # fmt: skip

