"""The generic rows, put to nsbox and to its peers alike: scripts/compare asks them.

That every row can be seen open is a test of its own: what is done by hand, or done worse in one respect, must
be found open. A row that says "held" of everybody would be worth nothing.
"""

import json
import subprocess

import pytest
import rows
from conftest import skip_or_fail
from procfs import TOP
from rowlab import Verdict
from rowtools import TOOLS, Nsbox, Tool

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.timeout(600)]

COMPARE = TOP / "scripts/compare"
KEYS = [row.key for row in rows.ROWS]
# What nsbox leaves open by design, and the README says so: root of a pod that root makes without --userns.
ADMITTED = {("nsbox", "host-root")}
WEAK = {}  # type: dict[Tool, list[str]]
for _key in KEYS:
    WEAK.setdefault(rows.weak(_key), []).append(_key)


def asked(tool: Tool, keys: list[str] = KEYS) -> dict[str, Verdict]:
    skip_or_fail(tool.missing())
    answer = rows.compare(keys, [tool])
    return {key: answer[key][tool.key] for key in keys}


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if isinstance(tool, Nsbox)], ids=str)
def test_nsbox_holds_every_generic_row(tool):
    """Red when: any of its guards is taken away: tried with os.environb in base_environment(), and without
    close_range() in execute.py."""
    found = asked(tool)
    left = {key: verdict for key, verdict in found.items() if verdict.state not in ("held", "n/a")}
    admitted = {key for name, key in ADMITTED if name == tool.key}
    assert {key for key, verdict in left.items() if verdict.state == "open"} == admitted, left
    assert set(left) == admitted, left
    # As an ordinary user there is no other user, and there are no groups to lose; all else is asked.
    unasked = {key for key, verdict in found.items() if verdict.state == "n/a"}
    assert unasked == ({"groups", "digits", "setuid"} if tool.uid else set()), found


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if not isinstance(tool, Nsbox)], ids=str)
def test_every_peer_gives_a_definite_answer(tool):
    """Whatever it is: another version of a peer may hold what this one leaves open.

    Red when: runc is started without --rootless=true, or crun with control groups.
    """
    found = asked(tool)
    assert {verdict.state for verdict in found.values()} <= {"held", "open", "n/a"}, found
    assert all(verdict.evidence for verdict in found.values())
    assert sum(verdict.state == "held" for verdict in found.values()) >= 10, found  # it did start


@pytest.mark.parametrize("tool", WEAK, ids=str)
def test_every_row_can_be_seen_open(tool):
    """Red when: a question of rowprobe.c or rowsown.py cannot find what is there to be found."""
    found = asked(tool, WEAK[tool])
    assert {key: verdict for key, verdict in found.items() if verdict.state != "open"} == {}


def test_the_script_answers_in_json_and_in_words():
    """Red when: main() asks for other rows or tools than it was told, or forgets the status."""
    words = ["--tools", "nsbox,by hand", "--rows", "environ,core"]
    done = subprocess.run([COMPARE, "--json", *words], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["tools"] == ["nsbox", "by hand"] and "kernel" in answer["versions"]
    assert {row["key"]: [row["tools"][tool]["state"] for tool in answer["tools"]] for row in answer["rows"]} == {
        "environ": ["held", "open"], "core": ["held", "open"]}
    text = subprocess.run([COMPARE, *words], capture_output=True, text=True, check=True).stdout
    assert [line.split() for line in text.splitlines()[:3]] == [
        ["row", "case", "nsbox", "by", "hand"], ["environ", "A11", "held", "OPEN"], ["core", "C15", "held", "OPEN"]]
    for wrong in (["--rows", "nothing"], ["--tools", "nobody"], ["--jso"]):
        refused = subprocess.run([COMPARE, *wrong], capture_output=True, text=True, check=False)
        assert (refused.returncode, refused.stdout) == (2, "") and refused.stderr.startswith("compare: "), refused


def test_the_page_has_every_row_and_nothing_else():
    """Red when: a row is added and docs/peers.md is not written again."""
    page = (TOP / "docs/peers.md").read_text()
    for row in rows.ROWS:
        assert f"| {row.case} | {row.what} |" in page, row
        assert f"**{row.case} {row.key}**" in page, row
    assert page.count("\n**") == len(rows.ROWS)
