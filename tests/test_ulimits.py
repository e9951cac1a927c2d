"""--ulimit in force: what /proc says of a member, and of everybody whom it is not for.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
from pathlib import Path

import pytest
from fakehost import NSBOX, FakeHost
from inpod import detached, inside, pod, refused
from test_owner import bob, make

__all__ = ["bob"]  # a fixture

pytestmark = pytest.mark.needs_root

# Each limit: its line in /proc/PID/limits, and bounds below those of any machine on which the tests run.
EACH = {
    "as": ("Max address space", "4294967296:8589934592"), "core": ("Max core file size", "1024:2048"),
    "cpu": ("Max cpu time", "500:1000"), "data": ("Max data size", "1073741824:2147483648"),
    "fsize": ("Max file size", "1048576:2097152"), "locks": ("Max file locks", "10:20"),
    "memlock": ("Max locked memory", "4096:8192"), "msgqueue": ("Max msgqueue size", "1000:2000"),
    "nice": ("Max nice priority", "0:0"), "nofile": ("Max open files", "32:64"), "nproc": ("Max processes", "300:400"),
    "rss": ("Max resident set", "1000000:2000000"), "rtprio": ("Max realtime priority", "0:0"),
    "rttime": ("Max realtime timeout", "1000:2000"), "sigpending": ("Max pending signals", "100:200"),
    "stack": ("Max stack size", "1048576:2097152"),
}  # fmt: skip
OPTIONS = [word for name, (_, bounds) in EACH.items() for word in ("--ulimit", f"{name}={bounds}")]
WANTED = {line: bounds.replace(":", " ") for line, bounds in EACH.values()}
SHOW = ["cat", "/proc/self/limits"]


def limits(text: str) -> dict[str, str]:
    """Soft and hard of each limit, by its line."""
    return {line[:26].strip(): " ".join(line[26:].split()[:2]) for line in text.splitlines()[1:]}


def of(host: FakeHost, pid: int) -> dict[str, str]:
    """The limits of a process of the fake host."""
    return limits(Path(f"/proc/{host.host_pid(pid)}/limits").read_text())


def shown(host: FakeHost, *words: str) -> dict[str, str]:
    """The limits of a member in the foreground, which it tells itself."""
    return limits(host.nsbox(*words, "--", *SHOW, check=True).stdout)


PODS = {
    "a rootfs": ["--rootfs", "busybox"], "the host's tree": [], "ids of its own": ["--userns", "--rootfs", "busybox"],
    "root mapped to itself": ["--with", "user", "--rootfs", "busybox"], "chroot": ["--chroot", "--rootfs", "busybox"],
    "privileged": ["--privileged", "--rootfs", "busybox"],
}  # fmt: skip


@pytest.mark.parametrize("how", PODS)
def test_every_limit_of_a_pod_is_that_of_its_members(host, how):
    """Of every kind, and of a program as PID 1. The pause keeps the caller's: it is no process of the user's.

    Red when: packed leaves out a limit, a launcher sets the hard limit as both, or _intent() leaves ulimits out.
    """
    own = of(host, 1)
    assert all(own[line] != bounds for line, bounds in WANTED.items() if bounds != "0 0")
    with pod(host, "p", *PODS[how], *OPTIONS) as pause:
        for options in ([], ["--rootfs", "busybox"], ["--share", "net,ipc"], ["-u", "4711"]):
            assert shown(host, "join", "p", *options) == WANTED, options
        with detached(host, "p") as pid:
            assert of(host, pid) == WANTED
        assert {**of(host, pause), "Max core file size": ""} == {**own, "Max core file size": ""}
    with pod(host, "i", *PODS[how], *OPTIONS, "--init", "sleep 1000") as init:
        assert of(host, init) == WANTED
        assert shown(host, "join", "i") == WANTED


def test_a_run_and_the_library_give_them_too(host):
    """Red when: member_spec() of pod/keywords.py passes ulimits over, or Pod does."""
    assert shown(host, "run", "--rootfs", "busybox", *OPTIONS) == WANTED
    code = f"""
import nsbox, sys
show = lambda pod, **more: print(pod.run({SHOW}, capture_output=True, text=True, **more).stdout, end="@")
with nsbox.Pod(rootfs="busybox", ulimits={{"nofile": "32:64", "nproc": 300, "core": "unlimited"}}) as pod:
    show(pod)
    show(pod, ulimits={{"nofile": 16, "cpu": "7:8"}})
    print(open(f"/proc/{{pod.detach(['sleep', '300'], ulimits={{'nofile': 17}})}}/limits").read())
    print(pod.inspect()["ulimits"], end="@")
for wrong in ({{"nofile": -1}}, {{"nofile": True}}, {{"files": 1}}):
    try:
        nsbox.Pod(ulimits=wrong)
    except nsbox.SpecError as err:
        print(err)
"""
    done = host.python(code)
    first, second, third, wrong = done.stdout.split("@")
    files = [limits(text)["Max open files"] for text in (first, second, third)]
    assert files == ["32 64", "16 16", "17 17"], done
    assert limits(first)["Max processes"] == limits(second)["Max processes"] == "300 300"
    assert limits(second)["Max cpu time"] == "7 8" and limits(second)["Max core file size"] == "unlimited unlimited"
    assert "'nofile': {'soft': 32, 'hard': 64}" in third and "'core': {'soft': 'unlimited'" in third
    assert wrong.count("cannot set limit ") == 3, done


@pytest.mark.needs_ns("user")
def test_an_ordinary_user_s_members_have_them_too(user_host):
    """Red when: the launcher sets none, or in a user namespace not."""
    with pod(user_host, "p", "--rootfs", "busybox", *OPTIONS), detached(user_host, "p") as pid:
        assert shown(user_host, "join", "p") == of(user_host, pid) == WANTED
        assert shown(user_host, "join", "p", "--ulimit", "nofile=31")["Max open files"] == "31 31"


@pytest.mark.needs_ns("user")
def test_so_have_those_whom_the_owner_of_root_s_pod_joins_without_sudo(bob):
    """Red when: announce() leaves the limits out of what the owner is told."""
    make(bob, "p", "--ulimit", "nofile=32:64")
    assert shown(bob, "join", "p")["Max open files"] == "32 64"


def test_a_member_s_own_limit_comes_before_that_of_its_pod(host):
    """By name, and beside another program's process as well. Red when: settle() is given the pod's last."""
    with pod(host, "p", "--ulimit", "nofile=64:128", "--ulimit", "cpu=500") as pause:
        found = shown(host, "join", "p", "--ulimit", "nofile=256", "--ulimit", "nofile=32:200")
        assert found["Max open files"] == "32 200" and found["Max cpu time"] == "500 500"
        assert shown(host, "join", "p")["Max open files"] == "64 128"
        other = shown(host, "join", str(pause), "--share", "net", "--ulimit", "nofile=33")
        assert other["Max open files"] == "33 33"
    pid = host.run(["sh", "-c", "sleep 300 > /dev/null 2>&1 & echo $!"], check=True).stdout.strip()
    try:
        assert shown(host, "join", pid, "--ulimit", "nofile=33")["Max open files"] == "33 33"
    finally:
        host.run(["kill", pid], check=True)


ODD = ["prlimit", "--nofile=777:888", "--core=unlimited:unlimited", "--nproc=4242:4343", "--cpu=900:1000"]


def test_C15_of_an_odd_caller_s_limits_a_member_has_all_but_those_that_are_said(host):
    """And nobody else's change: the caller's, the pause's, those of who keeps the member's log.

    Red when: member.start() calls put() itself.
    """
    script = '''"$@" create p --rootfs busybox --ulimit nofile=64:128 > /dev/null && "$@" join p -d -- sleep 300 && "$@" join p \
-- cat /proc/self/limits && echo @ && cat /proc/self/limits'''
    said = host.run([*ODD, "sh", "-c", script, "sh", *NSBOX], check=True).stdout
    try:
        number, _, rest = said.partition("\n")
        member, caller = map(limits, rest.split("@\n"))
        given = limits(host.run([*ODD, *SHOW], check=True).stdout)
        assert caller == given and given["Max open files"] == "777 888" and given["Max cpu time"] == "900 1000"
        assert member == {**given, "Max open files": "64 128", "Max core file size": "0 0"}
        about = json.loads(host.nsbox("inspect", "--json", "p", check=True).stdout)[0]
        assert of(host, about["pid"]) == {**given, "Max core file size": "0 0"}
        parent = Path(f"/proc/{host.host_pid(int(number))}/status").read_text().partition("PPid:")[2].split()[0]
        assert limits(Path(f"/proc/{parent}/limits").read_text()) == given
    finally:
        host.nsbox("rm", "-f", "p", check=True)


def test_a_core_file_is_written_only_where_it_is_asked_for(host):
    """Red when: confine() forbids it all the same."""
    for options, wanted in (([], "0 0"), (["--ulimit", "core=4096"], "4096 4096"), (["--ulimit", "nofile=64"], "0 0")):
        with pod(host, "p", "--rootfs", "busybox", *options):
            assert shown(host, "join", "p")["Max core file size"] == wanted
    with pod(host, "p", "--rootfs", "busybox"):
        assert shown(host, "join", "p", "--ulimit", "core=0:8192")["Max core file size"] == "0 8192"


def test_a_limit_that_nsbox_itself_could_not_live_with_counts_for_the_program_alone(host):
    """No descriptor, no byte in a file, one process for a user, and little memory.

    Red when: the launcher sets the limits before its clone, or execute.become() calls put().
    """
    tight = ["nofile=0", "fsize=0", "nproc=1", "data=2097152", "memlock=0", "sigpending=0", "msgqueue=0", "stack=131072"]
    words = [word for one in tight for word in ("--ulimit", one)]
    with pod(host, "p", "--rootfs", "busybox"):
        for user in ("0", "45673"):
            for more in ([], ["--rootfs", "busybox"], ["--share", "net,ipc"], ["--explain"]):
                done = host.nsbox("join", "p", *words, *more, "-u", user, "--", "sh", "-c", "echo here")
                assert (done.stdout, done.returncode) == ("here\n", 0), (user, more, done.stderr)
        many = host.nsbox("join", "p", "--ulimit", "nproc=1", "-u", "45673", "--", "sh", "-c", "/bin/true | /bin/true")
        assert many.returncode != 0 and "can't fork" in many.stderr, many


def test_a_machine_without_a_launcher_sets_them_too(host):
    """By the interpreter itself, at the end. Red when: execute.become() calls no put()."""
    code = """
import sys
from nsbox.pod import launch
launch.MACHINES = ()
sys.argv = ["nsbox", *sys.argv[1:]]
from nsbox.cli import entry
sys.exit(entry())
"""
    with pod(host, "p", "--rootfs", "busybox", *OPTIONS):
        assert limits(host.python(code, "join", "p", "--", *SHOW).stdout) == WANTED


def test_a_filter_does_not_keep_a_member_from_its_limits(host):
    """Nor need a profile allow it. Red when: the launcher loads the filter first."""
    profile = host.scratch / "profile"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["prlimit64", "setrlimit"], "action": "SCMP_ACT_ERRNO"}]}))  # fmt: skip
    with pod(host, "p", "--rootfs", "busybox", "--seccomp", profile, "--ulimit", "nofile=64:128"):
        assert shown(host, "join", "p")["Max open files"] == "64 128"
        assert "Operation not permitted" in inside(host, "p", "ulimit -n 32 2>&1", status=1)


# ---- above the hard limit ----

def test_a_hard_limit_above_the_caller_s_is_refused_before_anything_is_made(host):
    """Only CAP_SYS_RESOURCE of the initial user namespace raises one, which is taken away here.

    Red when: confine.limits() does not call check(): the pod is made, and its members fail one by one.
    """
    weak = [*ODD, "setpriv", "--bounding-set=-sys_resource", *NSBOX]
    for bounds, names in (("889", "889"), ("1:889", "889"), ("unlimited", "unlimited")):
        for words in (["create", "q", "--rootfs", "busybox"], ["run", "--rootfs", "busybox"]):
            rest = ["--", "true"] if words[0] == "run" else []
            before = host.snapshot()
            done = host.run([*weak, *words, "--ulimit", f"nofile={bounds}", *rest])
            error, hint = done.stderr.splitlines()
            assert (done.returncode, done.stdout) == (125, "")
            assert error.startswith("nsbox: cannot create pod ") and error.endswith(
                f"with a hard limit of {names} for nofile: prlimit64: Operation not permitted"), error
            assert hint.startswith("hint: the hard limit here is 888; ")
            assert ("CAP_SYS_RESOURCE" in hint) is (names == "889") and ("fs.nr_open" in hint) is (names != "889"), hint
            host.assert_same_as(before)
    with pod(host, "p", "--rootfs", "busybox", "--ulimit", "nofile=900"):
        for more in ([], ["-d"], ["--ulimit", "nofile=901"]):
            done = host.run([*weak, "join", "p", *more, "--", "true"])
            assert done.returncode == 125 and "nsbox: cannot join pod 'p' with a hard limit of 90" in done.stderr, done
        assert host.run([*weak, "join", "p", "--ulimit", "nofile=888", "--", "true"]).returncode == 0


@pytest.mark.needs_ns("user")
def test_so_it_is_for_an_ordinary_user(user_host):
    """Red when: confine.limits() does not call check()."""
    said = refused(user_host, "create", "q", "--rootfs", "busybox", "--ulimit", "nice=5")
    assert said.endswith("with a hard limit of 5 for nice: prlimit64: Operation not permitted"), said
    with pod(user_host, "p", "--rootfs", "busybox"):
        done = user_host.nsbox("join", "p", "--ulimit", "nice=5", "--", "true")
        assert done.returncode == 125 and "hint: the hard limit here is 0; " in done.stderr, done


def test_who_has_the_right_raises_them_also_for_a_pod_with_a_user_namespace(host):
    """Where this machine gives it to root: in a container it may not, and then that is what is said.

    Red when: allow() is called nowhere, check() neither, and the launcher passes over what the kernel says.
    """
    raised = host.run([*ODD, "prlimit", "--nofile=777:999", "true"]).returncode == 0
    for more in ([], ["--userns"]):
        done = host.run([*ODD, *NSBOX, "run", "--rootfs", "busybox", *more, "--ulimit", "nofile=900:999", "--", *SHOW])
        if raised:
            assert limits(done.stdout)["Max open files"] == "900 999", done
        else:
            assert done.returncode == 125 and "prlimit64: Operation not permitted" in done.stderr, done
        assert limits(host.run([*ODD, *SHOW]).stdout)["Max open files"] == "777 888"


def test_what_is_no_limit_is_wrong_use(host):
    """Red when: parse_ulimits() is called after the pod was made."""
    for word in ("files=1", "nofile", "nofile=-1", "nofile=2:1", "nofile=1 "):
        for words in (["create", "q"], ["run"], ["join", "q"]):
            done = host.nsbox(*words, "--ulimit", word, *(["--", "true"] if words[0] != "create" else []))
            error, hint = done.stderr.splitlines()
            assert (done.returncode, done.stdout) == (2, "") and error.startswith("nsbox: cannot set limit "), done
            assert "as core cpu data fsize locks memlock" in hint


# ---- told and shown ----

def test_inspect_says_what_a_pod_s_members_get(host):
    """As text and as JSON. Red when: _pod_facts() leaves ulimits out, or writes 2^64-1 for unlimited."""
    with pod(host, "p", "--ulimit", "nofile=64:128", "--ulimit", "core=unlimited"):
        about = json.loads(host.nsbox("inspect", "--json", "p", check=True).stdout)[0]
        assert about["ulimits"] == {"core": {"soft": "unlimited", "hard": "unlimited"}, "nofile": {"soft": 64, "hard": 128}}
        text = host.nsbox("inspect", "p", check=True).stdout
        assert "ulimits:\n  core:\n    soft: unlimited\n    hard: unlimited\n  nofile:\n    soft: 64\n    hard: 128\n" in text
    with pod(host, "p"):
        assert json.loads(host.nsbox("inspect", "--json", "p", check=True).stdout)[0]["ulimits"] == {}


def test_a_shell_completes_it_and_help_says_it(host):
    """Red when: one of the three verbs has no --ulimit."""
    for verb in ("create", "run", "join"):
        said = host.nsbox(verb, "--help", check=True).stdout
        assert "--ulimit NAME=SOFT[:HARD]" in said and "--ulimit " in said.partition("example:")[2], verb
    words = host.nsbox("completion", "bash", check=True).stdout
    assert sum("--ulimit" in line for line in words.splitlines()) == 3
