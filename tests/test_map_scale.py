"""`nsbox map` of many: 500 processes in 100 pods, each where lsns(8) and /proc say it is."""

import json

import pytest
from fakehost import FakeHost
from test_discovery import lsns
from test_map import COLUMNS, matrix, picture

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.timeout(300)]

PODS, EACH = 100, 5
CROWD = f"""
import nsbox
for number in range({PODS}):
    pod = nsbox.Pod(f"crowd{{number:03}}", keep=True).create()
    pod.detach(["sh", "-c", "sleep 1000 & " * {EACH - 2} + "wait"])
"""
# By another way than nsbox goes: what ls would print of each process.
LINKS = """
for pid in /proc/[0-9]*; do
    for kind in user pid mnt net uts ipc cgroup time; do
        echo "${pid#/proc/} $(readlink $pid/ns/$kind)"
    done
done
"""


@pytest.fixture(scope="module")
def crowd(request):
    """A fake host with the pods; it is not compared at the end, for it ends with all that is in it."""
    base, store = request.getfixturevalue("base"), request.getfixturevalue("store")
    with FakeHost(base, store=store) as host:
        host.python(CROWD, check=True, timeout=200)
        yield host


def test_each_of_500_processes_is_where_proc_says(crowd):
    """Red when: read() takes what it has read of the process before; or a process is left out."""
    taken = picture(crowd, timeout=120)
    said = {}
    for line in crowd.run(["sh", "-c", LINKS], check=True, timeout=200).stdout.splitlines():
        pid, _, link = line.partition(" ")
        if link:
            kind, _, number = link.partition(":")
            said.setdefault(int(pid), {})[kind] = int(number.strip("[]"))
    ours = {one["pid"]: one["namespaces"] for one in taken["processes"]}
    members = [pid for group in taken["groups"] if group["what"] == "pod" for pid in group["pids"]]
    assert len(members) == PODS * EACH
    assert {pid: ours[pid] for pid in members} == {pid: said[pid] for pid in members}


def test_lsns_counts_the_same_processes_in_each_namespace(crowd):
    """Red when: a namespace gets the processes of another kind's with its number; or a letter is given twice."""
    taken = picture(crowd, timeout=120)
    theirs = {int(row["ns"]): (row["type"], int(row["nprocs"]), int(row["pid"]))
              for row in lsns(crowd, "-o", "NS,TYPE,NPROCS,PID")}
    ours = {row["id"]: (row["kind"], len(row["pids"]), row["pids"][0]) for row in taken["namespaces"]
            if row["id"] not in taken["own"].values()}  # of which nsbox and lsns themselves are
    assert len(ours) == 5 * PODS and ours == {number: theirs[number] for number in ours}
    for kind in COLUMNS:
        letters = [row["letter"] for row in taken["namespaces"] if row["kind"] == kind]
        assert len(set(letters)) == len(letters)


def test_the_matrix_has_a_row_for_each_of_them(crowd):
    """Red when: rows of different pods are folded together, or letters beyond Z run into the next column."""
    lines, rows = matrix(crowd, "--all", "--only", "matrix", timeout=120)
    taken = picture(crowd, timeout=120)
    named = {row["id"]: row["letter"] for row in taken["namespaces"]}
    processes = {one["pid"]: one for one in taken["processes"]}
    members = [pid for group in taken["groups"] if group["what"] == "pod" for pid in group["pids"]]
    for pid in members:
        assert [cell[1:] for cell in rows[pid]] == [named[processes[pid]["namespaces"][kind]] for kind in COLUMNS]
    assert all(len(line) <= 80 for line in lines)


def test_the_page_of_them_is_whole(crowd):
    """Red when: the page leaves rows out, or its data is no JSON."""
    page = crowd.nsbox("map", "--html", check=True, timeout=120).stdout
    assert page.count('<tr class="proc') == PODS * EACH + 1
    about = json.loads(page.partition('id="about">')[2].partition("</script>")[0])
    assert len(about) == 5 * PODS + len(COLUMNS)
