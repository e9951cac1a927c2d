"""PID 1 of a fake host: makes the private world out of new namespaces, says so, and reaps orphans.

Arguments: a uid, the state directory, and pairs of a directory that is closed to the ordinary user and
one below it that he must see. Run by FakeHost, with -I -S. It makes its system calls itself: each program
less to start is a millisecond, some sixteen hundred times in a run of the tests.
"""

import _socket  # without the layers above it, which take longer than all that is done here
import ctypes
import fcntl
import os
import signal
import stat
import struct
import sys

# <linux/mount.h>
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC, MS_SHARED = 2, 4, 8, 4096, 8192, 16384, 1 << 20
MNT_DETACH = 2
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
CLOSED = MS_NOSUID | MS_NODEV
PASSING = ("/tmp/", "/var/tmp/")
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with both paths."""
    if libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source, None, target)


def unmount(target: str) -> None:
    """umount2(2), with all that is mounted below."""
    if libc.umount2(target.encode(), MNT_DETACH):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
    os.rmdir(target)


def lo_up() -> None:
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    asked = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
    flags = struct.unpack("16sh14x", asked)[1]
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    sock.close()


def make_devices() -> None:
    """Nodes of its own: a broken build that lets a pod change them must not change the machine's."""
    nodes = "/run/.nodes"
    os.mkdir(nodes)
    mount("nodes", nodes, "tmpfs", 0, "mode=755")
    for name, numbers in NODES.items():
        os.mknod(f"{nodes}/{name}", stat.S_IFCHR | 0o666, os.makedev(*numbers))
        mount(f"{nodes}/{name}", f"/dev/{name}", "", MS_BIND)
    unmount(nodes)
    mount("shm", "/dev/shm", "tmpfs", CLOSED, "mode=1777")
    if os.path.isdir("/dev/mqueue"):
        mount("mqueue", "/dev/mqueue", "mqueue")


def make_sys() -> None:
    """A sysfs of the new network namespace, with the machine's control groups in it."""
    kept = "/run/.cgroup"
    os.mkdir(kept)
    mount("/sys/fs/cgroup", kept, "", MS_BIND | MS_REC)
    mount("sysfs", "/sys", "sysfs", CLOSED | MS_NOEXEC)
    mount(kept, "/sys/fs/cgroup", "", MS_BIND | MS_REC)
    unmount(kept)


def forget_passing_mounts(*needed: str) -> None:
    """Detach what others have mounted in temporary directories, but for what has one of `needed` on it.

    When such a directory is removed on the machine its mount goes from every other mount table too: a
    snapshot would be different, and nothing that the test did would be the reason.
    """
    with open("/proc/self/mountinfo", errors="surrogateescape") as table:
        places = [line.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape") for line in table]
    for place in reversed(places):
        if place.startswith(PASSING) and not any(path.startswith(f"{place}/") for path in needed):
            libc.umount2(os.fsencode(place), MNT_DETACH)  # or it went with one that it is on


def open_directory(wall: str, needed: str) -> None:
    """Cover `wall` by a directory that is open to all and has nothing in it but `needed`."""
    kept = "/run/.open"
    os.mkdir(kept)
    mount(needed, kept, "", MS_BIND)
    mount("open", wall, "tmpfs", 0, "mode=755")
    os.makedirs(needed)
    mount(kept, needed, "", MS_MOVE)
    os.rmdir(kept)


def make_world(uid: str, state: str, *closed: str) -> None:
    """The propagation is private until the last mount is made: else the real host would get them all."""
    forget_passing_mounts(state, __file__, sys.executable, *closed)
    os.umask(0)
    mount("run", "/run", "tmpfs", CLOSED, "mode=755")
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    os.mkdir("/run/mount", 0o755)  # mount(8) makes it when it is first run
    if os.path.isdir("/sys/fs/cgroup"):
        make_sys()
    make_devices()
    mount("state", state, "tmpfs", CLOSED, f"mode=700,uid={uid},gid={uid}")
    os.umask(0o022)
    for wall, needed in zip(closed[::2], closed[1::2], strict=True):
        open_directory(wall, needed)
    mount("none", "/", "", MS_REC | MS_SHARED)
    lo_up()


def reap() -> None:
    """Blocked signals and one loop: nothing that happens inside may end it early."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.write(1, b"ready\n")
    while True:
        if signal.sigwaitinfo({signal.SIGCHLD, signal.SIGTERM}).si_signo == signal.SIGTERM:
            os._exit(0)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    make_world(*sys.argv[1:])
    reap()
