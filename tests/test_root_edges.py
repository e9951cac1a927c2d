"""Roots at the edge of what the machine allows: no pivot, a masked /proc, storms of mounts, odd sources.

Row ids as in the list of security cases. Each test says how to break the build so that it is red.
"""

import os
import socket
import sys

import pytest
from conftest import skip_or_fail
from fakehost import NSBOX
from faults import strace
from inpod import detached, inside, mount_table, pod, refused
from procfs import until

pytestmark = pytest.mark.needs_root

# ---- B13: without pivot_root(2) ----

def roots(rootfs) -> dict[str, list[str]]:
    """Commands that go into a root of their own."""
    root = ["--rootfs", str(rootfs)]
    return {"create": ["create", "p", *root], "join": ["join", "q", *root, "--", "touch", "/ran"],
            "run": ["run", *root, "--", "touch", "/ran"]}  # fmt: skip


@pytest.mark.parametrize("verb", ["create", "join", "run"])
def test_B13_a_pivot_that_fails_is_an_error_and_no_chroot(host, canary, rootfs, verb):
    """Red when: _enter_rootfs() goes on with chroot_into() after an OSError of pivot_into()."""
    words = [*roots(rootfs)[verb]]
    with pod(host, "q"):
        status, out, err, log = strace(host, "inject=pivot_root:error=EINVAL", [*NSBOX, *words])
        assert "(INJECTED)" in log and (status, out) == (125, ""), err
        first, hint = err.splitlines()
        assert first == "nsbox: cannot pivot into the root: pivot_root: Invalid argument" and "--chroot" in hint
        assert " chroot(" not in log and log.count(" execve(") + log.count(" execveat(") == 1, "something ran"
        assert host.nsbox("ls", "-q").stdout == "q\n"
    assert not (rootfs / "ran").exists()


# Runs a command in a plain chroot: a directory that is no mount, with the host's tree bound below it.
_CHROOTED = """
set -e
mkdir "$1"; cd "$1"; shift
for d in $(ls /); do
    if [ -L "/$d" ]; then cp -a "/$d" "$d"; elif [ -d "/$d" ]; then mkdir "$d"; mount --rbind "/$d" "$d"; fi
done
exec chroot . "$@"
"""


def test_B13_where_the_root_is_no_mount_it_is_said_and_nothing_is_made(host, rootfs):
    """As in a plain chroot: mounts cannot be kept to oneself there, nor the root exchanged.

    Red when: HINTS lacks its line; enter() goes on where _make_private() fails.
    """
    where = host.work / "plain"
    before = mount_table(host)
    done = host.run(["unshare", "--mount", "sh", "-c", _CHROOTED, "sh", str(where), *NSBOX, "create", "p", "--rootfs", str(rootfs)])
    assert done.returncode == 125 and done.stdout == ""
    assert done.stderr.splitlines() == ["nsbox: cannot make all mounts private: mount: Invalid argument",
                                        "hint: the root directory here is no mount of its own, as in a plain chroot "
                                        "(/ is a directory of some mount only); see: findmnt / || nsbox doctor"]
    assert mount_table(host) == before and host.nsbox("ls", "-q").stdout == ""


# ---- B16: while the host's mounts change all the time ----

# Mounts and unmounts below a directory, until it is told to end; then says how often.
_CHURN = """
import ctypes, os, signal, sys
libc, ends = ctypes.CDLL(None, use_errno=True), []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
places = [os.path.join(sys.argv[1], str(number)).encode() for number in range(200)]
for place in places:
    os.mkdir(place)
count = 0
print("ready", flush=True)
while not ends:
    for place in places:
        count += libc.mount(b"churn", place, b"tmpfs", 0, None) == 0
    for place in places:
        libc.umount2(place, 2)
print(count, flush=True)
"""
_MAKE = """
import sys, nsbox
for number in range(int(sys.argv[2])):
    with nsbox.Pod(rootfs=sys.argv[1]) as pod:
        assert pod.run(["true"]).returncode == 0
        lines = open("/proc/1/mountinfo").read().splitlines()
        print(*[line for line in lines if "overlay" in line or sys.argv[1] in line], sep="\\n")
"""
LEAST_MOUNTS, CREATES = 2000, 50


@pytest.mark.slow
def test_B16_no_mount_travels_while_the_hosts_mounts_change_all_the_time(host, rootfs):
    """Red when: _make_private() leaves MS_REC out, to go through /proc/self/mountinfo line by line."""
    churned = host.work / "churned"
    churned.mkdir()
    before = mount_table(host)
    churn = host.popen([sys.executable, "-I", "-c", _CHURN, str(churned)])
    assert churn.stdout.readline() == "ready\n"
    try:
        done = host.python(_MAKE, str(rootfs), str(CREATES), timeout=120)
        assert (done.returncode, done.stdout.split()) == (0, []), done
    finally:
        churn.terminate()
        mounted = int(churn.communicate(timeout=30)[0])
    assert mounted >= LEAST_MOUNTS
    assert mount_table(host) == before


# ---- B27: a /proc that may not be mounted ----

MASKED = "a /proc that is masked, as inside most containers, forbids a new one"


@pytest.mark.needs_ns("user")
def test_B27_under_a_masked_proc_there_is_no_pod_and_the_reason_is_said(user_host):
    """As in most containers: the kernel gives no new /proc to who may not see all of the old one.

    Red when: _mount_proc() binds the host's /proc where a new one is refused; it gives no hint.
    """
    host = user_host
    host.run(["mount", "--bind", "/dev/null", "/proc/keys"], user=0, check=True)
    try:
        for words in (["create", "p"], ["create", "p", "--rootfs", "busybox"], ["run", "--", "true"]):
            done = host.nsbox(*words)
            assert done.returncode == 125 and done.stdout == "", done
            first, hint = done.stderr.splitlines()
            assert first.startswith("nsbox: cannot mount proc on /proc: ") and first.endswith("Operation not permitted"), first
            assert hint == f"hint: {MASKED}; see: findmnt -R /proc"
        assert host.nsbox("ls", "-q").stdout == ""
    finally:
        host.run(["umount", "/proc/keys"], user=0, check=True)


@pytest.mark.needs_ns("user")
def test_B27_nsbox_in_a_pod_of_nsbox_makes_one_or_says_why_not_and_shows_no_outer_process(host, rootfs):
    """In a user namespace of its own it meets the masks as locked; without masks there is a /proc of its own.

    Red when: --privileged masks; _mount_proc() binds the host's /proc where a new one is refused.
    """
    inner = [*NSBOX, "run", "--rootfs", str(rootfs), "--", "sh", "-c", "echo /proc/[0-9]*"]
    state = ["-e", "NSBOX_STATE=/dev/shm/state"]
    with pod(host, "outer", "--privileged"), detached(host, "outer"):
        for before in ([], ["unshare", "-U", "-r"]):
            done = host.nsbox("join", "outer", *state, "--", *before, *inner)
            assert (done.returncode, done.stdout, done.stderr) == (0, "/proc/1 /proc/2\n", ""), done
    with pod(host, "outer"), detached(host, "outer"):
        done = host.nsbox("join", "outer", *state, "--seccomp", "nested", "--", "unshare", "-U", "-r", *inner)
        first, hint = done.stderr.splitlines()
        assert done.returncode == 125 and done.stdout == "" and first.startswith("nsbox: cannot mount proc on /proc: "), done
        assert hint == f"hint: {MASKED}; see: findmnt -R /proc"
        done = host.nsbox("join", "outer", *state, "--", *inner)
        assert done.returncode == 125 and done.stdout == "" and done.stderr.startswith("nsbox: cannot create pod "), done


# ---- B32: sources of each type ----

def test_B32_a_pipe_and_a_socket_can_be_bound(host, rootfs):
    """What goes in on the host comes out inside, and the other way round.

    Red when: _mount_volume() takes what is no plain file for a directory (S_ISREG instead of S_ISDIR).
    """
    pipe, address = host.work / "pipe", host.work / "socket"
    os.mkfifo(pipe)
    volumes = ["-v", f"{pipe}:/run/pipe", "-v", f"{address}:/run/socket:ro"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        with pod(host, "p", "--rootfs", rootfs, *volumes), pod(host, "q"):
            look = "for f in /run/pipe /run/socket; do stat -c '%F %i' $f; done"
            wanted = f"fifo {pipe.stat().st_ino}\nsocket {address.stat().st_ino}"
            assert inside(host, "p", look) == inside(host, "q", look, "--rootfs", rootfs, *volumes) == wanted
            reader = host.popen([*NSBOX, "join", "p", "--", "cat", "/run/pipe"])
            host.run(["sh", "-c", 'echo through > "$1"', "sh", str(pipe)], check=True)
            assert reader.communicate(timeout=30)[0] == "through\n"
    pipe.unlink()
    address.unlink()


def test_B32_a_device_is_bound_but_does_not_work(host, rootfs):
    """Red when: volumes are mounted without MNT_BASE_ATTRS."""
    with pod(host, "p", "--rootfs", rootfs, "-v", "/dev/null:/run/null"):
        assert inside(host, "p", "stat -c %t:%T /run/null; (: > /run/null) 2>/dev/null || echo no") == "1:3\nno"


def test_B32_a_link_that_leads_nowhere_or_in_circles_is_no_source(host, rootfs):
    """Red when: open_host_path() does not follow links (O_NOFOLLOW): then the link itself is bound."""
    for name, target in (("dangling", "nowhere"), ("loop", "loop")):
        (host.work / name).symlink_to(target)
        said = refused(host, "create", "p", "--rootfs", rootfs, "-v", f"{host.work}/{name}:/x")
        assert said.startswith("nsbox: cannot use volume ") and ("No such file" in said or "symbolic links" in said), said


# ---- B36: a file system that stalls ----

# A FUSE file system that says what its root is and never answers what is asked below it. See fuse(4).
_STALLED = """
import os, struct, sys
import ctypes
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40755,user_id=0,group_id=0,allow_other".encode()
if ctypes.CDLL(None, use_errno=True).mount(b"stalled", os.fsencode(sys.argv[1]), b"fuse", 0, options):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
print("ready", flush=True)
INIT, GETATTR, STATFS, LOOKUP = 26, 3, 17, 1
while True:
    request = os.read(fd, 1 << 20)
    _, opcode, unique = struct.unpack_from("IIQ", request)
    if opcode == INIT:
        body = struct.pack("IIIIHHIIHHI", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0) + bytes(28)
    elif opcode == GETATTR:
        body = struct.pack("QII", 0, 0, 0) + struct.pack("QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
    else:
        print("stalled", opcode, flush=True)
        continue
    os.write(fd, struct.pack("IiQ", 16 + len(body), 0, unique) + body)
"""


def test_B36_a_rootfs_that_stalls_holds_up_no_other_pod(host, rootfs):
    """Red when: store.entries() takes the lock of each pod."""
    skip_or_fail("" if os.path.exists("/dev/fuse") else "needs /dev/fuse")
    stalled = host.work / "stalled"
    stalled.mkdir()
    server = host.popen([sys.executable, "-I", "-c", _STALLED, str(stalled)])
    assert server.stdout.readline() == "ready\n"
    create = host.popen([*NSBOX, "create", "stuck", "--rootfs", str(stalled), "--in-place"])
    try:
        assert server.stdout.readline().startswith("stalled ")
        for _ in until(20):
            if "creating" in host.nsbox("ls", timeout=20).stdout:
                break
        with pod(host, "p", "--rootfs", rootfs):
            assert inside(host, "p", "echo works") == "works"
            assert host.nsbox("ls", "-q", timeout=20).stdout.split() == ["p", "stuck"]
        assert host.nsbox("prune", timeout=20).returncode == 0
        assert create.poll() is None, "it did not stall"
    finally:
        server.kill()  # the kernel fails what waits then
        server.wait(timeout=20)
        said = create.communicate(timeout=30)
        host.run(["umount", "-l", str(stalled)], check=True)
    assert create.returncode == 125 and said[0] == "" and said[1].startswith("nsbox: cannot "), said
    assert host.nsbox("ls", "-q").stdout == ""
