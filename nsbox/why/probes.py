"""Proofs: something is done on one side, and looked for on the other. Nothing of it stays.

Each answers with what it found ("same", "different", "inside", "around"), or "" where both would
look alike either way, and with what was seen, in a few words.
"""

import errno
import os
import secrets
import socket
import time
from typing import Any, NamedTuple

from ..errors import NsboxError, one_line
from ..linux import apart, mounts, namespaces, process, syscalls
from ..linux.flags import IPC_CREAT, IPC_EXCL, CloneFlag
from ..pod import inside
from ..privilege import attributes
from .sides import Made, Side, between, fdinfo, within

_TIMEOUT_S = 2.0
_SHM = "dev/shm"


class Proof(NamedTuple):
    """What a probe found.

    Attributes:
        how: in the words of :func:`.sides.relation`, or "" if it cannot tell.
        seen: what was tried, and what came of it.
    """

    how: str
    seen: str


def prove(kind: str, a: Side, b: Side) -> Proof:
    """Try it; a probe that is refused cannot tell, and says what was refused."""
    try:
        return _PROBES[kind](a, b)
    except NsboxError as err:
        said = one_line(err).removeprefix("cannot try it: ")
        return Proof("", f"cannot be tried: {said}")


def _here(name: str) -> bytes:
    """A file of our own /proc: of the namespaces that we are in just now."""
    with open(f"/proc/{name}", "rb") as file:
        return file.read().strip()


# ---- uts ----

def _uts(a: Side, b: Side) -> Proof:
    names = [str(within(side, "uts", lambda: os.fsdecode(_here("sys/kernel/hostname")))) for side in (a, b)]
    if names[0] != names[1]:
        return Proof("different", f"the hostnames are {names[0]!r} and {names[1]!r}")
    if "uts" not in a.apart | b.apart:
        return Proof("same", f"both read the hostname {names[0]!r}, from where we are")
    # Equal names prove nothing. The NIS domain name is in the same namespace, and nobody misses it for
    # a moment; it is changed where we are not.
    marked, other = (a, b) if "uts" in a.apart else (b, a)
    token = f"nsbox-{secrets.token_hex(8)}".encode()

    def make() -> Made:
        before = _here("sys/kernel/domainname")
        syscalls.setdomainname(token)

        def finish(seen: Any) -> Any:
            syscalls.setdomainname(before)
            return seen

        return None, finish

    seen = between(lambda: marked.enter("uts"), make, lambda: other.enter("uts"),
                   lambda _: _here("sys/kernel/domainname") == token)  # fmt: skip
    said = "was read" if seen else "was not seen"
    return Proof("same" if seen else "different",
                 f"a domain name set for a moment in {marked.word} {said} in {other.word}")  # fmt: skip


# ---- ipc ----

def _ipc(a: Side, b: Side) -> Proof:
    key = secrets.randbelow(2**31 - 2) + 1

    def make() -> Made:
        number = syscalls.shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0o666)

        def finish(seen: Any) -> Any:
            syscalls.shm_remove(number)
            return seen

        return None, finish

    def look(_: Any) -> bool:
        try:
            syscalls.shmget(key, 0, 0)
        except OSError as err:
            if err.errno != errno.ENOENT:
                raise
            return False
        return True

    found = between(lambda: a.enter("ipc"), make, lambda: b.enter("ipc"), look)
    said = "was found" if found else "does not exist"
    return Proof("same" if found else "different",
                 f"a System V shared memory segment made in {a.word} {said} in {b.word}")  # fmt: skip


# ---- net ----

def _net(a: Side, b: Side) -> Proof:
    token = secrets.token_bytes(16)
    name = b"\0nsbox-why-" + secrets.token_hex(8).encode()

    def make() -> Made:
        tcp, unix = _listener(socket.AF_INET, ("127.0.0.1", 0)), _listener(socket.AF_UNIX, name)

        def finish(seen: Any) -> Any:
            return seen, token in (_heard(tcp), _heard(unix)) if seen else False

        return tcp.getsockname()[1], finish

    def look(port: int) -> tuple[str, str]:
        try:
            _call_up(socket.AF_INET, ("127.0.0.1", port), token)
            return f"127.0.0.1:{port}", ""
        except OSError as err:
            if err.errno not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
                return f"127.0.0.1:{port}", err.strerror or "failed"
        # lo is down. These need none, and belong to the network namespace as well: unix(7).
        try:
            _call_up(socket.AF_UNIX, name, token)
            return "an abstract socket (lo is down)", ""
        except OSError as err:
            return "an abstract socket (lo is down)", err.strerror or "failed"

    (where, why), arrived = between(lambda: a.enter("net"), make, lambda: b.enter("net"), look)
    what = f"a connection from {b.word} to {where}, where {a.word} listens"
    if arrived:
        return Proof("same", f"{what}: it arrived")
    return Proof("different", f"{what}: {why or 'somebody else answered'}")


def _listener(family: int, address: Any) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    one.bind(address)
    one.listen(8)
    return one


def _call_up(family: int, address: Any, token: bytes) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(_TIMEOUT_S)
        one.connect(address)
        one.sendall(token)


def _heard(listener: socket.socket) -> bytes:
    """What whoever called first has said; nothing if nobody did. The kernel has taken the call already."""
    listener.settimeout(0)
    try:
        caller, _ = listener.accept()
    except BlockingIOError:
        return b""
    with caller:
        caller.settimeout(_TIMEOUT_S)
        try:
            return caller.recv(64)
        except OSError:
            return b""


# ---- pid ----

def _pid(a: Side, b: Side) -> Proof:
    b_in_a, a_in_b = _number(a, b), _number(b, a)
    how = {(True, True): "same", (True, False): "around", (False, True): "inside"}.get(
        (b_in_a > 0, a_in_b > 0), "different")  # fmt: skip
    said = [f"{other.word} is process {number} to {side.word}, and can be signalled" if number
            else f"no number leads from {side.word} to {other.word}"
            for side, other, number in ((a, b, b_in_a), (b, a, a_in_b))]  # fmt: skip
    return Proof(how, "; ".join(said))


def _number(side: Side, other: Side) -> int:
    """The number by which `other` can be signalled from the PID namespace of `side`, or 0. Signal 0 is sent."""
    numbers = [int(word) for word in inside.status_of(other.pid)["NSpid"].split()]
    proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def look() -> int:
        for number in numbers:
            try:
                pidfd = process.open_pid(number)
            except ProcessLookupError:
                continue
            try:
                # Which process that is, by its number out here: this /proc is still ours.
                if fdinfo(proc_fd, pidfd, "Pid") == other.pid and process.send_signal(pidfd, 0):
                    return number
            except PermissionError:
                return number  # it is there, and belongs to somebody else
            finally:
                os.close(pidfd)
        return 0

    try:
        return int(within(side, "pid", look, fork=True))
    finally:
        os.close(proc_fd)


# ---- user ----

def _user(a: Side, b: Side) -> Proof:
    there, back = _try_to_enter(a, b), _try_to_enter(b, a)
    roots = [_root_of(side) for side in (a, b)]
    maps = f"root of {a.word} is {roots[0]}, of {b.word} {roots[1]}"
    if there == back == "same":
        return Proof("same", f"setns(2) from one to the other: it is there already; {maps}")
    if there == "in" or back == "in":
        outer, inner = (a, b) if there == "in" else (b, a)
        how = "around" if there == "in" else "inside"
        return Proof(how, f"who has all rights in {outer.word} may enter that of {inner.word}; {maps}")
    if "" in (there, back):
        return Proof("", f"setns(2) is refused to us, so that it proves nothing; {maps}")
    return Proof("different", f"with all rights in one, setns(2) to the other is refused; {maps}")


def _try_to_enter(side: Side, other: Side) -> str:
    """With the rights of `side`'s user namespace, enter `other`'s: "same", "in", "refused", "" if it has none."""
    def work() -> str:
        target_fd = os.open(f"/proc/{other.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if "user" in side.apart:
            namespaces.join(side.found.pidfd, frozenset({"user"}))
        try:
            syscalls.setns(target_fd, CloneFlag.CLONE_NEWUSER)
        except OSError as err:
            if err.errno == errno.EINVAL:
                return "same"
            if err.errno != errno.EPERM:
                raise
            return "refused" if "user" in side.apart or os.geteuid() == 0 else ""
        return "in"

    return str(apart.run("try it", work))


def _root_of(side: Side) -> str:
    """Which user of ours is its uid 0."""
    lines = [list(map(int, line.split())) for line in _here(f"{side.pid}/uid_map").splitlines()]
    outside = next((first for low, first, count in lines if low == 0 and count), None)
    return "nobody out here" if outside is None else f"uid {outside} out here"


# ---- cgroup, time ----

def _cgroup(a: Side, b: Side) -> Proof:
    paths = [str(within(side, "cgroup", lambda: os.fsdecode(_here("self/cgroup")).splitlines()[-1]))
             for side in (a, b)]  # fmt: skip
    if paths[0] != paths[1]:
        return Proof("different", f"one process is at {paths[0]} to {a.word} and at {paths[1]} to {b.word}")
    if "cgroup" not in a.apart | b.apart:
        return Proof("same", f"both see this process at {paths[0]}, from where we are")
    return Proof("", f"both see this process at {paths[0]}: two with one root look alike")


def _time(a: Side, b: Side) -> Proof:
    def behind() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    clocks = []
    for side in (a, b):
        before = behind()
        there = float(within(side, "time", behind, fork=True))
        clocks.append(there - before)
    difference = abs(clocks[0] - clocks[1])
    if difference > _CLOCKS_APART_S:
        return Proof("different", f"the clocks since boot are {round(difference)} s apart")
    if "time" not in a.apart | b.apart:
        return Proof("same", "both read the clock that we read")
    return Proof("", "both clocks since boot say the same: two without offsets look alike")


_CLOCKS_APART_S = 0.9  # offsets are whole seconds in practice; to read both takes milliseconds


# ---- mnt, and what lies behind it ----

def _mnt(a: Side, b: Side) -> Proof:
    numbers = [_root_mount(side) for side in (a, b)]
    if numbers[0] == numbers[1]:
        return Proof("same", f"the root of both is one mount, number {numbers[0]}: each belongs to one namespace only")
    return Proof("different", f"the roots are two mounts, numbers {numbers[0]} and {numbers[1]}")


def _root_mount(side: Side) -> int:
    proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def look() -> int:
        return fdinfo(proc_fd, os.open("/", os.O_PATH | os.O_CLOEXEC), "mnt_id")

    try:
        return int(within(side, "mnt", look))
    finally:
        os.close(proc_fd)


def _root(a: Side, b: Side) -> Proof:
    """The root directories themselves: two mount namespaces may show the same files, and one two roots."""
    def look(side: Side) -> list[int]:
        side.go_to_root()
        found = os.stat("/")
        return [found.st_dev, found.st_ino]

    one, other = within(a, "mnt", lambda: look(a)), within(b, "mnt", lambda: look(b))
    if one == other:
        return Proof("same", "/ is one directory")
    return Proof("different", "/ is not the same directory")


def _shm(a: Side, b: Side) -> Proof:
    """POSIX shared memory is a file: it belongs to a mount, and not to the IPC namespace. See shm_overview(7)."""
    name = f".nsbox-why-{secrets.token_hex(8)}"

    def join(side: Side) -> None:
        side.enter("user", "mnt")  # with the ids that a file in there can have
        side.go_to_root()
        try:
            attributes.become(0, 0)
        except OSError:
            pass  # it has no root: we stay who we are

    def make() -> Made:
        dir_fd = _open_shm()
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=dir_fd))

        def finish(seen: Any) -> Any:
            os.unlink(name, dir_fd=dir_fd)
            return seen

        return None, finish

    def look(_: Any) -> bool:
        try:
            os.stat(name, dir_fd=_open_shm(), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    found = between(lambda: join(a), make, lambda: join(b), look)
    said = "was found" if found else "does not exist"
    return Proof("same" if found else "different", f"a file made in /dev/shm of {a.word} {said} in {b.word}")


def _open_shm() -> int:
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return mounts.open_in_root(root_fd, _SHM, os.O_PATH | os.O_DIRECTORY)


_PROBES = {
    "user": _user, "cgroup": _cgroup, "ipc": _ipc, "uts": _uts, "net": _net, "pid": _pid, "time": _time,
    "mnt": _mnt, "root": _root, "shm": _shm,
}  # fmt: skip
