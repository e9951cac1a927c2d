"""SECURITY.md promises nothing that no test holds, and passes no open gap over.

Its form: each paragraph, list item and row of a table under a heading is a statement, and ends with what holds it in
small type: <sub>A03 tests/test_x.py::test_y</sub>. A row is one of COVERAGE.md. What is no promise may say there
"no test: WHY". Under "How to report", and before the first heading, nothing is claimed.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from test_coverage import FEWEST_WORDS, Row, names, rows

TESTS = Path(__file__).resolve().parent
DOCUMENT = TESTS.parent / "SECURITY.md"
MAP = TESTS / "COVERAGE.md"

FREE = {"", "How to report"}
NO_PROMISE = {"Who is trusted", "What is no boundary", "Kernels"}  # there a statement may have no test, and says why
GAPS = "Known gaps"
WHAT_HOLDS_IT = re.compile(r"<sub>([^<]*)</sub>(?: \|)?$")
NO_TEST = "no test: "
ROW = re.compile(r"[A-Z]\d\d")
TEST = re.compile(r"tests/(test_\w+\.py::test_\w+)")


class Statement(NamedTuple):
    """One claim of the document.

    Attributes:
        section: the heading above it.
        text: in one line, without what holds it.
        by: rows and tests, as they are written.
        reason: why there is no test, if it says so.
    """

    section: str
    text: str
    by: tuple[str, ...]
    reason: str


def statements(text: str) -> list[Statement]:
    section, found = "", []
    for block in blocks(text):
        if block.startswith("#"):
            section = block.removeprefix("## ") if block.startswith("## ") else ""
        elif section not in FREE:
            found.append(statement(section, block))
    return found


def blocks(text: str) -> Iterator[str]:
    """Headings, paragraphs, items and rows of tables, each as one line; not the head of a table."""
    gathered: list[str] = []
    lines = [*text.splitlines(), ""]
    for at, line in enumerate(lines):
        if gathered and (not line.strip() or line.startswith(("- ", "#", "|"))):
            yield " ".join(gathered)
            gathered = []
        if line.startswith("|"):
            if not line.startswith("|--") and not lines[at + 1].startswith("|--"):
                yield line.strip()
        elif line.strip():
            gathered.append(line.strip())


def statement(section: str, block: str) -> Statement:
    found = WHAT_HOLDS_IT.search(block)
    said = found[1].strip() if found else ""
    reason = said.removeprefix(NO_TEST) if said.startswith(NO_TEST) else ""
    return Statement(section, WHAT_HOLDS_IT.sub("", block), () if reason else tuple(said.split()), reason)


def is_an_introduction(one: Statement) -> bool:
    """A sentence that leads to what stands below it."""
    return one.text.endswith(":")


def faults(text: str, table: dict[str, Row], known: set[str]) -> Iterator[str]:
    """What is not true of the document `text`, if these are the rows and all tests."""
    all_of_it = [one for one in statements(text) if not is_an_introduction(one)]
    told = {word for one in all_of_it if one.section == GAPS for word in one.by if ROW.fullmatch(word)}
    for one in all_of_it:
        where = f"{one.section}: {one.text[:60]!r}"
        if one.reason and (one.section not in NO_PROMISE or len(one.reason.split()) < FEWEST_WORDS):
            yield f"{where} has no test, for the reason {one.reason!r}"
        if not one.reason and not one.by:
            yield f"{where} names nothing that holds it"
        for word in one.by:
            if why := why_not(word, one.section, table, known, told):
                yield f"{where}: {why}"
    for row in table.values():
        if row.priority == "!" and row.state in ("partly", "none") and row.id not in told:
            yield f"{row.id} is {row.state}, and {GAPS!r} does not tell it"


def why_not(word: str, section: str, table: dict[str, Row], known: set[str], told: set[str]) -> str:
    """Why `word` is nothing that could hold a statement of this section, or ""."""
    if test := TEST.fullmatch(word):
        return "" if test[1] in known else f"there is no test {word}"
    if not ROW.fullmatch(word) or word not in table:
        return f"{word!r} is neither a row nor a test"
    state = table[word].state
    if section == GAPS:
        return "" if state != "held" else f"{word} is held by now: it is no gap any more"
    if state == "held" or state == "partly" and word in told:
        return ""
    return f"{word} is {state}" + (f", and {GAPS!r} does not tell it" if state == "partly" else "")


def coverage() -> dict[str, Row]:
    return {row.id: row for row in rows(MAP.read_text())}


def test_every_statement_is_held_by_a_test():
    """Red when: see the next test."""
    text = DOCUMENT.read_text()
    assert list(faults(text, coverage(), names())) == []
    assert len(statements(text)) > 40, "most of the document is not understood"


SMALL = """\
# Security

Nothing is claimed here.

## Who is trusted

- The kernel. <sub>no test: it is a premise</sub>

## Boundaries

What breaks one of these is a vulnerability:

- One thing holds,
  and a second line. <sub>A01 tests/test_x.py::test_one</sub>
- Another one holds in part. <sub>A02</sub>

A paragraph. <sub>A01</sub>

| | one | other | |
|---|---|---|---|
| a row | yes | no | <sub>A01</sub> |

## Known gaps

- It does not hold elsewhere. <sub>A02</sub>

## How to report

Not by post.
"""
TABLE = {
    "A01": Row("A01", "!", "what", "held", frozenset({"test_x.py::test_one"}), ""),
    "A02": Row("A02", "!", "what", "partly", frozenset({"test_x.py::test_two"}), "more than this"),
    "A03": Row("A03", "", "what", "none", frozenset(), "not yet at all"),
    "A04": Row("A04", "", "what", "partly", frozenset({"test_x.py::test_two"}), "more than this"),
    "A05": Row("A05", "!", "what", "never", frozenset(), "nothing to be tested"),
}
KNOWN = {"test_x.py::test_one", "test_x.py::test_two"}


def swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "an item without anything": (swap(" <sub>A01 tests/test_x.py::test_one</sub>", ""), "names nothing that holds it"),
    "an item with nothing in it": (swap("<sub>A01 tests/test_x.py::test_one</sub>", "<sub> </sub>"), "names nothing that holds it"),
    "a paragraph without anything": (swap("A paragraph. <sub>A01</sub>", "A paragraph."), "'A paragraph.' names nothing"),
    "a row of a table without anything": (swap("| no | <sub>A01</sub> |", "| no | |"), "'| a row | yes | no | |' names nothing"),
    "a row that stands in the middle": (swap("and a second line. <sub>A01 tests/test_x.py::test_one</sub>",
                                             "<sub>A01</sub> and a second line."), "names nothing that holds it"),
    "a test that is not there": (swap("::test_one", "::test_none"), "there is no test tests/test_x.py::test_none"),
    "a test in another file": (swap("test_x.py", "test_y.py"), "there is no test tests/test_y.py::test_one"),
    "a row that is not there": (swap("<sub>A01", "<sub>K99"), "'K99' is neither a row nor a test"),
    "what is neither": (swap("<sub>A01", "<sub>see A01"), "'see' is neither a row nor a test"),
    "a row without a test": (swap("<sub>A01", "<sub>A03"), "A03 is none"),
    "a row that cannot be tested": (swap("<sub>A01", "<sub>A05"), "A05 is never"),
    "a row that is held in part, and nothing told": (swap("<sub>A01", "<sub>A04"), "A04 is partly, and 'Known gaps' does not tell it"),
    "a gap of high priority that is not told": (swap("- It does not hold elsewhere. <sub>A02</sub>\n", ""),
                                                "A02 is partly, and 'Known gaps' does not tell it"),
    "a gap that is told elsewhere alone": (swap("## Known gaps", "## Gaps"), "A02 is partly, and 'Known gaps' does not tell it"),
    "a gap that is none": (swap("elsewhere. <sub>A02", "elsewhere. <sub>A02 A01"), "A01 is held by now"),
    "a promise without a test, and a reason": (swap("<sub>A02</sub>", "<sub>no test: it is too hard</sub>"),
                                               "has no test, for the reason 'it is too hard'"),
    "a premise without a reason": (swap("it is a premise", "well"), "has no test, for the reason 'well'"),
    "a premise with nothing": (swap(" <sub>no test: it is a premise</sub>", ""), "'- The kernel.' names nothing"),
    "an introduction that leads nowhere": (swap("vulnerability:", "vulnerability."), "vulnerability.' names nothing"),
    "a section of another name": (swap("## How to report", "## Reports"), "'Not by post.' names nothing"),
}  # fmt: skip


def test_a_document_that_is_true_has_no_fault():
    """Red when: a line of faults() looks for more than it should."""
    assert list(faults(SMALL, TABLE, KNOWN)) == []


@pytest.mark.parametrize("what", BROKEN)
def test_a_document_that_is_not_true_is_noticed(what):
    """Red when: the line of faults() or why_not() that looks for it is taken out."""
    damage, said = BROKEN[what]
    assert damage(SMALL) != SMALL
    found = list(faults(damage(SMALL), TABLE, KNOWN))
    assert any(said in fault for fault in found), found


def test_a_row_that_lost_its_state_is_noticed():
    """COVERAGE.md may change as well. Red when: as above."""
    for state, said in (("partly", "A01 is partly, and"), ("none", "A01 is none, and")):
        table = {**TABLE, "A01": TABLE["A01"]._replace(state=state)}
        assert any(said in fault for fault in faults(SMALL, table, KNOWN)), state
    table = {**TABLE, "A02": TABLE["A02"]._replace(state="held")}
    assert ["A02 is held by now" in fault for fault in faults(SMALL, table, KNOWN)] == [True]


def test_the_readme_leads_there():
    """Red when: the link is taken out of README.md."""
    assert "[SECURITY.md](SECURITY.md)" in (TESTS.parent / "README.md").read_text()
