"""Tables as wide as the terminal. "Red when" in a docstring says how to break nsbox so that the test fails; each was tried."""

import os

import pytest

from nsbox.show import text

TITLES = ["NAME", "PID", "STATUS", "PORTS", "ROOTFS"]
ROWS = [["web-frontend", "4711", "running", "127.0.0.1:8080->80/tcp", "/var/lib/nsbox/rootfs/busybox/rootfs"],
        ["ü", "1", "dead", "", "-"]]  # fmt: skip


@pytest.mark.parametrize("columns", [20, 40, 66, 80, 100])
def test_only_the_last_column_is_cut_on_a_narrow_terminal(monkeypatch, columns):
    """A PID of which a digit is missing is another one's.

    Red when: table() lets the library shrink all columns alike; or does not look at the terminal's width.
    """
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    lines = text.table(TITLES, ROWS, frozenset({"PID"}))
    assert lines[1].split()[:4] == ROWS[0][:4] and lines[2].split() == ["ü", "1", "dead", "-"]
    assert lines[0].split() == TITLES
    assert lines[1].endswith("/rootfs" if columns == 100 else "…")
    assert all(len(line) <= max(columns, 63) for line in lines)


def test_a_pipe_gets_all_of_it(monkeypatch):
    """Red when: table() asks for the width where there is no terminal."""
    monkeypatch.setenv("COLUMNS", "20")
    assert text.table(TITLES, ROWS)[1].split() == ROWS[0]
