"""What there is in network namespaces of anybody's: links, which cable leads where, who listens.

Only looks. A child goes from one namespace to the next, so that the caller stays where it is.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from socket import AF_INET, AF_INET6, inet_ntop
from sys import byteorder
from typing import Any

from ..errors import NsboxError
from ..linux import apart, syscalls
from ..linux.flags import CloneFlag
from . import ask

Opener = Callable[[], int]
# /proc/net/tcp and its like: the state of a socket that waits for clients, see net/tcp_states.h.
_LISTENS = {"tcp": b"0A", "tcp6": b"0A", "udp": b"07", "udp6": b"07"}


def survey(nets: Mapping[int, Opener], user: Opener | None = None) -> dict[int, dict[str, Any]]:
    """What there is in each of these namespaces; those that are gone are left out.

    A row has "problem", why it could not be read, or ""; "links", in the order of their numbers,
    each with index, name, kind, up, mac, mtu, alias, addresses, master (the index of its bridge or
    None) and peer; "listens", each with proto, address, port and inode. The peer of a cable is
    {"net": id, "index": number}, with net None where it is none of these namespaces, or None.

    Args:
        nets: by id, how to get a descriptor of each; called in the child.
        user: a user namespace to enter before, for rights that the caller has only in there.

    Raises:
        NsboxError: the kernel does not answer, or the user namespace cannot be entered.
    """
    def work() -> dict[int, dict[str, Any]]:
        if user is not None:
            _enter(user, CloneFlag.CLONE_NEWUSER)
        rows = {number: row for number, opener in nets.items() if (row := _look(opener)) is not None}
        _connect(rows, nets)
        return rows

    return {int(number): row for number, row in apart.run("look at networks", work).items()}


def _enter(opener: Opener, flag: CloneFlag) -> None:
    fd = opener()
    try:
        here = os.stat("/proc/thread-self/ns/net").st_ino
        if flag != CloneFlag.CLONE_NEWNET or os.fstat(fd).st_ino != here:  # to stay needs no right
            syscalls.setns(fd, flag)
    finally:
        os.close(fd)


def _look(opener: Opener) -> dict[str, Any] | None:
    try:
        _enter(opener, CloneFlag.CLONE_NEWNET)
        with ask.open_socket() as sock:
            links = [_link(link) for link in ask.links(sock)]
            by_index = {link["index"]: link["addresses"] for link in links}
            for index, address in ask.addresses(sock):
                if index in by_index:
                    by_index[index].append(address)
        return {"problem": "", "links": links, "listens": _listening()}
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as err:
        return {"problem": os.strerror(err.errno or errno.EIO), "links": [], "listens": []}


def _link(link: ask.Link) -> dict[str, Any]:
    row = link._asdict()
    row["peer"] = row.pop("link")  # an index, until _connect knows of which namespace
    return {"index": row.pop("number"), **row, "addresses": []}


def _connect(rows: dict[int, dict[str, Any]], nets: Mapping[int, Opener]) -> None:
    """Find the other end of each cable: the link whose peer it is in turn.

    The kernel says "link 7 of the namespace that you call 3". What we call 3 is asked for only
    where there are several links 7 whose peer has our number.
    """
    ends: dict[tuple[int, int], list[int]] = {}
    cables = [(number, link) for number, row in rows.items() for link in row["links"] if link["kind"] == "veth"]
    for number, link in cables:
        ends.setdefault((link["index"], link["peer"]), []).append(number)
    found: dict[tuple[int, int], int | None] = {}
    for number, link in cables:
        if link["nsid"] is None:  # a cable within one namespace
            found[number, link["index"]] = number
            continue
        others = [other for other in ends.get((link["peer"], link["index"]), []) if other != number]
        if len(others) > 1:
            others = [other for other in others if _name_of(nets[number], nets[other]) == link["nsid"]]
        found[number, link["index"]] = others[0] if others else None
    for number, row in rows.items():
        for link in row["links"]:
            del link["nsid"]
            peer = {"net": found.get((number, link["index"])), "index": link["peer"]}
            link["peer"] = peer if link["kind"] == "veth" and link["peer"] is not None else None


def _name_of(net: Opener, other: Opener) -> int | None:
    """What the one namespace calls the other; see RTM_GETNSID in rtnetlink(7)."""
    try:
        _enter(net, CloneFlag.CLONE_NEWNET)
        fd = other()
    except OSError:
        return None
    try:
        with ask.open_socket() as sock:
            return ask.nsid(sock, fd)
    finally:
        os.close(fd)


# ---- who listens ----

def _listening() -> list[dict[str, Any]]:
    tables = list(_tables_in_use())
    try:
        found = list(ask.listeners(tables)) if tables else []
    except OSError:  # a kernel without sock_diag; this way it goes through all of the machine's sockets
        found = list(listeners_of_proc())
    return [one._asdict() for one in found]


def _tables_in_use() -> Iterator[tuple[str, int]]:
    """Those in which the kernel counts a socket: to look through one costs more, and most networks have none."""
    counts = {family: _counts(table) for family, table in ((AF_INET, "sockstat"), (AF_INET6, "sockstat6"))}
    for proto, family in ask.TABLES:
        nothing = f"{proto.upper()}{'6' * (family == AF_INET6)}: inuse 0 ".encode()
        if nothing not in counts[family]:
            yield proto, family


def _counts(table: str) -> bytes:
    try:
        with open(f"/proc/thread-self/net/{table}", "rb", buffering=0) as file:
            return file.read().replace(b"\n", b" ")
    except OSError:
        return b""  # then they are looked through


def listeners_of_proc() -> Iterator[ask.Listener]:
    """The same as the tables of /proc have it. See proc_pid_net(5)."""
    for table, state in _LISTENS.items():
        try:
            with open(f"/proc/thread-self/net/{table}", "rb") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].partition(b":")
            if fields[3] == state and int(port, 16):
                yield ask.Listener(table.rstrip("6"), _address(address), int(port, 16), int(fields[9]))


def _address(text: bytes) -> str:
    """Words of 32 bits, each in the byte order of the machine."""
    words = [int(text[start : start + 8], 16).to_bytes(4, byteorder) for start in range(0, len(text), 8)]
    return inet_ntop(AF_INET if len(words) == 1 else AF_INET6, b"".join(words))


# ---- with the rights of owners ----

def survey_all(
    nets: Mapping[int, Opener], owners: Mapping[int, int | None], users: Mapping[int, Opener]
) -> dict[int, dict[str, Any]]:
    """The same; what we have no right to is tried again from inside of the user namespace that owns it.

    Args:
        owners: of which user namespace each network namespace is.
        users: how to get a descriptor of each user namespace, but for our own.
    """
    rows = survey(nets)
    for user, opener in users.items():
        shut = {number: nets[number] for number, row in rows.items() if row["problem"] and owners.get(number) == user}
        if shut:
            try:
                rows |= survey(shut, opener)
            except NsboxError:
                continue  # somebody else's
    return rows
