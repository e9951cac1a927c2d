"""--dry-run, and nsbox explain VERB: what a verb would do is told, and nothing of it is done or left.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re
import signal

import pytest
from fakehost import FakeHost
from procfs import until

CREATES = {
    "with a rootfs": ["--rootfs", "busybox", "-v", "/tmp:/mnt:ro"],
    "of the host's tree": [],
    "with more namespaces": ["--with", "user,cgroup,time", "--boottime", "9"],
    "with a program of one's own": ["--rootfs", "busybox", "--init", "sleep 1000"],
    "with a port": ["-p", "8080:80"],
    "on a bridge": ["--net", "bridge", "--rootfs", "busybox", "-p", "8080:80"],
    "on a network": ["--net", "lan"],
}
JOINS = {
    "of all": [],
    "with a root of its own": ["--rootfs", "busybox"],
    "without pid": ["--share", "net,ipc"],
    "detached": ["-d"],
}
REFUSED = {
    "create --in-place --rootfs busybox": "--in-place",
    "create --explain": "stands without --explain",
    "explain": "there is no verb",
    "explain ls": "it changes nothing",
    "explain net ls": "it changes nothing",
    "explain nothing": "cannot find a verb",
    "explain prune": "depends on what it finds",
    "explain --json": "there is no verb",
}
ROOTS_ALONE = ("--boottime", "bridge", "lan")
# And what is made up anew each time: names of links, ids of networks and pods, and what comes of them.
NUMBERS = re.compile(r"ns[btv][0-9a-f]+|nsbox:\w+:[0-9a-f]+|nsbox_[0-9a-f]+|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|fd6e:[0-9a-f:]+|\b\d+\b")

pytestmark = pytest.mark.needs_root


@pytest.fixture(params=["root", "user"])
def any_host(request):
    host = request.getfixturevalue("host" if request.param == "root" else "user_host")
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)


@pytest.fixture
def web(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)


def events(host: FakeHost, *words: str, **kw: object) -> list[dict[str, object]]:
    """What a verb tells: with --dry-run on stdout, else in a file."""
    verb, *rest = words
    if "--dry-run" in rest:
        return [json.loads(line) for line in host.nsbox(verb, "--events", "-", *rest, check=True, **kw).stdout.splitlines()]
    file = host.work / "events"
    host.nsbox(verb, "--events", file, *rest, check=True, **kw)
    return [json.loads(line) for line in file.read_text().splitlines()]


def steps(told: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Who did what, with which flags and to which end; process by process, without numbers of PIDs and descriptors.

    Nor close_range: how many are needed depends on what else is open.
    """
    found = [(one["task"], one["who"], NUMBERS.sub("N", str(one["text"])), one["error"]) for one in told
             if one["call"] != "close_range"]
    return sorted(found, key=lambda one: one[0])


def until_the_first_signal(told: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [one for one in told if "pidfd_send_signal" not in str(one[2])]


@pytest.mark.parametrize("how", CREATES)
def test_create_is_foretold_as_it_is_done_and_changes_nothing(any_host, how):
    """Red when: the keeper removes nothing."""
    if any_host.uid and set(ROOTS_ALONE) & set(CREATES[how]):
        return
    if how == "on a network":
        any_host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    before = any_host.snapshot()
    told = events(any_host, "create", "--dry-run", "other", *CREATES[how])
    any_host.assert_same_as(before)
    assert steps(told) == steps(events(any_host, "create", "other", *CREATES[how]))
    assert len(told) > 30
    if how == "on a network":
        any_host.nsbox("rm", "--force", "other", check=True)
        any_host.nsbox("net", "rm", "lan", check=True)


def test_networks_are_foretold_and_the_host_s_stay_as_they_are(host):
    """What is there counts: names and subnets that are taken, links that a network must not touch.

    Red when: the copy of the host's network lacks its addresses and routes, or is not entered.
    """
    host.nsbox("net", "create", "lan", "--subnet", "10.78.0.0/24", check=True)
    host.nsbox("create", "web", "--net", "lan", check=True)
    for words in ("link add br9 type bridge", "address add 10.78.1.9/24 dev br9", "link set br9 up"):
        host.run(["ip", *words.split()], check=True)
    for _ in until(10):
        if "tentative" not in str(before := host.snapshot()):
            break
    said = host.nsbox("explain", "net", "create", "more", check=True)
    assert "10.78.2.1/24" in said.stdout and said.stderr == "nsbox: rehearsed: nothing of it is left\n"
    for words in (["net", "create", "lan"], ["net", "create", "more", "--subnet", "10.78.0.0/20"], ["net", "rm", "lan"]):
        real, told = host.nsbox(*words), host.nsbox("explain", *words)
        assert (told.returncode, told.stderr) == (real.returncode, real.stderr) and told.returncode in (2, 125)
    said = host.nsbox("explain", "create", "other", "--net", "lan", check=True)
    assert "10.78.0.3/24" in said.stdout and said.stderr == "nsbox: rehearsed: nothing of it is left\n"
    host.assert_same_as(before)
    host.run(["ip", "link", "del", "br9"], check=True)
    host.nsbox("rm", "--force", "web", check=True)
    said = host.nsbox("explain", "net", "rm", "lan", check=True)
    assert re.search(r"\$ ip link del dev nsb\w+", said.stdout)
    host.nsbox("net", "rm", "lan", check=True)


@pytest.mark.parametrize("how", JOINS)
def test_join_is_foretold_as_it_is_done_and_executes_nothing(any_host, how):
    """Red when: Teller executes the command in a rehearsal."""
    before = any_host.snapshot()
    told = events(any_host, "join", "--dry-run", "web", *JOINS[how], "--", "true")
    any_host.assert_same_as(before)
    assert steps(told) == steps(events(any_host, "join", "web", *JOINS[how], "--", "true"))
    assert any(one["call"] == "execveat" for one in told)


@pytest.mark.parametrize("how", ["join", "join -d", "run"])
def test_no_command_is_executed(any_host, how):
    """Red when: Teller does not call leave() before an execve."""
    verb, *words = how.split()
    target = ["web"] if verb == "join" else []
    (any_host.work / "dir").mkdir()
    (any_host.work / "dir").chmod(0o777)
    for dry in (["--dry-run"], []):
        assert not any((any_host.work / "dir").iterdir())
        any_host.nsbox(verb, *dry, *words, *target, "-T", "--rootfs", "busybox", "-v", f"{any_host.work}/dir:/mnt", "--",
                       "touch", "/mnt/mark", check=True)  # fmt: skip
    for _ in until(10):
        if (any_host.work / "dir/mark").exists():
            return
    raise AssertionError("the real run did nothing, so the rehearsal proves nothing")


def test_run_is_foretold_to_its_end(any_host):
    """Red when: PID 1 ends in a rehearsal, so that nobody can join."""
    before = any_host.snapshot()
    words = ["--name", "other", "--rootfs", "busybox", "--", "true"]
    told = events(any_host, "run", "--dry-run", *words)
    any_host.assert_same_as(before)
    real = events(any_host, "run", *words)
    assert until_the_first_signal(steps(told)) == until_the_first_signal(steps(real))
    assert {"pause", "member"} <= {one["who"] for one in told}
    assert told[-1]["call"] == real[-1]["call"] == "pidfd_send_signal"


def test_explain_is_the_dry_run_of_a_verb(web):
    """As text, as JSON, as a script; stdout has nothing else.

    Red when: _without_answer() lets the verb's own answer through.
    """
    done = web.nsbox("explain", "create", "other", "--rootfs", "busybox", check=True)
    assert done.stderr == "nsbox: rehearsed: nothing of it is left\n"
    assert re.match(r" +1 nsbox +clone\(", done.stdout) and "$ hostname other" in done.stdout
    for words in (["join", "web", "--", "true"], ["create", "other"]):
        for line in web.nsbox("explain", "--json", *words, check=True).stdout.splitlines():
            assert json.loads(line)["call"]
    script = web.nsbox("explain", "--sh", "run", "--", "true", check=True).stdout
    assert script.startswith("#!/bin/sh\n") and script.endswith('exit "$status"\n')
    assert web.run(["sh", "-n"], input=script, check=True).returncode == 0
    assert web.nsbox("ls", "-q").stdout == "web\n"


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_said_beforehand_is_wrong_use(host, words):
    """Red when: the verb is rehearsed all the same."""
    verb, *rest = words.split()
    done = host.nsbox(verb, *(["--dry-run", "other"] if verb == "create" else []), *rest)
    assert done.returncode == 2 and REFUSED[words] in done.stderr, done.stderr


def test_what_would_fail_fails_in_the_same_way(web):
    """Red when: the records are not copied."""
    for words in (["create", "web"], ["join", "nobody", "--", "true"], ["join", "web", "-w", "/none", "--", "true"]):
        real, told = web.nsbox(*words), web.nsbox(words[0], "--dry-run", *words[1:])
        assert (told.returncode, told.stderr) == (real.returncode, real.stderr) and told.returncode == 125


@pytest.mark.parametrize("verb", ["stop", "rm", "rm --force"])
def test_the_signals_of_an_end_are_foretold(web, verb):
    """Red when: Plan.end() forgets the supervisors, or sends TERM with --force."""
    for _ in range(2):
        web.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True)
    before = web.snapshot()
    verb, *options = verb.split()
    told = events(web, verb, "--dry-run", *options, "web")
    web.assert_same_as(before)
    real = events(web, verb, *options, "web")
    sent = [[(one["places"]["0"], one["text"].split(",")[1]) for one in what if one["call"] == "pidfd_send_signal"]
            for what in (told, real)]
    certain = [pair for pair, one in zip(sent[0], told, strict=True) if not one["doing"]]
    assert certain == sent[1] and len(certain) == 5 and len(sent[0]) > 5
    web.nsbox("create", "web", check=verb == "rm")


def test_the_signals_of_kill_are_foretold(web):
    """Red when: Plan.kill() sends to the pause too."""
    pid = web.nsbox("join", "web", "-d", "--", "sleep", "1000", check=True).stdout.strip()
    [one] = events(web, "kill", "--dry-run", "-s", "USR1", "web")
    assert one["places"]["0"] == f"pidfd:{pid}" and "SIGUSR1" in one["text"]
    said = web.nsbox("explain", "kill", "-s", "USR1", "web", check=True).stdout
    assert f"$ kill -USR1 {pid}" in said and " = " not in said
    assert web.run(["kill", "-0", pid]).returncode == 0


@pytest.mark.slow
def test_a_rehearsal_that_is_killed_leaves_nothing(web):
    """At whatever moment: the keeper clears away.

    Red when: the keeper ends when it reads the end of file, and removes nothing.
    """
    before = web.snapshot()
    for delay in range(8):
        command = web.nsbox_popen("create", "--dry-run", "other", "--rootfs", "busybox")
        for number, _ in enumerate(until(10, pause=0.02)):
            if number >= 4 + 2 * delay:
                break
        command.send_signal(signal.SIGKILL)
        command.communicate(timeout=20)
        web.assert_same_as(before)


def test_a_rehearsal_mends_nothing_of_others(web):
    """A pod that is just being made looks, in a copy, as if its maker were dead.

    Red when: the keeper copies such a pod.
    """
    record = "$NSBOX_STATE/pods/web/pod.json"
    pid = json.loads(web.run(["sh", "-c", f"cat {record}"], check=True).stdout)["pause"][1]
    web.run(["sh", "-c", f"sed -i 's/\"ready\"/\"intent\"/' {record}"], check=True)
    assert web.nsbox("create", "--dry-run", "web").returncode == 0
    assert pid in web.processes()
    web.run(["sh", "-c", f"sed -i 's/\"intent\"/\"ready\"/' {record}"], check=True)
    assert web.nsbox("ls", "-q").stdout == "web\n"
