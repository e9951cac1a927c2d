"""After it has entered a root, nsbox opens nothing in it but what it must (row A07).

The rootfs is poisoned: modules, libraries, tables of characters and of names lie wherever an
interpreter or a C library might look for them. strace shows what each process opened after it had
changed its root or joined a mount namespace, until it became the user's program. The launcher in
between, which executes that, is nsbox still.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import re

import pytest
from fakehost import NSBOX
from faults import strace
from hostile import poison, pwned

from nsbox.privilege import masks

pytestmark = pytest.mark.needs_root

CALLS = "trace=open,openat,openat2,execve,execveat,chroot,pivot_root,setns,clone,clone3,fork,vfork"
ENTERING = re.compile(r"(chroot|pivot_root)\(.*= 0$|setns\([^)]*CLONE_NEWNS.*= 0$")
LAUNCHER = re.compile(r'execveat\(\d+, "", (?!\["pause"\])')
OPENING = re.compile(r'open(?:at|at2)?\((?:[^",]*, )?"([^"]*)"')
# A failure says what the process looked like, by the /proc that it had opened outside.
OWN_PROC = re.compile(r'openat\(AT_FDCWD, "/proc", [^)]*\) = (\d+)$')
BY_OWN_PROC = re.compile(r'openat\((\d+), "self/')
# What nsbox has to open inside: directories to go to, null for stdio, the multiplexor of the pty.
ALLOWED = {"/", ".", "..", "dev", "dev/shm", "/dev/shm", "null", "/dev/null", "/dev/pts/ptmx", "/dev/ptmx",
           "/proc", "/dev/mqueue", "/nonexistent"}
# Below a /proc and a /sys that nsbox has mounted itself: what it covers there.
ALLOWED |= {"/sys", *masks.READ_ONLY_IN_PROC, *masks.MASKED_IN_PROC, *masks.MASKED_IN_SYS}
# With these a C library would like to load translations, conversions and tables of names.
TEMPTING = {"LANG": "de_DE.ISO-8859-1", "LC_ALL": "tr_TR.ISO-8859-9", "LANGUAGE": "de:fr"}


def calls_of(log):
    """(task, call) in the order in which they began; those that strace wrote in two parts in one.

    A call without its second part is the execve after which the command ended, and strace with it.
    """
    calls, begun = [], {}
    for line in log.splitlines():
        task, _, call = line.partition(" ")
        call = call.strip().removesuffix("<detached ...>")  # strace ended while the call went on
        if call.startswith("<..."):
            calls[begun.pop(task)][1] += call.partition("resumed>")[2]
        elif call.endswith("<unfinished ...>") or line.endswith("<detached ...>"):
            begun[task] = len(calls)
            calls.append([task, call.removesuffix("<unfinished ...>")])
        else:
            calls.append([task, call])
    for number in begun.values():
        calls[number][1] += " = 0"
    return calls


def opened_inside(log):
    """(what was opened, what was executed) by tasks of nsbox that were in another root by then."""
    inside, done, opened, executed, parent, own_procs = set(), set(), [], [], None, set()
    known = set()
    for task, call in calls_of(log):
        if task not in known:
            known.add(task)
            if parent in inside:  # born in there: setns moves a process, and its children with it
                inside.add(task)
        if call.startswith(("clone", "fork", "vfork")):
            parent = task
        elif task in done:
            continue
        elif ENTERING.match(call):
            inside.add(task)
        elif task not in inside and (found := OWN_PROC.match(call)):
            own_procs.add(found[1])
        elif task in inside and (found := BY_OWN_PROC.match(call)) and found[1] in own_procs:
            continue
        elif task in inside and LAUNCHER.match(call):
            continue
        elif task in inside and call.startswith("exec"):
            executed.append(call)
            if "= 0" in call:
                done.add(task)
        elif task in inside and (found := OPENING.match(call)):
            opened.append(found[1])
    return opened, executed


def check(host, root, argv, expected, *, status=0, runs=True, allowed=frozenset()):
    """Run nsbox under strace and see what it did after it had entered the root."""
    got, out, err, log = strace(host, CALLS, ["env", *(f"{k}={v}" for k, v in TEMPTING.items()), *NSBOX, *argv])
    assert got == status, (got, out, err)
    opened, executed = opened_inside(log)
    assert opened or executed, "the log shows nobody inside: " + log[-2000:]
    assert set(opened) <= ALLOWED | allowed, set(opened) - ALLOWED
    assert all(expected in call for call in executed), executed
    assert any("= 0" in call for call in executed) == runs, executed
    assert pwned(root) == []


@pytest.fixture
def trap(rootfs):
    """A poisoned root file system. It is used in place: what went off must be seen outside."""
    poison(rootfs)
    return rootfs


@pytest.fixture
def pod(host, trap):
    """A pod "web" with the poisoned root."""
    host.nsbox("create", "web", "--rootfs", trap, "--in-place", check=True)
    yield "web"
    host.nsbox("rm", "--force", "web", check=True)
    assert pwned(trap) == []


@pytest.mark.parametrize("options, expected", [
    ([], '"pause"'), (["--pause", "python"], ""), (["--chroot"], '"pause"'),
    (["--init", "/bin/sleep 1000"], '"/bin/sleep"')], ids=str)
def test_A07_create_loads_nothing_of_its_rootfs(host, trap, options, expected):
    """Red when: create._pid_one imports something after rootfs.enter, and rootfs._enter_rootfs
    leaves out seal_imports."""
    argv = ["create", "web", "--rootfs", str(trap), "--in-place", *options]
    try:
        check(host, trap, argv, expected, runs="python" not in options)
    finally:
        host.nsbox("rm", "--force", "web", check=True)


OWN = ["--rootfs", "TRAP", "--in-place"]
MEMBERS = {
    "in the pod's root": [], "with its own root": OWN, "with a chroot": [*OWN, "--chroot"],
    "on a copy of the pod's mounts": ["--share", "net"], "with a volume": [*OWN, "-v", "/etc:/mnt/etc:ro"],
}


@pytest.mark.parametrize("how", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("detached", [[], ["-d"]], ids=["", "detached"])
def test_A07_join_loads_nothing_of_the_root_it_enters(host, trap, pod, how, detached):
    """Red when: member._become_member imports something after _enter_root, without seal_imports;
    or it asks pwd for the user's name."""
    argv = ["join", pod, *(word.replace("TRAP", str(trap)) for word in how), *detached, "--", "/bin/true"]
    check(host, trap, argv, '"/bin/true"')


@pytest.mark.parametrize("argv", [["join", "web", "-u", "app"], ["join", "web", "-u", "app:app", *OWN],
                                  ["join", "web", "-u", "1000", "--share", "net"], ["run", "-u", "app", *OWN],
                                  ["create", "init", "--init", "/bin/true", "-u", "app", *OWN]], ids=" ".join)
def test_A07_to_look_a_user_up_opens_two_files_and_loads_nothing(host, trap, pod, argv):
    """Red when: accounts.find asks pwd, without seal_imports."""
    words = [word.replace("TRAP", str(trap)) for word in argv]
    tail = [] if "create" in argv else ["--", "/bin/true"]
    try:
        check(host, trap, [*words, *tail], "" if "run" in argv else '"/bin/true"', allowed={"/etc/passwd", "/etc/group"})
    finally:
        host.nsbox("rm", "--force", "init", check=True)


def test_A07_run_loads_nothing_of_its_rootfs(host, trap):
    """Red when: as for create and join."""
    argv = ["run", "--rootfs", str(trap), "--in-place", "--", "/bin/true"]
    check(host, trap, argv, "")


FAILURES = {
    "no such command": (["--", "/bin/missing"], 127, '"/bin/missing"'),
    "nowhere on the PATH": (["--", "missing"], 127, '/missing"'),
    "no program": (["--", "/etc/passwd"], 126, '"/etc/passwd"'),
    "a directory": (["--", "/etc"], 126, '"/etc"'),
    "no work directory": (["-w", "/nonexistent", "--", "/bin/true"], 125, "none"),
}


@pytest.mark.parametrize("how", [[], OWN], ids=["in the pod's root", "with its own root"])
@pytest.mark.parametrize("failure", FAILURES)
def test_A07_to_report_a_failure_loads_nothing_either(host, trap, pod, how, failure):
    """Red when: execute.refusal, or the except of member._change_directory for the work directory,
    imports something, without seal_imports."""
    tail, status, expected = FAILURES[failure]
    argv = ["join", pod, *(word.replace("TRAP", str(trap)) for word in how), *tail]
    check(host, trap, argv, expected, status=status, runs=False)


def test_A07_verbs_that_look_at_a_pod_run_nothing_of_it(host, trap, pod):
    """Red when: a verb executes a helper in the pod, say ps by `join POD -- ps`."""
    host.nsbox("join", pod, "-d", "--", "/bin/sleep", "1000", check=True)
    for verb in (["ls"], ["inspect", pod], ["ps", pod], ["logs", pod], ["kill", "-s", "USR1", pod], ["stop", pod]):
        status, _, err, log = strace(host, "trace=execve,execveat,chroot,setns", [*NSBOX, *verb])
        assert status == 0, (verb, err)
        assert len(re.findall(r"exec\w*\(.* = 0$", log, re.M)) == 1, log  # nsbox itself
        assert "setns(" not in log and "chroot(" not in log
        assert pwned(trap) == []


def test_A07_with_a_terminal_too(host, trap, pod):
    """Red when: attach.open_inside imports socket (after the root has changed), without seal_imports."""
    argv = ["script", "-qec", " ".join([*NSBOX, "join", pod, "-t", "--", "/bin/true"]), "/dev/null"]
    status, _, err, log = strace(host, CALLS, argv)
    assert status == 0, err
    opened, executed = opened_inside(log)
    assert set(opened) <= ALLOWED and "/dev/pts/ptmx" in opened
    assert executed and all('"/bin/true"' in call for call in executed)
    assert pwned(trap) == []
