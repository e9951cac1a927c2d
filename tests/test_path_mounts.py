"""No mount goes by a path: between a look at a path and its use a pod may put a link there (rows B01, B08).

Twice: what is written in the package, and what the kernel is asked for, seen by strace. Allowed are the calls whose
path leads nowhere: "" beside a descriptor, "." after fchdir(2), and "/" to change how mounts propagate.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import strace
from fakehost import NSBOX
from procfs import TOP

PACKAGE = TOP / "nsbox"
MODULES = sorted(PACKAGE.rglob("*.py"))
CALLS = "linux/syscalls.py"  # where the calls are bound
# The calls of linux/syscalls.py (and os.chroot) that take a path, the places of these, and what they may be.
LITERAL = {"mount_propagation": ((0,), "/"), "umount_detach": ((0,), "."), "pivot_root": ((0, 1), "."), "chroot": ((0,), "."),
           "open_tree": ((1,), "")}
# What each binding is given where it is called; "": anything.
BOUND = {
    "_mount": ("None", "", "None", "", "None"), "_umount2": ("", ""), "_pivot_root": ("", ""), "_open_tree": ("", "", ""),
    "_move_mount": ("", "b''", "", "b''", ""), "_mount_setattr": ("", "b''", "", "", ""),
}
PROGRAMS = {"mount", "umount", "fusermount3", "pivot_root", "chroot"}
# These write such lines, for people to read and to run.
BY_HAND = ("explain/",)
# What works inside a root file system, and so has a descriptor for each place.
IN_ROOTS = [PACKAGE / name for name in (
    "linux/mounts.py", "pod/rootfs.py", "pod/devices.py", "pod/files.py", "pod/confine.py", "pod/netnames.py", "pod/execute.py",
    "pod/accounts.py", "privilege/masks.py")]
CHANGING = {"mkdir", "makedirs", "mknod", "mkfifo", "symlink", "link", "rename", "replace", "unlink", "remove", "rmdir", "chown",
            "lchown", "chmod", "truncate", "utime", "setxattr"}


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Each call, and the last word of what is called."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func).rpartition(".")[2]


def by_path(path: Path, name: str) -> list[str]:
    """What a module says that mounts, or could mount, by a path."""
    found = []
    for node, called in calls(path):
        words = [ast.unparse(arg) for arg in node.args]
        if called in LITERAL and name != CALLS:
            places, only = LITERAL[called]
            if [words[place:place + 1] for place in places] != [[repr(only)]] * len(places):
                found.append(ast.unparse(node))
        if called in ("CDLL", "PyDLL") and name != CALLS:
            found.append(ast.unparse(node))  # another way to the same calls
        # Each binding is called through _call(binding, ...), by the one function of its name.
        if called == "_call" and words and words[0] in BOUND:
            given = BOUND[words[0]]
            if len(words) != len(given) + 1 or any(want not in ("", word) for word, want in zip(words[1:], given, strict=True)):
                found.append(ast.unparse(node))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in BOUND and ast.unparse(node.value) == "syscalls":
            found.append(ast.unparse(node))
        if isinstance(node, ast.List) and len(node.elts) > 1 and not name.startswith(BY_HAND):
            first = node.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and Path(first.value).name in PROGRAMS:
                found.append(ast.unparse(node))
    return found


def without_place(path: Path) -> list[str]:
    """What changes a file system by a path alone, not beside the descriptor of a place."""
    return [
        ast.unparse(node) for node, called in calls(path)
        if called in CHANGING and ast.unparse(node.func).startswith("os.")
        and not any((word.arg or "").endswith("dir_fd") for word in node.keywords)
        and not (node.args and ast.unparse(node.args[0]).endswith("fd"))
    ]


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_B01_no_module_mounts_by_a_path(path):
    """Red when: see the next test."""
    assert by_path(path, path.relative_to(PACKAGE).as_posix()) == []


@pytest.mark.parametrize("path", IN_ROOTS, ids=[str(path.relative_to(PACKAGE)) for path in IN_ROOTS])
def test_B01_what_works_in_a_root_has_a_descriptor_for_each_place(path):
    """Red when: see the next test."""
    assert without_place(path) == []


BROKEN = {
    "syscalls.mount_propagation(target, MountFlag.MS_REC)": "",
    "mount_propagation('/mnt', flags)": "",
    "syscalls.umount_detach(path)": "",
    "syscalls.pivot_root('.', old)": "",
    "syscalls.pivot_root(new, '.')": "",
    "os.chroot(rootfs)": "",
    "syscalls.open_tree(fd, 'etc', flags)": "",
    "syscalls._mount(b'/a', b'/b', None, 4096, None)": "",
    "ctypes.CDLL('libc.so.6').mount(b'/a', b'/b', None, 4096, None)": "",
    "subprocess.run(['mount', '--bind', a, b])": "",
    "command(['/bin/umount', place])": "",
    "_call(_mount, source, target, None, 4096, None)": CALLS,
    "_call(_mount, None, target, b'tmpfs', 0, None)": CALLS,
    "_call(_move_mount, fd, b'', AT_FDCWD, path, 4)": CALLS,
    "_call(_mount_setattr, AT_FDCWD, path, flags, a, b)": CALLS,
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_line_that_mounts_by_a_path_is_found(line, tmp_path):
    """Red when: by_path() leaves out the look that is for it."""
    module = tmp_path / "module.py"
    module.write_text(f"def function():\n    return {line}\n")
    assert by_path(module, BROKEN[line] or "pod/module.py")


@pytest.mark.parametrize("line", ["os.mkdir(path)", "os.mknod(root + '/dev/null', mode, 259)", "os.chown(path, 0, 0)"])
def test_a_line_that_works_in_a_root_by_a_path_is_found(line, tmp_path):
    """Red when: without_place() takes any first argument for a descriptor."""
    module = tmp_path / "module.py"
    module.write_text(line)
    assert without_place(module)
    module.write_text("os.mkdir('x', dir_fd=here); os.chmod(fd, 0o700); os.fchmod(fd, 0)")
    assert not without_place(module)


# ---- what the kernel is asked for ----

SEEN = "mount,umount2,pivot_root,chroot,move_mount,open_tree,fspick,mount_setattr"
# Each line of strace is one of these; what is between the places is of no matter.
ALLOWED = [
    re.compile(pattern) for pattern in (
        r'mount\(NULL, "/", NULL, [^"]*MS_(PRIVATE|SLAVE)[^"]*, NULL\)',
        r'umount2\("\.", MNT_DETACH\)',
        r'pivot_root\("\.", "\."\)',
        r'chroot\("\."\)',
        r'move_mount\(\d+[^"]*, "", \d+[^"]*, "", MOVE_MOUNT_F_EMPTY_PATH\|MOVE_MOUNT_T_EMPTY_PATH\)',
        r'open_tree\(\d+[^"]*, "", [^"]*AT_EMPTY_PATH[^"]*\)',
        r'mount_setattr\(\d+[^"]*, "", [^"]*AT_EMPTY_PATH[^"]*\)',
    )
]
VOLUMES = ["-v", "/tmp:/mnt", "-v", "/etc/hostname:/etc/name:ro", "--tmpfs", "/x/y/z"]
VERBS = {
    "create": ["create", "seen", "--rootfs", "busybox", *VOLUMES],
    "create without a root": ["create", "seen"],
    "create in place": ["create", "seen", "--rootfs", "busybox", "--in-place", *VOLUMES],
    "create --chroot": ["create", "seen", "--rootfs", "busybox", "--chroot"],
    "create --read-only": ["create", "seen", "--rootfs", "busybox", "--read-only"],
    "create --userns": ["create", "seen", "--rootfs", "busybox", "--userns", *VOLUMES],
    "create --net": ["create", "seen", "--rootfs", "busybox", "--net", "bridge"],
    "create --pause python": ["create", "seen", "--rootfs", "busybox", "--pause", "python"],
    "create --init": ["create", "seen", "--rootfs", "busybox", "--init", "sleep 1000"],
    "join": ["join", "there", "--", "true"],
    "join with a root": ["join", "there", "--rootfs", "busybox", *VOLUMES, "--", "true"],
    "join of a --userns": ["join", "apart", "--rootfs", "busybox", "--", "true"],
    "join --chroot": ["join", "there", "--rootfs", "busybox", "--chroot", "--", "true"],
    "run": ["run", "--rootfs", "busybox", *VOLUMES, "--", "true"],
}


@pytest.fixture
def pods(host):
    host.nsbox("create", "there", "--rootfs", "busybox", check=True)
    host.nsbox("create", "apart", "--rootfs", "busybox", "--userns", check=True)
    yield host
    host.nsbox("rm", "--force", "there", "apart", check=True)
    host.nsbox("rm", "--force", "seen")


@pytest.mark.needs_root
@pytest.mark.parametrize("verb", VERBS)
def test_B01_B08_the_kernel_is_asked_for_no_mount_by_a_path(pods, verb):
    """Red when: pivot_into() of linux/mounts.py says "./"."""
    status, _, err, log = strace(pods, f"trace={SEEN}", [*NSBOX, *VERBS[verb]])
    assert status == 0, err
    lines = [re.sub(r"^\d+ +", "", line) for line in log.splitlines()]
    asked = [line for line in lines if re.match(rf"({SEEN.replace(',', '|')})\(", line)]
    assert bool(asked) == (verb != "join"), asked  # who joins without a root of its own mounts nothing
    assert not any("unfinished" in line for line in asked), "two at once: to be read together first"
    assert [line for line in asked if not any(pattern.match(line) for pattern in ALLOWED)] == []
