"""--seccomp FILE: profiles in the OCI form and in that of docker and podman, as programs and as members feel them.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import copy
import errno
import json
import platform
import random
import re
import signal
import sys

import bpf
import pyseccomp
import pytest
from fakehost import UID
from inpod import inside, pod, refused

from nsbox import parse
from nsbox.errors import NsboxError, SpecError
from nsbox.privilege import seccomp
from nsbox.privilege.seccomp import oci

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of calls are those of x86_64")
needs_root = pytest.mark.needs_root
KERNEL = (6, 1)


def number(call: str) -> int:
    found: int = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, call)
    assert found >= 0, call
    return found


def profile(*calls: object, default: str = "SCMP_ACT_ALLOW", **more: object) -> dict:
    return {"defaultAction": default, "syscalls": list(calls), **more}


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: object) -> dict:
    return {"names": list(names), "action": action, **more}


def arg(index: int, op: str, value: int, two: int = 0) -> dict:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def made(what: object, *capabilities: str, machine: str = "x86_64", kernel: tuple[int, int] = KERNEL) -> bytes:
    """The program of a profile for a member on such a machine."""
    plan, _ = oci.read(json.dumps(what), oci.Here(frozenset(capabilities), machine, kernel))
    return seccomp.compiler.compile_plan(plan)


def asked(program: bytes, call: "str | int", *args: int, machine: str = "x86_64") -> str:
    return bpf.action_name(bpf.decide(program, call if isinstance(call, int) else number(call), machine, args))


# ---- the OCI form ----

def test_actions_errnos_and_the_rest():
    """Red when: _action() leaves the errno out, or "errno" (podman's, by name) is not looked at."""
    program = made(profile(
        rule("mkdir"), rule("rmdir", errnoRet=errno.EBUSY), rule("link", errno="EROFS"), rule("unlink", errno="EACCES", errnoRet=1),
        rule("chmod", action="SCMP_ACT_KILL"), rule("chown", action="SCMP_ACT_KILL_PROCESS"), rule("sync", action="SCMP_ACT_LOG"),
        rule("rename", action="SCMP_ACT_TRAP"), rule("pause", action="SCMP_ACT_TRACE"), rule("read", action="SCMP_ACT_ALLOW"),
    ))  # fmt: skip
    wanted = {"mkdir": "EPERM", "rmdir": "EBUSY", "link": "EROFS", "unlink": "EACCES", "chmod": "KILL_THREAD",
              "chown": "KILL_PROCESS", "sync": "LOG", "rename": "TRAP", "pause": "TRACE", "read": "ALLOW", "write": "ALLOW"}  # fmt: skip
    assert {call: asked(program, call) for call in wanted} == wanted


NEEDED = rule("execve", "write", "exit_group", action="SCMP_ACT_ALLOW")
DEFAULTS = {
    "SCMP_ACT_ERRNO": ({}, "EPERM"), "with an errno": ({"defaultErrnoRet": errno.ENOENT}, "ENOENT"),
    "by its name": ({"defaultErrno": "EACCES"}, "EACCES"),
}  # fmt: skip


@pytest.mark.parametrize("more, answer", DEFAULTS.values(), ids=DEFAULTS)
def test_what_no_rule_names(more, answer):
    """A call that is newer than all that the profile names does not exist: libraries fall back then.

    Red when: defaultErrnoRet is not looked at; or Plan.newer_absent is always False.
    """
    program = made(profile(NEEDED, default="SCMP_ACT_ERRNO", **more))
    assert asked(program, "write") == "ALLOW" and asked(program, "read") == answer
    assert asked(program, number("exit_group") + 1) == asked(program, 500) == "ENOSYS"
    assert asked(made(profile(NEEDED, default="SCMP_ACT_KILL_PROCESS")), 500) == "KILL_PROCESS"


OPERATORS = {
    "NE": lambda value, one, _: value != one, "LT": lambda value, one, _: value < one, "LE": lambda value, one, _: value <= one,
    "EQ": lambda value, one, _: value == one, "GE": lambda value, one, _: value >= one, "GT": lambda value, one, _: value > one,
    "MASKED_EQ": lambda value, one, two: value & one == two,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("one, two", [(0x5412, 0x12), (0x1_0000_0005, 0), (2**64 - 1, 2**63), (2**32, 2**32), (0xFF, 0x80)])
def test_every_comparison_is_that_of_the_profile(name, one, two):
    """Over the values at which it could change, in both halves of 64 bits.

    Red when: _comparison() takes an operator for another; or value and valueTwo are exchanged.
    """
    if name == "MASKED_EQ":
        two &= one
    program = made(profile(rule("ioctl", args=[arg(1, name, one, two)])))
    for value in {one, two, 0, 2**64 - 1, *(base + step & 2**64 - 1 for base in (one, two, 2**32, 2**63) for step in (-1, 1))}:
        assert (asked(program, "ioctl", 7, value) == "EPERM") == OPERATORS[name](value, one, two), value


def test_several_arguments_are_all_meant_and_several_values_of_one_any():
    """Red when: _rules() makes one rule of every list of arguments."""
    both = made(profile(rule("socket", args=[arg(0, "EQ", 16), arg(2, "EQ", 9)])))
    assert asked(both, "socket", 16, 3, 9) == "EPERM" and asked(both, "socket", 16, 3, 0) == asked(both, "socket", 2, 3, 9) == "ALLOW"
    either = made(profile(rule("socket", args=[arg(0, "EQ", 16), arg(0, "EQ", 40)])))
    assert asked(either, "socket", 16) == asked(either, "socket", 40) == "EPERM" and asked(either, "socket", 2) == "ALLOW"


def test_other_machines_are_those_that_it_names():
    """Red when: _machines() always returns (), or leaves the running one out."""
    alone = made(profile(rule("mkdir")))
    assert asked(alone, 39, machine="i386") == asked(alone, bpf.X32 | 83) == "KILL_PROCESS"
    for names in (["SCMP_ARCH_X86"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]):
        program = made(profile(rule("mkdir"), architectures=names))
        assert asked(program, "mkdir") == asked(program, 39, machine="i386") == "EPERM"  # the same call by its number there
        assert asked(program, "read") == asked(program, 3, machine="i386") == "ALLOW"
        assert asked(program, bpf.X32 | 83) == "KILL_PROCESS"
    docker = {"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
                          {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}]}  # fmt: skip
    program = made(profile(rule("mkdir"), **docker))
    assert asked(program, 39, machine="i386") == asked(program, bpf.X32 | 83) == asked(program, "mkdir") == "EPERM"
    assert asked(program, 39, machine="arm") == "KILL_PROCESS"


def test_flags_are_passed_on():
    """Red when: read() returns 0 for the flags."""
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    assert oci.read(json.dumps(profile(flags=flags)), oci.Here(frozenset(), "x86_64", KERNEL))[1] == 2 | 4


# ---- the form of docker and podman ----

CONDITIONS = {
    "a capability that it has": ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
    "one that it lacks": ({"includes": {"caps": ["CAP_SYS_PTRACE"]}}, False),
    "two, and it lacks one": ({"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]}}, False),
    "not with one that it has": ({"excludes": {"caps": ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]}}, False),
    "not with one that it lacks": ({"excludes": {"caps": ["CAP_SYS_PTRACE"]}}, True),
    "this machine": ({"includes": {"arches": ["amd64", "arm64"]}}, True), "another": ({"includes": {"arches": ["arm64"]}}, False),
    "all but this machine": ({"excludes": {"arches": ["amd64"]}}, False),
    "an older kernel": ({"includes": {"minKernel": "4.8"}}, True), "this kernel": ({"includes": {"minKernel": "6.1"}}, True),
    "a newer one": ({"includes": {"minKernel": "6.2"}}, False), "much newer": ({"includes": {"minKernel": "10.0"}}, False),
    "not from this kernel on": ({"excludes": {"minKernel": "5.10"}}, False), "nothing": ({"includes": {}, "excludes": None}, True),
    "one of two": ({"includes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390x"]}}, False),
    "both": ({"includes": {"caps": ["CAP_SYS_ADMIN"], "minKernel": "5.0"}, "excludes": {"arches": ["s390x"]}, "comment": "why"}, True),
}  # fmt: skip


@pytest.mark.parametrize("condition, holds", CONDITIONS.values(), ids=CONDITIONS)
def test_a_rule_counts_where_its_condition_holds(condition, holds):
    """Red when: _holds() asks for any of the capabilities in includes, or for all in excludes; versions are compared as text."""
    program = made(profile(rule("mkdir", **condition)), "SYS_ADMIN", "CHOWN")
    assert asked(program, "mkdir") == ("EPERM" if holds else "ALLOW")


def test_the_old_form_with_one_name():
    """Red when: "name" is not looked at."""
    assert asked(made(profile({"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": []})), "mkdir") == "EPERM"


# ---- what is refused ----

BAD = {
    "no JSON": ("{", "no JSON"), "not an object": ("[]", "not an object"), "a key twice": ('{"defaultAction": 1, "defaultAction": 2}', "twice"),
    "deep": ("[" * 100_000, "no JSON"), "nothing": ("{}", "defaultAction"), "no such action": (profile(default="SCMP_ACT_MAYBE"), "SCMP_ACT_MAYBE"),
    "an unknown key": (profile(extra=1), "'extra'"), "one in a rule": (profile(rule("mkdir", unless=1)), "'unless'"),
    "one in a condition": (profile(rule("mkdir", includes={"users": [1]})), "'users'"), "a listener": (profile(listenerPath="/x"), "listenerPath"),
    "notify": (profile(rule("mkdir", action="SCMP_ACT_NOTIFY")), "asks another program"), "notify by default": (profile(default="SCMP_ACT_NOTIFY"), "asks another program"),
    "a flag": (profile(flags=["SECCOMP_FILTER_FLAG_NEW"]), "FLAG_NEW"), "a flag that needs a listener":
    (profile(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "KILLABLE"), "an errno": (profile(rule("mkdir", errnoRet=4096)), "4096"),
    "a negative one": (profile(rule("mkdir", errnoRet=-1)), "-1"), "true": (profile(rule("mkdir", errnoRet=True)), "True"),
    "an unknown one": (profile(rule("mkdir", errno="EWRONG")), "EWRONG"), "an operator": (profile(rule("mkdir", args=[arg(0, "IN", 1)])), "CMP_IN"),
    "a seventh argument": (profile(rule("mkdir", args=[arg(6, "EQ", 1)])), "6"), "a value": (profile(rule("mkdir", args=[arg(0, "EQ", 2**64)])), "value"),
    "half a value": (profile(rule("mkdir", args=[arg(0, "EQ", 1.5)])), "1.5"), "no index": (profile(rule("mkdir", args=[{"op": "SCMP_CMP_EQ"}])), "index"),
    "names": (profile(rule("mkdir") | {"names": [1]}), "names"), "name and names": (profile(rule("mkdir", name="rmdir")), "'name'"),
    "a machine": (profile(architectures=["X86"]), "'X86'"), "a kernel": (profile(rule("mkdir", includes={"minKernel": "six"})), "six"),
    "execve": (profile(rule("execve")), "execve"), "write": (profile(rule("write", action="SCMP_ACT_KILL")), "write"),
    "sometimes write": (profile(rule("write", args=[arg(0, "GT", 2)])), "write"), "nothing at all": (profile(default="SCMP_ACT_KILL"), "execve"),
    "exit_group": (profile(rule("execve", "write", action="SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO"), "exit_group"),
}  # fmt: skip


@pytest.mark.parametrize("what, said", BAD.values(), ids=BAD)
def test_a_profile_that_cannot_be_used_is_refused(what, said):
    """Red when: the line of oci.py that finds it is taken out."""
    text = what if isinstance(what, str) else json.dumps(what)
    with pytest.raises(SpecError, match=r"^cannot use the seccomp profile: ") as found:
        seccomp.of_profile(text, frozenset())
    assert said in str(found.value) and "\n" not in str(found.value) and len(str(found.value)) < 300


def test_a_call_without_a_number_is_no_obstacle_where_it_stays_forbidden():
    """And one that is forbidden by name, where others are allowed, is: it would be allowed after all.

    Red when: must_be_known() returns the empty set; or of_profile() wants every name to be known.
    """
    unknown = rule("a_call_of_next_year", action="SCMP_ACT_ALLOW")
    assert seccomp.of_profile(json.dumps(profile(NEEDED, unknown, default="SCMP_ACT_ERRNO")), frozenset()).code
    assert seccomp.of_profile(json.dumps(profile(unknown)), frozenset()).code
    with pytest.raises(SpecError, match="it forbids 'a_call_of_next_year'"):
        seccomp.of_profile(json.dumps(profile(rule("mkdir", "a_call_of_next_year"))), frozenset())


WORDS = [None, True, -1, 0, 2**70, 1.5, "", "x", "SCMP_ACT_ALLOW", "SCMP_ARCH_X86", "\ud800", [], [[]], {}, {"a": 1}, ["mkdir"], [None]]


def test_whatever_a_file_holds_is_a_program_or_a_clean_refusal():
    """Red when: _list() passes what is no list through; a value of a wrong type is compared."""
    whole = profile(NEEDED, rule("socket", args=[arg(0, "EQ", 1), arg(1, "MASKED_EQ", 3, 1)], includes={"caps": ["CAP_CHOWN"], "minKernel": "4.8"},
                                 excludes={"arches": ["arm"]}, errnoRet=5, comment="c"), default="SCMP_ACT_ERRNO", defaultErrnoRet=38,
                    architectures=["SCMP_ARCH_X86"], flags=["SECCOMP_FILTER_FLAG_LOG"])  # fmt: skip
    dice, good = random.Random(4), 0
    for _ in range(400):
        broken = copy.deepcopy(whole)
        place, path = broken, []
        while isinstance(place, (dict, list)) and place and (not path or dice.random() < 0.7):
            path.append((place, dice.choice(list(place)) if isinstance(place, dict) else dice.randrange(len(place))))
            place = path[-1][0][path[-1][1]]
        path[-1][0][path[-1][1]] = dice.choice(WORDS)
        try:
            seccomp.of_profile(json.dumps(broken), frozenset({"CHOWN"}))
            good += 1
        except NsboxError as err:
            assert str(err).startswith("cannot ") and "\n" not in str(err), err
    assert 20 < good < 380


def test_a_file_is_read_once_and_only_so_much_of_it(tmp_path):
    """Red when: parse_seccomp() reads all there is."""
    path = tmp_path / "default"
    path.write_text(json.dumps(profile(rule("mkdir"))))
    assert parse.parse_seccomp(str(path)) == seccomp.Filter(str(path), path.read_text())
    for where, said in ((tmp_path / "missing", "No such file"), (tmp_path, "Is a directory"), ("/dev/zero", "too big")):
        with pytest.raises(NsboxError) as found:
            parse.parse_seccomp(str(where))
        assert said in f"{found.value} {found.value.__cause__}"
    path.write_bytes(b"\xff")
    with pytest.raises(SpecError, match="not UTF-8"):
        parse.parse_seccomp(str(path))


# ---- members ----

@pytest.fixture
def profiles(host):
    """Writes a profile into a file of the host; returns its path."""
    def write(what: dict) -> str:
        path = host.work / f"{len(list(host.work.iterdir()))}.json"
        path.write_text(json.dumps(what))
        return str(path)

    return write


NO_MKDIR = profile(rule("mkdir", "mkdirat", errno="EROFS"))
MKDIR = "mkdir /tmp/$$ 2>&1 || :"


@needs_root
def test_a_member_lives_under_the_profile_of_a_file(host, profiles):
    """Also one that ends it; a program that is not there is told even where almost everything is forbidden.

    Red when: program() does not look at Filter.profile.
    """
    killing, tight = profiles(profile(rule("sync", action="SCMP_ACT_KILL_PROCESS"))), profiles(profile(NEEDED, default="SCMP_ACT_ERRNO"))
    with pod(host, "p", "--rootfs", "busybox"):
        assert inside(host, "p", MKDIR) == ""
        assert "Read-only file system" in inside(host, "p", MKDIR, "--seccomp", profiles(NO_MKDIR))
        assert host.nsbox("join", "p", "--seccomp", killing, "--", "sync").returncode == 128 + signal.SIGSYS
        assert host.nsbox("join", "p", "--seccomp", tight, "--", "no-such-program").returncode == 127
        assert host.nsbox("join", "p", "--seccomp", tight, "--", "/etc/passwd").returncode == 126


@needs_root
def test_a_pod_keeps_the_profile_and_not_the_file(host, profiles):
    """Red when: the record holds the path; calls_of_member() passes over the pod's filter."""
    path = profiles(NO_MKDIR)
    with pod(host, "p", "--rootfs", "busybox", "--seccomp", path):
        host.run(["rm", path], check=True)
        assert "Read-only file system" in inside(host, "p", MKDIR)
        assert "Read-only file system" in inside(host, "p", MKDIR, "--rootfs", "busybox")
        assert inside(host, "p", MKDIR, "--seccomp", "default") == inside(host, "p", MKDIR, "--privileged") == ""
        pid = int(host.nsbox("join", "p", "-d", "--", "sh", "-c", MKDIR, check=True).stdout)
        host.nsbox("wait", str(pid), check=True)
        assert "Read-only file system" in host.nsbox("logs", str(pid), check=True).stdout
        assert json.loads(host.nsbox("inspect", "--json", "p").stdout)[0]["members_get"]["seccomp"] == path
    init = profiles(NO_MKDIR)
    with pod(host, "q", "--rootfs", "busybox", "--seccomp", init, "--init", "sh -c 'mkdir /made; exec sleep 1000'"):
        assert inside(host, "q", "test ! -e /made && mkdir /made && echo yes", "--seccomp", "default") == "yes"
    done = host.nsbox("run", "--rootfs", "busybox", "--seccomp", init, "--", "sh", "-c", MKDIR, check=True)
    assert "Read-only file system" in done.stdout


@needs_root
def test_the_capabilities_of_a_member_count_in_the_pod_s_profile(host, profiles):
    """Red when: _program() takes the kept program whatever the member may."""
    path = profiles(profile(rule("mkdir", "mkdirat", errno="EROFS", includes={"caps": ["CAP_NET_RAW"]})))
    with pod(host, "p", "--rootfs", "busybox", "--seccomp", path):
        assert inside(host, "p", MKDIR) == ""
        assert "Read-only file system" in inside(host, "p", MKDIR, "--cap-add", "NET_RAW")
    with pod(host, "q", "--rootfs", "busybox", "--seccomp", path, "--cap-add", "NET_RAW"):
        assert "Read-only file system" in inside(host, "q", MKDIR)
        assert inside(host, "q", MKDIR, "--cap-drop", "NET_RAW") == ""


@needs_root
def test_a_join_does_not_compile_what_create_has_compiled(host, profiles):
    """Neither a profile nor the usual filter of a capability. Red when: filter_of_pod() returns PodFilter(chosen) alone."""
    for name, options in (("p", ["--seccomp", profiles(NO_MKDIR)]), ("q", ["--cap-add", "SYSLOG"]), ("r", [])):
        with pod(host, name, "--rootfs", "busybox", *options):
            done = host.run([sys.executable, "-P", "-X", "importtime", "-m", "nsbox", "join", name, "--", "true"], check=True)
            loaded = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
            assert "nsbox.privilege.seccomp" in loaded and "pyseccomp" not in loaded
            assert host.run([sys.executable, "-P", "-m", "nsbox", "join", name, "--cap-add", "SYS_TIME", "--", "true"]).returncode == 0


@needs_root
def test_what_cannot_be_used_is_said_before_anything_is_made(host, profiles):
    """Red when: _fault() makes an NsboxError, which is status 125; create() leaves what it made when that is raised."""
    bad = profiles(profile(rule("execve")))
    assert "execve" in refused(host, "create", "p", "--seccomp", bad, status=2)
    assert "execve" in refused(host, "run", "--seccomp", bad, "--", "true", status=2)
    assert "No such file" in refused(host, "create", "p", "--seccomp", "/no/such/file")
    with pod(host, "p", "--rootfs", "busybox"):
        done = host.nsbox("join", "p", "--seccomp", bad, "--", "true")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@needs_root
def test_the_library_takes_a_file(host, profiles):
    """Red when: keywords.filter_of() takes the names only."""
    code = f"""
import nsbox, pathlib
with nsbox.Pod(rootfs="busybox", seccomp=pathlib.Path({profiles(NO_MKDIR)!r})) as pod:
    print(pod.run(["mkdir", "/x"], capture_output=True, text=True).stderr)
    print(pod.run(["mkdir", "/x"], seccomp="default").returncode)
    try:
        pod.run(["true"], seccomp={profiles(profile(rule("execve")))!r})
    except nsbox.SpecError as err:
        print(err)
"""
    said = host.python(code, check=True).stdout
    assert "Read-only file system" in said and "\n0\ncannot use the seccomp profile: execve" in said


@needs_root
@pytest.mark.needs_ns("user")
def test_the_owner_of_a_pod_of_root_s_joins_under_its_profile(user_host):
    """Red when: owners.announce() leaves the filter out."""
    path = user_host.scratch / "profile.json"
    path.write_text(json.dumps(NO_MKDIR))
    path.chmod(0o600)
    env = {"NSBOX_STATE": None, "XDG_RUNTIME_DIR": None, "SUDO_UID": str(UID), "SUDO_GID": str(UID)}
    rootfs = user_host.store / "busybox/rootfs"
    try:
        user_host.nsbox("create", "lab", "--userns", "--rootfs", rootfs, "--seccomp", path, user=0, env=env, check=True)
        assert "Read-only file system" in user_host.nsbox("join", "lab", "--", "sh", "-c", MKDIR, check=True).stdout
    finally:
        user_host.nsbox("rm", "-f", "lab", user=0, env=env, check=True)
        user_host.run(["rm", "-rf", "/run/nsbox"], user=0, check=True)
