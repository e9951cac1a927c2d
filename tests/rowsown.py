"""The rows that need a box of their own: a hostile root, a volume, a client that is killed. Each is a function
of a Lab and gives a verdict; its docstring says what is asked."""

import contextlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

from procfs import until
from ptyclient import Terminal
from rowlab import PROBE, Lab, Verdict, held, is_open, not_asked, said, short
from rowtools import Box, Bwrap, ByHand

SH = "/bin/sh"
IGNORES_CHLD = (sys.executable, "-c", "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])")


# ---- what the caller has ----

def workdir(lab: Lab) -> Verdict:
    """a work directory named by a descriptor that somebody left open does not lead out"""
    if isinstance(lab.tool, ByHand) and not lab.tool.way:
        return not_asked("there is no option for it")
    refused = 0
    for fd in range(3, 11):
        with lab.root() as root:
            box = Box(root, [PROBE, "ask", "0", "cwd"], cwd=f"/proc/self/fd/{fd}")
            done = lab.run(box, (str(lab.probe), "caller", "0"))
        if "\topen\t" in done.stdout:
            return is_open(f"/proc/self/fd/{fd}: {done.stdout.split(chr(9))[2].strip()}")
        refused += done.returncode != 0
    return held(f"of /proc/self/fd/3 to 10, {refused} refused, the others lead into the root")


def statuses(lab: Lab) -> Verdict:
    """the status of the command comes back: its own, 128 and the signal, 127, 126"""
    wrong = []
    for argv, status in (([SH, "-c", "exit 3"], 3), ([SH, "-c", "kill -9 $$"], 137), (["/no/such"], 127), (["/etc/passwd"], 126)):
        with lab.root() as root:
            done = lab.run(Box(root, argv))
        if done.returncode != status:
            wrong.append(f"{' '.join(argv)}: {done.returncode}, not {status}")
    return is_open("; ".join(wrong)) if wrong else held("3, 137, 127, 126")


def sigchld(lab: Lab) -> Verdict:
    """a caller that ignores SIGCHLD gets the status all the same"""
    with lab.root() as root:
        try:
            done = lab.run(Box(root, [SH, "-c", "exit 7"]), IGNORES_CHLD, timeout=8.0)
        except AssertionError:
            return is_open("it does not end")
    return held("status 7") if done.returncode == 7 else is_open(f"status {done.returncode}, not 7: {said(done)}")


def not_utf8(lab: Lab) -> Verdict:
    """arguments that are no UTF-8 arrive as they are"""
    with lab.root() as root:
        done = lab.run(Box(root, ["/bin/busybox", "printf", "%s", os.fsdecode(b"\xff\xfe")]))
    got = str(done.stdout).encode(errors="surrogateescape")
    if got == b"\xff\xfe":
        return held("ff fe")
    return is_open(f"it gets {got.hex(' ')}" if got else said(done))


def terminal(lab: Lab) -> Verdict:
    """nothing can be typed into the caller's terminal (TIOCSTI)"""
    legacy = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if legacy.exists() and legacy.read_text().strip() == "0":
        return not_asked("the kernel refuses it everybody: dev.tty.legacy_tiocsti is 0")
    reached = []
    for tty in (False, True):
        with lab.root() as root, Terminal(lab.host) as window:
            box = Box(root, [PROBE, "type"], tty=tty)
            script = '"$@"; echo "status $?"; exec "$0" typed'
            window.start(["sh", "-c", script, str(lab.probe), *lab.tool.run(lab.host, box)])
            before = window.expect("status ").decode(errors="replace")
            window.expect("waiting ")
            window.ends_with()
            count = int(window.said.split()[0])
        words = "with a terminal" if tty else "with the caller's"
        if count:
            return is_open(f"{count} bytes wait there, {words}")
        reached.append(f"{words}: " + re.search(r"[0-9]+ went, [A-Za-z ]+", before)[0].strip())  # type: ignore[index]
    return held("; ".join(reached))


# ---- hostile roots ----

def _started(lab: Lab, root: Path, **kw: object) -> "tuple[subprocess.CompletedProcess[str], str]":
    """How a box of this root goes, and what of the host it changed."""
    lab.canary.mark()
    done = lab.run(Box(root, [SH, "-c", "echo started"], **kw))  # type: ignore[arg-type]
    try:
        lab.canary.check()
    except AssertionError:
        names = lab.host.run(["ls", "-A", "/canary", "/canary/dir"]).stdout.split()
        lab.canary.mark()
        return done, f"/canary of the host was changed; there is now: {' '.join(names)}"
    return done, ""


def _refused(done: "subprocess.CompletedProcess[str]", changed: str, what: str) -> Verdict:
    if changed or "started" in done.stdout:
        return is_open(changed or f"started, with {what} being a link")
    return held(said(done))


def _link(path: Path, target: str) -> None:
    if path.is_dir():
        path.rmdir()
    path.symlink_to(target)


def proc_is_a_link(lab: Lab) -> Verdict:
    """a root whose /proc is a link is refused"""
    with lab.root() as root:
        _link(root / "proc", "/canary/dir")
        done, changed = _started(lab, root)
    return _refused(done, changed, "/proc")


def sys_is_a_link(lab: Lab) -> Verdict:
    """a root whose /sys is a link is refused"""
    if isinstance(lab.tool, Bwrap):
        return not_asked("it mounts no /sys")
    with lab.root() as root:
        _link(root / "sys", "/canary/dir")
        done, changed = _started(lab, root)
    return _refused(done, changed, "/sys")


def dev_is_a_link(lab: Lab) -> Verdict:
    """a root whose /dev is a link: nothing is made or taken away outside"""
    details = []
    for target in ("/canary", "../../../../../../canary/dir"):
        with lab.root() as root:
            _link(root / "dev", target)
            done, changed = _started(lab, root)
        if changed:
            lab.host.run(["sh", "-c", "find /canary/dir -mindepth 1 ! -name file -delete"], user=0)
            lab.canary.mark()
            return is_open(changed)
        details.append("started, the host is as it was" if done.returncode == 0 else said(done))
    return held(details[0])


def volume_by_a_link(lab: Lab) -> Verdict:
    """a volume whose place goes through a link: nothing is made or mounted outside"""
    with lab.root() as root:
        (root / "vol").symlink_to("../../../../../../canary/dir")
        source = lab.host.work / "volume"
        source.mkdir(exist_ok=True)
        done, changed = _started(lab, root, volumes=[(source, "/vol/new/deep", False)])
    if changed:
        lab.host.run(["sh", "-c", "find /canary/dir -mindepth 1 ! -name file -delete"], user=0)
        lab.canary.mark()
        return is_open(changed)
    return held("started, the host is as it was" if done.returncode == 0 else said(done))


def volume_read_only(lab: Lab) -> Verdict:
    """a read-only volume is read-only below its mounts too"""
    source = lab.host.work / "tree"
    (source / "sub").mkdir(parents=True, exist_ok=True)
    subprocess.run(["chown", "-R", f"{lab.tool.uid}", source], check=True)
    lab.host.run(["mount", "-t", "tmpfs", "-o", f"uid={lab.tool.uid}", "sub", source / "sub"], user=0, check=True)
    try:
        with lab.root() as root:
            (root / "t").mkdir()
            done = lab.run(Box(root, [SH, "-c", "test -d /t/sub && { echo in; touch /t/x; touch /t/sub/x; }; :"],
                               volumes=[(source, "/t", True)]))
        made = lab.host.run(["find", str(source), "-name", "x"]).stdout.split()
    finally:
        lab.host.run(["umount", source / "sub"], user=0, check=True)
    if made:
        return is_open(f"written to: {', '.join('/t' + name.removeprefix(str(source)) for name in made)}")
    return held("Read-only file system") if done.stdout.strip() == "in" else Verdict("error", said(done))


def untouched(lab: Lab) -> Verdict:
    """the root is afterwards as it was before"""
    with lab.root() as root:
        for name in ("proc", "sys", "dev"):
            (root / name).rmdir()

        def names() -> set[str]:
            return set(lab.host.run(["find", root, "-printf", "%P %m %U %y\n"], check=True).stdout.splitlines())

        before = names()
        done = lab.run(Box(root, ["/bin/busybox", "true"]))
        new = sorted(names() - before)
    if new:
        return is_open(f"made in it: {', '.join('/' + line.split()[0] for line in new)}")
    return held("started, nothing was made" if done.returncode == 0 else said(done))


def passwd_is_a_pipe(lab: Lab) -> Verdict:
    """a pipe in the place of /etc/passwd holds nobody up"""
    with lab.root() as root:
        (root / "etc/passwd").unlink()
        os.mkfifo(root / "etc/passwd")
        box = Box(root, ["/bin/busybox", "true"], user="root" if lab.tool.named_users else "")
        try:
            done = lab.run(box, timeout=5.0)
        except AssertionError:
            with contextlib.suppress(OSError):  # whoever waits for a writer gets one
                os.close(os.open(root / "etc/passwd", os.O_WRONLY | os.O_NONBLOCK))
            return is_open("it waits for the pipe, for ever")
    return held("started" if done.returncode == 0 else said(done))


def setuid(lab: Lab) -> Verdict:
    """a setuid program gives a user nothing"""
    if lab.tool.uid:
        return not_asked("a user without a range of ids has no other user")
    with lab.root() as root:
        program = root / "bin/rowprobe"
        program.chmod(0o4755)
        assert program.stat().st_mode & stat.S_ISUID
        done = lab.run(Box(root, [PROBE, "euid"], user="1000"))
    if done.stdout.strip() not in ("0", "1000"):
        return Verdict("error", said(done))
    return is_open("effective uid 0") if done.stdout.strip() == "0" else held("effective uid 1000")


def digits(lab: Lab) -> Verdict:
    """user 10 is 10, whatever a line `10:x:0:0` says"""
    with lab.root() as root:
        with open(root / "etc/passwd", "a") as file:
            file.write("10:x:0:0::/:/bin/sh\n")
        box = lab.sleeper(root)
        join = lab.tool.join(lab.host, box, ["/bin/busybox", "id", "-u"], "10")
        if join is None:
            return not_asked("nothing joins")
        if lab.tool.uid:
            return not_asked("a user without a range of ids has no other user")
        with lab.asleep(box):
            done = lab.host.run(join)
    if done.stdout.strip() not in ("0", "10"):
        return Verdict("error", said(done))
    return is_open("it is uid 0") if done.stdout.strip() == "0" else held("it is uid 10")


def host_root(lab: Lab) -> Verdict:
    """root inside is not root of the host"""
    with lab.root() as root, lab.asleep(lab.sleeper(root)):
        pids = lab.sleeping(within=0.0)
        # Read from outside: from inside the numbers may be those of a namespace between the two.
        lines = [[int(word) for word in line.split()] for pid in pids[:1] for line in open(f"/proc/{pid}/uid_map")]
    if not lines:
        return Verdict("error", "its process is not found")
    for first, outside, _ in lines:
        if outside == 0:
            return is_open(f"uid {first} in it is root of the host")
    return held(f"uid {lines[0][0]} in it is {lines[0][1]} outside")


# ---- life ----

def propagation(lab: Lab) -> Verdict:
    """no mount travels to the host while it runs"""
    def mounts() -> list[str]:
        return sorted(lab.host.run(["cut", "-d", " ", "-f", "4-", "/proc/self/mountinfo"], check=True).stdout.splitlines())

    with lab.root() as root:
        before = mounts()
        with lab.asleep(lab.sleeper(root)):
            more = [line for line in mounts() if line not in before]
        lab.host.run(["sh", "-c", f"umount -l {root}/proc {root}/sys {root}/dev"], user=0)
    return is_open(f"{len(more)} of its mounts are on the host") if more else held("the host's mounts are as they were")


def joiner(lab: Lab) -> Verdict:
    """whoever joins is not looked into: no program of the host can be written to"""
    with lab.root() as root:
        box = Box(root, [PROBE, "watch", "2"])
        join = lab.tool.join(lab.host, box, ["/bin/busybox", "true"])
        if join is None:
            return not_asked("nothing joins")
        joined = 0
        with lab.running(box) as client:
            for _ in until(10.0, pause=0.0):
                joined += lab.host.run(join).returncode == 0
                if client.poll() is not None:
                    break
            out = client.communicate(timeout=10.0)[0]
    if not joined and out.startswith("looked") or not out.startswith(("looked", "overwritable")):
        return Verdict("error", f"{joined} joins; {out}")
    if out.startswith("overwritable"):
        return is_open(f"opened for writing while it joins: {out.partition(' ')[2].strip()}")
    return held(f"{joined} joins watched")


def killed(lab: Lab) -> Verdict:
    """when the client is killed, the command ends, or is still listed"""
    with lab.root() as root:
        box = lab.sleeper(root)
        with lab.asleep(box) as client:
            client.kill()
            left = lab.sleeping(within=2.0)
            listed = bool(left) and any(lab.tool.listed(lab.host, box) for _ in until(3.0, pause=0.5))
        lab.kill(left)
    if left and not listed:
        return is_open("it lives on, and nothing lists it")
    return held("it lives on, and is listed" if left else "it ends")


def terminated(lab: Lab) -> Verdict:
    """TERM to the client ends a command that does nothing against it"""
    with lab.root() as root:
        box = lab.sleeper(root)
        with lab.asleep(box) as client:
            client.terminate()
            left = lab.sleeping(within=3.0)
        lab.kill(left)
    return is_open("it goes on") if left else held("it ends")


def zombies(lab: Lab) -> Verdict:
    """orphans are reaped"""
    with lab.root() as root:
        done = lab.run(Box(root, [PROBE, "orphans"]))
    word, _, count = done.stdout.strip().partition(" ")
    if word != "zombies":
        return Verdict("error", said(done))
    return is_open(f"{count} zombies of 20 orphans") if int(count) else held("no zombie of 20 orphans")
