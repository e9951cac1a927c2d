"""`nsbox map`: the matrix in the terminal, and the picture as JSON."""

import json
import re
import sys
import unicodedata
from typing import Any

import pytest
from fakehost import NSBOX, FakeHost
from inpod import FIVE, KINDS, detached, pod
from test_words import refused

from nsbox.show import pieces

pytestmark = pytest.mark.needs_root

COLUMNS = ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"]


def picture(host: FakeHost, *words: str, **kw: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(host.nsbox("map", "--json", *words, check=True, **kw).stdout)
    return answer


def matrix(host: FakeHost, *words: str, **kw: Any) -> tuple[list[str], dict[int, list[str]]]:
    """The lines of the matrix, and by PID the cells of those that stand for one process."""
    lines = host.nsbox("map", *words, check=True, **kw).stdout.splitlines()
    rows = {}
    for line in lines:
        if found := re.match(r" *(\d+) (.{15}) ((?:\S+ +){8})", line + " "):
            rows[int(found[1])] = found[3].split()
    return lines, rows


def letters(taken: dict[str, Any], pid: int) -> list[str]:
    """The letters of a process by the JSON picture."""
    named = {row["id"]: row["letter"] for row in taken["namespaces"]}
    [one] = [one for one in taken["processes"] if one["pid"] == pid]
    return [named[one["namespaces"][kind]] for kind in COLUMNS]


def test_equal_letters_are_equal_namespaces(host):
    """Red when: _letters counts in another order than the rows are drawn; or a letter stands for two ids."""
    with pod(host, "zoo") as other, pod(host, "web", "--rootfs", "busybox") as pause, \
         detached(host, "web", "--rootfs", "busybox") as own, detached(host, "web", "--share", "net") as net:
        taken = picture(host)
        by_kind = {}
        for row in taken["namespaces"]:
            by_kind.setdefault(row["kind"], []).append(row["letter"])
        assert list(by_kind) == COLUMNS
        for found in by_kind.values():
            assert len(found) == len(set(found)) and found[0] == "A"
        for kind in KINDS:
            mine = next(row for row in taken["namespaces"] if row["id"] == taken["own"][kind])
            assert mine["letter"] == "A"
        assert letters(taken, pause) == ["A", "B", "B", "B", "B", "B", "A", "A"]
        assert letters(taken, own) == ["A", "B", "C", "B", "B", "B", "A", "A"]
        assert letters(taken, net) == ["A", "C", "D", "B", "C", "C", "A", "A"]
        assert letters(taken, other) == ["A", "D", "E", "C", "D", "D", "A", "A"]


def test_the_matrix_shows_each_process_with_letter_and_shape(host):
    """Red when: _cell takes the shape of another process; or the matrix leaves a row out."""
    with pod(host, "web", "--rootfs", "busybox") as pause, detached(host, "web", "--rootfs", "busybox") as own:
        lines, rows = matrix(host, "web")
        assert lines[0].split() == [kind.replace("cgroup", "cgrp") for kind in COLUMNS]
        assert lines[1].startswith("you, ") and "○A   ○A" in lines[1]
        assert rows[pause] == ["○A", "■B", "◆B", "■B", "■B", "■B", "○A", "○A"]
        assert rows[own] == ["○A", "■B", "◆C", "■B", "■B", "■B", "○A", "○A"]
        assert set(rows) >= {pause, own} and "pod web" in lines
        [said] = [line for line in lines if line.startswith(f"{pause:>7} ")]
        assert said.endswith("PID 1 inside")
        assert "all share: pid net uts ipc · apart: mnt · with you: user cgroup time" in " ".join(lines)


def test_without_colour_or_unicode_nothing_is_lost(host):
    """Red when: a shape is told by its colour alone; or a character is printed that the locale has not, though
    Python would write it in the locale C.
    """
    with pod(host, "web") as pause:
        unlike = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        for words, env in ((["--ascii"], {}), ([], unlike), ([], {"LANG": "C"}), ([], {"LC_ALL": "POSIX"}), ([], {"LANG": None})):
            lines, rows = matrix(host, *words, env=env)
            assert all(line.isascii() for line in lines), lines
            assert rows[pause] == [".A", "*B", "*B", "*B", "*B", "*B", ".A", ".A"]
        assert all(len(line) <= 80 for line in lines)


def on_a_terminal(host: FakeHost, *words: str, columns: int = 80, **env: str) -> str:
    """What is printed on a terminal of that width."""
    script = f"stty cols {columns}; exec {' '.join([*NSBOX, *words])}"
    done = host.run(["script", "-qec", script, "/dev/null"], check=True, env={"TERM": "xterm-256color", **env})
    return done.stdout


def test_colours_are_for_terminals_that_want_them(host):
    """Red when: NO_COLOR is not obeyed; or a pipe gets escapes."""
    with pod(host, "web"):
        assert "\x1b[" in on_a_terminal(host, "map")
        plain = on_a_terminal(host, "map", NO_COLOR="1")
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)
        assert "\x1b" not in host.nsbox("map").stdout


@pytest.mark.parametrize("columns", [80, 40, 200])
def test_no_line_is_wider_than_the_terminal(host, columns):
    """Red when: draw does not cut its lines."""
    with pod(host, "web"), detached(host, "web", argv=("sh", "-c", "sleep 1000; : " + "x" * 300)):
        said = on_a_terminal(host, "map", columns=columns, NO_COLOR="1")
        bare = re.sub(r"\x1b\[[0-9;]*m", "", said)
        assert max(len(line) for line in bare.splitlines()) <= columns


def columns_of(text: str) -> int:
    """How wide a terminal draws it."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def test_letters_stay_in_their_columns_beside_a_wide_name(host):
    """Red when: width_of counts characters; or the lines are cut by characters."""
    code = "import sys, time; open('/proc/self/comm', 'w').write(sys.argv[1]); print(flush=True); time.sleep(1000)"
    keeper = host.popen(["unshare", "--uts", sys.executable, "-c", code, "\u7db2\u7d61\u8655\u7406"], user=0)
    try:
        assert keeper.stdout.readline(), keeper.communicate()
        lines, _ = matrix(host)
        [line] = [line for line in lines if re.match(r" *\d+ \u7db2\u7d61\u8655\u7406 ", line)]
        before, mark, _ = line.partition("\u25cbA")
        assert mark and columns_of(before) == lines[0].index("user")
        assert columns_of(pieces.cut(line, 11)) == 10, "half of a letter is none"
    finally:
        keeper.end()


def test_G14_a_hostile_name_steers_no_terminal(host):
    """Red when: the name of a process is printed as it is."""
    evil = "\x1b[2J\x1b]0;\x07"
    code = f"import time; open('/proc/self/comm', 'w').write({evil!r}); time.sleep(1000)"
    keeper = host.popen(["unshare", "--uts", sys.executable, "-c", code], user=0)
    try:
        while not (found := [one for one in picture(host)["processes"] if "\x1b" in one["name"]]):
            assert keeper.poll() is None, keeper.communicate()
        said = host.nsbox("map", "--all").stdout
        assert "\x1b" not in said and "\x07" not in said and "\\x1b[2J" in said
        assert any(str(one["pid"]) in said for one in found)
    finally:
        keeper.end()


def test_a_target_brings_its_own_group_and_the_host_alone(host):
    """Red when: blocks() shows every group, or loses the row to compare with."""
    with pod(host, "web") as pause, pod(host, "zoo") as other, detached(host, "web") as member:
        for words in (["web"], [str(pause)], [str(member)]):
            lines, rows = matrix(host, *words)
            assert {pause, member} <= set(rows) and other not in rows
            assert any(line.startswith("you, ") for line in lines)
        _, rows = matrix(host, "web", str(other))
        assert {pause, member, other} <= set(rows)


def test_many_alike_are_one_row_unless_all_are_asked_for(host):
    """Red when: _folded counts rows of different namespaces as alike."""
    with pod(host, "web"):
        pids = [int(host.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True).stdout) for _ in range(5)]
        lines, rows = matrix(host, "web")
        assert "sleep ×5" in " ".join(lines) and len(set(rows) & set(pids)) == 1
        _, rows = matrix(host, "web", "--all")
        assert set(pids) <= set(rows)


def test_processes_of_other_programs_form_groups(host):
    """Red when: _clusters joins processes that share nothing but a user namespace of the caller's."""
    one = host.popen(["unshare", "--uts", "--net", "sh", "-c", "sleep 1000 & sleep 1001; :"], user=0)
    two = host.popen(["unshare", "--ipc", "sleep", "1002"], user=0)
    try:
        while len(host.run(["pgrep", "-f", "^sleep 100"]).stdout.split()) < 3:
            assert one.poll() is None and two.poll() is None
        taken = picture(host)
        named = {one["pid"]: one["command"] for one in taken["processes"]}
        groups = [sorted(named[pid][-1] for pid in group["pids"]) for group in taken["groups"] if group["what"] == "other"]
        assert sorted(groups) == [["1000", "1001", "sleep 1000 & sleep 1001; :"], ["1002"]]
    finally:
        one.end()
        two.end()


def test_the_groups_hold_each_process_once(host):
    """Red when: a process that cannot be put anywhere is left out."""
    foreign = host.popen(["unshare", "--uts", "sh", "-c", "echo; exec sleep 1000"], user=0)
    with pod(host, "web"), pod(host, "zoo", "--net", "pod:web"), detached(host, "zoo") as guest:
        assert foreign.stdout.readline(), foreign.communicate()
        taken = picture(host)
        foreign.end()
        assert [group["name"] for group in taken["groups"] if group["what"] == "other"] == ["sleep"]
        placed = [pid for group in taken["groups"] for pid in group["pids"]]
        assert sorted(placed) == sorted(one["pid"] for one in taken["processes"])
        assert [group["name"] for group in taken["groups"] if group["what"] == "pod"] == ["web", "zoo"]
        assert [group["name"] for group in taken["groups"] if guest in group["pids"]] == ["zoo"]


def test_an_ordinary_user_is_told_what_was_not_seen(user_host):
    """Red when: processes of others are shown as if they were in one's own namespaces."""
    with pod(user_host, "web") as pause:
        lines, rows = matrix(user_host)
        assert rows[pause][1:6] == ["◆B"] * 5 and rows[pause][0] == "◆B"
        assert any("unseen" in line and line.count("?") == 8 for line in lines)
        assert re.search(r"^not seen: namespaces of \d+ process(es)? \(Permission denied\)$", "\n".join(lines), re.MULTILINE)


def test_a_target_that_is_not_there_is_named(host):
    """Red when: the map is drawn without it."""
    assert "'nobody'" in refused(host.nsbox("map", "nobody"), 125)
    assert "4194304" in refused(host.nsbox("map", "4194304"), 125)


def test_the_map_says_the_same_as_the_namespaces_of_the_pod(host):
    """Red when: the matrix is that of another process."""
    with pod(host, "web") as pause:
        taken = picture(host)
        [one] = [one for one in taken["processes"] if one["pid"] == pause]
        differ = {kind for kind in KINDS if one["namespaces"][kind] != taken["own"][kind]}
        assert differ == FIVE and one["pids"][1:] == [1]
