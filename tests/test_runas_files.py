"""The passwd and group files of a root may be anything: to look a user up neither hangs nor leaks (row B10).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import errno
import os
import shutil
import stat
import sys

import pytest
from fakehost import NSBOX
from hostile import FEATURES, Canary, hostile_rootfs
from inpod import Racer, inside, pod

from nsbox.linux import mounts

PASSWD = sorted(feature for feature in FEATURES if feature.startswith("passwd "))
WAIT_S = 15  # a start of Python on a busy machine; a pipe without a writer blocks for ever
# Runs a command; says, as its last line, how many KiB it had resident at most.
MEASURED = [sys.executable, "-I", "-S", "-c",
            "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ); end = os.wait4(pid, 0); "
            "print(end[2].ru_maxrss); sys.exit(os.waitstatus_to_exitcode(end[1]))"]  # fmt: skip
RSS_MAX_KIB = 64 << 10
# Not id(1): busybox's asks the files of the root.
WHO = ["sh", "-c", "set -- $(grep ^Uid /proc/self/status); echo $2"]


def attempt(host, *words):
    """Run nsbox; (status, what it said, what it printed), once it was quick and small."""
    done = host.run([*MEASURED, *NSBOX, *words], timeout=WAIT_S)
    *printed, rss = done.stdout.splitlines()
    assert int(rss) < RSS_MAX_KIB
    assert "canary-secret" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    return done.returncode, done.stderr, printed


@pytest.mark.needs_root
@pytest.mark.parametrize("feature", PASSWD)
@pytest.mark.parametrize("way", ["join", "join --rootfs", "run"])
def test_B10_a_hostile_passwd_neither_hangs_nor_leaks(host, canary: Canary, tmp_path, feature, way):
    """A name is refused; a number needs no file. Red when: read_in_root is os.open and os.read, by the path."""
    root = hostile_rootfs(tmp_path, feature)
    words = ["run", "--rootfs", root] if way == "run" else ["join", "web", *(["--rootfs", root] if "rootfs" in way else [])]
    with pod(host, "web", "--rootfs", root):
        for user in ("app", "root:app") if way == "join" else ("app",):
            status, said, printed = attempt(host, *words, "-u", user, "--", "true")
            assert (status, printed) == (125, []), (user, said)
            assert said.startswith(f"nsbox: cannot use user '{user.partition(':')[0]}': /etc/passwd: "), said
            assert len(said.splitlines()) == 1
        for user in ("1000", "0:0") if way == "join" else ("1000",):
            status, said, printed = attempt(host, *words, "-u", user, "--", *WHO[:2], WHO[2] + "; echo $HOME")
            assert (status, said, printed) == (0, "", [user.partition(":")[0], "/"])


@pytest.mark.needs_root
@pytest.mark.parametrize("feature", PASSWD)
def test_B10_a_hostile_group_file_neither(host, canary: Canary, rootfs, feature):
    """Red when: as above; or _groups_with takes any error for no groups."""
    os.rename(rootfs / "etc/passwd", rootfs / "etc/kept")
    FEATURES[feature](rootfs) if feature != "passwd is huge" else (rootfs / "etc/passwd").write_bytes(b"\n" * (2 << 20))
    os.rename(rootfs / "etc/passwd", rootfs / "etc/group")
    os.rename(rootfs / "etc/kept", rootfs / "etc/passwd")
    for user, purpose in (("app:app", "use group 'app'"), ("app", "look up the groups of user 'app'")):
        status, said, printed = attempt(host, "run", "--rootfs", rootfs, "-u", user, "--", "true")
        assert (status, printed) == (125, []), (user, said)
        assert said.startswith(f"nsbox: cannot {purpose}: /etc/group: "), said
    assert attempt(host, "run", "--rootfs", rootfs, "-u", "app:7", "--", "true") == (0, "", [])
    os.unlink(rootfs / "etc/group")
    assert attempt(host, "run", "--rootfs", rootfs, "-u", "app", "--", "true") == (0, "", [])


@pytest.mark.needs_root
def test_B10_no_link_on_the_way_leads_to_the_hosts_files(host, canary: Canary, rootfs):
    """Red when: the file is read before the root is entered, by its path on the host."""
    host.run(["sh", "-c", "echo canary:x:0:0::/:/bin/sh > /canary/passwd"], check=True)
    with pod(host, "web", "--rootfs", "busybox"):
        for link in ("/canary", "../../../../canary", "/proc/1/root/canary", "/proc/self/root"):
            shutil.rmtree(rootfs / "etc") if not (rootfs / "etc").is_symlink() else os.unlink(rootfs / "etc")
            os.symlink(link, rootfs / "etc")
            status, said, _ = attempt(host, "join", "web", "--rootfs", rootfs, "-u", "canary", "--", "true")
            assert status == 125 and said.startswith("nsbox: cannot use user 'canary': "), (link, said)
    host.run(["rm", "/canary/passwd"], check=True)
    canary.mark()


@pytest.mark.needs_root
def test_B10_a_device_of_another_programs_root_is_not_even_opened(host, rootfs):
    """Its root has no nodev. Red when: read_in_root does not look at the file before it opens it."""
    os.unlink(rootfs / "etc/passwd")
    os.mknod(rootfs / "etc/passwd", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    stranger = host.popen(["unshare", "--mount", "chroot", rootfs, "/bin/sh", "-c", "echo ready; exec sleep 1000"])
    try:
        assert stranger.stdout.readline() == "ready\n"
        [pid] = set(host.processes()) - {1}
        status, said, _ = attempt(host, "join", str(pid), "-u", "app", "--", "true")
        assert (status, said) == (125, "nsbox: cannot use user 'app': /etc/passwd: it is no plain file\n")
        log = host.run(["strace", "-f", "-qq", "-e", "trace=openat2", *NSBOX, "join", str(pid), "-u", "app", "--", "true"])
        opened = [line for line in log.stderr.splitlines() if "/etc/passwd" in line and "openat2" in line]
        assert opened and all("O_PATH" in line for line in opened), opened
    finally:
        stranger.kill()
        stranger.communicate()


@pytest.mark.needs_root
def test_B10_while_somebody_swaps_the_file_for_a_pipe(host, rootfs):
    """Red when: read_in_root opens without O_NONBLOCK and does not look again at what it opened."""
    os.mkfifo(rootfs / "etc/pipe")
    with pod(host, "web", "--rootfs", rootfs, "--in-place"):
        with Racer(host, rootfs / "etc/passwd", rootfs / "etc/pipe") as racer:
            for _ in range(20):
                status, said, printed = attempt(host, "join", "web", "-u", "app:5", "--", *WHO)
                assert (status, printed) == (0, ["1000"]) or (status == 125 and "it is no plain file" in said), said
        assert racer.swaps > 1000
        assert inside(host, "web", "true") == ""


# ---- the reader ----

def read(top, name, most=100):
    fd = os.open(top, os.O_PATH)
    try:
        return mounts.read_in_root(fd, name, most)
    finally:
        os.close(fd)


def fails(top, name, code, most=100):
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        read(top, name, most)
    assert (caught.value.errno, caught.value.filename) == (code, name)
    assert os.listdir("/proc/self/fd") == before
    return True


def test_a_small_file_is_read_whole_and_a_bigger_one_not_at_all(tmp_path):
    """Red when: the bound is off by one, or the size alone is looked at: a file of /proc has none."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read(tmp_path, "/file") == b"x" * 100
    assert fails(tmp_path, "/file", errno.EFBIG, 99)
    (tmp_path / "empty").touch()
    assert read(tmp_path, "empty", 0) == b""
    assert len(read("/proc/self", "status", 1 << 20)) > 100
    assert fails("/proc/self", "status", errno.EFBIG)
    (tmp_path / "up").symlink_to("../..")
    (tmp_path / "here").symlink_to("/file")
    assert read(tmp_path, "up/file") == b"x" * 100
    assert fails(tmp_path, "here", errno.ELOOP) and fails(tmp_path, "none", errno.ENOENT)
    os.mkfifo(tmp_path / "pipe")
    assert fails(tmp_path, "pipe", errno.EINVAL) and fails(tmp_path, ".", errno.EINVAL)
