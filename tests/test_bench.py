"""scripts/bench works and says what it promises. How fast anything is, no test asks."""

import json
import subprocess
from xml.etree import ElementTree

import pytest
from procfs import TOP

BENCH = TOP / "scripts/bench"
NSBOX_ROWS = ["python -I -c pass", "nsbox create; rm", "nsbox create --rootfs; rm", "nsbox join",
              "nsbox run --rootfs", 'pod.run(["true"])']
UTIL_LINUX_ROWS = ["unshare sleep; kill", "nsenter --all", "unshare chroot", 'subprocess.run(["nsenter"])']


def bench(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([BENCH, *words], capture_output=True, text=True, check=False, timeout=290)


@pytest.fixture(scope="module")
def answer():
    done = bench("--quick", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.needs_root
def test_every_verb_and_the_library_are_compared(answer):
    """Red when: a row of pod_rows() in measure.py is taken away."""
    rows = {row["name"]: row for row in answer["pods"]["rows"]}
    assert {*NSBOX_ROWS, *UTIL_LINUX_ROWS} <= {*rows}
    assert answer["pods"]["rounds"] == 2
    for row in rows.values():
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["median_ms"] <= high
        assert (row["nsbox_to_this"] is None) == (row["name"] in NSBOX_ROWS)


@pytest.mark.slow
@pytest.mark.needs_root
def test_the_map_is_compared_with_lsns(answer):
    """Red when: measure_map() takes its pods away before it measures; or leaves one of its rows out."""
    part = answer["map"]
    assert (part["pods"], part["processes"], part["rounds"]) == (3, 15, 2)
    rows = {row["name"]: row for row in part["rows"]}
    assert {*rows} == {"python -I -c pass", "nsbox map", "lsns", "nsbox map --json", "lsns -J"}
    for ours, theirs in (("nsbox map", "lsns"), ("nsbox map --json", "lsns -J")):
        assert rows[theirs]["nsbox_to_this"] == pytest.approx(rows[ours]["median_ms"] / rows[theirs]["median_ms"])


@pytest.mark.slow
@pytest.mark.needs_root
def test_each_ratio_is_that_of_the_medians(answer):
    """Red when: compare() in measure.py takes another row than the group's first."""
    for row in answer["pods"]["rows"]:
        group = [one for one in answer["pods"]["rows"] if one["group"] == row["group"]]
        if row is not group[0]:
            assert row["nsbox_to_this"] == pytest.approx(group[0]["median_ms"] / row["median_ms"])


@pytest.mark.slow
@pytest.mark.needs_root
def test_both_pauses_are_weighed(answer):
    """Red when: weigh() in measure.py looks at another process than PID 1 of the pod."""
    static, python = answer["pause"]["rows"][:2]
    assert (static["name"], python["name"]) == ("nsbox, static", "nsbox, python")
    assert static["exe"].startswith("/memfd:") and "python" in python["exe"]
    for row in (static, python):
        assert 0 < row["pss_kib"] <= row["rss_kib"]
        assert row["threads"] == 1 and set(row["fds"].values()) == {"/dev/null"}


@pytest.mark.slow
@pytest.mark.needs_root
def test_a_peer_that_is_missing_is_left_out_by_name(answer):
    """Red when: working() or measure_pauses() in measure.py drops a row and does not say so."""
    for part, names in (("pods", ["crun exec", "bwrap"]), ("pause", ["catatonit -P", "pause in C, static"])):
        measured = {row["name"] for row in answer[part]["rows"]}
        for name in names:
            assert (name in measured) != (name in answer[part]["left_out"])


@pytest.mark.slow
@pytest.mark.needs_root
def test_the_table_has_a_line_for_each_row():
    """Red when: pause_text() in scripts/bench leaves the first row out."""
    done = bench("--quick", "pause")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split()[:4] == ["RSS", "PSS", "threads", "fds"]
    assert lines[2].startswith("nsbox, static ") and lines[3].startswith("nsbox, python ")


def test_the_bench_tells_its_use():
    asked = bench("--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("usage: scripts/bench ")


def test_the_bench_refuses_what_it_does_not_know():
    asked = bench("--no-such")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith("usage: scripts/bench ")


@pytest.mark.slow
@pytest.mark.needs_root
def test_the_ways_into_a_pod_are_compared_and_drawn(tmp_path):
    """Red when: row_of() in netspeed.py divides by another way than the direct one, or drops a way."""
    plot = tmp_path / "net.svg"
    done = bench("--quick", "--json", "--svg", str(plot), "net")
    assert done.returncode == 0, done.stderr
    part = json.loads(done.stdout)["net"]
    direct, ours = part["rows"][:2]
    assert (direct["name"], ours["name"]) == ("veth, direct", "nsbox publish")
    for key in ("throughput_mib_s", "round_trip_us", "first_byte_us"):
        assert direct[f"{key}_to_direct"] == 1
        for row in part["rows"]:
            assert row[f"{key}_to_direct"] == pytest.approx(row[key] / direct[key])
    measured = {row["name"] for row in part["rows"]}
    for name in ("docker-proxy", "podman rootlessport", "socat", "nftables DNAT"):
        assert (name in measured) != (name in part["left_out"])
    root = ElementTree.parse(plot).getroot()
    drawn = " ".join("".join(one.itertext()) for one in root.iter())
    assert root.tag.endswith("svg") and all(name in drawn for name in measured)
    assert not root.findall(".//{*}script")
