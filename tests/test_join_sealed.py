"""Who executes the command of a pod: a sealed program, never the interpreter that nsbox runs on (row A05).

A script of the pod names as its interpreter whoever executes it, by /proc/self/exe. Were that the
host's Python, it would run in the pod with the pod's libraries, and could be opened from there.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
import platform

import pytest
from inpod import python_path, with_python

from nsbox.pod import launch

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(platform.machine() not in launch.MACHINES, reason=f"no launcher for {platform.machine()}"),
]

REFUSAL = "nsbox: cannot run this command: execve: it leads to /proc/self/exe, which is no program of the pod\n"
# What the second line says is Python: it is done if a Python runs the script.
RUNS = "\nopen('/pwned', 'w').write('by ' + __import__('sys').executable)\n"
HOSTILE = {
    "a script for /proc/self/exe": "#!/proc/self/exe" + RUNS,
    "with an argument": "#!/proc/self/exe -I" + RUNS,
    "for the link of the thread": "#!/proc/thread-self/exe" + RUNS,
    "for a link to it": "#!/bin/itself" + RUNS,
}
WAYS = {
    "join": ["join", "web"],
    "join --rootfs": ["join", "web", "--rootfs", "ROOT"],
    "join --share": ["join", "web", "--share", "net,ipc,uts"],
    "run": ["run", "--rootfs", "ROOT"],
}


@pytest.fixture
def hostile(host, rootfs):
    """Options of a root with a Python in it, and the host they are for; the hostile files are in /bin."""
    (rootfs / "bin/itself").symlink_to("/proc/self/exe")
    options = ["--in-place", *with_python(rootfs)]
    yield rootfs, options
    host.nsbox("rm", "-f", "web", check=True)


def put(rootfs, text):
    (rootfs / "bin/hostile").write_text(text)
    (rootfs / "bin/hostile").chmod(0o755)


def words(way, rootfs, options):
    """The words of a way, with its root in place."""
    own_root = "ROOT" in way
    return [str(rootfs) if word == "ROOT" else word for word in way] + (options if own_root else [])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_A05_a_script_whose_interpreter_is_whoever_executes_it_is_refused(host, hostile, text, way):
    """Red when: execute.launcher returns -1, so that the interpreter executes the command."""
    rootfs, options = hostile
    put(rootfs, text)
    host.nsbox("create", "web", "--rootfs", rootfs, *options, check=True)
    done = host.nsbox(*words(way, rootfs, options), "--", "/bin/hostile")
    assert not (rootfs / "pwned").exists(), (rootfs / "pwned").read_text()
    assert (done.returncode, done.stdout, done.stderr) == (126, "", REFUSAL)


def test_A05_so_is_a_command_that_is_a_link_to_whoever_executes_it(host, hostile):
    """Red when: execute.launcher returns -1: the link gives the prompt of a Python, or its errors."""
    rootfs, options = hostile
    host.nsbox("create", "web", "--rootfs", rootfs, *options, check=True)
    for command in (["/bin/itself"], ["itself", "-c", RUNS], ["/proc/self/exe", "--version"]):
        done = host.nsbox("join", "web", "--", *command)
        assert (done.returncode, done.stdout, done.stderr) == (126, "", REFUSAL), command
    assert not (rootfs / "pwned").exists()


def test_A05_a_detached_member_and_PID_1_are_started_so_too(host, hostile):
    """Red when: create._pid_one gives no launcher to execute.become."""
    rootfs, options = hostile
    put(rootfs, HOSTILE["a script for /proc/self/exe"])
    host.nsbox("create", "web", "--rootfs", rootfs, *options, check=True)
    pid = host.nsbox("join", "web", "-d", "--", "/bin/hostile", check=True).stdout.strip()
    assert host.nsbox("wait", pid, check=True).stdout == "126\n"
    assert host.nsbox("logs", pid, check=True).stdout == REFUSAL
    # A PID 1 that ends at once may do so before create has looked at it.
    assert host.nsbox("create", "other", "--rootfs", rootfs, *options, "--init", "/bin/hostile").returncode in (0, 125)
    host.nsbox("rm", "-f", "other")
    assert not (rootfs / "pwned").exists(), (rootfs / "pwned").read_text()


def test_A05_and_so_is_a_member_of_the_library(host, hostile):
    """Red when: execute.launcher returns -1."""
    rootfs, options = hostile
    put(rootfs, HOSTILE["a script for /proc/self/exe"])
    host.nsbox("create", "web", "--rootfs", rootfs, *options, check=True)
    done = host.python(
        "import nsbox; done = nsbox.join('web', ['/bin/hostile'], capture_output=True, text=True)\n"
        "print([done.returncode, done.stdout, done.stderr])", check=True)  # fmt: skip
    assert done.stdout == f"{[126, '', REFUSAL]}\n"
    assert not (rootfs / "pwned").exists(), (rootfs / "pwned").read_text()


def test_A05_an_honest_script_runs_by_its_own_interpreter(host, hostile):
    """The tests above would see a Python that runs: with the pod's own named, this one does."""
    rootfs, options = hostile
    put(rootfs, f"#!{python_path()} -I" + RUNS)
    host.nsbox("create", "web", "--rootfs", rootfs, *options, check=True)
    host.nsbox("join", "web", "--", "hostile", check=True)
    assert (rootfs / "pwned").read_text() == f"by {python_path()}"


# ---- what runs already ----

@pytest.mark.parametrize("options, pause", [
    ([], "static"), (["--pause", "python"], "python"), (["--init", "/bin/sleep 1000"], "init")], ids=str)
def test_inspect_says_what_PID_1_is_and_what_executes_commands(host, options, pause):
    """Red when: report._programs takes the word of a record for it."""
    pid = int(host.nsbox("create", "web", "--rootfs", "busybox", *options, check=True).stdout)
    try:
        [about] = json.loads(host.nsbox("inspect", "--json", "web", check=True).stdout)
        assert (about["pause"], about["launcher"]) == (pause, "sealed")
        assert about["exe"] == os.readlink(f"/proc/{host.host_pid(pid)}/exe")
    finally:
        host.nsbox("rm", "-f", "web", check=True)
