"""A rootfs that lies about its directories, and destinations where nothing may be mounted."""

import shutil

import pytest
from hostile import replace
from inpod import inside, pod, refused

pytestmark = pytest.mark.needs_root

ORDINARY = "must be an ordinary directory"


WAYS = (["create", "p"], ["create", "p", "--in-place"], ["create", "p", "--chroot"])
LINKS = ("/canary", "/bad", "../../canary", "../../../../../../canary/dir", "tmp")


def refused_as_link(host, rootfs, name: str) -> None:
    """Whatever the link leads to, and however the root is entered."""
    for link in (*LINKS, name):
        replace(rootfs / name, link)
        for way in WAYS if link == "/canary" else WAYS[:2]:
            said = refused(host, *way, "--rootfs", rootfs)
            assert ORDINARY in said and f"/{name}" in said, said
        assert (rootfs / name).is_symlink()
    assert ORDINARY in refused(host, "run", "--rootfs", rootfs, "--", "true")


@pytest.mark.rootless_too
def test_B02_a_proc_that_is_a_link_is_refused(host, canary, rootfs):
    """Red when: own_directory() follows links (symlinks=True)."""
    refused_as_link(host, rootfs, "proc")


@pytest.mark.rootless_too
def test_B03_a_sys_that_is_a_link_is_refused(host, canary, rootfs):
    """Red when: own_directory() follows links (symlinks=True)."""
    refused_as_link(host, rootfs, "sys")


@pytest.mark.rootless_too
def test_B04_a_dev_that_is_a_link_is_refused(host, canary, rootfs):
    """Red when: own_directory() follows links (symlinks=True)."""
    refused_as_link(host, rootfs, "dev")


@pytest.mark.parametrize("how", [[], ["--in-place"], ["--chroot"]], ids=str)
def test_B04_what_a_rootfs_has_in_its_dev_is_never_touched(host, canary, rootfs, how):
    """Links in place of pts, shm, mqueue, ptmx and the nodes: ours lie in a tmpfs above them.

    Red when: mount_dev() makes the nodes in the directory of the rootfs (leave mount_at out).
    """
    for name in ("pts", "shm", "mqueue", "ptmx", "null", "zero", "tty", "fd", "stdin"):
        (rootfs / "dev" / name).symlink_to("../../../../canary/" + name)
    with pod(host, "p", "--rootfs", rootfs, *how):
        assert inside(host, "p", "echo x > /dev/null; stat -c %t:%T /dev/null; readlink /dev/ptmx") == "1:3\npts/ptmx"
        assert inside(host, "p", "echo x > /dev/null; stat -c %t:%T /dev/null", "--rootfs", rootfs, *how) == "1:3"
        canary.check()
    assert len(list((rootfs / "dev").iterdir())) == 9 and all(path.is_symlink() for path in (rootfs / "dev").iterdir())


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_B02_a_file_in_the_place_of_a_directory_is_refused(host, rootfs, name):
    """Red when: own_directory() opens without O_DIRECTORY and mounts whatever it got."""
    (rootfs / name).rmdir()
    (rootfs / name).write_text("")
    assert ORDINARY in refused(host, "create", "p", "--rootfs", rootfs)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_B02_a_member_with_such_a_rootfs_is_refused_too(host, canary, rootfs, name):
    """Red when: own_directory() follows links (symlinks=True)."""
    replace(rootfs / name, "/canary")
    with pod(host, "p"):
        done = host.nsbox("join", "p", "--rootfs", rootfs, "--", "true")
        assert done.returncode == 125 and ORDINARY in done.stderr, done


# ---- destinations ----

BAD_TARGETS = [
    "", "/", "//", "/.", "/..", "/../canary", "/a/../b", "/a/..", "x", "./x", "../x",
    "/proc", "/proc/", "//proc/./sys", "/proc/self", "/proc/sys", "/proc/self/attr", "/proc/self/fd/3",
    "/sys", "/sys/fs/cgroup", "/dev", "/dev/", "/dev/pts/0", "/dev/null", "/dev/mqueue",
]


@pytest.mark.parametrize("option", ["-v", "--mount", "--tmpfs"])
def test_B31_bad_destinations_are_wrong_use_and_change_nothing(host, canary, rootfs, option):
    """Also B07: destinations at and below /proc.

    Red when: target_fault() of spec.py says "" to one of them.
    """
    before = sorted(path.name for path in rootfs.iterdir())
    for target in BAD_TARGETS:
        word = {"-v": f"/canary/dir:{target}", "--mount": f"type=bind,src=/canary/dir,dst={target}",
                "--tmpfs": target}[option]
        said = refused(host, "create", "p", "--rootfs", rootfs, "--in-place", option, word, status=2)
        assert said.startswith(f"nsbox: cannot use {'volume' if option == '-v' else option.strip('-')} "), said
    assert sorted(path.name for path in rootfs.iterdir()) == before


@pytest.mark.parametrize("option", ["-v", "--tmpfs"])
def test_B07_no_link_of_the_rootfs_leads_a_volume_into_proc_sys_or_dev(host, canary, rootfs, option):
    """Red when: pod/rootfs.py does not look where the target really is."""
    for link, below in (("/proc", ""), ("/proc", "/self/attr"), ("/proc/sys", "/kernel"), ("../proc/self", ""),
                        ("/sys", "/fs"), ("/dev", ""), ("dev", "/pts"), ("/dev/mqueue", "")):
        replace(rootfs / "evil", link)
        word = f"/canary/dir:/evil{below}" if option == "-v" else f"/evil{below}"
        said = refused(host, "create", "p", "--rootfs", rootfs, option, word)
        assert "nothing may be mounted" in said, said


def test_B31_a_destination_below_a_link_of_the_rootfs_stays_inside(host, canary, rootfs):
    """Red when: targets are opened without RESOLVE_IN_ROOT."""
    (rootfs / "abs").symlink_to("/var")
    (rootfs / "up").symlink_to("../../../../../../var")
    (rootfs / "canary").symlink_to("/etc")
    mount = ["-v", "/canary/dir:/abs/one", "-v", "/canary/dir:/up/two", "-v", "/canary/marker:/canary/three:ro"]
    with pod(host, "p", "--rootfs", rootfs, *mount):
        assert inside(host, "p", "ls /var/one /var/two; cat /etc/three") == \
            "/var/one:\nfile\n\n/var/two:\nfile\ncanary-secret"


@pytest.mark.rootless_too
def test_B31_a_dangling_link_as_destination_is_refused(host, canary, rootfs):
    """Red when: mkfile_in_root() makes the file with neither O_EXCL nor O_NOFOLLOW."""
    (rootfs / "gone").symlink_to("/canary/dir/new")
    refused(host, "create", "p", "--rootfs", rootfs, "--in-place", "-v", "/canary/dir:/gone")
    refused(host, "create", "p", "--rootfs", rootfs, "--in-place", "-v", "/canary/marker:/gone")
    canary.check()
    assert not (rootfs / "canary").exists()


def test_B31_a_destination_below_a_file_is_refused(host, canary, rootfs):
    """Red when: mkdir_in_root() does not open each component with O_DIRECTORY."""
    refused(host, "create", "p", "--rootfs", rootfs, "-v", "/canary/dir:/etc/passwd/x")
    refused(host, "create", "p", "--rootfs", rootfs, "-v", "/canary/dir:/etc/passwd")
    refused(host, "create", "p", "--rootfs", rootfs, "-v", "/canary/marker:/etc")


# ---- /proc of the rootfs ----

@pytest.mark.rootless_too
def test_B07_a_fake_proc_in_the_rootfs_is_covered(host, canary, rootfs):
    """A tree proc/self/{fd,attr} in the rootfs: what nsbox and members use is the kernel's.

    Red when: the mount of /proc is left out for a rootfs that has a /proc/self.
    """
    fake = rootfs / "proc/self"
    (fake / "fd").mkdir(parents=True)
    (fake / "attr").mkdir()
    for number in range(20):
        (fake / "fd" / str(number)).symlink_to("/canary/marker")
    for name in ("attr/exec", "setgroups", "uid_map", "timens_offsets"):
        (fake / name).write_text("fake")
    look = "readlink /proc/self; ls /proc/self/fd | wc -l; stat -f -c %t /proc; head -n1 /proc/self/status"
    with pod(host, "p", "--rootfs", rootfs, "--in-place"):
        for options in ([], ["--rootfs", str(rootfs)], ["--share", "net"]):
            number, fds, fstype, status = inside(host, "p", look, *options).splitlines()
            assert number.isdigit() and int(fds) <= 4 and fstype == "9fa0" and status.startswith("Name:")
    assert (fake / "uid_map").read_text() == (fake / "attr/exec").read_text() == "fake"
    shutil.rmtree(fake)
