"""What a process of a pod gets of its caller: nothing but what was asked for (rows A01 to A12).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import os
import stat
from pathlib import Path

import pytest
from fakehost import NSBOX
from hostile import make_rootfs

pytestmark = pytest.mark.needs_root

# Give the command descriptors of the canary and of the host's root, as a careless program does.
LEAKY = ["bash", "-c", 'exec 7</canary 8<>/canary/marker 9</ 33</canary/dir; exec "$@"', "bash"]
# Every process that the pod shows but the one that looks, with all of its descriptors.
ALL_FDS = ["sh", "-c", "cd /proc; for p in [0-9]*; do [ $p = $$ ] || for f in $p/fd/*; do "
                       "echo $(readlink $f); done; done"]
MARKERS = "cat ./marker ../marker ../../canary/marker /canary/marker 2>/dev/null; pwd -P"
# How a command gets into a pod whose root is not the host's. "web" has the rootfs of the test.
WAYS = {
    "join": ["join", "web"],
    "join --rootfs": ["join", "web", "--rootfs", "busybox"],
    "join --rootfs --chroot": ["join", "web", "--rootfs", "busybox", "--chroot"],
    "run": ["run", "--rootfs", "busybox"],
}
CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
         "LANG": "C.UTF-8", "container": "nsbox"}
FOREIGN = {"SECRET": "canary-secret", "LD_PRELOAD": "/x", "GCONV_PATH": "/z", "LANG": "tr_TR.UTF-8",
           "LD_LIBRARY_PATH": "/l", "BASH_ENV": "/b", "TERM": "caller", "PATH": "/usr/bin:/bin:/pp"}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
every_right = pytest.mark.parametrize("may", [[], ["--privileged"]], ids=["short list", "privileged"])
every_pause = pytest.mark.parametrize("pause", ["static", "python"])


@pytest.fixture
def remove(host):
    """At the end the pod "web" is removed."""
    yield
    host.nsbox("rm", "--force", "web")


@pytest.fixture
def pod(host, canary, remove):
    """The PID, in the fake host, of the pause of a pod "web" with a busybox root."""
    return int(host.nsbox("create", "web", "--rootfs", "busybox", check=True).stdout)


def descriptors(host, pid):
    """The targets of the open descriptors of `pid` of the fake host, by number."""
    fds = Path(f"/proc/{host.host_pid(pid)}/fd")
    return {int(name): os.readlink(fds / name) for name in os.listdir(fds)}


def is_null(path):
    found = os.stat(path)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


# ---- A01: descriptors ----

@pytest.mark.rootless_too
@every_way
def test_A01_a_member_has_its_three_descriptors_only(host, pod, way):
    """Red when: execute._take_stdio does not call close_range."""
    done = host.run([*LEAKY, *NSBOX, *way, "--", "ls", "-l", "/proc/self/fd"], check=True)
    found = {int(left.split()[-1]): target for left, _, target in
             (line.partition(" -> ") for line in done.stdout.splitlines() if " -> " in line)}
    assert found.pop(3, "/proc/").startswith("/proc/")  # ls itself reads the directory
    assert sorted(found) == [0, 1, 2], found
    assert found.pop(0).endswith("/dev/null")
    assert all(target.startswith("pipe:") for target in found.values()), found


@pytest.mark.rootless_too
@every_pause
def test_A01_the_pause_has_only_dev_null(host, canary, remove, pause):
    """Red when: become_pause (stay_as_pause) does not close the descriptors from 3 up."""
    argv = [*LEAKY, *NSBOX, "create", "web", "--rootfs", "busybox", "--pause", pause]
    pid = int(host.run(argv, check=True).stdout)
    assert sorted(descriptors(host, pid)) == [0, 1, 2]
    assert all(is_null(f"/proc/{host.host_pid(pid)}/fd/{fd}") for fd in range(3))


def test_A01_a_program_as_PID_1_has_only_dev_null(host, canary, remove):
    """Red when: execute._take_stdio does not call close_range."""
    argv = [*LEAKY, *NSBOX, "create", "web", "--rootfs", "busybox", "--init", "sleep 1000"]
    pid = int(host.run(argv, check=True).stdout)
    assert sorted(descriptors(host, pid)) == [0, 1, 2]
    assert all(is_null(f"/proc/{host.host_pid(pid)}/fd/{fd}") for fd in range(3))


@pytest.mark.rootless_too
def test_A01_neither_a_detached_member_nor_its_supervisor_keeps_what_the_caller_had_open(host, pod):
    """Red when: _supervise leaves out close_all_but, or _take_stdio leaves out close_range."""
    argv = [*LEAKY, *NSBOX, "join", "web", "-d", "--", "sleep", "1000"]
    pid = int(host.run(argv, check=True).stdout)
    member = descriptors(host, pid)
    assert sorted(member) == [0, 1, 2]
    assert member[1] == member[2] and member[1].startswith("pipe:"), member
    for inside in set(host.processes()) - {1}:
        held = descriptors(host, inside).values()
        assert not [target for target in held if "canary" in target], (inside, held)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_A01_G09_a_closed_stream_is_no_gap_for_another_file(host, pod, closed):
    """Red when: front._clean_process leaves the closed descriptors closed."""
    script = f'"$@" {closed}'
    host.run(["sh", "-c", script, "sh", *NSBOX, "join", "web", "-d", "--", "sleep", "1000"])
    host.run(["sh", "-c", script, "sh", *NSBOX, "create", "api", "--rootfs", "busybox"])
    try:
        targets = host.nsbox("join", "web", "--", *ALL_FDS, check=True).stdout.split()
        assert targets and all(
            target.endswith("/dev/null") or target.startswith("pipe:") for target in targets), targets
        targets = host.nsbox("join", "api", "--", *ALL_FDS, check=True).stdout.split()
        assert all(target.endswith("/null") for target in targets), targets
    finally:
        host.nsbox("rm", "--force", "api")


# ---- A02: the work directory ----

@every_way
@pytest.mark.parametrize("workdir", [
    "/proc/self/fd/9", "/proc/self/fd/7", "/proc/1/cwd", "/proc/1/root", "/proc/self/cwd",
    "/proc/thread-self/root/../..", "../../..", "../../../canary", "/canary"])
def test_A02_a_work_directory_is_below_the_root_or_refused(host, pod, way, workdir):
    """Red when: member._change_directory uses os.open and does not call os.getcwd."""
    argv = [*LEAKY, *NSBOX, *way, "--workdir", workdir, "--", "sh", "-c", MARKERS]
    done = host.run(argv, cwd="/canary/dir")
    assert "canary" not in done.stdout
    if done.returncode:
        assert done.returncode == 125 and "cannot use work directory" in done.stderr
    else:
        assert done.stdout == "/\n"


@pytest.mark.rootless_too
@every_way
def test_A02_the_callers_own_directory_is_not_kept(host, pod, way):
    """Red when: member.start's child does not change its directory (no _change_directory, no
    fchdir in pivot_into and chroot_into)."""
    done = host.nsbox(*way, "--", "sh", "-c", MARKERS, cwd="/canary/dir")
    assert (done.returncode, done.stdout) == (0, "/\n")


def test_A02_a_link_in_the_rootfs_leads_to_no_place_outside(host, canary, rootfs, remove):
    """Red when: member._change_directory uses os.open and does not call os.getcwd."""
    (rootfs / "out").symlink_to("/canary")
    (rootfs / "up").symlink_to("../../../../../../canary")
    (rootfs / "fd").symlink_to("/proc/self/fd/7")
    host.nsbox("create", "web", "--rootfs", rootfs, check=True)
    for link in ("/out", "/up", "/fd"):
        done = host.run([*LEAKY, *NSBOX, "join", "web", "-w", link, "--", "pwd", "-P"])
        assert done.returncode == 125 and "canary" not in done.stdout, done


# ---- A08: the root of the one that is joined ----

def marked(base, host, name):
    """A root file system with its own name in /marker."""
    root = make_rootfs(host.scratch / name)
    (root / "marker").write_text(f"{name}\n")
    return root


@pytest.mark.parametrize("how", [[], ["--chroot"]], ids=["pivot_root", "chroot"])
def test_A08_beside_a_member_one_sees_that_members_root(base, host, canary, remove, how):
    """Red when: member._enter_root does not go to target.root_fd (chroot)."""
    first, second = marked(base, host, "first"), marked(base, host, "second")
    host.nsbox("create", "web", "--rootfs", first, *how, check=True)
    pid = host.nsbox("join", "web", "--rootfs", second, *how, "-d", "--", "sleep", "1000", check=True)
    for target, seen in (("web", "first"), (pid.stdout.strip(), "second")):
        done = host.nsbox("join", target, "--", "sh", "-c", "cat /marker; ls /", check=True)
        assert done.stdout.split()[0] == seen
        assert "canary" not in done.stdout and "work" not in done.stdout


@pytest.mark.parametrize("before", [["unshare", "--mount"], []], ids=["own mnt", "the host's mnt"])
def test_A08_the_root_of_a_chrooted_process_of_any_program_is_entered(base, host, canary, before):
    """Red when: member._enter_root does not go to target.root_fd."""
    root = marked(base, host, "foreign")
    stranger = host.popen([*before, "chroot", root, "/bin/sh", "-c", "echo ready; exec sleep 1000"])
    try:
        assert stranger.stdout.readline() == "ready\n"
        [pid] = set(host.processes()) - {1}
        done = host.nsbox("join", str(pid), "--", "cat", "/marker")
        assert (done.returncode, done.stdout) == (0, "foreign\n"), done.stderr
    finally:
        stranger.kill()
        stranger.communicate()


# ---- A09: what PID 1 shows of the host ----

@every_right
@every_pause
def test_A09_the_root_of_the_pause_is_empty_and_read_only(host, canary, remove, pause, may):
    """Red when: create._pid_one leaves out mounts.empty_root()."""
    host.nsbox("create", "web", "--rootfs", "busybox", "--pause", pause, check=True)
    for way in ([], ["--rootfs", "busybox"]):
        done = host.nsbox("join", "web", *way, *may, "--", "sh", "-c",
                          "ls -A /proc/1/root/ /proc/1/cwd/ 2>/dev/null | grep -v '^/proc/1/.*:$';"
                          "cat /proc/1/root/canary/marker /proc/1/cwd/canary/marker;"
                          "touch /proc/1/root/x && echo written")
        assert done.stdout.split() == [], done.stdout


@pytest.mark.rootless_too
@every_right
def test_A09_the_pause_of_a_pod_on_the_hosts_tree_shows_an_empty_root_too(host, canary, remove, may):
    """Red when: create._pid_one leaves out mounts.empty_root()."""
    host.nsbox("create", "web", check=True)
    done = host.nsbox("join", "web", "--rootfs", "busybox", *may, "--", "ls", "-A", "/proc/1/root/", check=True)
    assert done.stdout == ""


@every_right
def test_A09_the_pause_of_a_chrooted_pod_shows_that_pods_root_only(host, canary, remove, may):
    """Red when: create._pid_one leaves out rootfs.enter's chroot (mounts.chroot_into)."""
    host.nsbox("create", "web", "--rootfs", "busybox", "--chroot", check=True)
    done = host.nsbox("join", "web", "--rootfs", "busybox", *may, "--", "sh", "-c",
                      "ls -d /proc/1/root/canary /proc/1/root/../canary /proc/1/cwd/../../canary")
    assert (done.returncode != 0, done.stdout) == (True, "")


# ---- A10, A11: the environment ----

@every_right
@every_pause
def test_A10_what_the_caller_said_and_knew_is_not_to_be_read_in_the_pod(host, canary, remove, pause, may):
    """Red when: become_pause passes os.environb to execveat; hold.py: no wipe of the memory."""
    secret = {"SECRET": "canary-secret"}
    host.nsbox("create", "web", "--rootfs", "busybox", "--pause", pause, "--label", "secret=canary",
               env=secret, check=True)
    host.nsbox("join", "web", "-d", "--rootfs", "busybox", "--", "sleep", "1000", env=secret, check=True)
    host.nsbox("join", "web", "-d", "--", "sleep", "1000", env=secret, check=True)
    said = host.nsbox("join", "web", *may, "--", "sh", "-c",
                      "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'", check=True).stdout
    assert said.count("sleep\n") == 2
    for word in ("canary", str(host.scratch), str(host.store), "create", "nsbox create", "SECRET", "NSBOX_STATE"):
        assert word not in said, said


@pytest.mark.parametrize("verb", [*WAYS.values(), ["run"]], ids=[*WAYS, "run on the host's tree"])
def test_A11_a_members_environment_is_clean(host, pod, verb):
    """Red when: base_environment begins with os.environb."""
    done = host.nsbox(*verb, "--env", "ASKED=1", "--", "env", env=FOREIGN, check=True)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    for name in ("PWD", "SHLVL", "_"):
        found.pop(name, None)
    assert found == {**CLEAN, "ASKED": "1"}


@pytest.mark.rootless_too
def test_A11_so_is_that_of_a_detached_member_and_of_a_program_as_PID_1(host, canary, remove):
    """Red when: base_environment begins with os.environb."""
    init = int(host.nsbox("create", "web", "--rootfs", "busybox", "--init", "sleep 1000",
                          env=FOREIGN, check=True).stdout)
    member = int(host.nsbox("join", "web", "-d", "--", "sleep", "1000", env=FOREIGN, check=True).stdout)
    for pid in (init, member):
        found = Path(f"/proc/{host.host_pid(pid)}/environ").read_text().rstrip("\0").split("\0")
        assert dict(word.split("=", 1) for word in found) == CLEAN


# ---- A12: groups ----

WITH_GROUPS = ["setpriv", "--groups", "4,27"]


@pytest.mark.parametrize("way", [*WAYS.values(), ["run"], ["join", "web", "--share", "net"]],
                         ids=[*WAYS, "run on the host's tree", "join --share net"])
def test_A12_a_member_has_none_of_the_callers_groups(host, pod, way):
    """Red when: member._become_member leaves out drop_groups."""
    # Not id(1): busybox's asks the files of the root.
    done = host.run([*WITH_GROUPS, *NSBOX, *way, "--", "grep", "Groups:", "/proc/self/status"], check=True)
    assert done.stdout.split() == ["Groups:"]


@pytest.mark.parametrize("option", [[], ["--pause", "python"], ["--init", "sleep 1000"]], ids=str)
def test_A12_neither_has_PID_1(host, canary, remove, option):
    """Red when: create._pid_one leaves out drop_groups."""
    argv = [*WITH_GROUPS, *NSBOX, "create", "web", "--rootfs", "busybox", *option]
    pid = int(host.run(argv, check=True).stdout)
    status = Path(f"/proc/{host.host_pid(pid)}/status").read_text().splitlines()
    assert [line.split() for line in status if line.startswith(("Groups:", "Gid:"))] == [
        ["Gid:", "0", "0", "0", "0"], ["Groups:"]]
