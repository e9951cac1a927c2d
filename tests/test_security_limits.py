"""What SECURITY.md says is no boundary: it is none, and nobody is to find that out by himself.

A test here fails when a pod has become stricter than that file says: then the file is to be changed.
"Red when" in a docstring says what makes it stricter; each was tried.
"""

import json
import os
import sys

import pytest
from fakehost import NSBOX, UID
from inpod import detached, inside, pod
from test_owner import bob, make
from test_privileges_seen import _WITH_KEY, POSSESSOR_ALONE, inspected, read_key

__all__ = ["bob"]  # a fixture

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]


@pytest.fixture
def secret(host):
    """A file that only root of the host may read and write."""
    path = host.scratch / "secret"
    path.write_text("of root\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("how", [[], ["--with", "user"], ["--userns=0:0:4294967295"]], ids=str)
def test_root_of_a_pod_of_root_is_the_host_s_root(host, secret, how):
    """With the host's tree it reads and writes whatever root may, with few capabilities or many; `inspect` says it.

    Red when: a member becomes somebody else before its execve.
    """
    with pod(host, "own", *how, "--rootfs", "busybox"):
        assert inspected(host, "own")["security"]["root_is_uid"] == 0
    with pod(host, "p", *how), detached(host, "p") as pid:
        assert inside(host, "p", f"cat {secret} && echo changed > {secret}") == "of root"
        assert inspected(host, pid)["security"]["root_is_uid"] == 0
        assert {row["uid"] for row in json.loads(host.nsbox("ps", "--json", "p", check=True).stdout)} == {0}
    assert secret.read_text() == "changed\n"


def test_root_of_an_ordinary_user_s_pod_is_that_user(user_host):
    """It reads and writes what is his. Red when: a member may write no files."""
    mine = user_host.work / "mine"
    mine.write_text("mine\n")
    mine.chmod(0o600)
    os.chown(mine, UID, UID)
    with pod(user_host, "p"):
        assert inside(user_host, "p", f"cat {mine} && echo changed > {mine} && id -u") == "mine\n0"
        assert inspected(user_host, "p")["security"]["root_is_uid"] == UID
    assert mine.read_text() == "changed\n"


def test_of_its_caller_an_ordinary_user_s_pod_has_the_groups_and_nothing_else(user_host):
    """Groups that no id inside stands for stay: to drop them could open what they are denied (row C04).

    Red when: base_environment() starts with os.environ; _become_member() leaves out leave_session_keyring.
    """
    caller = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--groups", "4,27", "--", "sh", "-c", 'exec 7</ && "$@"', "sh"]
    session = [sys.executable, "-I", "-c", _WITH_KEY, POSSESSOR_ALONE]
    env = user_host.environment({"NAME": "nsbox-canary", "SECRET": "canary"})
    # Of the descriptors the last is the directory itself.
    look = "echo /proc/self/fd/*; env; grep ^Groups: /proc/self/status"
    with pod(user_host, "p"):
        for options in ([], ["--rootfs", "busybox"]):
            said = user_host.run([*caller, *NSBOX, "join", "p", *options, "--", "sh", "-c", look], user=0, env=env, check=True).stdout
            assert "canary" not in said and "NSBOX" not in said and str(user_host.scratch) not in said, said
            lines = said.split("\n")
            assert lines[0].split() == [f"/proc/self/fd/{number}" for number in range(4)] and lines[-2].split() == ["Groups:", "65534", "65534"], said
        words = [*session, *read_key(*NSBOX, "join", "p", "--seccomp", "unconfined", "-e", "NAME", "--")]
        assert user_host.run(words, env=env, check=True).stdout == "refused\nrefused\n"


@pytest.mark.parametrize("how", [[], ["--userns"]], ids=str)
def test_what_root_of_a_pod_writes_to_a_volume_is_root_s_on_the_host(host, how):
    """Setuid bits too, and by an idmapped mount too: README.md says where to keep such a directory.

    Red when: a member becomes somebody else before its execve.
    """
    volume = host.scratch / "volume"
    volume.mkdir()
    with pod(host, "p", "--rootfs", "busybox", *how, "-v", f"{volume}:/v"):
        inside(host, "p", "cp /bin/busybox /v/tool && chmod 4755 /v/tool")
    made = (volume / "tool").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (0, 0o4755)


def test_read_only_holds_for_who_may_not_mount(host):
    """Red when: --cap-add SYS_ADMIN gives nothing."""
    volume = host.scratch / "volume"
    volume.mkdir()
    open_up = "mount -o remount,bind,rw /v; touch /v/x"
    with pod(host, "p", "--rootfs", "busybox", "-v", f"{volume}:/v:ro"):
        inside(host, "p", open_up, status=1)
        assert not (volume / "x").exists()
        inside(host, "p", open_up, "--cap-add", "SYS_ADMIN")
        assert (volume / "x").exists()


def test_the_owner_of_a_pod_has_every_right_in_it_from_outside(bob):
    """By nsenter(1), whose command has all capabilities, and neither filter nor no_new_privs.

    Red when: parse.py takes nobody for the caller of sudo.
    """
    make(bob, "lab")
    pid = bob.nsbox("join", "lab", "-d", "--", "sleep", "300", check=True).stdout.strip()
    script = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; umount /proc/keys && mount -o remount,bind,rw /proc/sys && echo undone"
    words = bob.run(["nsenter", "-t", pid, "-U", "-m", "-r", "-p", "-F", "sh", "-c", script],
                    check=True).stdout.split()
    every = bob.run(["sed", "-n", "s/^CapBnd:[[:space:]]*//p", "/proc/1/status"], user=0, check=True).stdout.strip()
    assert words[-1] == "undone" and words[1] == words[3], words
    assert int(words[1], 16) & int(every, 16) == int(every, 16) and words[5] == words[7] == "0", words


# Opened for appending, and nothing is written: these are the machine's.
_CGROUPS = """
mkdir /dev/shm/c
for type in "cgroup -o pids" cgroup2; do
    mount -t $type c /dev/shm/c 2>/dev/null || continue
    (: >> /dev/shm/c/cgroup.procs) 2>/dev/null && echo "writable $type"
    umount /dev/shm/c
done
rmdir /dev/shm/c
"""


def test_nested_lets_root_of_a_pod_of_root_mount_control_groups(host):
    """And write to them; in a pod with ids of its own it may not write. So --userns goes with `nested`.

    Red when: `nested` is the default filter.
    """
    words = ["--seccomp", "nested", "--", "unshare", "-r", "-m", "-C", "sh", "-c", _CGROUPS]
    with pod(host, "plain"), pod(host, "safe", "--userns"):
        assert "writable cgroup" in host.nsbox("join", "plain", *words).stdout
        assert host.nsbox("join", "safe", *words).stdout == ""


def test_no_limit_is_set_on_what_a_pod_uses(host):
    """A member is in the control groups of who called nsbox, and has his limits: see C15 too.

    Red when: a member gets a cgroup namespace of its own.
    """
    groups = ["cat", "/proc/self/cgroup"]
    callers = host.run(groups, check=True).stdout
    for how in ([], ["--userns"]):
        with pod(host, "p", *how):
            assert host.nsbox("join", "p", "--", *groups, check=True).stdout == callers


# keyctl(2) by number on the keyring that all processes of one user have in common (-4): x86_64, or aarch64.
_KEYS = """
my ($add_key, $keyctl) = (`uname -m` eq "x86_64\\n") ? (248, 250) : (217, 219);
my ($verb, $type, $name, $value) = (shift, "user", shift, "secret");
my $key = $verb eq "add" ? syscall($add_key, $type, $name, $value, 6, -4) : syscall($keyctl, 10, -4, $type, $name, 0);
print $key > 0 ? "found" : "none";
syscall($keyctl, 9, $key, -4) if $verb eq "remove";
"""


def test_without_a_filter_the_keys_of_a_user_are_within_reach(host):
    """Not those of the caller's session, see A22, but those that all processes of one uid have in common.

    Red when: `unconfined` is the default filter.
    """
    name = f"nsbox-canary-{os.urandom(4).hex()}"
    keys = ["perl", "-e", _KEYS]

    def found(target: str, *options: str) -> bool:
        done = host.nsbox("join", target, "-u", str(UID), *options, "--", *keys, "search", name, check=True)
        return done.stdout == "found"

    with pod(host, "p"), pod(host, "safe", "--userns"):
        assert host.run([*keys, "add", name], user=UID, check=True).stdout == "found"
        try:
            assert found("p", "--seccomp", "unconfined")
            assert not found("p") and not found("safe", "--seccomp", "unconfined")
        finally:
            host.run([*keys, "remove", name], user=UID, check=True)
