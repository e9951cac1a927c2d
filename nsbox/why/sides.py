"""The two that are compared, and work that is done between them.

    the child that tries              its own child
      joins the namespace of A          waits
      makes something there
      what it made ------------------>  joins the namespace of B, looks for it
      <--------------------------------- what it saw
      takes it away again
"""

import json
import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import NsboxError, one_line
from ..linux import apart, mounts, namespaces, nsfs
from ..pod import target
from ..pod.target import Target

Join = Callable[[], object]
# What was made, in terms of JSON, for the other side; and what takes it away again. That gets what the
# other side saw (None if it failed) and says what it means.
Made = tuple[Any, Callable[[Any], Any]]
Look = Callable[[Any], Any]


class Side(NamedTuple):
    """One of the two.

    Attributes:
        word: as the person wrote it.
        ids: of its namespaces, by kind.
        apart: the kinds in which it is not where we are.
    """

    word: str
    found: Target
    ids: dict[str, int]
    apart: frozenset[str]

    @property
    def pid(self) -> int:
        """Its host PID; of a pod that of its PID 1."""
        return self.found.pid

    def enter(self, *kinds: str) -> None:
        """Enter its namespaces of these kinds; for a child. Without root its user namespace gives the right to.

        Entering mnt leaves one at the root of that namespace: see :meth:`go_to_root`.
        """
        wanted = frozenset(kinds) & self.apart
        if wanted and os.geteuid() != 0:
            wanted |= {"user"} & self.apart
        namespaces.join(self.found.pidfd, wanted)

    def go_to_root(self) -> None:
        """Take its own root directory, once in its mount namespace.

        An ordinary user has no right to, and needs none where it is the root that we have.
        """
        if self.found.root_fd < 0:
            return
        try:
            mounts.chroot_into(self.found.root_fd)
        except PermissionError:
            if _place(self.found.root_fd) != _place(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)):
                raise


def open_side(word: str) -> Side:
    """The process or pod that `word` names. Close its `found` after use.

    Raises:
        PodNotFound, PodDead, NsboxError: as for join.
    """
    found = target.find(word)
    try:
        ids = namespaces.ids_of(found.pid)
    except OSError as err:
        found.close()
        raise NsboxError(f"cannot look at {found.label}", hint="it belongs to somebody else: try as root") from err
    return Side(word, found, ids, found.kinds)


def within(side: Side, kind: str, work: Callable[[], Any], *, fork: bool = False) -> Any:
    """What `work` returns in the namespace of that kind of `side`, done by a child.

    Args:
        fork: for pid and time, which only a child of who joins them is in. See setns(2).
    """
    def entered() -> Any:
        side.enter(kind)
        return apart.run("try it", work) if fork and kind in side.apart else work()

    return apart.run("try it", entered)


def fdinfo(proc_fd: int, fd: int, key: str) -> int:
    """A number of /proc/self/fdinfo, by a /proc that was opened before. See proc_pid_fdinfo(5)."""
    with open(os.open(f"self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd), "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key.encode() + b":"))


def _place(fd: int) -> tuple[int, int, int]:
    """Which directory is open, and by which mount."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, fdinfo(os.open("/proc", os.O_PATH | os.O_CLOEXEC), fd, "mnt_id")


def between(join_a: Join, make: Callable[[], Made], join_b: Join, look: Look) -> Any:
    """Make something on one side, look for it from the other, take it away again; what that means.

    Raises:
        NsboxError: a step was refused; what was made is gone.
    """
    return apart.run("try it", lambda: _between(join_a, make, join_b, look))


def _between(join_a: Join, make: Callable[[], Made], join_b: Join, look: Look) -> Any:
    told_r, told_w = os.pipe2(os.O_CLOEXEC)
    seen_r, seen_w = os.pipe2(os.O_CLOEXEC)
    other = os.fork()
    if other == 0:
        try:
            os.close(told_w)
            _other_side(told_r, seen_w, join_b, look)
        finally:
            os._exit(0)
    os.close(told_r)
    os.close(seen_w)
    join_a()
    made, finish = make()
    answer: dict[str, Any] = {}
    try:
        os.write(told_w, json.dumps(made).encode())
        os.close(told_w)
        answer = json.loads(_read_all(seen_r) or b'{"failed": "the other side was killed"}')
    finally:
        meaning = finish(answer.get("seen"))
    os.waitpid(other, 0)
    if "failed" in answer:
        raise NsboxError(answer["failed"])
    return meaning


def _other_side(told_r: int, seen_w: int, join_b: Join, look: Look) -> None:
    try:
        signal.setitimer(signal.ITIMER_REAL, apart.DEADLINE_S)
        told = _read_all(told_r)
        if not told:
            return  # the first side failed, and says so itself
        join_b()
        answer = {"seen": look(json.loads(told))}
    except (OSError, NsboxError) as err:
        answer = {"failed": one_line(err) if isinstance(err, NsboxError) else str(err.strerror)}
    os.write(seen_w, json.dumps(answer).encode())


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def relation(kind: str, a: Side, b: Side) -> str:
    """By the kernel's own ids: "same", "different", "inside" (A in B), "around" (B in A); "" if unknown.

    Only PID and user namespaces lie in one another.
    """
    if kind not in a.ids or kind not in b.ids:
        return ""
    if a.ids[kind] == b.ids[kind]:
        return "same"
    if kind in ("pid", "user"):
        if b.ids[kind] in _above(a.pid, kind):
            return "inside"
        if a.ids[kind] in _above(b.pid, kind):
            return "around"
    return "different"


def _above(pid: int, kind: str) -> set[int]:
    """The ids of all namespaces around that of a process, as far as we may see them."""
    found: set[int] = set()
    try:
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return found
    while True:
        try:
            above = nsfs.parent(fd)
        except OSError:
            return found
        finally:
            os.close(fd)
        found.add(os.fstat(above).st_ino)
        fd = above
