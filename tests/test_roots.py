"""The root of a pod and of a member: copy-on-write, volumes, tmpfs, /proc and /dev, environment."""

import os

import pytest
from fakehost import NSBOX
from inpod import detached, inside, pod, refused

pytestmark = pytest.mark.needs_root

COUNT_IPC = "ls /dev/shm /dev/mqueue | wc -l"


# ---- copy-on-write ----

def test_two_members_of_one_rootfs_do_not_see_each_others_changes(host, rootfs):
    with pod(host, "p", "--rootfs", rootfs), detached(host, "p", "--rootfs", rootfs, argv=(
            "sh", "-c", "echo one > /who; rm /etc/group; mkfifo /tmp/go; cat /tmp/go; sleep 300")):
        inside(host, "p", "until grep -qs 'sleep 300' /proc/[0-9]*/cmdline /dev/null; do [ -d /proc/3 ] && break; done")
        assert inside(host, "p", "echo two > /who; cat /who; ls /etc/group", "--rootfs", rootfs) == "two\n/etc/group"
        assert inside(host, "p", "cat /who 2>&1 || ls /etc") .count("group") == 1
    assert not (rootfs / "who").exists() and (rootfs / "etc/group").exists()


def test_members_without_a_rootfs_of_their_own_share_the_pod_s(host, rootfs):
    with pod(host, "p", "--rootfs", rootfs):
        inside(host, "p", "echo one > /who")
        assert inside(host, "p", "cat /who") == "one"
        assert inside(host, "p", "cat /who; echo two > /who", "--share", "net") == "one"
        assert inside(host, "p", "cat /who") == "two"
    assert not (rootfs / "who").exists()


def test_in_place_writes_stay(host, rootfs):
    with pod(host, "p", "--rootfs", rootfs, "--in-place"):
        inside(host, "p", "echo pod > /one; rm /etc/group")
        inside(host, "p", "cat /one && echo member > /two", "--rootfs", rootfs, "--in-place")
        assert inside(host, "p", "cat /two") == "member"
    assert (rootfs / "one").read_text() == "pod\n" and (rootfs / "two").read_text() == "member\n"
    assert not (rootfs / "etc/group").exists()


@pytest.mark.parametrize("how", [[], ["--in-place"], ["--chroot"]], ids=str)
def test_read_only_lets_nothing_be_written_but_to_volumes(host, rootfs, how):
    volume = host.work / "volume"
    volume.mkdir()
    for name in ("vol", "mem"):  # in place, what is not there cannot be made: see below
        (rootfs / name).mkdir()
    options = ["--rootfs", str(rootfs), "--read-only", *how, "-v", f"{volume}:/vol", "--tmpfs", "/mem"]
    script = "for d in / /etc /tmp /vol /mem /dev/shm; do touch $d/x 2>/dev/null && echo $d; done; chmod 0 /bin; :"
    with pod(host, "p", *options):
        assert inside(host, "p", script) == "/vol\n/mem\n/dev/shm"
        assert inside(host, "p", script, *options) == "/vol\n/mem\n/dev/shm"
    assert (volume / "x").exists() and not (rootfs / "x").exists()


def test_read_only_in_place_does_not_even_make_a_mount_point(host, rootfs):
    before = sorted(path.name for path in rootfs.iterdir())
    said = refused(host, "create", "p", "--rootfs", rootfs, "--in-place", "--read-only", "--tmpfs", "/mem")
    assert "Read-only file system" in said
    assert sorted(path.name for path in rootfs.iterdir()) == before


@pytest.mark.parametrize("mode, owner", [(0o755, 0), (0o700, 0), (0o1777, 7)])
def test_the_root_directory_keeps_its_mode_and_owner(host, rootfs, mode, owner):
    os.chown(rootfs, owner, owner)
    rootfs.chmod(mode)
    for how in ([], ["--in-place"]):
        with pod(host, "p", "--rootfs", rootfs, *how):
            assert inside(host, "p", "stat -c %a:%u:%g /") == f"{mode:o}:{owner}:{owner}"


@pytest.mark.parametrize("option", ["--in-place", "--chroot", "--read-only"])
def test_what_belongs_to_a_rootfs_is_wrong_use_without_one(host, option):
    assert f"{option} without --rootfs" in refused(host, "create", "p", option, status=2)


# ---- volumes and tmpfs ----

def test_files_and_directories_are_bound(host, rootfs):
    (host.work / "dir").mkdir()
    (host.work / "dir/in").write_text("dir\n")
    (host.work / "file").write_text("file\n")
    options = ["--rootfs", str(rootfs), "-v", f"{host.work}/dir:/new/dir", "-v", f"{host.work}/file:/etc/passwd",
               "-v", f"{host.work}/file:/new/file:ro", "--mount", f"type=bind,src={host.work}/dir,dst=/m,ro"]
    script = "cat /new/dir/in /etc/passwd /new/file /m/in; echo x 2>/dev/null > /new/file; echo x 2>/dev/null > /m/in;" \
             "echo new > /new/dir/out"
    with pod(host, "p", *options):
        assert inside(host, "p", script) == "dir\nfile\nfile\ndir"
        assert inside(host, "p", script, *options) == "dir\nfile\nfile\ndir"
    assert (host.work / "dir/out").read_text() == "new\n" and (host.work / "dir/in").read_text() == "dir\n"
    assert (host.work / "file").read_text() == "file\n"


def test_a_relative_source_starts_where_the_command_stands(host, rootfs):
    (host.work / "here").write_text("content\n")
    done = host.nsbox("run", "--rootfs", rootfs, "-v", "./here:/it", "--", "cat", "/it", cwd=host.work)
    assert (done.stdout, done.returncode) == ("content\n", 0), done


def test_a_source_that_is_a_link_is_followed_on_the_host(host, rootfs):
    (host.work / "real").write_text("content\n")
    (host.work / "link").symlink_to("real")
    (host.work / "gone").symlink_to("nowhere")
    with pod(host, "p", "--rootfs", rootfs, "-v", f"{host.work}/link:/it"):
        assert inside(host, "p", "cat /it; stat -c %F /it") == "content\nregular file"
    assert "No such file" in refused(host, "create", "p", "--rootfs", rootfs, "-v", f"{host.work}/gone:/it")
    assert "No such file" in refused(host, "create", "p", "--rootfs", rootfs, "-v", f"{host.work}/no:/it")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_nested_targets_are_mounted_parents_first_whatever_the_order(host, rootfs, order):
    for name in ("a", "b"):
        (host.work / name).mkdir()
    (host.work / "a/mine").write_text("")
    (host.work / "b/yours").write_text("")
    words = [["-v", f"{host.work}/a:/x"], ["--tmpfs", "/x/y"], ["-v", f"{host.work}/b:/x/y/z"], ["--tmpfs", "/x/y/z/t"]]
    options = [word for number in order for word in words[number]]
    with pod(host, "p", "--rootfs", rootfs, *options):
        assert inside(host, "p", "ls /x /x/y /x/y/z") == "/x:\nmine\ny\n\n/x/y:\nz\n\n/x/y/z:\nt\nyours"
    assert sorted(os.listdir(host.work / "b")) == ["t", "yours"]


def test_tmpfs_obeys_size_mode_and_access(host, rootfs):
    words = ["/a:size=1m,mode=0700", "/b", "/c:ro", "/d:exec,suid,dev,size=64k", "/dev/shm/e:size=1m"]
    options = [word for tmpfs in words for word in ("--tmpfs", tmpfs)]
    long_form = "type=tmpfs,dst=/f,tmpfs-size=2m,tmpfs-mode=0711"
    with pod(host, "p", "--rootfs", rootfs, *options, "--mount", long_form):
        assert inside(host, "p", "stat -c %a /a /b /c /d /f") == "700\n1777\n1777\n1777\n711"
        assert inside(host, "p", "df -k /a /d /f | awk 'NR>1 {print $2}'") == "1024\n64\n2048"
        assert inside(host, "p", "dd if=/dev/zero of=/a/x bs=1024 count=1025 2>&1 | grep -o 'No space.*'") == \
            "No space left on device"
        assert inside(host, "p", "touch /c/x 2>&1; touch /b/x") .endswith("Read-only file system")
        assert inside(host, "p", "for d in b d; do cp /bin/busybox /$d/echo; /$d/echo $d 2>/dev/null; done; :",
                      "--tmpfs", "/d:exec,size=4m", "--tmpfs", "/b", "--rootfs", rootfs) == "d"


@pytest.mark.parametrize("word", ["/x:size=0", "/x:size=-1", "/x:size=2e3", "/x:size=18446744073709551616", "/x:mode=888",
                                  "/x:mode=10000", "/x:size=", "/x:nonsense", "/x:size=1m,size=2m"])
def test_B35_a_bad_tmpfs_is_wrong_use(host, rootfs, word):
    """Red when: parse_tmpfs() hands the text on to the kernel."""
    refused(host, "create", "p", "--rootfs", rootfs, "--tmpfs", word, status=2)


def test_two_mounts_at_one_place_are_wrong_use(host, rootfs):
    said = refused(host, "create", "p", "--rootfs", rootfs, "--tmpfs", "/x", "-v", "/usr://x/.", status=2)
    assert "two things" in said


def test_volumes_of_a_pod_with_the_host_s_tree(host):
    """Nothing is made in it: a target that is missing is an error."""
    (host.work / "in").write_text("")
    with pod(host, "p", "-v", f"{host.work}:/mnt"):
        assert "in" in inside(host, "p", "ls /mnt").split()
        assert host.run(["sh", "-c", "test -e /mnt/in"]).returncode == 1
    assert "No such file" in refused(host, "create", "p", "-v", f"{host.work}:/no/such/place")
    assert not os.path.lexists("/no")


# ---- what a member finds ----

def test_hostname_and_its_defaults(host, rootfs):
    with pod(host, "my-pod", "--rootfs", rootfs):
        assert inside(host, "my-pod", "hostname") == "my-pod"
        assert inside(host, "my-pod", "hostname", "--share", "net", "--hostname", "other") == "other"
        assert inside(host, "my-pod", "hostname", "--share", "net") == "my-pod"
    with pod(host, "p", "--rootfs", rootfs, "--hostname", "host.example"):
        assert inside(host, "p", "hostname", "--rootfs", rootfs) == "host.example"
    assert host.run(["hostname"]).stdout.strip() not in ("my-pod", "other", "host.example")


def test_environment_work_directory_and_umask_are_clean(host, rootfs):
    dirty = {"SECRET": "canary", "LD_PRELOAD": "/x", "PYTHONPATH": "/y", "HOME": "/z", "TERM": "dumb", "LANG": "xx"}
    script = "env | grep -v -e SHLVL -e PWD | sort; pwd; umask; id -G"
    clean = ("HOME=/root\nLANG=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
             "container=nsbox\n/\n0022\n0")
    # setpriv: the caller has groups; sh: and another umask.
    caller = ["setpriv", "--groups", "4,27", "sh", "-c", 'umask 077; exec "$@"', "sh"]
    with pod(host, "p", "--rootfs", rootfs):
        for options in ([], ["--rootfs", str(rootfs)], ["--share", "net"]):
            done = host.run([*caller, *NSBOX, "join", "p", *options, "--", "sh", "-c", script],
                            env={**dirty, "PYTHONPATH": host.environment().get("PYTHONPATH")}, cwd=host.work)
            assert done.stdout.strip() == clean, done
        done = host.nsbox("join", "p", "-e", "A=1", "-e", "SECRET", "-w", "/usr/bin", "--", "sh", "-c",
                          "echo $A $SECRET; pwd", env={"SECRET": "canary"})
        assert done.stdout == "1 canary\n/usr/bin\n"
