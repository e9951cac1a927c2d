"""The matrix, processes × kinds, as rows: what every drawing of it shows, in which order."""

from typing import Any, Iterator, NamedTuple, Sequence

from .view import Cell, View, title

FOLD_FROM = 4  # so many rows that say the same become one


class Row(NamedTuple):
    """One process, or several that are all the same.

    Attributes:
        pids: of all that the row stands for; none for a process that is gone.
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


def blocks(view: View, *, unfold: bool = False) -> list[Block]:
    """The rows of the matrix, group by group.

    Args:
        unfold: a row for each process, however alike they are.
    """
    found = []
    for group in view.groups:
        pids = group["pids"]
        if group["what"] == "host" and view.targets.intersection(pids):
            pids = [pid for pid in pids if pid in view.targets]
        rows = [Row((pid,), one["name"], view.cells(one), _note(one, view), one)
                for pid, one in ((pid, view.processes[pid]) for pid in pids)]  # fmt: skip
        if not unfold:
            summed_up = group["what"] == "host" and view.targets.isdisjoint(pids)
            rows = list(_folded_host(rows) if summed_up else _folded(rows))
        if rows:
            found.append(Block(group["what"], title(group), tuple(rows), _summary(group, rows, view)))
    return found


def _note(one: dict[str, Any], view: View) -> str:
    words = []
    if len(one["pids"]) > 1:
        words.append("PID " + ", ".join(map(str, one["pids"][1:])) + " inside")
    if one["state"] == "Z":
        words.append("zombie")
    if one["root"] not in ("", "/"):
        words.append(f"root {one['root']}")
    for kind, number in one["children"].items():
        words.append(f"its child: {kind} {view.named[number]['letter']}")
    for stray in one["strays"]:
        words.append(f"thread {stray['thread']}: {stray['kind']} {view.named[stray['id']]['letter']}")
    return "; ".join(words)


# ---- fewer rows ----

def _folded(rows: Sequence[Row]) -> Iterator[Row]:
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


def _folded_host(rows: Sequence[Row]) -> Iterator[Row]:
    """Where the caller is, and all that are there too; those that may not be seen."""
    for problem in (False, True):
        alike = [row for row in rows if bool(row.process["problem"]) == problem and row.process["state"] != "Z"]
        if alike:
            whole = max(alike, key=lambda row: len(row.process["namespaces"]))
            count = f"{len(alike)} process" + "es" * (len(alike) != 1) + ", unseen" * problem
            yield _together([whole, *(row for row in alike if row is not whole)], count)


def _together(rows: Sequence[Row], name: str) -> Row:
    return rows[0]._replace(pids=tuple(sorted(pid for row in rows for pid in row.pids)), name=name, note="")


# ---- what they have in common ----

def _summary(group: dict[str, Any], rows: Sequence[Row], view: View) -> str:
    rows = [row for row in rows if any(cell.id for cell in row.cells)]
    if group["what"] == "host" or sum(len(row.pids) for row in rows) < 2:
        return ""
    shared, yours, apart = [], [], []
    for column, kind in enumerate(view.picture["kinds"]):
        ids = {row.cells[column].id for row in rows} - {0}
        if ids == {view.picture["own"].get(kind)}:
            yours.append(kind)
        elif len(ids) == 1:
            shared.append(kind)
        elif ids:
            apart.append(kind)
    parts = [("all share", shared), ("apart", apart), ("with you", yours)]
    return " · ".join(f"{name}: {' '.join(kinds)}" for name, kinds in parts if kinds)
