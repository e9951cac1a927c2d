"""What is different between two pictures of one boot, in words."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import NsboxError, SpecError
from ..words import quote
from . import letters
from .picture import FORMAT, Picture
from .trees import endpoint, far_name, ids_in_words
from .view import View, renamed


class Change(NamedTuple):
    """One difference.

    Attributes:
        sign: "+" for what came, "-" for what went, "~" for what is different.
        what: "process", "namespace", "link", "listener" or "port".
        text: the rest of the line.
    """

    sign: str
    what: str
    text: str


def load(path: str, boot_id: str) -> Picture:
    """An earlier picture out of a file that `map --json` wrote.

    Raises:
        SpecError: it is none. NsboxError: it cannot be read, or is of another boot of this machine.
    """
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except OSError as err:
        raise NsboxError("cannot read the earlier picture") from err
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise SpecError(f"cannot use {quote(path)}: it is not what nsbox map --json prints")
    try:
        between(View(found), View(found))
    except (LookupError, TypeError, AttributeError, ValueError):
        raise SpecError(f"cannot use {quote(path)}: something is missing in it") from None
    if found["boot_id"] != boot_id:
        raise NsboxError(f"cannot compare with {quote(path)}: it is of another boot, and nothing of it is left")
    return found


def between(view: View, earlier: View) -> list[Change]:
    """All differences, processes first. Those of the host's own processes are counted only."""
    found = [*_processes(view, earlier), *_namespaces(view, earlier)]
    for what, lines in (("link", _links), ("listener", _listeners), ("port", _ports)):
        before, now = ({thing.key: thing for thing in lines(one)} for one in (earlier, view))
        found += [Change("+", what, thing.text) for key, thing in now.items() if key not in before]
        found += [Change("-", what, thing.text) for key, thing in before.items() if key not in now]
        found += [Change("~", what, f"{thing.name}: {difference}") for key, thing in now.items()
                  if key in before and (difference := thing.difference(before[key]))]  # fmt: skip
    return found


class _Thing(NamedTuple):
    """Something in a network.

    Attributes:
        key: the same in both pictures.
        name: what and where it is.
        says: what of it may become different.
        text: all of this.
    """

    key: tuple[Any, ...]
    name: str
    says: tuple[str, ...]
    text: str

    def difference(self, before: "_Thing") -> str:
        came = [f"+ {word}" for word in self.says if word not in before.says]
        return " ".join([*came, *(f"- {word}" for word in before.says if word not in self.says)])


def _processes(view: View, earlier: View) -> Iterator[Change]:
    home = _at_home(view) | _at_home(earlier)
    viewers = view.picture["viewer"]["pid"], earlier.picture["viewer"]["pid"]
    came = [key for key in view.drawn_processes if key not in earlier.known and key[0] != viewers[0]]
    went = [key for key in earlier.drawn_processes if key not in view.known and key[0] != viewers[1]]
    for sign, keys, where in (("+", came, view), ("-", went, earlier)):
        for key in keys:
            if key not in home:
                yield Change(sign, "process", _told(where.known[key], where))
    for key, one in view.drawn_processes.items():
        if key in earlier.known and (said := different(one, view, earlier, is_at_home=key in home)):
            yield Change("~", "process", f"{one['pid']} {one['name']}: {', '.join(said)}")
    for sign, keys in (("+", came), ("-", went)):
        if count := sum(key in home for key in keys):
            yield Change(sign, "process", f"{count} of the host's own")


def _at_home(view: View) -> set[tuple[int, int]]:
    processes = (view.processes[pid] for group in view.groups if group["what"] == "host" for pid in group["pids"])
    return {(one["pid"], one["start_time"]) for one in processes}


def _told(one: dict[str, Any], view: View) -> str:
    ids = [number for kind, number in one["namespaces"].items() if number != view.picture["own"].get(kind)]
    where = " ".join(f"{view.named[number]['kind']} {view.named[number]['letter']}" for number in ids)
    return f"{one['pid']} {one['name']}: {where}"


def different(one: dict[str, Any], view: View, earlier: View, *, is_at_home: bool = False) -> list[str]:
    """What became different about a process that is in both pictures."""
    before = earlier.known[one["pid"], one["start_time"]]
    return [*_moves(one, before, view, earlier), *(() if is_at_home else renamed(one, before))]


def _moves(one: dict[str, Any], before: dict[str, Any], view: View, earlier: View) -> Iterator[str]:
    for kind, number in one["namespaces"].items():
        old = before["namespaces"].get(kind)
        if old is not None and key_of_row(earlier.named[old]) != key_of_row(view.named[number]):
            yield f"{kind} {earlier.named[old]['letter']} became {view.named[number]['letter']}"


def key_of_row(row: dict[str, Any]) -> letters.Key:
    """What is the same in two pictures if it is the same namespace."""
    return letters.key_of(row["kind"], row["id"], row["serial"])


def _namespaces(view: View, earlier: View) -> Iterator[Change]:
    before = {key_of_row(row): row for row in earlier.named.values()}
    now = {key_of_row(row): row for row in view.named.values()}
    for sign, rows, others, where in (("+", now, before, view), ("-", before, now, earlier)):
        for key, row in rows.items():
            if key not in others and row["id"] in where.scope:
                yield Change(sign, "namespace", f"{row['kind']} {row['letter']} {where.name_of(row['id'])}".rstrip())
    for key, row in now.items():
        if key in before and row["id"] in view.scope and (said := remapped(row, before[key])):
            yield Change("~", "namespace", f"user {row['letter']} {view.name_of(row['id'])}: {said}")


def remapped(row: dict[str, Any], before: dict[str, Any]) -> str:
    """How the ids of a user namespace became others, or ""."""
    if row["kind"] != "user":
        return ""
    ids, were = (ids_in_words(one["uid_map"]) or "nobody is in it" for one in (row, before))
    return f"{ids}; was: {were}" if ids != were else ""


def _links(view: View) -> Iterator[_Thing]:
    for net in view.drawn_nets:
        names = {link["index"]: link["name"] for link in net["links"]}
        for link in net["links"]:
            words = [*link["addresses"], "" if link["up"] else "down"]
            if link["master"] in names:
                words.append(f"of {names[link['master']]}")
            if link["peer"] is not None:
                far = link["peer"]["net"]
                words.append(f"↔ {far_name(link, view)}" + (f" of {_net(far, view)}" if far in view.named else ""))
            key = (_letter(net["id"], view), link["index"], link["name"])
            says, place = tuple(filter(None, words)), f"in {_net(net['id'], view)}"
            yield _Thing(key, f"{link['name']} {place}", says, " ".join((link["name"], *says, place)))


def _listeners(view: View) -> Iterator[_Thing]:
    for net in view.drawn_nets:
        for one in net["listens"]:
            where = (one["proto"], one["address"], one["port"])
            who = view.processes[one["pid"]]["name"] if one["pid"] in view.processes else "somebody unseen"
            text = f"{endpoint(one['address'], one['port'], one['proto'])} in {_net(net['id'], view)}"
            yield _Thing((_letter(net["id"], view), *where), text, (who,), text)


def _ports(view: View) -> Iterator[_Thing]:
    for row in (row for row in view.picture["published"] if row["net"] in view.scope):
        where = endpoint(row["host_address"], row["host_port"], row["proto"])
        says = f"to port {row['pod_port']} of pod {row['pod']}", row["state"]
        yield _Thing((row["proto"], row["host_address"], row["host_port"]), where, says, f"{where} {', '.join(says)}")


def _letter(number: int, view: View) -> str:
    return str(view.named[number]["letter"]) if number in view.named else ""


def _net(number: int, view: View) -> str:
    row = view.named.get(number)
    return f"net {row['letter']} {view.name_of(number)}" if row else "a network"
