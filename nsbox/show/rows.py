"""The matrix, processes × kinds, as rows: what every drawing of it shows, in which order.

A letter says which namespace it is, the same in one column for the same one; a shape says what
that means for the process. Neither needs a colour.
"""

from typing import Any, Collection, Iterator, NamedTuple

from .picture import Picture

FOLD_FROM = 4  # so many rows that say the same become one

# shape -> what it means, for the legend. The order is that of the legend.
SHAPES = {
    "own": "yours too",
    "shared": "not yours, shared with others",
    "alone": "of this process alone",
    "hidden": "may not be seen",
    "none": "has none left (a zombie)",
}


class Cell(NamedTuple):
    """Where a process is, in one kind.

    Attributes:
        letter: "" where it is hidden, or there is none.
        shape: a key of SHAPES.
        id: the namespace's, or 0.
    """

    kind: str
    letter: str
    shape: str
    id: int


class Row(NamedTuple):
    """One process, or several that are all the same.

    Attributes:
        pids: of all that the row stands for.
        note: what else there is to say, in a few words.
        process: the first one, as the picture has it.
    """

    pids: tuple[int, ...]
    name: str
    cells: tuple[Cell, ...]
    note: str
    process: dict[str, Any]


class Block(NamedTuple):
    """Rows that belong together.

    Attributes:
        what: "host", "pod" or "other".
        summary: what all of them share, and where they differ; "" where there is nothing to compare.
    """

    what: str
    title: str
    rows: tuple[Row, ...]
    summary: str


def blocks(picture: Picture, targets: Collection[int] = (), *, unfold: bool = False) -> list[Block]:
    """The rows of a picture.

    Args:
        targets: PIDs; of the groups only theirs are shown, and of the host's processes only these.
        unfold: a row for each process, however alike they are.
    """
    found = []
    processes = {one["pid"]: one for one in picture["processes"]}
    named = {row["id"]: row for row in picture["namespaces"]}
    for group in picture["groups"]:
        pids = [pid for pid in group["pids"] if pid in processes]
        if targets and group["what"] == "host":
            chosen = [pid for pid in pids if pid in targets]
            pids = chosen or pids
        elif targets and not set(pids) & set(targets):
            continue
        rows = [_row(processes[pid], named, picture) for pid in pids]
        if not unfold:
            summed_up = group["what"] == "host" and not set(pids) & set(targets)
            rows = list(_folded_host(rows) if summed_up else _folded(rows))
        if rows:
            found.append(Block(group["what"], _title(group), tuple(rows), _summary(group, rows, picture)))
    return found


def _title(group: dict[str, Any]) -> str:
    if group["what"] == "pod":
        return f"pod {group['name']}"
    return "host" if group["what"] == "host" else f"beside: {group['name']}"


# ---- one process ----

def _row(one: dict[str, Any], named: dict[int, dict[str, Any]], picture: Picture) -> Row:
    cells = tuple(_cell(one, kind, named, picture) for kind in picture["kinds"])
    return Row((one["pid"],), one["name"], cells, _note(one, named), one)


def _cell(one: dict[str, Any], kind: str, named: dict[int, dict[str, Any]], picture: Picture) -> Cell:
    number = one["namespaces"].get(kind)
    if number is None:
        return Cell(kind, "", "hidden" if one["problem"] else "none", 0)
    if number == picture["own"].get(kind):
        shape = "own"
    else:
        shape = "shared" if len(named[number]["pids"]) > 1 else "alone"
    return Cell(kind, named[number]["letter"], shape, number)


def _note(one: dict[str, Any], named: dict[int, dict[str, Any]]) -> str:
    words = []
    if len(one["pids"]) > 1:
        words.append("PID " + ", ".join(map(str, one["pids"][1:])) + " inside")
    if one["state"] == "Z":
        words.append("zombie")
    if one["root"] not in ("", "/"):
        words.append(f"root {one['root']}")
    for kind, number in one["children"].items():
        words.append(f"its child: {kind} {named[number]['letter']}")
    for stray in one["strays"]:
        words.append(f"thread {stray['thread']}: {stray['kind']} {named[stray['id']]['letter']}")
    return "; ".join(words)


# ---- fewer rows ----

def _folded(rows: list[Row]) -> Iterator[Row]:
    """Runs of rows that differ by their PIDs alone, each as one."""
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and _same(rows[start], rows[end]):
            end += 1
        if end - start >= FOLD_FROM:
            yield _together(rows[start:end], f"{rows[start].name} ×{end - start}")
        else:
            yield from rows[start:end]
        start = end


def _same(one: Row, other: Row) -> bool:
    plain = one.process["state"] != "Z" and one.process["root"] == other.process["root"]
    plain = plain and not (one.process["strays"] or other.process["strays"] or one.process["children"])
    return plain and (one.name, one.cells) == (other.name, other.cells)


def _folded_host(rows: list[Row]) -> Iterator[Row]:
    """Where the caller is, and all that are there too; those that may not be seen."""
    for problem in (False, True):
        alike = [row for row in rows if bool(row.process["problem"]) == problem and row.process["state"] != "Z"]
        if alike:
            whole = max(alike, key=lambda row: len(row.process["namespaces"]))
            count = f"{len(alike)} process" + "es" * (len(alike) != 1) + ", unseen" * problem
            yield _together([whole, *(row for row in alike if row is not whole)], count)


def _together(rows: list[Row], name: str) -> Row:
    return rows[0]._replace(pids=tuple(sorted(pid for row in rows for pid in row.pids)), name=name, note="")


# ---- what they have in common ----

def _summary(group: dict[str, Any], rows: list[Row], picture: Picture) -> str:
    rows = [row for row in rows if any(cell.id for cell in row.cells)]
    if group["what"] == "host" or sum(len(row.pids) for row in rows) < 2:
        return ""
    shared, yours, apart = [], [], []
    for column, kind in enumerate(picture["kinds"]):
        ids = {row.cells[column].id for row in rows} - {0}
        if ids == {picture["own"].get(kind)}:
            yours.append(kind)
        elif len(ids) == 1:
            shared.append(kind)
        elif ids:
            apart.append(kind)
    parts = [("all share", shared), ("apart", apart), ("with you", yours)]
    return " · ".join(f"{title}: {' '.join(kinds)}" for title, kinds in parts if kinds)
