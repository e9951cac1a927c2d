"""The matrix, processes × kinds, as rows: what every drawing of it shows, in which order."""

from typing import Any, Iterator, NamedTuple, Sequence

from . import letters
from .view import Cell, View, renamed, title

FOLD_FROM = 4  # so many rows that say the same become one


class Row(NamedTuple):
    """One process, or several that are all the same.

    Attributes:
        pids: of all that the row stands for.
        note: what else there is to say, in a few words.
        process: the first one, as the picture has it.
        change: in a comparison "new", "gone", "moved" to another namespace, or "".
    """

    pids: tuple[int, ...]
    name: str
    cells: tuple[Cell, ...]
    note: str
    process: dict[str, Any]
    change: str = ""


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
        rows = [Row((pid,), one["name"], view.cells(one), _note(one, view, pid in group["proxies"]), one)
                for pid, one in ((pid, view.processes[pid]) for pid in pids)]  # fmt: skip
        summary = _summary(group, rows, view)
        if view.earlier:
            rows = [_compared(row, view, view.earlier, group["what"] == "host") for row in rows]
            rows += _gone(group, view, view.earlier)
        if not unfold:
            summed_up = group["what"] == "host" and view.targets.isdisjoint(pids)
            rows = list(_folded_host(rows) if summed_up else _folded(rows))
        if rows:
            found.append(Block(group["what"], title(group), tuple(rows), summary))
    if view.earlier and not view.targets:
        found += _gone_groups(view, view.earlier)
    return found


def _note(one: dict[str, Any], view: View, is_proxy: bool) -> str:
    words = ["serves published ports"] * is_proxy
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
    return _is_plain(one) and _is_plain(other) and (
        (one.name, one.cells, one.process["root"]) == (other.name, other.cells, other.process["root"])
    )  # fmt: skip


def _is_plain(row: Row) -> bool:
    """Whether there is nothing about a process that a row for many would hide."""
    one = row.process
    return not (row.change or one["state"] == "Z" or one["strays"] or one["children"])


def _folded_host(rows: Sequence[Row]) -> Iterator[Row]:
    """Where the caller is, and all that are there too; those that may not be seen."""
    yield from (row for row in rows if row.change == "moved")
    rows = [row for row in rows if row.change in ("", "new")]  # the host's come and go all the time
    for problem in (False, True):
        alike = [row for row in rows if bool(row.process["problem"]) == problem and row.process["state"] != "Z"]
        if alike:
            whole = max(alike, key=lambda row: len(row.process["namespaces"]))
            count = f"{len(alike)} process" + "es" * (len(alike) != 1) + ", unseen" * problem
            yield _together([whole, *(row for row in alike if row is not whole)], count)


def _together(rows: Sequence[Row], name: str) -> Row:
    return rows[0]._replace(pids=tuple(sorted(pid for row in rows for pid in row.pids)), name=name, note="", change="")


# ---- compared with an earlier picture ----

def _compared(row: Row, view: View, earlier: View, at_home: bool) -> Row:
    """The row with what is new in it."""
    one = row.process
    before = earlier.known.get((one["pid"], one["start_time"]))
    if before is None:
        return row if one["pid"] == view.picture["viewer"]["pid"] else row._replace(change="new")
    cells = tuple(_moved(cell, before, view, earlier) for cell in row.cells)
    moves = [f"{cell.kind} was {cell.was}" for cell in cells if cell.was]
    if not at_home:  # there they do it all the time
        moves += renamed(one, before)
    if not moves:
        return row
    return row._replace(cells=cells, change="moved", note="; ".join(filter(None, [", ".join(moves), row.note])))


def _moved(cell: Cell, before: dict[str, Any], view: View, earlier: View) -> Cell:
    number = before["namespaces"].get(cell.kind)
    if number is None or not cell.id:
        return cell
    was, now = earlier.named[number], view.named[cell.id]
    same = letters.key_of(cell.kind, number, was["serial"]) == letters.key_of(cell.kind, cell.id, now["serial"])
    return cell if same else cell._replace(was=was["letter"])


def _gone(group: dict[str, Any], view: View, earlier: View) -> Iterator[Row]:
    """Processes that were in a group of this name, and are no more."""
    for old in earlier.groups:
        if (old["what"], old["name"]) == (group["what"], group["name"]):
            yield from _gone_of(old, view, earlier)
            return


def _gone_of(old: dict[str, Any], view: View, earlier: View) -> Iterator[Row]:
    for pid in old["pids"]:
        one = earlier.processes[pid]
        if (pid, one["start_time"]) not in view.known and pid != earlier.picture["viewer"]["pid"]:
            yield Row((pid,), one["name"], earlier.cells(one), "gone", one, "gone")


def _gone_groups(view: View, earlier: View) -> Iterator[Block]:
    present = {(group["what"], group["name"]) for group in view.groups}
    for old in earlier.groups:
        if (old["what"], old["name"]) not in present and (rows := tuple(_gone_of(old, view, earlier))):
            yield Block(old["what"], title(old), rows, "")


# ---- what they have in common ----

def _summary(group: dict[str, Any], rows: Sequence[Row], view: View) -> str:
    rows = [row for row in rows if any(cell.id for cell in row.cells) and row.pids[0] not in group["proxies"]]
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
