"""Two records that claim one thing, made by hand: what the kernel shows decides, and nothing of the live pod is harmed."""

import json
from pathlib import Path
from typing import Any

import neighbours
import pytest
from fakehost import FakeHost
from neighbours import Lan
from test_lifecycle import BUSYBOX, answer, create, detach, statuses
from test_state import inside

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
BRIDGE = (*BUSYBOX, "--net", "bridge")


@pytest.fixture
def lan(host: FakeHost):
    yield from neighbours.lans(host)


def copy(host: FakeHost, name: str, to: str, **changes: Any) -> None:
    """Copy the whole directory of a pod, as `cp -a` does, and give the record the new name."""
    pods = host.state / "pods"
    inside(host, 'cp -a "$1/$2" "$1/$3"', pods, name, to)
    edit(host, to, "pod.json", name=to, **changes)


def edit(host: FakeHost, pod: str, file: str, **changes: Any) -> None:
    """Other values in a file of a pod."""
    path = host.state / "pods" / pod / file
    held = json.loads(inside(host, 'cat "$1"', path))
    (host.work / "content").write_text(json.dumps({**held, **changes}))
    inside(host, 'cat "$1" > "$2"', host.work / "content", path)


def test_I12_a_copy_of_a_record_is_told_as_such_and_what_it_names_is_left_alone(host: FakeHost) -> None:
    """Its pause, its detached member and its log are the first one's, who keeps them whatever is done to the copy.

    Red when: entries() does not mark copies, or judged() in lifecycle.py is look() as it was: rm ends the pause.
    """
    pause = create(host, "t")
    member = detach(host, "echo up; exec sleep 600", "--share", "net,ipc,uts")
    copy(host, "t", "a-copy")
    assert statuses(host) == {"t": "running", "a-copy": "corrupt"}
    assert {row["name"]: row.get("problem") for row in answer(host, "ls")}["a-copy"] == "it is a copy of the record of pod 't'"
    assert [row["status"] for row in answer(host, "inspect", "a-copy", "t")] == ["corrupt", "running"]
    for verb in (["stop"], ["rm"]):
        done = host.nsbox(*verb, "a-copy")
        assert done.returncode == 125 and "a copy of the record of pod 't'" in done.stderr, done
        assert "nsbox rm --force a-copy" in done.stderr.splitlines()[1]
    for words in (["kill", "-s", "KILL", "a-copy"], ["net", "connect", "a-copy", "bridge"], ["publish", "a-copy", "127.0.0.1:8080:80"]):
        done = host.nsbox(*words)
        assert done.returncode == 125 and "a copy of the record of pod 't'" in done.stderr, done
    assert answer(host, "prune") == []
    assert host.nsbox("rm", "-f", "a-copy").returncode == 0
    assert statuses(host) == {"t": "running"}
    # One whose own pause has ended, and whose members' records are still the first one's.
    copy(host, "t", "a-copy", pause=["x", 4194303, 1])
    assert statuses(host) == {"t": "running", "a-copy": "dead"}
    assert answer(host, "prune") == ["a-copy"]
    assert {pause, member} <= set(host.processes())
    assert host.nsbox("logs", str(member)).stdout == "up\n"
    host.nsbox("rm", "-f", "t", check=True)
    assert not {pause, member} & set(host.processes())


def test_I12_a_backup_beside_a_pod_is_no_obstacle_to_any_verb(host: FakeHost) -> None:
    """Its name is none of a pod. Red when: _names_like() offers it, and a look at it is a SpecError."""
    create(host, "t")
    inside(host, 'cp -a "$1/t" "$1/t~"', host.state / "pods")
    for words in (["inspect", "t"], ["stop", "t"], ["rm", "t"]):
        assert host.nsbox(*words).returncode == 0, words
    inside(host, 'rm -r "$1/t~"', host.state / "pods")


_VANISHED = """
from nsbox.pod import rivals, store
t = store.look("t")
rivals._names_like = lambda record: iter(["gone"])
assert rivals.judged(t) == (t, False)
"""


def test_I12_one_that_is_removed_while_it_is_looked_at_is_no_error(host: FakeHost) -> None:
    """Pods that were made in one moment have one start time. Red when: judged() lets PodNotFound out."""
    create(host, "t")
    host.python(_VANISHED, check=True)
    host.nsbox("rm", "-f", "t", check=True)


def test_I12_of_two_pods_with_one_address_the_one_that_has_it_keeps_it(lan: Lan) -> None:
    """Its cable, its rules and its port, too, whatever becomes of the other one.

    Red when: contested() is not asked: the rules lead the port to the pod that is first in the alphabet, and it
    may speak in the name of the other one.
    """
    host, port = lan.host, (f"{lan.h.v4}:8080:80", "--publish-mode", "nat")
    b = lan.create("b", *BRIDGE, "-p", *port)
    lan.create("a", *BRIDGE)
    lan.serve(b, "0.0.0.0", 80)
    links = json.loads(inside(host, 'cat "$1"', host.state / "pods/b/net.json"))
    edit_links(host, "a", links)
    rules = lan.ruleset()
    [about] = answer(host, "inspect", "a")
    assert "which pod 'b' has" in about["network_problem"], about
    assert "network_problem" not in answer(host, "inspect", "b")[0]
    done = host.nsbox("create", "c", *BRIDGE)
    assert done.returncode == 125 and "nsbox rm --force a" in done.stderr and "which pod 'b' has" in done.stderr
    assert host.nsbox("prune").returncode == 0
    assert lan.ruleset() == rules
    assert lan.reach(lan.near, lan.h.v4, 8080) == lan.reach(lan.h, b.v4, 80) == "open"
    host.nsbox("rm", "-f", "a", check=True)
    assert lan.reach(lan.near, lan.h.v4, 8080) == lan.reach(lan.h, b.v4, 80) == "open"
    host.nsbox("create", "c", *BRIDGE, check=True)
    host.nsbox("rm", "-f", "b", "c", check=True)


def edit_links(host: FakeHost, name: str, links: dict[str, Any]) -> None:
    (host.work / "content").write_text(json.dumps(links))
    inside(host, 'umask 077; cat "$1" > "$2"', host.work / "content", host.state / "pods" / name / "net.json")


@pytest.mark.parametrize("end", ["rm", "killed"])
def test_I12_a_cable_between_two_pods_does_not_go_with_a_third_that_claims_it(lan: Lan, end: str) -> None:
    """Red when: drop_peers_end() does not look whose cable it is."""
    host = lan.host
    a, b, _ = [lan.create(name, *BUSYBOX) for name in ("a", "b", "c")]
    host.nsbox("net", "link", "a", "b", check=True)
    links = json.loads(inside(host, 'cat "$1"', host.state / "pods/a/net.json"))
    edit_links(host, "c", links)
    if end == "rm":
        host.nsbox("rm", "-f", "c", check=True)
    else:
        inside(host, 'kill -9 "$1"', answer(host, "inspect", "c")[0]["pid"])
        assert answer(host, "prune") == ["c"]
    lan.serve(b, "0.0.0.0", 80)
    assert lan.reach(a, links["ties"][0]["peer_address"], 80) == "open"
    host.nsbox("rm", "-f", "a", "b", check=True)


def test_I12_the_address_of_a_cable_whose_other_pod_died_is_free_for_others(lan: Lan) -> None:
    """Whoever had it there is not taken for corrupt. Red when: scan() asks contested() about loose ends, too."""
    host = lan.host
    pids = {name: create(host, name) for name in "abcd"}
    host.nsbox("net", "link", "a", "b", check=True)
    inside(host, 'kill -9 "$1"', pids["b"])
    while statuses(host)["b"] != "dead":
        pass
    host.nsbox("net", "link", "c", "d", check=True)
    assert all("network_problem" not in about for about in answer(host, "inspect", "a", "c"))
    host.nsbox("rm", "-f", *pids, check=True)


def test_I12_a_port_that_two_records_claim_is_open_for_the_one_whose_proxy_has_it(lan: Lan) -> None:
    """The other one is shown as down, and goes alone. Red when: published() calls open what is written down."""
    host = lan.host
    a, _ = lan.create("a", *BUSYBOX, "-p", "8080:80"), create(host, "b")
    lan.serve(a, "0.0.0.0", 80)
    inside(host, 'cp -p "$1/a/ports.json" "$1/b/ports.json"', host.state / "pods")
    shown = {row["name"]: [port["state"] for port in row["ports"]] for row in answer(host, "ls")}
    assert shown == {"a": ["open"], "b": ["down"]}
    assert host.nsbox("publish", "b", "8081:80").returncode == 125
    host.nsbox("rm", "-f", "b", check=True)
    assert lan.reach(lan.h, "127.0.0.1", 8080) == "open"
    host.nsbox("rm", "-f", "a", check=True)
