"""COVERAGE.md is true: it has every row once, every test that it names exists, and none is missing there."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent
MAP = TESTS / "COVERAGE.md"

# The groups of security and reliability cases, and how many rows each has.
GROUPS = {"A": 24, "B": 36, "C": 20, "D": 28, "E": 30, "F": 13, "G": 15, "H": 20, "I": 15, "J": 10}
ROWS = [f"{letter}{number:02}" for letter, count in GROUPS.items() for number in range(1, count + 1)]
LINE = re.compile(r"\| *([^|]*?) *\| *([^|]*?) *\| *([^|]*?) *\| *([^|]*?) *\| *([^|]*?) *\|")
TEST = re.compile(r"(test_\w+\.py)::(test_\w+)")
IN_NAME = re.compile(r"^test((?:_[A-Z]\d\d(?![a-z0-9]))+)_")
MISSING = "missing: "
# Which states have tests, and which have a reason.
WITH_TESTS, WITH_REASON = {"held", "partly"}, {"partly", "none", "never"}
FEWEST_WORDS = 3


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        priority: "!" before any release, "" should, "~" nice to have.
        tests: as "test_file.py::test_name".
        reason: what is missing, or why there is no test.
    """

    id: str
    priority: str
    what: str
    state: str
    tests: frozenset[str]
    reason: str


def rows(text: str) -> list[Row]:
    found = []
    for line in text.splitlines():
        if not line.startswith("|") or line.startswith(("| row ", "|--")):
            continue
        cells = LINE.fullmatch(line)
        assert cells, f"this is no line of the table: {line[:80]}"
        row, priority, what, state, last = cells.groups()
        tests = frozenset("::".join(pair) for pair in TEST.findall(last))
        reason = last.partition(MISSING)[2] if state == "partly" else "" if tests else last
        found.append(Row(row, priority, what, state, tests, reason))
    return found


@cache
def names() -> frozenset[str]:
    """Every test function of this directory."""
    return frozenset(
        f"{path.name}::{node.name}" for path in TESTS.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )  # fmt: skip


def rows_in(name: str) -> list[str]:
    """The rows that a test's name says it holds."""
    found = IN_NAME.match(name.partition("::")[2])
    return found[1].strip("_").split("_") if found else []


def faults(text: str, known: frozenset[str]) -> Iterator[str]:
    """What is not true of the map `text`, if these are all tests."""
    table = rows(text)
    if [row.id for row in table] != ROWS:
        ids = [row.id for row in table]
        yield f"rows that are missing, twice or out of order: {sorted(set(ROWS) ^ set(ids)) or ids}"
    of_row = {row.id: row for row in table}
    for row in table:
        for name in sorted(row.tests - known):
            yield f"{row.id}: there is no test {name}"
        if row.priority not in ("!", "", "~") or row.state not in WITH_TESTS | WITH_REASON or not row.what:
            yield f"{row.id}: priority {row.priority!r}, state {row.state!r}, {row.what!r}"
        elif bool(row.tests) != (row.state in WITH_TESTS):
            yield f"{row.id} is {row.state}, with {len(row.tests)} tests"
        elif (len(row.reason.split()) >= FEWEST_WORDS) != (row.state in WITH_REASON):
            yield f"{row.id} is {row.state}, for the reason {row.reason!r}"
    for name in sorted(known):
        for row_id in rows_in(name):
            if row_id not in of_row:
                yield f"{name} names {row_id}, which is no row"
            elif name not in of_row[row_id].tests:
                yield f"{row_id}: {name} is not in its line"


def test_the_map_of_the_rows_is_true():
    """Red when: a line is taken out of COVERAGE.md, or a test is renamed: see the next test."""
    assert list(faults(MAP.read_text(), names())) == []


def line_of(text: str, row: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {row} "))


def swapped(text: str) -> str:
    one, other = line_of(text, "A01"), line_of(text, "A02")
    return text.replace(one, "\0").replace(other, one).replace("\0", other)


def without_reason(text: str, row: str) -> str:
    line = line_of(text, row)
    return text.replace(line, "|".join([*line.split("|")[:5], " ? |"]))


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "a row is missing": (lambda text: text.replace(line_of(text, "E14") + "\n", ""), "missing, twice or out of order: ['E14']"),
    "a row is there twice": (lambda text: text.replace(line_of(text, "E14"), f"{line_of(text, 'E14')}\n{line_of(text, 'E14')}"),
                             "missing, twice or out of order"),
    "two rows are exchanged": (swapped, "missing, twice or out of order"),
    "a row is not known": (lambda text: text + "| K01 | ! | x | never | not for us at all |\n", "['K01']"),
    "a test is not there": (lambda text: text.replace("::test_E14_", "::test_E14_no_"), "E14: there is no test"),
    "a test is in another file": (lambda text: text.replace("test_lifecycle.py::test_E14_", "test_crash.py::test_E14_"),
                                  "E14: there is no test"),
    "a test that names a row is not in its line": (
        lambda text: text.replace(TEST.search(line_of(text, "A01"))[0] + ", ", "", 1), "A01: test_join_hardening.py"),  # type: ignore[index]
    "a held row has no test": (lambda text: without_reason(text, "D24"), "D24 is held, with 0 tests"),
    "a row without a test has no reason": (lambda text: without_reason(text, "D18"), "D18 is never, for the reason '?'"),
    "a row that is held in part does not say what is missing": (
        lambda text: text.replace(f"; {MISSING}{row_of(text, 'B17').reason}", ""), "B17 is partly, for the reason ''"),
    "a state is none": (lambda text: text.replace("| held |", "| done |", 1), "state 'done'"),
}  # fmt: skip


def row_of(text: str, row: str) -> Row:
    return next(one for one in rows(text) if one.id == row)


@pytest.mark.parametrize("what", BROKEN)
def test_a_map_that_is_not_true_is_noticed(what):
    """Red when: the line of faults() that looks for it is taken out."""
    text = MAP.read_text()
    damage, said = BROKEN[what]
    assert damage(text) != text
    assert any(said in fault for fault in faults(damage(text), names())), list(faults(damage(text), names()))[:3]


@pytest.mark.parametrize("name, found", [
    ("test_x.py::test_A01_what", ["A01"]), ("test_x.py::test_A01_G09_what", ["A01", "G09"]), ("test_x.py::test_a_row", []),
    ("test_x.py::test_200_runs", []), ("test_x.py::test_A01_is_A02", ["A01"]), ("test_x.py::test_K99_what", ["K99"]),
])  # fmt: skip
def test_the_rows_of_a_name_are_read(name, found):
    """Red when: IN_NAME takes one row only, or looks for rows beyond the first other word."""
    assert rows_in(name) == found
    fault = [fault for fault in faults(MAP.read_text(), names() | {name}) if name in fault]
    assert len(fault) == len(found), fault
