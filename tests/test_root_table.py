"""Odd root file systems and odd paths: each works, or is refused in one clear line."""

import os
import subprocess
from pathlib import Path

import pytest
from hostile import DIRECTORIES, replace
from inpod import inside, mount_table, pod, refused

pytestmark = pytest.mark.needs_root

ODD = "a b\nc,d:e\\f\"g'h\\040=é"


def listing(path: Path) -> str:
    """Every name below `path` with mode, inode, size, owner, time and target."""
    done = subprocess.run(["find", path, "-printf", "%P %m %i %s %U:%G %T@ %l\\n"],
                          capture_output=True, check=True, text=True, errors="surrogateescape")
    return "\n".join(sorted(done.stdout.splitlines()))


# ---- read-only and devices ----

def test_B20_a_read_only_volume_is_read_only_all_the_way_down(host, rootfs):
    """Red when: _mount_volume() sets the attributes with recursive=False."""
    tree = host.work / "tree"
    (tree / "sub").mkdir(parents=True)
    host.run(["mount", "-t", "tmpfs", "sub", str(tree / "sub")], check=True)
    host.run(["mkdir", str(tree / "sub/deep")], check=True)
    host.run(["mount", "-t", "tmpfs", "deep", str(tree / "sub/deep")], check=True)
    script = "for d in /t /t/sub /t/sub/deep; do touch $d/x 2>/dev/null && echo $d; done; :"
    for volume, writable in ((f"{tree}:/t:ro", ""), (f"{tree}:/t", "/t\n/t/sub\n/t/sub/deep")):
        with pod(host, "p", "--rootfs", rootfs, "-v", volume):
            assert inside(host, "p", script) == writable
        with pod(host, "p"):
            assert inside(host, "p", script, "--rootfs", rootfs, "-v", volume) == writable
    host.run(["umount", "-R", str(tree / "sub")], check=True)
    (tree / "x").unlink()


@pytest.mark.parametrize("how", [[], ["--in-place"], ["--chroot"]], ids=str)
def test_B22_device_nodes_of_a_rootfs_or_volume_do_not_work(host, rootfs, how):
    """Red when: the root is mounted without MOUNT_ATTR_NODEV, or volumes without MNT_BASE_ATTRS."""
    volume = host.work / "volume"
    volume.mkdir()
    for path in (rootfs / "tmp/node", volume / "node"):
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))
    script = "for n in /tmp/node /vol/node /dev/null; do (echo x > $n) 2>/dev/null && echo $n; done; " \
             "mknod /tmp/n2 c 1 3 2>/dev/null && (echo x > /tmp/n2) 2>/dev/null && echo made; :"
    options = ["--rootfs", str(rootfs), *how, "-v", f"{volume}:/vol"]
    with pod(host, "p", *options):
        for may in ([], ["--cap-add", "MKNOD"]):
            assert inside(host, "p", script, *may) == "/dev/null"
            assert inside(host, "p", script, *options, *may) == "/dev/null"
        assert inside(host, "p", "mknod /tmp/n3 c 1 3 && echo made", "--cap-add", "MKNOD") == "made"


# ---- the rootfs itself ----

@pytest.fixture(params=["plain", "relative", "slash", "doubled", "dots", "link", "link in the path", "closed", "tmpfs",
                        "read-only", "overlay", "odd name"])
def given(request, host, rootfs):
    """(what to write after --rootfs, where to stand) for one and the same tree."""
    there = host.work / "there"
    there.mkdir()
    (host.scratch / "empty").mkdir()
    mounted = {"tmpfs": ["-t", "tmpfs", "there"], "read-only": ["-o", "bind,ro", str(rootfs)],
               "overlay": ["-t", "overlay", "-o", f"lowerdir={rootfs}:{host.scratch}/empty", "there"]}.get(request.param)
    if mounted:
        host.run(["mount", *mounted, str(there)], check=True)
        if request.param == "read-only":
            host.run(["mount", "-o", "remount,bind,ro", str(there)], check=True)
        if request.param == "tmpfs":
            host.run(["cp", "-a", f"{rootfs}/.", str(there)], check=True)
    elif request.param == "closed":
        rootfs.chmod(0o700)
    elif request.param == "odd name":
        rootfs.rename(there / ODD)
    elif request.param.startswith("link"):
        there.rmdir()
        there.symlink_to(rootfs if request.param == "link" else rootfs.parent)
    yield {
        "plain": (str(rootfs), "/"), "relative": (f"./{rootfs.name}", rootfs.parent), "slash": (f"{rootfs}/", "/"),
        "doubled": (f"/{rootfs}//", "/"), "dots": (f"{rootfs}/usr/../.", "/"),
        "link in the path": (str(there / rootfs.name), "/"), "closed": (str(rootfs), "/"),
        "odd name": (str(there / ODD), "/"),
    }.get(request.param, (str(there), "/"))
    if mounted:
        host.run(["umount", str(there)], check=True)
    elif request.param == "odd name":
        (there / ODD).rename(rootfs)


def test_B28_a_rootfs_may_be_named_and_made_in_many_ways(host, given):
    """Red when: the overlay's lowerdir is given as a path instead of a descriptor (the odd name)."""
    name, where = given
    before = mount_table(host)
    done = host.nsbox("create", "p", "--rootfs", name, cwd=where)
    assert done.returncode == 0, done.stderr
    try:
        assert inside(host, "p", "head -n1 /etc/passwd; echo x > /tmp/x && echo w").endswith("\nw")
        options = ["--rootfs", name, "--chroot", "--read-only"]
        done = host.nsbox("join", "p", *options, "--", "sh", "-c", "echo x > /tmp/x; ls /", cwd=where)
        assert done.stdout.split() == sorted({path.split("/")[0] for path in DIRECTORIES}), done
        assert "Read-only" in done.stderr
    finally:
        assert host.nsbox("rm", "-f", "p").returncode == 0
    assert mount_table(host) == before


def test_B28_the_host_s_root_is_refused_however_it_is_spelled(host, rootfs):
    """Red when: _open_rootfs() compares the text with "/" instead of the inode."""
    replace(rootfs / "var", "/")
    for name in ("/", "//", "/.", "/usr/..", "/proc/1/root", str(rootfs / "var")):
        said = refused(host, "create", "p", "--rootfs", name)
        assert "the host's own root" in said, said
    assert "the host's own root" in refused(host, "run", "--rootfs", "..", "--", "true", status=125)


NO_ROOTFS = {
    "missing": (lambda path: None, "No such file"),
    "file": (lambda path: path.write_text(""), "Not a directory"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "loop": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "pipe": (lambda path: os.mkfifo(path), "Not a directory"),
}


@pytest.mark.parametrize("what", NO_ROOTFS)
def test_B28_what_is_no_directory_is_refused(host, what):
    """Red when: open_sources() opens without O_DIRECTORY."""
    make, reason = NO_ROOTFS[what]
    path = host.work / "it"
    make(path)
    for verb in (["create", "p", "--rootfs", path], ["run", "--rootfs", path, "--", "true"]):
        said = refused(host, *verb)
        assert said.startswith(f"nsbox: cannot use rootfs '{host.work}/") and reason in said, said
    with pod(host, "q"):
        done = host.nsbox("join", "q", "--rootfs", path, "--", "true")
        assert done.returncode == 125 and done.stderr.startswith("nsbox: cannot use rootfs ") and reason in done.stderr, done


def test_B28_an_unknown_name_says_where_to_look(host):
    """Red when: resolve() takes any word for a directory."""
    done = host.nsbox("create", "p", "--rootfs", "no-such-tree")
    assert done.returncode == 125 and "cannot find rootfs 'no-such-tree'" in done.stderr
    assert "nsbox rootfs ls" in done.stderr


# ---- it is not changed ----

@pytest.mark.parametrize("how", [[], ["--chroot"], ["--read-only"]], ids=str)
def test_B29_nothing_of_the_rootfs_is_changed(host, rootfs, how):
    """Two pods and two members on one tree, which lacks even the mount points.

    Red when: the root is used in place by default.
    """
    for name in ("proc", "sys", "dev"):
        (rootfs / name).rmdir()
    volume = host.work / "volume"
    volume.mkdir()
    before = listing(rootfs)
    options = ["--rootfs", str(rootfs), *how, "-v", f"{volume}:/new/vol", "--tmpfs", "/mem"]
    with pod(host, "p", *options), pod(host, "q", *options):
        for name in ("p", "q"):
            inside(host, name, "touch /tmp/x; rm -r /etc; chmod 0 /bin; ls /new/vol", *options)
            inside(host, name, "touch /tmp/x; rm -r /etc; chmod 0 /tmp; ls /new/vol /proc/1")
        assert listing(rootfs) == before
    assert listing(rootfs) == before


def test_B30_odd_characters_in_every_path(host, rootfs):
    """Spaces, newlines, commas, colons, quotes and backslashes mean nothing.

    Red when: a mount option is joined with commas, as "lowerdir=" + path.
    """
    odd = host.work / ODD
    odd.mkdir()
    (odd / ODD).write_text("content\n")
    before = mount_table(host)
    quoted = ODD.replace('"', '""')
    bind = f'type=bind,"src={host.work}/{quoted}","dst=/x/{quoted}"'
    memory = f'type=tmpfs,"dst=/y/{quoted}",tmpfs-mode=0700'
    with pod(host, "p", "--rootfs", rootfs, "--mount", bind, "--mount", memory):
        done = host.nsbox("join", "p", "--", "cat", f"/x/{ODD}/{ODD}")
        assert done.stdout == "content\n", done
        done = host.nsbox("join", "p", "-w", f"/y/{ODD}", "--", "stat", "-c", "%a", ".")
        assert done.stdout == "700\n", done
        for verb in ("inspect", "ls"):
            assert "content" not in host.nsbox(verb, *(["p"] if verb == "inspect" else [])).stdout
    assert mount_table(host) == before


def test_B34_a_rootfs_moved_away_does_not_matter_any_more(host, canary, rootfs):
    """Red when: join looks up the pod's rootfs by its recorded path."""
    (rootfs / "marker").write_text("the pod's\n")
    moved = rootfs.with_name(rootfs.name + "-moved")
    with pod(host, "p", "--rootfs", rootfs):
        rootfs.rename(moved)
        rootfs.symlink_to("/canary")
        try:
            assert inside(host, "p", "cat /marker") == "the pod's"
            assert inside(host, "p", "cat /marker", "--share", "net") == "the pod's"
            assert host.nsbox("inspect", "p").returncode == host.nsbox("ps", "p").returncode == 0
            assert host.nsbox("rm", "-f", "p").returncode == 0
        finally:
            rootfs.unlink()
            moved.rename(rootfs)
