"""A picture as somebody wants to see it: all of it, or what belongs to some processes.

A letter says which namespace it is, the same in one column for the same one; a shape says what
that means for who is in it. Neither needs a colour.
"""

from functools import cached_property
from typing import Any, Collection, Iterator, NamedTuple

from .picture import Picture

# shape -> what it means, for the legend. The order is that of the legend.
SHAPES = {
    "own": "yours too",
    "shared": "not yours, shared",
    "alone": "of one process alone",
    "hidden": "may not be seen",
    "none": "has none left (a zombie)",
}


class Cell(NamedTuple):
    """A namespace, to be drawn.

    Attributes:
        letter: "" where it is hidden, or there is none.
        shape: a key of SHAPES.
        id: the namespace's, or 0.
        was: in a comparison, the letter of where the process was before; "" if it was here.
    """

    kind: str
    letter: str
    shape: str
    id: int
    was: str = ""


class View:
    """What is drawn of a picture.

    Attributes:
        picture: all of it.
        targets: PIDs whose groups are drawn, and of the host's processes only these; none: everything.
        processes: by PID.
        named: the namespaces by id.
        groups: those that are drawn.
        earlier: the picture that this one is compared with, or None.
    """

    def __init__(self, picture: Picture, targets: Collection[int] = (), earlier: Picture | None = None) -> None:
        self.picture = picture
        self.targets = frozenset(targets)
        self.processes: dict[int, dict[str, Any]] = {one["pid"]: one for one in picture["processes"]}
        self.named: dict[int, dict[str, Any]] = {row["id"]: row for row in picture["namespaces"]}
        self.groups = [
            group for group in picture["groups"]
            if group["what"] == "host" or not targets or not self.targets.isdisjoint(group["pids"])
        ]  # fmt: skip
        self._drawn_as: dict[int, Cell] = {}
        self.earlier = View(earlier, self._same_groups(earlier)) if earlier else None

    def _same_groups(self, earlier: Picture) -> list[int]:
        """Targets with which another picture is drawn as far as this one is."""
        if not self.targets:
            return []
        mine = {(group["what"], group["name"]) for group in self.groups if group["what"] != "host"}
        pids = [pid for group in earlier["groups"] if (group["what"], group["name"]) in mine for pid in group["pids"]]
        return [*self.targets, *pids]

    @cached_property
    def drawn_processes(self) -> dict[tuple[int, int], dict[str, Any]]:
        """Those of the groups that are drawn, by what tells one from a later one with its number."""
        pids = [pid for group in self.groups for pid in group["pids"]
                if group["what"] != "host" or not self.targets or pid in self.targets]  # fmt: skip
        return {(pid, self.processes[pid]["start_time"]): self.processes[pid] for pid in pids}

    def cell(self, number: int) -> Cell:
        """A namespace by its id."""
        if (known := self._drawn_as.get(number)) is None:
            row = self.named[number]
            if number == self.picture["own"].get(row["kind"]):
                shape = "own"
            else:
                shape = "shared" if len(row["pids"]) != 1 else "alone"
            known = self._drawn_as[number] = Cell(row["kind"], row["letter"], shape, number)
        return known

    def cells(self, one: dict[str, Any]) -> tuple[Cell, ...]:
        """Where a process is, kind by kind."""
        missing = "hidden" if one["problem"] else "none"
        return tuple(
            self.cell(one["namespaces"][kind]) if kind in one["namespaces"] else Cell(kind, "", missing, 0)
            for kind in self.picture["kinds"]
        )

    @cached_property
    def known(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The processes by what tells one from a later one with its number."""
        return {(one["pid"], one["start_time"]): one for one in self.processes.values()}

    @cached_property
    def home(self) -> dict[int, str]:
        """What to call a namespace that is not the caller's: the group of a process in it."""
        found: dict[int, str] = {}
        for group in self.picture["groups"]:
            for pid in group["pids"]:
                for number in self.processes[pid]["namespaces"].values():
                    found.setdefault(number, title(group))
        return found

    def name_of(self, number: int) -> str:
        """Whose a namespace is, in a few words."""
        row = self.named[number]
        if number == self.picture["own"].get(row["kind"]):
            return "yours"
        return self.home.get(number) or next(map(self.held, row["holders"]), "")

    def held(self, holder: dict[str, Any]) -> str:
        """What keeps a namespace alive, in words."""
        how, pid, where = holder["how"], holder["pid"], holder["where"]
        who = f"{pid} {self.processes[pid]['name']}" if pid in self.processes else ""
        if how == "children":
            return f"for the children of {who}"
        if how in ("thread", "descriptor", "socket"):
            return f"held by {how} {where} of {who}"
        if how == "mount":
            return f"mounted at {where}"
        return f"the {how} of {self._short(int(where))}"

    def _short(self, number: int) -> str:
        return f"{self.named[number]['kind']} {self.named[number]['letter']}"

    @cached_property
    def scope(self) -> frozenset[int]:
        """The ids of the namespaces that are drawn: those of the groups, and what is above them."""
        if not self.targets:
            return frozenset(self.named)
        found = set(self.picture["own"].values())
        waiting = [
            number
            for group in self.groups
            for pid in group["pids"]
            if group["what"] != "host" or pid in self.targets
            for number in self._of(self.processes[pid])
        ]
        while waiting:
            number = waiting.pop()
            if number not in found and number in self.named:
                found.add(number)
                waiting += [above for key in ("owner", "parent") if (above := self.named[number][key])]
        return frozenset(found)

    def _of(self, one: dict[str, Any]) -> Iterator[int]:
        yield from one["namespaces"].values()
        yield from one["children"].values()
        yield from (stray["id"] for stray in one["strays"])

    @property
    def drawn_nets(self) -> list[dict[str, Any]]:
        """What there is in the networks that are drawn."""
        return [net for net in self.picture["nets"] if net["id"] in self.scope]

    def drawn(self, kind: str) -> list[dict[str, Any]]:
        """The namespaces of one kind that are drawn, A first."""
        return [row for row in self.picture["namespaces"] if row["kind"] == kind and row["id"] in self.scope]


def title(group: dict[str, Any]) -> str:
    """What a group is called."""
    if group["what"] == "pod":
        return f"pod {group['name']}"
    return "host" if group["what"] == "host" else f"beside: {group['name']}"


def renamed(one: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    """What else is different about a process: it executed another program, or it is a zombie now."""
    if one["name"] != before["name"]:
        yield f"was {before['name']}"
    if one["state"] == "Z" != before["state"]:
        yield "is a zombie now"
