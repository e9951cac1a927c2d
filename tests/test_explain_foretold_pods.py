"""--dry-run of the verbs that change pods that run: somebody stands in for these, and is told of as of them.

Each command is rehearsed and then done, in one fake host: what both told is held against each other, with the
places, the networks, the moves between namespaces and the lines by hand, and the pods are looked into before and
after the rehearsal.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import signal
from collections.abc import Iterator

import pytest
from fakehost import FakeHost
from procfs import until
from test_explain_foretold import NUMBERS
from test_explain_net_script import network, rules

pytestmark = pytest.mark.needs_root

GROUPS = {"net"}  # verbs of two words
PORTS = [
    "publish web 8080:80",
    "publish web 8081:81/udp 8082:82",
    "publish web 8081:81/udp",  # taken
    "publish web 300.0.0.1:80:80",  # no address
    "publish nobody 8083:80",
    "publish web",
    "unpublish web 8099:80",  # not published
    "unpublish web 8080:80 8081:81/udp",
    "unpublish web :82",
]
CABLES = [
    "net connect web lan",
    "net connect web lan",  # it is already
    "net connect web nolan",
    "net connect nobody lan",
    "net connect bare lan --rate 10m",
    "net connect rooted lan --ip 10.9.0.77",
    "net connect rooted inner --ip 10.9.1.1",  # that of the bridge
    "net connect rooted inner",
    "net link web bare --rate 10m",
    "net link web rooted",
    "net link web web",
    "net reload",
    "net disconnect web bare",
    "net disconnect web bare",  # not any more
    "net disconnect bare lan",
    "net rm lan",  # pods are on it
    "net rm --force lan",
    "net disconnect rooted web",
    "net disconnect rooted inner",
]
BY_NAT = [
    "publish web 10.9.0.1:8080:80 --publish-mode nat",
    "publish web 10.9.0.1:8081:81/udp --publish-mode nat",
    "publish web 10.9.0.1:8081:82/udp --publish-mode nat",  # taken
    "publish web 127.0.0.1:8081:82/udp --publish-mode nat",  # the host's alone
    "publish bare 10.9.0.1:8082:82/udp --publish-mode nat",  # on no network
    "unpublish web 10.9.0.1:8080:80",
    "unpublish web 10.9.0.1:8081:81/udp",
]


@pytest.fixture(params=["root", "user"])
def any_host(request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    host = request.getfixturevalue("host" if request.param == "root" else "user_host")
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", check=True)


@pytest.fixture
def lab(host: FakeHost) -> Iterator[FakeHost]:
    """Pods of three kinds of root, and two networks."""
    for name, *words in (("web", "--rootfs", "busybox"), ("bare",), ("rooted", "--rootfs", "busybox", "--chroot")):
        host.nsbox("create", name, *words, check=True)
    host.nsbox("net", "create", "lan", "--subnet", "10.9.0.0/24", check=True)
    host.nsbox("net", "create", "inner", "--subnet", "10.9.1.0/24", "--internal", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "bare", "rooted")
    host.nsbox("net", "rm", "--force", "lan", "inner")


def do(host: FakeHost, line: str, *more: str) -> tuple[int, str, list[dict[str, object]]]:
    """A verb with more options: its status, the line that says why it failed, and its events."""
    words, file = line.split(), host.work / "events"
    at = 2 if words[0] in GROUPS else 1
    done = host.nsbox(*words[:at], "--events", file, *more, *words[at:])
    told = [json.loads(one) for one in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    errors = [one for one in done.stderr.splitlines() if one.startswith("nsbox: cannot")]
    return done.returncode, "".join(errors), told


def laid_once(told: list[dict[str, object]]) -> list[dict[str, object]]:
    """Without a cable that was laid again, for both of its ends had got the same number from the kernel.

    Which number that gives next depends on all links that ever were in a network, and nobody can ask for it.
    """
    pairs = enumerate(zip(told, told[1:]))
    again = [at for at, (one, two) in pairs if "RTM_DELLINK" in str(one["text"]) and " index " in str(two["by_hand"])]
    return [one for at, one in enumerate(told) if at not in again and at - 1 not in again]


def acts(told: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Process by process: what was done where, by hand too, without numbers of processes, descriptors and links.

    Nor close_range: how many are needed depends on what else is open.
    """
    found = [(one["task"], one["who"], NUMBERS.sub("N", str([one["text"], one["places"], one["by_hand"]])), one["error"],
              sorted(one["moved"]), [str(NUMBERS.sub("N", str(pid))) for pid in one["net"][1:]])
             for one in laid_once(told) if one["call"] != "close_range"]  # fmt: skip
    return sorted(found, key=lambda one: one[0])


def whom(told: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Which processes and namespaces of before it is about, by their numbers: those that are no children of it."""
    born = {one["result"] for one in told if one["child"] >= 0}
    found = []
    for one in laid_once(told):
        pids = {place for place in one["places"].values() if place.startswith("pidfd:")} | set(map(str, one["net"][1:]))
        found.append((one["task"], one["call"], sorted(pids - {str(pid) for pid in born}), one["net"][:1], one["moved"]))
    return sorted([one for one in found if one[2] or one[3] or one[4]], key=lambda one: one[0])


def insides(host: FakeHost) -> dict[str, object]:
    """What could change in the pods: links, mounts, and the directory with the names. v6 is given its time."""
    def looked() -> dict[str, object]:
        found = {}
        for pod in host.nsbox("ls", "--json", check=True).stdout and json.loads(host.nsbox("ls", "--json").stdout):
            pid, name = str(pod["pid"]), pod["name"]
            mounts = host.run(["cat", f"/proc/{pid}/mountinfo"], check=True).stdout
            found[name] = [mounts]
            if host.uid == 0:
                found[name] += [host.run(["ls", "-la", f"/proc/{pid}/root/etc"]).stdout,
                                host.run(["nsenter", "-t", pid, "-n", "ip", "-o", "address"], check=True).stdout]
        return found

    for _ in until(20, pause=0.2):
        seen = looked() if host.uid else {**looked(), "host": host.run(["ip", "-o", "address"], check=True).stdout}
        if "tentative" not in str(seen):
            break
    return seen


def foretold_as_done(host: FakeHost, line: str) -> None:
    inside = insides(host)
    before = host.snapshot()
    status, said, told = do(host, line, "--dry-run")
    host.assert_same_as(before)
    assert insides(host) == inside, line
    real_status, real_said, real = do(host, line)
    assert (status, said) == (real_status, real_said), line
    assert acts(told) == acts(real), line
    assert whom(told) == whom(real), line


def test_ports_are_foretold_as_they_are_published(any_host):
    """As root and as an ordinary user, with a new proxy and with one that runs.

    Red when: serve() starts no proxy, so that a new one is told of; or where.behind() tells the PID of who stands in.
    """
    for line in PORTS:
        foretold_as_done(any_host, line)


def test_a_proxy_that_was_killed_is_foretold_to_be_started_again(any_host):
    """Red when: parts() takes the rows of ports.json for what is served."""
    any_host.nsbox("publish", "web", "8080:80", check=True)
    record = json.loads(any_host.run(["cat", any_host.state / "pods/web/ports.json"], check=True).stdout)
    any_host.run(["kill", "-9", str(record["proxy"][1])], check=True)
    for _ in until(10):
        if "(down)" in any_host.nsbox("publish", "web", check=True).stdout:
            break
    foretold_as_done(any_host, "publish web 8081:81")


@pytest.mark.slow
def test_cables_are_foretold_as_they_are_laid(lab):
    """Red when: Copies._carry() leaves the end loose; cover() is not called; or cast() gets no inodes."""
    for line in CABLES:
        foretold_as_done(lab, line)


@pytest.mark.slow
def test_ports_by_nat_are_foretold(lab):
    """Red when: write_down() leaves the file of the guard as it is: then the real one is killed; or _take_ports() is not called."""
    lab.nsbox("net", "connect", "web", "lan", check=True)
    for line in BY_NAT:
        foretold_as_done(lab, line)


@pytest.mark.slow
def test_bridges_that_are_gone_are_foretold_to_come_back(lab):
    """Red when: stage() asks for no stand-ins of pods that have links: then their cables are really laid again."""
    for name in ("web", "bare"):
        lab.nsbox("net", "connect", name, "lan", check=True)
    rows = json.loads(lab.run(["ip", "-j", "link", "show", "type", "bridge"], check=True).stdout)
    for row in rows:
        lab.run(["ip", "link", "del", row["ifname"]], check=True)
    lab.run(["nft", "flush", "ruleset"], check=True)
    foretold_as_done(lab, "net reload")


@pytest.mark.slow
def test_the_script_of_a_rehearsal_connects_by_hand(lab):
    """Red when: where.behind() tells the PID of who stands in: it is gone by then."""
    script = lab.scratch / "by-hand.sh"
    pid = next(str(row["pid"]) for row in json.loads(lab.nsbox("ls", "--json", check=True).stdout) if row["name"] == "web")

    def seen() -> list[object]:
        for _ in until(20, pause=0.3):
            found = [network(lab, pid), network(lab, "1"), rules(lab)]
            if "DOWN" not in str(found):
                break
        return found

    lab.nsbox("net", "connect", "bare", "lan", check=True)  # forwarding is on, and its rules are there
    lab.nsbox("net", "connect", "web", "lan", "--rate", "10m", check=True)
    made = seen()
    lab.nsbox("net", "disconnect", "web", "lan", check=True)
    lab.nsbox("net", "connect", "--dry-run", "--sh", script, "web", "lan", "--rate", "10m", check=True)
    assert network(lab, pid) != made[0]
    lab.run(["sh", script], check=True, timeout=60)
    hand = seen()
    for ours, theirs in zip(made, hand, strict=True):
        assert ours == theirs
    assert "tbf" in str(made) and "10.9.0.3" in str(made)
    [link] = [row for row in json.loads(lab.run(["ip", "-j", "link"], check=True).stdout) if row.get("ifalias", "").endswith(
        json.loads(lab.run(["cat", lab.state / "pods/web/pod.json"], check=True).stdout)["id"])]  # fmt: skip
    lab.run(["ip", "link", "del", link["ifname"]], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["publish web 8080:80", "net connect web lan", "net reload"])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_rehearsal_that_is_cut_off_leaves_nothing(lab, line, signum):
    """At whatever moment: those who stand in end with the keeper, and it with the command.

    Red when: _play() does not die with its parent and end() is left out.
    """
    lab.nsbox("publish", "web", "8079:79", check=True)
    lab.nsbox("net", "connect", "bare", "lan", check=True)
    inside, before = insides(lab), lab.snapshot()
    words = line.split()
    at = 2 if words[0] in GROUPS else 1
    for moment in range(4):
        command = lab.nsbox_popen(*words[:at], "--dry-run", *words[at:])
        for number, _ in enumerate(until(20, pause=0.05)):
            if number >= 8 * moment:
                break
        command.send_signal(signum)
        command.communicate(timeout=30)
        lab.assert_same_as(before, within=20)
        assert insides(lab) == inside


def test_who_may_not_is_told_so(user_host):
    """Red when: a network is copied for somebody who is not root."""
    user_host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    for line in ("net connect web lan", "net link web web", "net disconnect web lan", "net reload", "net rm lan"):
        assert do(user_host, line, "--dry-run") == do(user_host, line)
    user_host.nsbox("rm", "--force", "web", check=True)
