"""Every namespace of this machine, whoever made it, and what keeps it alive. See namespaces(7).

A namespace lives while a process or one of its threads is in it, a descriptor or a bind mount
is a file of it, a socket belongs to it, or it is the parent or the owner of another one. All of
these are looked at. Nothing is executed in any of them, and nothing is kept open.

Use:
    world = discovery.discover()
    world.processes[4711].namespaces["net"]      # the id of its network namespace
    world.namespaces[4026532345].owner           # the id of the user namespace that owns it
    world.unread                                 # what we may not see, and why

Ids are inode numbers, as `lsns` and `ls -l /proc/PID/ns` show them. The kernel gives them out
again when a namespace is gone: two ids of one answer can be compared, those of two answers cannot.
For these there is `serial`, on kernels that have it.
"""

import errno
import os
from functools import partial
from typing import Callable, Iterable, Iterator, Sequence

from . import nsfs, nsmounts, process, procfs
from .namespaces import KINDS
from .procfs import Process
from .world import Holder, Namespace, Unread, World

__all__ = ["Holder", "Namespace", "Process", "Unread", "World", "discover", "open_namespace"]

_TELLING = frozenset({"socket", *(kind.name for kind in KINDS)})


def discover() -> World:
    """Look at everything there is. Takes some tens of milliseconds for a thousand processes."""
    search = _Search()
    search.look_at_processes()
    search.look_at_mounts()
    search.look_at_descriptors()
    search.relate()
    return search.answer()


class _Row:
    """A namespace while it is found out about."""

    __slots__ = ("id", "kind", "serial", "owner", "parent", "uid", "pids", "holders")

    def __init__(self, about: nsfs.About) -> None:
        self.id, self.kind = about
        self.serial: int | None = None
        self.owner: int | None = None
        self.parent: int | None = None
        self.uid: int | None = None
        self.pids: list[int] = []
        self.holders: list[Holder] = []

    def finished(self) -> Namespace:
        return Namespace(
            self.id, self.kind, self.serial, self.owner, self.parent, self.uid,
            tuple(self.pids), tuple(self.holders),
        )  # fmt: skip


class _Search:
    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.rows: dict[int, _Row] = {}
        self.own: dict[str, int] = {}
        self._unread: dict[tuple[str, str], set[int]] = {}
        self._links: list[tuple[int, int, str]] = []  # (pid, descriptor, what it is), if it may be of interest
        self._mounted: dict[str, int] = {}  # where a namespace is mounted
        self.sockets: dict[int, int] = {}

    def _row(self, kind: str, number: int) -> _Row:
        if number not in self.rows:
            self.rows[number] = _Row(nsfs.About(number, kind))
        return self.rows[number]

    def _blind(self, what: str, err: OSError, number: int) -> None:
        self._unread.setdefault((what, os.strerror(err.errno or 0)), set()).add(number)

    # ---- processes, threads ----

    def look_at_processes(self) -> None:
        for pid in procfs.pids():
            try:
                dir_fd = procfs.open_directory(pid)
            except OSError:
                continue  # it has ended
            try:
                one = procfs.read(dir_fd)
                self._enter(one)
                if not (one.kernel or one.problem):
                    self._links += _telling(pid, procfs.descriptors(dir_fd))
            except procfs.GONE:
                continue
            except PermissionError as err:
                self._blind("descriptors", err, pid)
            finally:
                os.close(dir_fd)
        self.own = self.processes[procfs.own_pid()].namespaces

    def _enter(self, one: Process) -> None:
        self.processes[one.pid] = one
        if one.problem:
            self._unread.setdefault(("namespaces", one.problem), set()).add(one.pid)
        for kind, number in one.namespaces.items():
            self._row(kind, number).pids.append(one.pid)
        for kind, number in one.children.items():
            self._row(kind, number).holders.append(Holder("children", one.pid, kind))
        for thread, kind, number in one.strays:
            self._row(kind, number).holders.append(Holder("thread", one.pid, str(thread)))

    # ---- mounts ----

    def look_at_mounts(self) -> None:
        """Bind mounts of namespaces, in each mount namespace and below each root that there is."""
        seen = set()
        for one in self.processes.values():
            view = one.namespaces.get("mnt"), one.root
            if view[0] is None or view in seen:
                continue
            try:
                entries = nsmounts.of_process(one.pid)
            except PermissionError as err:
                self._blind("mounts", err, one.pid)
                continue
            except OSError:
                continue  # it has ended
            seen.add(view)
            for entry in entries:
                row = self._row(*nsmounts.named(entry))
                if not any(known[0] == "mount" and known[2] == entry.target for known in row.holders):
                    row.holders.append(Holder("mount", one.pid, entry.target))
                self._mounted[entry.target] = row.id

    # ---- descriptors, sockets ----

    def look_at_descriptors(self) -> None:
        places: dict[int, tuple[int, int]] = {}
        for pid, number, link in self._links:
            if link.startswith("/"):
                if link == "/" or link in self._mounted:  # opened by the path of a mount, be it gone
                    self._opened_by_path(pid, number)
                continue
            kind, _, rest = link.partition(":")
            if kind == "socket":
                places.setdefault(int(rest.strip("[]")), (pid, number))
            else:
                self._row(kind, int(rest.strip("[]"))).holders.append(Holder("descriptor", pid, str(number)))
        self.sockets = {inode: pid for inode, (pid, _) in places.items()}
        self._look_at_sockets(places.values())

    def _opened_by_path(self, pid: int, number: int) -> None:
        try:
            fd = nsfs.reopen(f"/proc/{pid}/fd/{number}")
        except OSError:
            return  # an ordinary directory, most likely
        try:
            about = nsfs.about(fd)
            self._row(about.kind, about.id).holders.append(Holder("descriptor", pid, str(number)))
        finally:
            os.close(fd)

    def _look_at_sockets(self, places: Iterable[tuple[int, int]]) -> None:
        """Of those that belong to another network than their process: it made them there, or was given them."""
        for pid, number in places:
            try:
                fd = _of_socket(pid, number)
            except PermissionError as err:
                self._blind("sockets", err, pid)
                continue
            except OSError:
                continue  # closed meanwhile, or the kernel has no such call
            try:
                row = self._row("net", nsfs.about(fd).id)
            finally:
                os.close(fd)
            if self.processes[pid].namespaces.get("net") != row.id:
                row.holders.append(Holder("socket", pid, str(number)))

    # ---- owners and parents ----

    def relate(self) -> None:
        """Ask each namespace for its owner and parent; what is found only so is asked too."""
        for row in list(self.rows.values()):
            try:
                fd = _open(row.id, row.kind, row.pids, row.holders)
            except PermissionError as err:
                self._blind("owner", err, row.id)
                continue
            except OSError:
                continue  # gone
            try:
                self._ask(fd, row)
                if row.kind == "mnt" and not row.pids:
                    self._look_inside(fd, row)
            finally:
                os.close(fd)

    def _look_inside(self, mnt_fd: int, outer: _Row) -> None:
        """Namespaces that are mounted in a mount namespace in which no process is."""
        try:
            found = nsmounts.of_namespace(mnt_fd)
        except OSError as err:
            self._blind("inside", err, outer.id)
            return
        for entry, fd in found:
            kind, number = nsmounts.named(entry)
            new = number not in self.rows
            row = self._row(kind, number)
            row.holders.append(Holder("mount", 0, f"{entry.target} in mnt:[{outer.id}]"))
            if fd < 0:
                continue
            try:
                if new and nsfs.about(fd).id == number:
                    self._ask(fd, row)
                    if kind == "mnt":
                        self._look_inside(fd, row)
            finally:
                os.close(fd)

    def _ask(self, fd: int, row: _Row) -> None:
        row.serial = nsfs.serial(fd)
        row.owner = self._follow("owner", nsfs.owner, fd, row.id, "user")
        if row.kind in ("pid", "user"):
            row.parent = row.owner if row.kind == "user" else self._follow("parent", nsfs.parent, fd, row.id, "pid")
        if row.kind == "user":
            row.uid = nsfs.owner_uid(fd)

    def _follow(self, how: str, call: Callable[[int], int], fd: int, below: int, kind: str) -> int | None:
        try:
            found = call(fd)
        except OSError:
            return None  # above our own user namespace, or the top of all
        try:
            number = os.fstat(found).st_ino
            if number not in self.rows:
                above = self._row(kind, number)
                above.holders.append(Holder(how, 0, str(below)))
                self._ask(found, above)
            return number
        finally:
            os.close(found)

    def answer(self) -> World:
        """What was found."""
        return World(
            self.processes,
            {row.id: row.finished() for row in self.rows.values()},
            self.own,
            self.sockets,
            tuple(Unread(what, why, tuple(sorted(pids))) for (what, why), pids in sorted(self._unread.items())),
        )


def _telling(pid: int, links: Iterable[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Those descriptors that may hold a namespace: its file by its own name or by a mount's, or a socket."""
    for number, link in links:
        if link.startswith("/") or link.partition(":")[0] in _TELLING:
            yield pid, number, link


def _of_socket(pid: int, number: int) -> int:
    pidfd = process.open_pid(pid)
    try:
        return nsfs.of_socket(pidfd, number)
    finally:
        os.close(pidfd)


def open_namespace(row: Namespace) -> int:
    """A descriptor of a namespace that was found, for setns(2), by whatever holds it.

    Raises:
        OSError: by none of them: it is gone, or only an ioctl(2) on another one leads to it.
    """
    return _open(row.id, row.kind, row.pids, row.holders)


def _open(number: int, kind: str, pids: Sequence[int], holders: Iterable[Holder]) -> int:
    failed = OSError(errno.ENOENT, "it is gone")
    for opener in _openers(kind, pids, holders):
        try:
            fd = opener()
        except OSError as err:
            failed = err
            continue
        if os.fstat(fd).st_ino == number:
            return fd
        os.close(fd)  # the process has gone elsewhere meanwhile, or something is mounted above
    raise failed


def _openers(kind: str, pids: Sequence[int], holders: Iterable[Holder]) -> Iterator[Callable[[], int]]:
    for pid in pids:
        yield partial(nsfs.open_link, f"/proc/{pid}/ns/{kind}")
    for how, pid, where in holders:
        if how == "children":
            yield partial(nsfs.open_link, f"/proc/{pid}/ns/{kind}_for_children")
        elif how == "thread":
            yield partial(nsfs.open_link, f"/proc/{pid}/task/{where}/ns/{kind}")
        elif how == "descriptor":
            yield partial(nsfs.reopen, f"/proc/{pid}/fd/{where}")
        elif how == "mount" and pid:
            yield partial(nsmounts.open_mount, pid, where)
        elif how == "socket":
            yield partial(_of_socket, pid, int(where))
