"""Many pods on one bridge."""

import json
import sys

import neighbours
import pytest
from fakehost import FakeHost
from faultpoints import EVERY
from neighbours import Lan, Place, addresses
from portlab import Pod

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

# Makes pods FIRST, FIRST + STEP, ... below END with the library; prints the PID of each pause.
MAKE = """
import sys, nsbox
first, end, step = map(int, sys.argv[1:])
for number in range(first, end, step):
    pod = nsbox.Pod(f"pod{number}", rootfs="busybox", net="bridge", keep=True)
    pod.create()
    print(pod.pid, flush=True)
"""
SOME = 12  # pods that try one another


@pytest.fixture
def lan(host: FakeHost):
    yield from neighbours.lans(host)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [200 if EVERY else 24])
def test_many_pods_on_a_bridge_have_addresses_of_their_own_and_reach_one_another(lan: Lan, count: int) -> None:
    """Made by two programs at a time, and removed by one command.

    Red when: two pods get one address, or MAC, or name of a link; or rules of one replace another's.
    """
    makers = [lan.host.popen([sys.executable, "-P", "-c", MAKE, str(first), str(count), "2"]) for first in (0, 1)]
    said = [maker.communicate(timeout=300) for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0], said
    inner = [int(word) for out, _ in said for word in out.split()]
    outer = lan.host.processes()
    pods = [Place(outer[pid], *addresses(outer[pid])) for pid in inner]
    assert len(pods) == len({pod.v4 for pod in pods}) == len({pod.v6 for pod in pods}) == count
    kept = [Pod(pod.pid).server("::", 80) for pod in pods]
    some = pods[:: max(1, count // SOME)]
    for pod in pods:
        assert lan.reach(lan.h, pod.v4, 80) == lan.reach(lan.h, pod.v6, 80) == "open"
    for one in some:
        for pod in some:
            assert lan.reach(one, pod.v4, 80) == lan.reach(one, pod.v6, 80) == "open"
    assert lan.reach(lan.near, pods[-1].v4, 80) == "blocked"
    rows = json.loads(lan.host.nsbox("ls", "--json", check=True).stdout)
    assert {row["members"] for row in rows} == {0}
    for sock in kept:
        sock.close()
    lan.host.nsbox("rm", "-f", *(row["name"] for row in rows), check=True, timeout=300)
