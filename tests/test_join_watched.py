"""A process on its way into a pod, and those in the pod who look at it (rows A03, A04).

As long as it is a process of the host, with the host's files open and the caller's environment in its
memory, it is outside of the pod's PID namespace: no right of a watcher shows it. What is born in there is
the sealed launcher. The watchers here have the rights of every member, CAP_SYS_PTRACE too, or all.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakehost import UID
from faultpoints import EVERY
from inpod import python_path, with_python
from procfs import TOP

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

SECRET = "canary-secret"
# By default 200 in the pod that everybody makes, and fewer in the others; NSBOX_JOINS=200 makes as many in each.
JOINS = int(os.environ.get("NSBOX_JOINS", "200" if EVERY else "40"))


# Whose pod it is, and its options.
PODS = {
    "root's": ("host", []),
    "root's whose members trace": ("host", ["--cap-add", "SYS_PTRACE"]),
    "root's and privileged": ("host", ["--privileged"]),
    "root's with a user namespace": ("host", ["--with", "user", "--privileged"]),
    "root's with ids of its own": ("host", ["--userns", "--privileged"]),
    "an ordinary user's": ("user_host", ["--privileged"]),
}


@pytest.fixture(params=PODS)
def watched(request):
    """A host, and the options for a pod on it."""
    whose, options = PODS[request.param]
    host = request.getfixturevalue(whose)
    yield host, list(options)
    host.nsbox("rm", "-f", "web", check=True)


# ---- one moment after the other ----

# Joins the pod "web", and stops where it is told: says so on its stdout, and goes on at a line.
_HELD = """
import os, sys
from nsbox.cli import front
from nsbox.linux import spawn
from nsbox.pod import attach, member
say_fd, go_fd = os.dup(1), os.dup(0)
def held(real):
    def wrapper(*args, **kw):
        os.write(say_fd, b"held\\n")
        os.read(go_fd, 1)
        return real(*args, **kw)
    return wrapper
place, name = {"member": member, "spawn": spawn, "attach": attach}[sys.argv[1]], sys.argv[2]
setattr(place, name, held(getattr(place, name)))
sys.exit(front.run(["join", "web", *sys.argv[3:], "--", "true"]))
"""
# Where it stops, and how many processes the pod has then besides the one that looks.
MOMENTS = {
    "in all its namespaces": ("member", "_become_member", 1),
    "before it has its root": ("member", "_enter_root", 1),
    "before the execve": ("spawn", "about_to_exec", 1),
    "born, and not told to go": ("attach", "_hold_signals", 2),
}
# All that can be looked at, of every process but the one that looks; its children come later.
LOOK = """
for p in /proc/[0-9]*; do
    [ $p = /proc/$$ ] && continue
    echo "seen $p"
    for l in exe cwd root; do readlink $p/$l; ls $p/$l/; done
    ls -l $p/fd $p/map_files
    cat $p/environ $p/cmdline $p/maps
done 2>/dev/null
"""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("own_root", [[], ["--rootfs", "busybox"]], ids=["in the pod's root", "with its own root"])
def test_A03_who_is_about_to_join_cannot_be_looked_into(watched, moment, own_root):
    """Red when: member._spawn uses spawn.spawn_in: three moments have one process more, and who traces reads
    its environment and open files, at the fourth too.
    """
    host, options, (*place, seen) = *watched, MOMENTS[moment]
    host.nsbox("create", "web", "--rootfs", "busybox", *options, check=True)
    with open(host.work / "open", "w") as file:
        os.chown(file.fileno(), host.uid, host.uid)
        joiner = host.popen(
            ["sh", "-c", f'exec 7<{host.work}; exec "$@"', "sh", sys.executable, "-P", "-c", _HELD, *place, *own_root],
            stdin=subprocess.PIPE, env={"SECRET": SECRET}, cwd=host.work)  # fmt: skip
        try:
            assert joiner.stdout.readline() == "held\n", joiner.communicate(timeout=20)
            said = host.nsbox("join", "web", "--", "sh", "-c", LOOK).stdout
        finally:
            out, err = joiner.communicate("go\n", timeout=20)
    assert (joiner.returncode, out) == (0, ""), err
    assert said.count("seen /proc/") == seen, said
    for word in (SECRET, str(host.scratch), sys.executable, python_path(), "SECRET", "NSBOX_STATE", "XDG_RUNTIME_DIR"):
        assert word not in said, [line for line in said.splitlines() if word in line]


# Joins where the kernel does not know the option by which a /proc of another PID namespace is made.
_OLD_KERNEL = """
import errno, sys
from nsbox.cli import front
from nsbox.linux import syscalls
real = syscalls.fsconfig_string
def fsconfig_string(fd, key, value):
    if key == "pidns":
        raise OSError(errno.EINVAL, "fsconfig: Invalid argument")
    real(fd, key, value)
syscalls.fsconfig_string = fsconfig_string
sys.exit(front.run(["join", "web", "--rootfs", "busybox", "--", "sh", "-c", "cat /proc/1/comm; echo $$; cat /proc/self/comm"]))
"""


def test_A03_a_kernel_that_cannot_be_asked_for_a_proc_of_others(watched):
    """Then a child makes it in there, hidden. Red when: _mount_proc_of_children lets EINVAL out, or asks no child."""
    host, options = watched
    host.nsbox("create", "web", "--rootfs", "busybox", *options, check=True)
    done = host.run([sys.executable, "-P", "-c", _OLD_KERNEL], check=True)
    pause, number, name = done.stdout.split("\n")[:3]
    assert pause == "nsbox:pause" and int(number) > 1 and name == "cat", done


# ---- while many join ----

# Looks into all that comes, and opens its program for writing. A file that is being executed cannot
# be written to, so what was opened is kept, and tried again until the end.
_ATTACK = """
import json, os, signal, sys
marks, known = sys.argv[1:], set()
for path in ("/proc/self/exe", "/bin/busybox"):
    known.add((os.stat(path).st_dev, os.stat(path).st_ino))
met, read, kept, written, ends = set(), set(), {}, 0, []
looks, seen = 0, 0
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
def texts(top):
    for name in ("exe", "cwd", "root"):
        yield lambda: os.readlink(top + name) + " ".join(os.listdir(top + name) if name != "exe" else ())
    for name in ("fd", "map_files"):
        yield lambda: " ".join(os.readlink(f"{top}{name}/{each}") for each in os.listdir(top + name))
    for name in ("environ", "cmdline", "maps", "mountinfo"):
        yield lambda: open(top + name, errors="replace").read()
def write_to(fd):
    try:
        with open(f"/proc/self/fd/{fd}", "ab") as file:
            return file.write(b"pwned")
    except OSError:
        return 0
print("ready", flush=True)
while not ends:
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid in ("1", str(os.getpid())):
            continue
        met.add(pid)
        try:
            fd = os.open(f"/proc/{pid}/exe", os.O_PATH)
            about = os.fstat(fd)
            if (about.st_dev, about.st_ino) in known or (about.st_dev, about.st_ino) in kept:
                os.close(fd)
            else:
                kept[about.st_dev, about.st_ino] = fd
        except OSError:
            pass
        for text in texts(f"/proc/{pid}/"):
            looks += 1
            try:
                said = text()
                seen += 1
                read.update(mark for mark in marks if mark in said)
            except OSError:
                pass
    written += sum(write_to(fd) for fd in kept.values())
written += sum(write_to(fd) for fd in kept.values())
opened = [os.readlink(f"/proc/self/fd/{fd}") for fd in kept.values()]
print(json.dumps({"met": len(met), "looks": looks, "seen": seen, "read": sorted(read), "opened": opened,
                  "written": written}), flush=True)
"""
# Joins "web" with a command, as a program that uses the library does.
_JOIN = """
import sys, nsbox
for _ in range(int(sys.argv[1])):
    nsbox.join("web", ["/bin/busybox", "true"], check=True)
"""


def facts(*paths: Path) -> dict[str, tuple[str, int, int]]:
    """What each file holds, which file it is and when it was changed last."""
    stats = {path: path.stat() for path in paths}
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), about.st_ino, about.st_mtime_ns)
            for path, about in stats.items()}  # fmt: skip


def own_interpreter(host) -> Path:
    """A copy of the interpreter that belongs to the caller of nsbox: nothing but nsbox protects it."""
    venv = host.work / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "lib").symlink_to(Path(sys.prefix, "lib"))
    (venv / "pyvenv.cfg").write_text(f"home = {os.path.dirname(python_path())}\n")
    copy = venv / "bin/python"
    shutil.copy(python_path(), copy)
    for path in (venv, venv / "bin", copy):
        os.chown(path, host.uid, host.uid)
    return copy


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_A03_A04_while_200_join_nothing_of_the_host_is_read_or_overwritten(request, watched, rootfs):
    """One in eight joins by the command, the others by the library, which is ten times as fast.

    -s shows a line for each pod: how many joined, how many of them the watcher met, how often it looked
    at something of theirs, how often there was something to be seen.

    Red when: member._spawn uses spawn.spawn_in (where members trace, or are privileged), and does not hide
    before it joins (in all others but root's).
    """
    host, options, watched_pod = *watched, request.node.callspec.params["watched"]
    options += ["--rootfs", str(rootfs), *with_python(rootfs)]
    for top, directories, files in os.walk(rootfs):
        for path in (top, *(os.path.join(top, name) for name in directories + files)):
            os.chown(path, host.uid, host.uid, follow_symlinks=False)
    copy = own_interpreter(host)
    files = (copy, Path(python_path()), *(TOP / "nsbox").rglob("*.py"), *(TOP / "nsbox").rglob("*.bin"))
    before = facts(*files)
    host.nsbox("create", "web", *options, check=True)
    marks = (SECRET, str(host.scratch), str(TOP))
    attacker = host.nsbox_popen("join", "web", "--", python_path(), "-I", "-S", "-c", _ATTACK, *marks)
    assert attacker.stdout.readline() == "ready\n", attacker.communicate(timeout=20)
    env, began = {"SECRET": SECRET}, time.monotonic()
    joins = max(JOINS, 200) if watched_pod == "root's" else JOINS
    for _ in range(joins // 8):
        done = host.run([copy, "-P", "-m", "nsbox", "join", "web", "--", "/bin/busybox", "true"], env=env, cwd=host.work)
        assert done.returncode == 0, done.stderr
    done = host.run([copy, "-P", "-c", _JOIN, str(joins - joins // 8)], env=env, cwd=host.work, timeout=600)
    assert done.returncode == 0, done.stderr
    took_s = time.monotonic() - began
    attacker.send_signal(signal.SIGTERM)
    out, err = attacker.communicate(timeout=60)
    said = json.loads(out)
    # Who has CAP_SYS_PTRACE sees the launcher, which is sealed.
    opened = [path for path in said["opened"] if path != "/memfd:launch (deleted)"]
    print(f"\n{watched_pod}: {joins} joins in {took_s:.0f} s, {said['met']} met, {said['looks']} looks, {said['seen']} saw; "
          f"of the host: read {said['read']}, opened {opened}, written {said['written']}")  # fmt: skip
    assert said["met"] >= joins // 4 and said["looks"] >= 9 * said["met"], f"it met too few to tell anything: {said}"
    assert (said["read"], opened, said["written"]) == ([], [], 0), said
    assert facts(*files) == before
