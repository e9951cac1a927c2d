"""The kernel's files while somebody puts links in the place of what covers them, or of a terminal.

Row ids as in the list of security cases. Each test says how to break the build so that it is red.
"""

import errno
import os
from pathlib import Path

import pytest
from inpod import Racer, detached, inside, pod
from procfs import cmdline, until
from ptyclient import Terminal

from nsbox.privilege import masks

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

LEAST_SWAPS = 1000
CREATES = 60

# Makes pods and looks at what covers their /proc. Arguments: how many, rootfs or "", a pod's name or "".
# With a pod's name it makes members of that one instead.
_LOOK = r"""
import sys, time
import nsbox
count, rootfs, target = int(sys.argv[1]), sys.argv[2], sys.argv[3]
script = '''
for place in /proc/keys /proc/timer_list /proc/interrupts; do stat -L -c %t:%T $place; wc -c < $place; done
(: >> /proc/sys/kernel/core_pattern) 2>/dev/null && echo writable
(: >> /proc/keys) 2>/dev/null; ls -A /proc/acpi /sys/firmware | grep -v :'''
good = 0
end = time.monotonic() + 90
while good < count and time.monotonic() < end:
    try:
        if target:
            said = nsbox.join(target, ["sh", "-c", script], rootfs=rootfs or None, capture_output=True, text=True).stdout
        else:
            with nsbox.Pod(rootfs=rootfs or None, in_place=bool(rootfs)) as pod:
                said = pod.run(["sh", "-c", script], capture_output=True, text=True).stdout
    except nsbox.NsboxError as err:
        print("refused:", err, err.__cause__)
        continue
    if said.split() != ["1:3", "0"] * 3:
        print("wrong:", said.split())
    good += 1
print("good:", good)
"""


def looked(host, rootfs: "Path | str", target: str, racer: Racer) -> list[str]:
    """The refusals while members or pods are made under a racer; each that was made was well covered."""
    with racer:
        done = host.python(_LOOK, str(CREATES), str(rootfs), target, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("wrong")], lines[:5]
    assert lines[-1] == f"good: {CREATES}", lines[-5:]
    assert racer.swaps >= LEAST_SWAPS, racer.swaps
    return [line for line in lines if line.startswith("refused")]


@pytest.mark.parametrize("link", ["/proc/sys/kernel/core_pattern", "/proc/kcore", "/canary/marker"])
def test_B05_what_masks_is_the_null_device_whatever_the_rootfs_has_for_one(host, canary, rootfs, link):
    """The rootfs itself is used, so that the swap goes on under the mounts.

    Red when: _enter_rootfs() takes the /dev/null to mask with from the rootfs, before /dev is mounted, and
    Covers does not look at its numbers.
    """
    os.mknod(rootfs / "dev/null", 0o020666, os.makedev(1, 3))
    (rootfs / "dev/lnk").symlink_to(link)
    assert looked(host, rootfs, "", Racer(host, rootfs / "dev/null", rootfs / "dev/lnk")) == []


def test_B05_what_masks_a_members_proc_is_not_taken_from_the_pods_dev(host, canary, rootfs):
    """Root of the pod swaps it in the /dev that members without a root of their own share.

    Red when: as above, with the pod's /dev/null for a member's.
    """
    with pod(host, "p", "--rootfs", rootfs), detached(host, "p") as pid:
        dev = Path(f"/proc/{pid}/root/dev")
        inside(host, "p", "ln -s /proc/sys/kernel/core_pattern /dev/lnk")
        assert looked(host, rootfs, "p", Racer(host, dev / "null", dev / "lnk")) == []
        inside(host, "p", "rm /dev/lnk")


@pytest.fixture
def own_dev(host):
    """A /dev in the fake host that is a memory file system, so that what is swapped is not the machine's."""
    script = """
        mount -t tmpfs -o mode=755,nosuid dev /mnt
        for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
            numbers=${node#*:}; mknod -m 666 "/mnt/${node%%:*}" c "${numbers%:*}" "${numbers#*:}"
        done
        mkdir /mnt/shm /mnt/mqueue /mnt/pts; ln -s /proc/self/fd /mnt/fd; ln -s /proc/sys/kernel/core_pattern /mnt/lnk
        mount --rbind /dev/pts /mnt/pts
        mount --move /mnt /dev || { mount --make-private /mnt; mount --rbind /mnt /dev; umount -l /mnt; }
    """
    host.run(["sh", "-ec", script], check=True)
    yield Path("/dev")
    host.run(["umount", "-R", "-l", "/dev"], check=True)


def test_B05_of_the_hosts_tree_the_null_device_is_looked_at(host, own_dev):
    """Where there is a link for it the pod is refused; the link is not bound over /proc/keys.

    Red when: Covers does not look at the numbers of what it was given.
    """
    refused = looked(host, "", "", Racer(host, own_dev / "null", own_dev / "lnk"))
    assert all("/dev/null" in line or "null device" in line for line in refused), refused[:5]


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "/etc/passwd", "/"])
def test_B05_another_device_is_not_taken_for_the_null_device(name):
    """Red when: Covers looks only whether it is a character device."""
    fd = os.open(name, os.O_PATH | os.O_CLOEXEC)
    try:
        with pytest.raises(OSError) as caught:
            masks.Covers(fd)
        assert caught.value.errno == errno.ENODEV
    finally:
        os.close(fd)


# ---- B06: the terminal ----

def test_B06_the_terminal_is_the_devpts_own_whatever_links_are_put_there(host, canary):
    """Somebody swaps /dev/ptmx, while others come with terminals of their own. What is in devpts, and that
    itself, cannot be replaced from inside.

    Red when: attach._open_pty_inside() asks /dev/ptmx alone: then there is none half the time.
    """
    joins = 25
    with pod(host, "p", "--rootfs", "busybox"), detached(host, "p") as pid:
        dev = Path(f"/proc/{pid}/root/dev")
        inside(host, "p", "ln -s /proc/self/fd/0 /dev/lnk")
        kept = "mv /dev/pts /dev/x; mv /dev/pts/ptmx /dev/pts/y; ln -s /dev/null /dev/pts/0; rm /dev/pts/ptmx; ls /dev/pts"
        assert inside(host, "p", f"({kept}) 2>/dev/null") == "ptmx"
        with Racer(host, dev / "ptmx", dev / "lnk") as racer:
            for _ in range(joins):
                with Terminal(host) as terminal:
                    script = "for n in 0 1 2; do readlink /proc/self/fd/$n; done; stat -f -L -c %t /proc/self/fd/0; tty"
                    terminal.nsbox("join", "p", "-t", "--", "sh", "-c", script)
                    assert terminal.ends_with() == 0, terminal.said
                    words = terminal.said.decode().split()
                    assert words == ["/dev/pts/0"] * 3 + ["1cd1", "/dev/pts/0"], words
        assert racer.swaps >= LEAST_SWAPS, racer.swaps


def other_program(host, rootfs: Path, script: str) -> "tuple[object, int]":
    """A process of another program in `rootfs`, which runs `script` first; (its command, its PID inside)."""
    for node in ("pts", "real"):
        (rootfs / "dev" / node).mkdir(exist_ok=True)
    (rootfs / "dev/null").touch()  # a shell opens it for what it runs in the background
    mounts = 'mount -t proc proc "$1/proc"; mount -t devpts -o newinstance,ptmxmode=666 devpts "$1/dev/real"'
    begun = host.popen(["unshare", "--mount", "--pid", "--fork", "sh", "-ec", f'{mounts}; exec chroot "$1" sh -c "$2"', "sh",
                        str(rootfs), f"{script}; echo ready; exec sleep 300"])  # fmt: skip
    assert begun.stdout.readline() == "ready\n"
    for _ in until(10.0):  # the shell has said so before it becomes the sleep
        for inner, real in host.processes().items():
            if cmdline(real) == b"sleep\x00300\0":
                return begun, inner
    raise AssertionError("the other program never slept")


def test_B06_what_only_looks_like_a_multiplexor_is_not_even_opened(host, rootfs):
    """In the root of another program, whose /dev is its own affair: a pipe, whose other end would notice.

    Red when: terminal.open_pty() does not look before it opens.
    """
    script = "mkfifo /dev/pts/ptmx; ln -s pts/ptmx /dev/ptmx; (cat /dev/ptmx; echo opened > /dev/opened) & :"
    begun, pid = other_program(host, rootfs, script)
    with Terminal(host) as terminal:
        terminal.nsbox("join", str(pid), "-t", "--", "/bin/true")
        assert terminal.ends_with() == 125
        assert b"cannot open a terminal" in terminal.said, terminal.said
    for _ in until(1.0):  # who waits at the other end would say so at once
        assert not (rootfs / "dev/opened").exists()
    begun.end()


def test_B06_the_terminals_end_is_asked_of_the_multiplexor_not_of_a_name(host, canary, rootfs):
    """The same, with its multiplexor elsewhere, and files of its own where the ends would be looked for.

    Red when: terminal.open_pty() opens /dev/pts/N for the number of the pty.
    """
    script = "ln -s /dev/real/ptmx /dev/pts/ptmx; for n in 0 1 2; do echo bait > /dev/pts/$n; done"
    begun, pid = other_program(host, rootfs, script)
    with Terminal(host) as terminal:
        terminal.nsbox("join", str(pid), "-t", "--", "sh", "-c", "readlink /proc/self/fd/0; stat -f -L -c %t /proc/self/fd/1; tty")
        assert terminal.ends_with() == 0, terminal.said
        assert terminal.said.decode().split() == ["/dev/real/0", "1cd1", "/dev/real/0"], terminal.said
    begun.end()
