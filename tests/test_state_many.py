"""Many dead pods, many joins: what one costs is what each costs."""

import json
import sys
from pathlib import Path

import pytest
from fakehost import NSBOX, FakeHost
from faultpoints import EVERY
from procfs import until
from test_lifecycle import answer, create
from test_state import inside, read_record

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

FEW, MANY = (250, 1000) if EVERY else (100, 400)
JOINS, AT_ONCE = (1000, 50) if EVERY else (100, 25)
# How much more four times as many may cost, by the processor's time: squared, it would be sixteen times as much.
RATIO_MAX = 8

_TIMED = """
import os, resource, sys
sys.argv[1:], sys.stdout = sys.argv[1:], open(os.devnull, "w")
from nsbox.cli import main
from nsbox.pod import lifecycle, report
before = resource.getrusage(resource.RUSAGE_SELF)
status = main(sys.argv[1:])
after = resource.getrusage(resource.RUSAGE_SELF)
print(status, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, file=sys.__stdout__)
"""
_FAKES = """
import json, os, sys
pods, count = sys.argv[1], int(sys.argv[2])
record = json.load(sys.stdin)
for number in range(count):
    os.makedirs(f"{pods}/dead{number}/members", 0o700)
    os.chmod(f"{pods}/dead{number}", 0o700)
    made = {**record, "name": f"dead{number}", "id": f"{number:016x}", "pause": [record["pause"][0], 4194303, 1000 + number]}
    with open(os.open(f"{pods}/dead{number}/pod.json", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump(made, file)
"""


def timed(host: FakeHost, *words: str) -> float:
    """The processor time, in seconds, of a verb without the start of the interpreter."""
    status, cost_s = host.python(_TIMED, *words, check=True).stdout.split()
    assert status == "0", words
    return float(cost_s)


def test_I13_what_many_dead_pods_cost_grows_with_their_number(host: FakeHost) -> None:
    """`ls` and `prune` are linear, and prune takes them all. Red when: _prune_dead() asks rivals.judged() about each."""
    create(host)
    record = read_record(host)
    cost: dict[str, list[float]] = {"ls": [], "prune": []}
    for count in (FEW, MANY):
        host.python(_FAKES, str(host.state / "pods"), str(count), input=json.dumps(record), check=True)
        assert len(answer(host, "ls")) == count + 1
        for verb in cost:
            cost[verb].append(timed(host, verb))
        assert [row["name"] for row in answer(host, "ls")] == ["t"]
    assert all(many < RATIO_MAX * few for few, many in cost.values()), cost
    host.nsbox("rm", "t", check=True)


_JOINS = """
import subprocess, sys
count, at_once, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
running, failed = [], 0
for number in range(count):
    if len(running) == at_once:
        failed += running.pop(0).wait() != 7
    running.append(subprocess.Popen(words))
failed += sum(one.wait() != 7 for one in running)
print(failed)
"""


def test_J05_many_joins_many_at_a_time_leave_nothing_in_the_pod_or_on_the_host(host: FakeHost) -> None:
    """Every one has its own status; PID 1 has the descriptors and children that it had, the pod no zombie.

    Red when: a join leaves a file in the state directory, from target.find() say.
    """
    pause = host.host_pid(create(host))

    def held() -> tuple[int, int]:
        children = Path(f"/proc/{pause}/task/{pause}/children").read_text().split()
        return len(list(Path(f"/proc/{pause}/fd").iterdir())), len(children)

    before = held(), host.snapshot()
    said = host.run([sys.executable, "-c", _JOINS, str(JOINS), str(AT_ONCE), *NSBOX, "join", "t", "--", "sh", "-c",
                     "(true &) ; exit 7"], timeout=1200)
    assert said.stdout == "0\n", said
    assert any(held() == before[0] for _ in until(10)), held()
    host.assert_same_as(before[1])
    assert [len(answer(host, "inspect", "t")[0][key]) for key in ("processes", "members")] == [1, 0]
    host.nsbox("rm", "t", check=True)
