"""What a tampered record cannot do, and that readers see whole records while writers storm."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from fakehost import NSBOX, FakeHost
from faultpoints import EVERY
from faults import strace
from hostile import Canary
from test_lifecycle import BUSYBOX, answer, create, statuses
from test_state import fakes, inside, put_record, read_record

from nsbox.pod import files

pytestmark = pytest.mark.slow


# ---- I07: the PIDs in a record ----

def boot_and_start(host: FakeHost, pid: int) -> tuple[str, int]:
    boot, stat = inside(host, 'cat /proc/sys/kernel/random/boot_id "/proc/$1/stat"', pid).splitlines()
    return boot, int(stat.rpartition(")")[2].split()[19])


@pytest.mark.parametrize("verb", ["rm -f", "rm -t 1", "stop -t 1", "kill", "prune"])
def test_I07_a_recorded_pid_that_is_not_the_pause(host: FakeHost, verb: str) -> None:
    """No signal of any kind is sent: not to 1, to groups, to a process with another start time.

    Red when: open_process() does not compare the start time, or takes a PID of 1 or less.
    """
    bystander = host.popen(["sh", "-c", "echo $$; exec sleep 300"])
    assert bystander.stdout is not None
    other = int(bystander.stdout.readline())
    boot, start = boot_and_start(host, other)
    _, start_of_1 = boot_and_start(host, 1)
    create(host)
    good = read_record(host)
    wrong = {f"p{number}": [boot, pid, start_of_1] for number, pid in
             enumerate((1, 0, -1, -5, 2**31 - 1, 2**31, 2**64, 10**30))}  # fmt: skip
    wrong |= {"other": [boot, other, start + 1], "boot": [boot[::-1], other, start], "none": None}
    for phase in ("intent", "ready"):
        fakes(host, {name: json.dumps({**good, "name": name, "phase": phase, "pause": who,
                                       "maker": who or [boot, -1, 0]}).encode() for name, who in wrong.items()})
        words = verb.split() + (list(wrong) if verb != "prune" else [])
        status, out, err, log = strace(host, "trace=kill,tgkill,tkill,pidfd_send_signal,rt_sigqueueinfo",
                                       [*NSBOX, *words])  # fmt: skip
        assert status in (0, 125) and "bug of" not in err, err
        assert re.findall(r".*(?:kill|send_signal|queueinfo)\(.*", log) == []
        assert bystander.poll() is None
        assert statuses(host)["t"] == "running"
        host.nsbox("rm", "-f", *wrong, check=True)
    bystander.end()
    host.nsbox("rm", "-f", "t", check=True)


def test_I07_the_commands_own_pid(host: FakeHost) -> None:
    """A record that names the very process that reads it. Red when: rm sends signals without looking."""
    create(host)
    good = read_record(host)
    code = (
        "import json, os, sys\n"
        "from nsbox.linux import process\n"
        "from nsbox.cli import front\n"
        "who = process.identify(os.getpid())\n"
        "data = json.load(open(sys.argv[1]))\n"
        "data['pause'] = list(who)\n"
        "json.dump(data, open(sys.argv[1], 'w'))\n"
        "status = front.run(['rm', '-f', 't'])\n"
        "print('alive', status)\n"
    )
    done = host.run([sys.executable, "-c", code, str(host.state / "pods/t/pod.json")], timeout=40)
    assert done.stdout.startswith("alive"), done
    assert "Traceback" not in done.stderr
    host.run(["kill", "-9", str(good["pause"][1])])
    assert host.nsbox("rm", "-f", "t").returncode == 0


def test_I08_nothing_in_a_record_is_a_path_to_act_on(host: FakeHost, canary: Canary) -> None:
    """Paths and names of other things in it are passed over by every verb.

    Red when: rm goes by "rootfs" or unknown keys of the record.
    """
    create(host)
    good = read_record(host)
    evil = {
        **good, "rootfs": "/canary", "pins": ["../../canary/marker"], "veth": "lo", "nft": "filter", "name": "t",
        "log": "/canary/marker", "hostname": "../../canary", "members": ["/canary"], "init": ["/canary/marker"],
    }
    put_record(host, json.dumps(evil).encode())
    assert statuses(host) == {"t": "running"}
    assert host.nsbox("join", "t", "--", "true").returncode == 0
    assert len(answer(host, "inspect", "t")) == 1
    assert host.nsbox("stop", "t", "-t", "0").returncode == 0
    assert host.nsbox("rm", "t").returncode == 0
    assert "lo:" in inside(host, "ip -o link")


def test_I08_names_that_are_paths_are_refused(host: FakeHost, canary: Canary) -> None:
    """Red when: store uses a name that it has not checked."""
    for name in ("../../canary", "..", ".", "a/b", "/canary", "", ".new-0123456789abcdef", "a\nb", "-x"):
        for verb in (("rm", "-f"), ("inspect",), ("create",)):
            done = host.nsbox(*verb, "--", name) if name.startswith("-") else host.nsbox(*verb, name)
            assert done.returncode in (2, 125) and done.stdout == "", (verb, name, done)
    assert statuses(host) == {}


# ---- E10, I11, I15, J01 ----

_STORM = """
import json, os, random, signal, sys, time
from nsbox.cli import front, create, end, look
from nsbox.pod import create as _, lifecycle, report, store
seconds, seed = float(sys.argv[1]), int(sys.argv[2])
until, faults = time.monotonic() + seconds, []
def call(*words):
    files = sys.stdout, sys.stderr = [open(os.memfd_create(name), "w+") for name in ("out", "err")]
    status = front.run(list(words))
    for file in files:
        file.flush()
        file.seek(0)
    out, err = (file.read() for file in files)
    for file in files:
        file.close()
    return status, out, err
def writer(dice):
    name = "s%d" % dice.randrange(4)
    status, out, err = call(*dice.choice((("create", name), ("create", name), ("rm", "-f", name),
                                          ("stop", "-t", "0", name), ("prune",))))
    if status not in (0, 125) or "bug of" in err or "Traceback" in err:
        return err
def reader(dice):
    status, out, err = call(*dice.choice((("ls", "--json"), ("ls",), ("ls", "--json"))))
    if status or err:
        return "ls: %s %s" % (status, err)
    if out[:1] in "[{":
        rows = json.loads(out)
        if not isinstance(rows, list) or any(row["status"] == "corrupt" for row in rows):
            return out
    name = "s%d" % dice.randrange(4)
    status, out, err = call("inspect", name, "--json")
    if status == 0:
        json.loads(out)
    elif status != 125 or "bug of" in err:
        return err
children = []
for number in range(8):
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(r)
        dice, turns = random.Random(seed + number), 0
        try:
            while time.monotonic() < until:
                fault = (writer if number % 2 else reader)(dice)
                turns += 1
                if fault:
                    os.write(w, ("%s\\n" % fault[:2000]).encode())
                    break
        except BaseException as err:
            os.write(w, ("%d %r\\n" % (number, err)).encode())
        os.write(w, b"turns %d\\n" % turns)
        os._exit(0)
    os.close(w)
    children.append(r)
said = [open(r).read() for r in children]
sys.__stdout__.write(json.dumps(said))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def test_E10_readers_see_whole_pods_in_a_storm_of_writers(host: FakeHost) -> None:
    """Four writers, four readers for some seconds: no reader fails, all JSON is whole.

    Red when: records are written in place, or a vanished pod is an error in entries().
    """
    seed = int.from_bytes(os.urandom(2), "big")
    done = host.python(_STORM, "5", str(seed), timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert all(re.fullmatch(r"turns \d+\n", text) for text in said), f"seed {seed}: {said}"
    turns = [int(text.split()[1]) for text in said]
    assert min(turns) >= 5, f"seed {seed}: too slow to tell anything: {turns}"
    host.nsbox("rm", "-f", "s0", "s1", "s2", "s3", check=True)
    host.nsbox("prune", check=True)


@pytest.mark.parametrize("meanwhile", ["replaced", "removed"])
def test_E10_a_record_that_changes_between_open_and_a_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It is read again, or it is not there; never corrupt, which a person would have to mend.

    Red when: _read_plain() takes a file without a name for one that is not ours.
    """
    dir_fd = os.open(tmp_path, os.O_RDONLY)
    files.write_json(dir_fd, "pod.json", {"is": "old"})
    fstat = os.fstat

    def late(fd: int) -> os.stat_result:
        monkeypatch.setattr(os, "fstat", fstat)
        if meanwhile == "replaced":
            files.write_json(dir_fd, "pod.json", {"is": "new"})
        else:
            os.unlink("pod.json", dir_fd=dir_fd)
        return fstat(fd)
    monkeypatch.setattr(os, "fstat", late)
    if meanwhile == "replaced":
        assert files.read_json(dir_fd, "pod.json") == {"is": "new"}
    else:
        with pytest.raises(FileNotFoundError):
            files.read_json(dir_fd, "pod.json")
    os.close(dir_fd)


def test_I11_a_lock_of_what_was_removed_is_not_a_lock(host: FakeHost) -> None:
    """Who waited for a pod that was removed, and made anew, meanwhile gets the new one's lock.

    Red when: lock() does not compare the inode after it got the lock.
    """
    create(host)
    code = (
        "import fcntl, os, sys, threading, time\n"
        "from nsbox.pod import store\n"
        "pods = sys.argv[1]\n"
        "old = os.open(pods + '/t', os.O_RDONLY)\n"
        "fcntl.flock(old, fcntl.LOCK_EX)\n"
        "def swap():\n"
        "    deadline = time.monotonic() + 10\n"
        "    while waiting[0] < 5 and time.monotonic() < deadline:\n"
        "        time.sleep(0.01)\n"
        "    os.rename(pods + '/t', pods + '/.gone-0123456789abcdef')\n"
        "    os.mkdir(pods + '/t', 0o700)\n"
        "    os.close(old)\n"
        "waiting = [0]\n"
        "real = fcntl.flock\n"
        "def counted(*args):\n"
        "    waiting[0] += 1\n"
        "    return real(*args)\n"
        "fcntl.flock = counted\n"
        "threading.Thread(target=swap).start()\n"
        "held = store.lock('t', 20)\n"
        "print(os.fstat(held.fd).st_ino == os.stat(pods + '/t').st_ino, waiting[0] >= 5)\n"
    )
    assert host.python(code, str(host.state / "pods"), check=True).stdout == "True True\n"
    inside(host, 'cd "$1"; rmdir t; mv .gone-0123456789abcdef t', host.state / "pods")
    assert statuses(host) == {"t": "running"}
    host.nsbox("rm", "t", check=True)


def test_I15_no_file_is_open_to_others_and_no_secret_is_kept(host: FakeHost) -> None:
    """Modes 0600 and 0700 under any umask; values of --env and of the environment are nowhere.

    Red when: write_json() and clean.begin() both leave it to the umask, or a record holds the member's environment.
    """
    secret = "canary-4711"
    done = host.run(["sh", "-c", 'umask 0; exec "$@"', "sh", *NSBOX, "create", "t", *BUSYBOX], env={"SECRET": secret})
    assert done.returncode == 0, done.stderr
    words = ("join", "t", "-d", "--env", f"TOKEN={secret}", "--", "sh", "-c", "echo up; sleep 300")
    done = host.run(["sh", "-c", 'umask 0; exec "$@"', "sh", *NSBOX, *words], env={"SECRET": secret})
    assert done.returncode == 0, done.stderr
    assert inside(host, 'find "$1" -mindepth 1 -perm /077', host.state) == ""
    assert inside(host, 'grep -rl "$2" "$1" || true', host.state, secret) == ""
    assert secret not in host.nsbox("inspect", "t", "--json").stdout
    host.nsbox("rm", "-f", "t", check=True)


def test_J01_a_cycle_leaks_nothing(host: FakeHost) -> None:
    """Again and again create, join, rm: everything is as it was. Red when: forget() leaves .gone-ID."""
    create(host)
    host.nsbox("rm", "-f", "t", check=True)
    before = host.snapshot()
    for _ in range(200 if EVERY else 8):
        create(host)
        host.nsbox("join", "t", "--", "true", check=True)
        host.nsbox("rm", "-f", "t", check=True)
    host.assert_same_as(before)
