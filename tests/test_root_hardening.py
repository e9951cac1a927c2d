"""Ways out of a root file system: mounts raced out of it, double chroot, a root left behind.

Row ids as in the list of security cases. Each test says how to break the build so that it is red.
"""

from pathlib import Path

import pytest
from fakehost import FakeHost
from inpod import Racer, bind_script, inside, pod, python_path, with_python

from nsbox.privilege import masks

pytestmark = pytest.mark.needs_root

LEAST_SWAPS = 1000
CREATES = 100

# Makes pods and looks where the volume is: inside, and everywhere in the pod's mount namespace.
# Arguments: rootfs, volume, how many, mode. One process makes them all, as a library user would.
_MAKE_MANY = """
import subprocess, sys, time
import nsbox
rootfs, volume, count, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
good = failed = 0
end = time.monotonic() + 60
while good < count and time.monotonic() < end:
    pod = nsbox.Pod(rootfs=rootfs, volumes=[volume], in_place=True, chroot=mode == "chroot")
    try:
        pod.create()
    except nsbox.NsboxError as err:
        print("failed:", err, err.__cause__)
        continue
    with pod:
        if mode == "chroot":  # nsenter shows the namespace's own root, so the host's tree too
            seen = subprocess.check_output(
                ["nsenter", "-t", str(pod.pid), "-m", "cat", "/proc/self/mountinfo"], text=True)
            lines = [line for line in seen.splitlines() if "/volume " in line]
            out = [line for line in lines if " /canary" in line]
        else:
            seen = pod.run(["cat", "/proc/self/mountinfo"], capture_output=True, text=True).stdout
            lines = [line for line in seen.splitlines() if "/volume " in line]
            out = []
        if out or len(lines) != 1:
            print("outside:", out or lines)
        good += 1
print("good:", good)
"""


def raced(host: FakeHost, rootfs: Path, target: str, mode: str, racer: Racer) -> None:
    """Make pods with a volume at `target` while the racer swaps; none may go astray."""
    source = host.work / "volume"
    source.mkdir(exist_ok=True)
    with racer:
        done = host.python(_MAKE_MANY, str(rootfs), f"{source}:{target}", str(CREATES), mode, timeout=90)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("outside")], lines
    assert lines[-1] == f"good: {CREATES}", lines
    assert len(lines) <= CREATES // 2, f"too many were refused: {lines[:5]}"
    assert racer.swaps >= LEAST_SWAPS, racer.swaps


def racing_rootfs(rootfs: Path, name: str, link: str) -> None:
    """Make vol/NAME a directory and vol/lnk a link that leads, inside, to another directory."""
    for path in (rootfs / "vol" / name, rootfs / "canary"):
        path.mkdir(parents=True)
    (rootfs / "vol/lnk").symlink_to(link)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pivot", "chroot"])
@pytest.mark.parametrize("link", ["/canary", "../../../../../../../../canary"])
def test_B01_a_mount_never_follows_a_link_swapped_in(host, canary, rootfs, link, mode):
    """The rootfs itself is used (in place), so that the swap goes on under the mounts.

    Red when: pod/rootfs.py opens a target by its path, `os.open(root.path + target, os.O_PATH)`,
    instead of by openat2, even after an lstat that found no link.
    """
    racing_rootfs(rootfs, "dst", link)
    raced(host, rootfs, "/vol/dst", mode, Racer(host, rootfs / "vol/dst", rootfs / "vol/lnk"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pivot", "chroot"])
def test_B08_parents_of_a_target_are_never_made_outside(host, canary, rootfs, mode):
    """Red when: mkdir_in_root makes directories by path, `os.makedirs(root.path + target)`."""
    racing_rootfs(rootfs, "a", "../../../../../../../../canary")
    raced(host, rootfs, "/vol/a/b/c", mode, Racer(host, rootfs / "vol/a", rootfs / "vol/lnk"))
    canary.check()


# ---- the double chroot ----

# The classic: make a directory below the root the new root, while one's own place stays above it;
# from there up is past every root. Says what it sees at the top.
_ESCAPE = """
import os
try:
    os.chroot("/below")
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
except PermissionError as err:
    print("chroot:", err.strerror)
print("secret" if os.path.exists("/canary/marker") else "nothing")
"""


def escapable(rootfs: Path) -> list[str]:
    """Options for a pod that can run ESCAPE. Nothing is made by it: a broken build runs it outside."""
    (rootfs / "below").mkdir()
    return with_python(rootfs)


ESCAPE = (python_path(), "-I", "-S", "-c", _ESCAPE)


def test_B12_a_double_chroot_leaves_no_pod_with_a_pivoted_root(host, canary, rootfs):
    """Red when: pod/rootfs.py calls chroot_into() where it should call pivot_into()."""
    options = escapable(rootfs)
    script = bind_script(options) + 'exec chroot "$@"'
    naked = host.run(["unshare", "--mount", "sh", "-c", script, "sh", str(rootfs), *ESCAPE], check=True)
    assert naked.stdout == "secret\n", "the escape itself does not work, so it proves nothing"
    with pod(host, "p", "--rootfs", rootfs, *options):
        for join in ([], ["--rootfs", str(rootfs), *options], ["--share", "net"]):
            for may, said in ((["--cap-add", "SYS_CHROOT"], "nothing\n"), ([], "chroot: Operation not permitted\nnothing\n")):
                assert host.nsbox("join", "p", *join, *may, "--", *ESCAPE).stdout == said


@pytest.mark.parametrize("join", [[], ["--share", "net,ipc,uts"], ["--share", "+mnt"], ["--share", "none"]], ids=str)
def test_B12_members_of_a_chrooted_pod_stay_in_its_root_and_may_not_chroot(host, canary, rootfs, join):
    """All rights do not say this one: it has to be named.

    Red when: settle() leaves CAP_SYS_CHROOT in "all" of a chrooted member, or one with a mount
    namespace of its own is left at the root of the pod's, which is the host's tree.
    """
    options = escapable(rootfs)
    (rootfs / "marker").write_text("the pod's\n")
    with pod(host, "p", "--chroot", "--rootfs", rootfs, *options):
        for may in ([], ["--privileged"], ["--cap-add", "ALL"]):
            done = host.nsbox("join", "p", *join, *may, "--", *ESCAPE)
            assert done.stdout == "chroot: Operation not permitted\nnothing\n", done
        assert inside(host, "p", "cat /marker; ls -d /canary || :", *join) == "the pod's"


def test_B12_a_chrooted_member_and_a_chrooted_init_may_not_chroot(host, canary, rootfs):
    """Red when: settle() is told for no member, or for no --init, that its root is a plain chroot."""
    options = ["--chroot", "--rootfs", str(rootfs), *escapable(rootfs)]
    with pod(host, "p"):
        done = host.nsbox("join", "p", *options, "--privileged", "--", *ESCAPE)
        assert done.stdout == "chroot: Operation not permitted\nnothing\n", done
    script = "chroot / true 2>/tmp/said; echo $? >>/tmp/said; exec sleep 300"
    with pod(host, "q", *options, "--privileged", "--in-place", "--init", f"sh -c '{script}'"):
        said = inside(host, "q", "for n in $(seq 100); do [ -s /tmp/said ] && break; sleep 0.05; done; cat /tmp/said")
    assert "Operation not permitted" in said and not said.endswith("\n0"), said


# ---- what is mounted inside ----

OURS = {
    ("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"), ("/dev/mqueue", "mqueue"),
}


def masked_ones(found):
    """Those of `found` that cover or close a part of /proc or /sys: see test_masks.py."""
    places = {f"/proc/{name}" for name in (*masks.READ_ONLY_IN_PROC, *masks.MASKED_IN_PROC)}
    places |= {f"/sys/{name}" for name in masks.MASKED_IN_SYS}
    return [one for one in found if one[0] in places and one[2] in ("/", "/null", one[0].removeprefix("/proc"))]


def mounts_inside(host: FakeHost, *options: str) -> list[tuple[str, str, str]]:
    """(target, type, root) of each mount that a member sees."""
    found = []
    for line in inside(host, "p", "cat /proc/self/mountinfo", *options).splitlines():
        before, _, after = line.partition(" - ")
        found.append((before.split()[4], after.split()[0], before.split()[3]))
    return found


def is_root_of_mount(found, path):
    """Whether mountinfo's path `found`, counted from the top of the file system, is `path`, counted from
    our root: either of the two may lie deeper."""
    return found.endswith(str(path)) or str(path).endswith(found) and found != "/"


@pytest.mark.parametrize("how", [[], ["--in-place"], ["--read-only"]], ids=str)
@pytest.mark.parametrize("who", ["pod", "member"])
def test_B14_nothing_is_mounted_inside_but_what_is_ours(host, canary, rootfs, how, who):
    """Red when: pivot_into() leaves out umount_detach("."), so that the old root stays attached."""
    volume = host.work / "volume"
    volume.mkdir()
    options = ["--rootfs", str(rootfs), *how, "-v", f"{volume}:/vol", "--tmpfs", "/mem"]
    with pod(host, "p", *(options if who == "pod" else [])):
        found = mounts_inside(host, *(options if who == "member" else []))
        found = [one for one in found if one not in masked_ones(found)]
        by_target = {target: (fstype, root) for target, fstype, root in found}
        assert len(by_target) == len(found), found
        assert {(target, fstype) for target, fstype, _ in found} - {("/", by_target["/"][0])} == \
            OURS | {("/vol", by_target["/vol"][0]), ("/mem", "tmpfs")}
        assert is_root_of_mount(by_target["/vol"][1], volume)
        assert by_target["/"][0] == "overlay" or is_root_of_mount(by_target["/"][1], rootfs)
        assert all(root == "/" for target, _, root in found if target not in ("/", "/vol"))
        text = inside(host, "p", "cat /proc/self/mountinfo /proc/self/mounts", *(options if who == "member" else []))
    assert "canary" not in text


def test_B14_the_mounts_inside_are_those_of_this_very_rootfs(host, canary, rootfs):
    """A link for a directory below the root is followed inside it, not outside.

    Red when: pod/rootfs.py opens targets without RESOLVE_IN_ROOT."""
    (rootfs / "canary").symlink_to("/usr")
    volume = host.work / "volume"
    volume.mkdir()
    (volume / "here").write_text("")
    with pod(host, "p", "--rootfs", rootfs, "-v", f"{volume}:/canary/lib/x"):
        assert inside(host, "p", "ls /usr/lib/x") == "here"
    assert not (rootfs / "usr/lib/x").exists()
