"""What the owner of a pod of root's does not get with it: root's memory, root's files, other owners' ids."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from fakehost import NSBOX, SETTLE_S, UID, FakeHost
from procfs import until
from test_owner import ELSE, FIXED, NOWHERE, OTHER, OWNERS, SUDO, about, bob, inside_of, make, said, sudo

__all__ = ["bob"]  # a fixture

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

# Makes a pod and stops at one step, in whatever process comes by there, until a line is read.
CREATING = """
import os, sys
from nsbox import errors
from nsbox.cli import front
from nsbox.linux import mounts, syscalls
from nsbox.pod import create, store
from nsbox.privilege import userns

def stop(room, name, nth=1):
    call, count = getattr(room, name), 0
    def stopping(*args, **kw):
        nonlocal count
        count += 1
        if count == nth:
            os.write(1, b"here\\n")
            os.read(0, 1)
        return call(*args, **kw)
    setattr(room, name, stopping)

stop(*{
    "unmapped": (userns, "write"),             # the keeper, in a namespace without ids
    "entered": (store.Locked, "write", 2),     # who becomes PID 1, still root outside
    "changed": (syscalls, "sethostname"),      # root of the pod
    "mounted": (mounts, "empty_root"),         # with all its mounts
}[sys.argv[1]])
sys.exit(front.run(sys.argv[2:]))
"""
# As the user: what of the processes of other users can be looked at or changed.
LOOKING = """
import os, sys
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag

def others():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status") as file:
                if any(line.startswith("Uid:") and len(set(line.split()[1:]) - {str(os.getuid())}) for line in file):
                    yield int(pid)
        except FileNotFoundError:
            pass

def attempts(pid):
    for name, flags in (("mem", os.O_RDWR), ("mem", os.O_RDONLY), ("environ", os.O_RDONLY), ("auxv", os.O_RDONLY),
                        ("uid_map", os.O_WRONLY), ("setgroups", os.O_WRONLY), ("ns/user", os.O_RDONLY),
                        ("ns/mnt", os.O_RDONLY), ("root", os.O_PATH), ("cwd", os.O_PATH), ("exe", os.O_PATH)):
        yield name, lambda: os.open(f"/proc/{pid}/{name}", flags)
    yield "fd", lambda: os.listdir(f"/proc/{pid}/fd")
    yield "setns", lambda: syscalls.setns(os.pidfd_open(pid), CloneFlag.CLONE_NEWUSER)
    yield "getfd", lambda: syscalls.pidfd_getfd(os.pidfd_open(pid), 0)

count = 0
for pid in others():
    count += 1
    for name, attempt in attempts(pid):
        try:
            attempt()
            print("open:", pid, name, open(f"/proc/{pid}/status").readline())
        except OSError:
            pass
print("looked at", count)
"""


@pytest.mark.parametrize("stage", ["unmapped", "entered", "changed", "mounted"])
def test_A03_while_it_is_made_nothing_of_root_s_is_open_to_its_owner(bob: FakeHost, stage: str) -> None:
    """Though the user namespace is his from its first moment.

    Red when: hide_from_others makes its caller dumpable.
    """
    words = ["create", "lab", "--userns", "--rootfs", str(bob.store / "busybox/rootfs")]
    maker = bob.popen([sys.executable, "-c", CREATING, stage, *words], user=0, env=SUDO, stdin=-1)
    assert maker.stdout.readline() == "here\n", maker.communicate()
    looked = bob.python(LOOKING, check=True).stdout.splitlines()
    assert looked[:-1] == [] and int(looked[-1].split()[-1]) >= 3, looked
    out, err = maker.communicate("\n", timeout=60)
    assert maker.returncode == 0, err
    # When it is made, he may: that is how he joins.
    looked = bob.python(LOOKING, check=True).stdout
    assert "ns/user" in looked and said(bob, "lab", "id -u") == "0"


# ---- files ----

def data_of(bob: FakeHost) -> Path:
    """A directory with files of root's and of the user's."""
    data = bob.scratch / "data"
    data.mkdir()
    data.chmod(0o777)
    for name, owner, mode in (("roots", 0, 0o600), ("open", 0, 0o666), ("mine", UID, 0o600), ("read", 0, 0o644)):
        path = data / name
        path.write_text(f"of {name}\n")
        os.chown(path, owner, owner)
        path.chmod(mode)
    os.chown(data, UID, UID)
    return data


TRY = """
cat /v/mine /v/read
for file in roots open read; do (echo x >> /v/$file) 2> /dev/null && echo wrote $file; done
(cat /v/roots) 2> /dev/null && echo read roots
chown 0:0 /v/roots /v/open 2> /dev/null && echo took
cp /bin/sh /v/shell && chmod 4755 /v/shell
touch /v/other && chown 33:33 /v/other 2> /dev/null && echo gave
stat -c '%u %n' /v/mine /v/shell /v/roots
"""
ALLOWED = "of mine\nof read\n0 /v/mine\n0 /v/shell\n65534 /v/roots"


@pytest.mark.parametrize("how", ["pod", "pod, with every right", "member of root's", "member beside a process of his"])
def test_in_volumes_only_his_own_files_are_his(bob: FakeHost, how: str) -> None:
    """Else a program that belongs to root, setuid, could be left there for the host.

    Red when: _lasting gives the pod's own user namespace.
    """
    data = data_of(bob)
    volume, rootfs = ["-v", f"{data}:/v"], ["--rootfs", str(bob.store / "busybox/rootfs")]
    allowed, script = ALLOWED, ["sh", "-c", TRY]
    if how == "pod":
        make(bob, "lab", *volume)
        done = bob.nsbox("join", "lab", "--", *script)
    elif how == "pod, with every right":  # of the namespace's owner, whatever a member was left with
        pid = make(bob, "lab", "-v", f"{data}:/v:ro")
        enter = ["nsenter", "-t", str(pid), "-U", "-m", "-p", "-S", "0", "-G", "0", "--"]
        bob.run([*enter, "mount", "-o", "remount,bind,rw", "/v"], check=True)
        done = bob.run([*enter, *script])
    elif how == "member of root's":
        make(bob, "lab")
        done = sudo(bob, "join", "lab", *rootfs, *volume, "--", *script)
    else:
        made = bob.nsbox("create", "lab", *rootfs, check=True).stdout.strip()
        done = sudo(bob, "join", made, *rootfs, *volume, "--", *script, env=NOWHERE)
        bob.nsbox("rm", "-f", "lab", check=True)
        allowed = ALLOWED.replace("read\n", "read\nwrote open\n")  # all may write to that, he as himself too
    assert done.stdout.strip() == allowed, done
    found = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o7777) for path in data.iterdir()}
    assert found == {"roots": (0, 0o600), "open": (0, 0o666), "read": (0, 0o644), "mine": (UID, 0o600),
                     "shell": (UID, 0o4755), "other": (UID, 0o644)}, found  # fmt: skip


def test_a_rootfs_in_place_must_be_his(bob: FakeHost) -> None:
    """Red when: _lasting does not look whose it is, or _mapped maps it as if it were read only."""
    root = bob.scratch / "root"
    shutil.copytree(bob.store / "busybox/rootfs", root, symlinks=True)
    os.chown(root, 0, 0)
    words = ["create", "lab", "--userns", "--in-place", "--rootfs", str(root)]
    done = sudo(bob, *words)
    assert done.returncode == 2 and "does not belong to the owner" in done.stderr, done
    for path in [root, *root.rglob("*")]:
        os.chown(path, UID, UID, follow_symlinks=False)
    sudo(bob, *words, check=True)
    assert said(bob, "lab", "touch /new; stat -c %u /new /bin/busybox").split() == ["0", "0"]
    assert (root / "new").stat().st_uid == UID


# ---- ids ----

AGAIN = """
import os, sys, time
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
fd = os.open(f"/proc/{sys.argv[1]}/ns/user", os.O_RDONLY)
print("held", flush=True)
sys.stdin.readline()
syscalls.setns(fd, CloneFlag.CLONE_NEWUSER)
os.setresgid(0, 0, 0), os.setresuid(0, 0, 0)
try:
    os.kill(int(sys.stdin.readline()), 9)
    print("killed")
except PermissionError:
    print("refused")
"""


def test_ids_that_were_one_owner_s_are_no_other_s_until_the_next_boot(bob: FakeHost) -> None:
    """For he may hold their namespace open, and be root of it again.

    Red when: reserve does not note what it lends, or _of_root does not ask for it.
    """
    def start(name: str) -> int:
        facts = about(bob, name)["security"]
        assert facts["uid_map"] == facts["gid_map"]
        return facts["uid_map"][0][1]

    pid = make(bob, "lab")
    assert start("lab") == FIXED
    holder = bob.popen([sys.executable, "-c", AGAIN, str(pid)], stdin=-1)
    assert holder.stdout.readline() == "held\n", holder.communicate()
    sudo(bob, "rm", "-f", "lab", check=True)
    victim = make(bob, "hers", env=ELSE)
    make(bob, "roots", env=NOWHERE)
    make(bob, "lab")
    assert [start(name) for name in ("hers", "roots", "lab")] == [FIXED + 65536, FIXED + 2 * 65536, FIXED]
    out, err = holder.communicate(f"\n{victim}\n", timeout=60)
    assert out == "refused\n", (out, err)
    sudo(bob, "rm", "-f", "hers", "roots", "lab", check=True)
    make(bob, "hers", env=ELSE)
    assert start("hers") == FIXED + 65536
    ledger = inside_of(bob, "/run/nsbox/ids.json")
    good = ledger.read_text()
    ledger.write_text("{")
    done = sudo(bob, "create", "x", "--userns", env=NOWHERE)
    assert done.returncode == 125 and "ids are given away" in done.stderr and "ids.json" in done.stderr, done
    ledger.write_text(good.replace("boot_id\": \"", "boot_id\": \"x"))  # of another boot: nobody has anything
    make(bob, "roots", env=NOWHERE)
    assert start("roots") == FIXED


# ---- its list ----

def test_A14_a_process_that_got_the_number_of_a_dead_pause_is_not_joined(bob: FakeHost) -> None:
    """Red when: _is_mine believes what is written."""
    pid = make(bob, "lab")
    faults.recycle_pid(bob, pid, ("sleep", "300"))
    for target in ("lab", str(pid)):
        assert bob.nsbox("join", target, "--", "true").returncode == 125
    assert bob.nsbox("ls", "-q").stdout == ""
    faults.kill_inside(bob, pid)
    sudo(bob, "prune", check=True)
    assert not inside_of(bob, OWNERS).exists()


def test_only_root_s_own_word_is_taken(bob: FakeHost) -> None:
    """A list that others could write to says nothing. Red when: _opened does not look whose it is."""
    make(bob, "lab")
    where = inside_of(bob, OWNERS)
    for path, change, back in ((where, 0o733, 0o711), (where / str(UID), 0o773, 0o750)):
        path.chmod(change)
        assert bob.nsbox("join", "lab", "--", "true").returncode == 125
        path.chmod(back)
        assert said(bob, "lab", "id -u") == "0"
    [file] = (where / str(UID)).iterdir()
    os.chown(file, UID, UID)
    assert bob.nsbox("join", "lab", "--", "true").returncode == 125


def sure(host: FakeHost) -> None:
    """After any kill: prune and rm leave nothing, not of the lists either."""
    for _ in until(SETTLE_S, pause=0.05):
        host.nsbox("prune", check=True)
        host.nsbox("rm", "-f", *host.nsbox("ls", "-q", check=True).stdout.split() or ["none"])
        if len(host.processes()) <= 2 and not inside_of(host, OWNERS).exists():
            break
    else:
        raise AssertionError((host.processes(), list(inside_of(host, OWNERS).rglob("*"))))
    inside_of(host, f"{host.state}/ids.json").unlink(missing_ok=True)


WORDS = ["env", f"SUDO_UID={UID}", f"SUDO_GID={UID}", *NSBOX]


@pytest.mark.slow
@pytest.mark.parametrize("syscall", ["clone3", "setresuid", "fsetxattr", "fchmod", "renameat", "mkdirat", "flock"])
def test_killed_at_any_step_it_leaves_nothing(host: FakeHost, syscall: str) -> None:
    """Red when: prune does not tidy the lists, or undo does not withdraw from them."""
    killed = list(faults.each_fault(host, syscall, ["signal=SIGKILL"],
                                    lambda _: [*WORDS, "create", "web", "--userns"], lambda: sure(host)))  # fmt: skip
    assert killed and any(one.exit_status in (-signal.SIGKILL, 137, 125) for one in killed), killed


@pytest.mark.slow
@pytest.mark.parametrize("syscall", ["unlinkat", "rmdir", "renameat", "flock"])
def test_a_removal_that_is_killed_at_any_step_is_ended_by_prune(host: FakeHost, syscall: str) -> None:
    """Red when: prune does not tidy the lists."""
    def argv(number: int) -> list[str]:
        done = host.run([*WORDS, "create", f"web{number}", "--userns"])
        assert done.returncode == 0, done
        return [*NSBOX, "rm", "-f", f"web{number}"]

    killed = list(faults.each_fault(host, syscall, ["signal=SIGKILL"], argv, lambda: sure(host)))
    assert killed and any(one.exit_status in (-signal.SIGKILL, 137) for one in killed), killed


@pytest.mark.parametrize("fault", ["fsetxattr:error=EOPNOTSUPP", "mkdir:error=EROFS:when=1", "renameat:error=ENOSPC:when=3"])
def test_a_pod_that_its_owner_could_not_find_is_not_made(host: FakeHost, fault: str) -> None:
    """Red when: announce passes over an error."""
    status, out, err, _ = faults.strace(host, f"inject={fault}", [*WORDS, "create", "web", "--userns"])
    assert status == 125 and out == "" and err.startswith("nsbox: cannot "), (status, out, err)
    sure(host)


def test_two_of_one_name_are_told_apart_by_pid(bob: FakeHost) -> None:
    """Of two state directories of root's. Red when: _of_lent takes the first."""
    pids = [make(bob, "lab")]
    other = {**SUDO, "NSBOX_STATE": "/run/lock/root"}
    pids.append(make(bob, "lab", "--hostname", "other", env=other))
    done = bob.nsbox("join", "lab", "--", "true")
    assert done.returncode == 125 and "cannot tell which pod 'lab'" in done.stderr, done
    assert all(str(pid) in done.stderr for pid in pids)
    assert [said(bob, str(pid), "hostname") for pid in pids] == ["lab", "other"]
    sudo(bob, "rm", "-f", "lab", env=other, check=True)
    assert said(bob, "lab", "hostname") == "lab"
    bob.run(["rm", "-rf", "/run/lock/root"], user=0, check=True)
