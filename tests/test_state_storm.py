"""Many commands at once, and commands whose system calls signals cut short."""

import json
import os
import re

import pytest
from fakehost import FakeHost
from faultpoints import EVERY, strace
from fakehost import NSBOX
from test_lifecycle import answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CREATES = 50 if EVERY else 20
STORM_S = 60 if EVERY else 6
WORKERS = 16 if EVERY else 8

# COUNT creates that begin at one moment, each with a port of its own.
_MANY = """
import json, os, sys
from nsbox.cli import front, create
from nsbox.pod import create as _, lifecycle, publish
go_r, go_w = os.pipe()
answers = []
for number in range(int(sys.argv[1])):
    answer_r, answer_w = os.pipe()
    if os.fork() == 0:
        os.close(go_w); os.close(answer_r)
        os.read(go_r, 1)
        os.dup2(answer_w, 1); os.dup2(answer_w, 2); os.close(answer_w)
        status = front.run(["create", "p%d" % number, "--rootfs", "busybox", "-p", ":80"])
        print(status, flush=True)
        os._exit(0)
    os.close(answer_w)
    answers.append(answer_r)
os.close(go_w)
print(json.dumps([open(fd).read().splitlines() for fd in answers]))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def test_J02_many_creates_at_once_all_work(host: FakeHost) -> None:
    """Each pod is its own: PID, namespaces, port, name. Red when: new_id() gives one id to all."""
    said = json.loads(host.python(_MANY, str(CREATES), check=True, timeout=300).stdout)
    assert [lines[-1] for lines in said] == ["0"] * CREATES, said
    rows = answer(host, "ls")
    assert {row["name"]: row["status"] for row in rows} == {f"p{n}": "running" for n in range(CREATES)}
    pids = [int(line) for lines in said for line in lines[:-1] if line.isdigit()]  # beside what it says of the port
    assert sorted(row["pid"] for row in rows) == sorted(pids)
    about = answer(host, "inspect", *(row["name"] for row in rows))
    assert len({row["id"] for row in about}) == CREATES
    for row in about[:: CREATES // 5]:
        assert host.nsbox("join", row["name"], "--", "hostname").stdout == row["name"] + "\n"
    ports = [host.nsbox("publish", f"p{n}", check=True).stdout.strip() for n in range(CREATES)]
    assert len(set(ports)) == CREATES and all(port.endswith(" -> 80/tcp") for port in ports), ports
    real = host.processes()
    for kind in ("pid", "mnt", "net", "uts", "ipc"):
        assert len({os.readlink(f"/proc/{real[row['pid']]}/ns/{kind}") for row in rows}) == CREATES
    host.nsbox("rm", "-f", *(row["name"] for row in rows), check=True, timeout=120)


_STORM = """
import json, os, random, signal, sys, time
from nsbox.cli import front, create, end, join, look, publish, run
from nsbox.pod import create as _, attach, lifecycle, report, store, supervise, target
seconds, workers, seed = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
until = time.monotonic() + seconds
VERBS = ("create", "create", "create -p :80", "rm -f", "rm -t 1", "stop -t 0", "prune", "join", "join", "join -d", "run",
         "publish", "ls", "ps", "inspect", "kill", "wait", "logs")
def words_of(verb, name):
    head, *options = verb.split()
    if head == "run":
        return ["run", "--rootfs", "busybox", "--", "true"]
    if head in ("ls", "prune"):
        return [head]
    if head == "create":
        return [head, name, "--rootfs", "busybox", *options]
    if head == "join":
        return [head, *options, name, "--", *(["sleep", "0.2"] if options else ["true"])]
    return [head, *options, name, *([":%d" % (80 + os.getpid() % 7)] if head == "publish" else [])]
def call(words):
    real = os.dup(1), os.dup(2)
    files = [os.memfd_create(name) for name in ("out", "err")]
    os.dup2(files[0], 1); os.dup2(files[1], 2)
    try:
        status = front.run(words)
        sys.stdout.flush(); sys.stderr.flush()
    finally:
        for number, fd in enumerate(real, 1):
            os.dup2(fd, number); os.close(fd)
    err = os.pread(files[1], 65536, 0).decode(errors="replace")
    for fd in files:
        os.close(fd)
    return status, err
def work(dice):
    verb = dice.choice(VERBS)
    signal.alarm(90)  # whoever is not through by then hangs
    words = words_of(verb, "s%d" % dice.randrange(4))
    status, err = call(words)
    signal.alarm(0)
    # A member may be killed with its pod, and by `kill`.
    good = {0, 125} | ({137, 143} if words[0] in ("join", "run", "wait") else set())
    if status not in good or "bug of" in err or "Traceback" in err or status and len(err.splitlines()) > 3:
        return "%s: %s %s" % (" ".join(words), status, err)
children = []
for number in range(workers):
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(r)
        dice, turns, good = random.Random(seed + number), 0, 0
        try:
            while time.monotonic() < until:
                fault = work(dice)
                turns += 1
                if fault:
                    os.write(w, ("%s\\n" % fault[:2000]).encode())
                    break
        except BaseException as err:
            os.write(w, ("%d %r\\n" % (number, err)).encode())
        os.write(w, b"turns %d\\n" % turns)
        os._exit(0)
    os.close(w)
    children.append((r, b""))
print(json.dumps([open(r).read() for r, _ in children]))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def test_J03_a_storm_of_verbs_leaves_nothing_and_hangs_nobody(host: FakeHost) -> None:
    """Also A23: joins and removals of the same pods. Then all is removed, and is as it was.

    Red when: member.start() joins without the pod's lock, or forget() leaves the directory.
    """
    seed = int.from_bytes(os.urandom(3), "big")
    done = host.python(_STORM, str(STORM_S), str(WORKERS), str(seed), timeout=STORM_S + 200)
    assert done.returncode == 0, (seed, done.stderr)
    said = json.loads(done.stdout)
    assert all(re.fullmatch(r"turns \d+\n", text) for text in said), f"seed {seed}: {said}"
    assert min(int(text.split()[1]) for text in said) >= 3, f"seed {seed}: too slow to tell anything: {said}"
    host.nsbox("rm", "-f", "s0", "s1", "s2", "s3", check=True)
    host.nsbox("prune", check=True)
    assert answer(host, "ls") == []


# ---- H17 ----

# All calls that syscalls.py makes by itself: the standard library tries its own again.
CALLS = ("setns", "openat2", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr", "mount", "umount2",
         "pivot_root", "close_range", "sethostname", "memfd_create", "execveat")  # fmt: skip


@pytest.mark.parametrize("words", [
    ["create", "t", "--rootfs", "busybox", "-v", "/etc:/mnt/etc:ro", "--tmpfs", "/x"],
    ["join", "u", "--rootfs", "busybox", "-v", "/etc:/mnt/etc:ro", "--", "true"], ["join", "u", "-d", "--", "true"],
    ["run", "--rootfs", "busybox", "--chroot", "--", "true"],
], ids=lambda words: " ".join(words[:3]))  # fmt: skip
def test_H17_a_call_that_a_signal_cut_short_is_made_again(host: FakeHost, words: list[str]) -> None:
    """The first of each kind, in each process. Red when: _call() lets EINTR out."""
    host.nsbox("create", "u", "--rootfs", "busybox", check=True)
    calls = ",".join(CALLS)
    status, _, err, log = strace(host, "-e", f"trace={calls}", "-e", f"inject={calls}:error=EINTR:when=1", *NSBOX, *words)
    assert (status, err) == (0, ""), (err, log[-2000:])
    cut = set(re.findall(r"(\w+)\(.*= -1 EINTR .*\(INJECTED\)", log))
    wanted = {"create": 13, "join": 10, "run": 11}[words[0]] if "--rootfs" in words else 2
    assert len(cut) >= wanted, sorted(cut)
    host.nsbox("rm", "-f", "t", "u", check=True)
