"""What members may do: capabilities and no_new_privs (rows B12, B23, B25, C01, C02, C03).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
from pathlib import Path

import pytest
from fakehost import NSBOX
from inpod import detached, inside, pod, python_path, refused, with_python

pytestmark = pytest.mark.needs_root

# The list that README.md documents, and the bits of /proc/PID/status that it makes.
SHORT_LIST = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7,
    "SETPCAP": 8, "NET_BIND_SERVICE": 10, "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip
SHORT = sum(1 << number for number in SHORT_LIST.values())
NET_ADMIN, NET_RAW, SYS_CHROOT, SYS_ADMIN = 1 << 12, 1 << 13, 1 << 18, 1 << 21

STATUS = ["cat", "/proc/self/status"]
# Starts a command with rights in its inheritable and ambient sets, as a careless container does.
GENEROUS = ["setpriv", "--inh-caps", "+sys_admin,+chown,+net_raw", "--ambient-caps", "+sys_admin,+chown,+net_raw", "--"]
USERNS = pytest.param(["--with", "user"], marks=pytest.mark.needs_ns("user"), id="user namespace")


def posture(text: str) -> dict[str, int]:
    """The capability sets and NoNewPrivs in a /proc/PID/status."""
    pairs = (line.split(":") for line in text.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    return {key: int(value, 16) for key, value in pairs}


def guarded(bits: int, no_new_privs: int = 1) -> dict[str, int]:
    """What a member's status says that has these capabilities."""
    return {"CapInh": 0, "CapPrm": bits, "CapEff": bits, "CapBnd": bits, "CapAmb": 0, "NoNewPrivs": no_new_privs}


def of_pid(host, pid: int) -> dict[str, int]:
    return posture(Path(f"/proc/{host.host_pid(pid)}/status").read_text())


def own(host) -> int:
    """All that nsbox has in this fake host."""
    found = posture(host.run(STATUS, check=True).stdout)
    return found["CapPrm"] & found["CapBnd"]


# ---- the short list ----

WAYS = {
    "join": ["join", "p"],
    "join --rootfs": ["join", "p", "--rootfs", "busybox"],
    "join --rootfs --chroot": ["join", "p", "--rootfs", "busybox", "--chroot"],
    "join --share": ["join", "p", "--share", "net"],
    "run": ["run", "--rootfs", "busybox"],
    "run on the host's tree": ["run"],
}


@pytest.mark.parametrize("options", [pytest.param([], id="root"), USERNS])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_C01_C02_C03_a_member_has_the_short_list_and_nothing_else(host, way, options):
    """Red when: confine() leaves out keep_only, or cut_bounding_set; or OF_MEMBERS has one more."""
    extra = options if way[0] == "run" else []
    with pod(host, "p", "--rootfs", "busybox", *options):
        done = host.run([*GENEROUS, *NSBOX, *way, *extra, "--", *STATUS], check=True)
        assert posture(done.stdout) == guarded(SHORT)


@pytest.mark.parametrize("options", [pytest.param([], id="root"), USERNS])
@pytest.mark.parametrize("init", [[], ["--init", "sleep 1000"]], ids=["pause", "init"])
def test_C01_C02_C03_so_have_a_detached_member_and_a_program_as_PID_1_and_the_pause_has_nothing(host, init, options):
    """Red when: _pid_one() leaves out confine() for the pause, or for an --init."""
    with pod(host, "p", "--rootfs", "busybox", *init, *options) as pid, detached(host, "p") as member:
        assert of_pid(host, pid) == guarded(SHORT if init else 0)
        assert of_pid(host, member) == guarded(SHORT)


@pytest.mark.parametrize("options", [["--pause", "python"], ["--rootfs", "busybox", "--chroot"], ["--privileged"]], ids=str)
def test_C01_C02_C03_no_pause_has_a_right(host, options):
    """Red when: _pid_one() leaves out confine(), or gives the pause what its members have."""
    with pod(host, "p", *options) as pid:
        assert of_pid(host, pid) == guarded(0)


def test_C01_C02_C03_an_ordinary_users_members_too(user_host):
    """Red when: confine() leaves out keep_only, or cut_bounding_set."""
    with pod(user_host, "p", "--rootfs", "busybox") as pid:
        assert of_pid(user_host, pid) == guarded(0)
        assert posture(inside(user_host, "p", "cat /proc/self/status")) == guarded(SHORT)
        assert posture(inside(user_host, "p", "cat /proc/self/status", "--cap-add", "sys_resource")) == guarded(
            SHORT | 1 << 24)  # in a namespace of one's own there is nothing that nsbox lacks


def test_C01_an_ordinary_user_in_a_pod_has_none(host):
    """Red when: keep_only() makes something inheritable or ambient."""
    with pod(host, "p", "--cap-add", "NET_ADMIN"):
        done = host.nsbox("join", "p", "--", "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *STATUS)
        assert posture(done.stdout) == {**guarded(0), "CapBnd": SHORT | NET_ADMIN}


def test_C02_a_capability_without_a_name_yet_is_dropped_too(monkeypatch):
    """Red when: cut_bounding_set() goes through NAMES instead of asking the kernel to the end."""
    from nsbox.capabilities import settle, Rights
    from nsbox.privilege import rights

    dropped = []

    def until_50(number):
        if number >= 50:
            raise OSError(22, "prctl: Invalid argument")
        return True

    monkeypatch.setattr(rights.syscalls, "capget", lambda: (2**50 - 1,) * 3)
    monkeypatch.setattr(rights.syscalls, "capbset_read", until_50)
    monkeypatch.setattr(rights.syscalls, "capbset_drop", lambda number: until_50(number) and dropped.append(number))
    rights.cut_bounding_set(settle(Rights()))
    assert dropped == [number for number in range(50) if not SHORT >> number & 1]


# ---- what is asked for ----

ALL = "all that nsbox has"
ASKED = {
    "--cap-add NET_ADMIN": SHORT | NET_ADMIN,
    "--cap-add cap_net_admin --cap-add Net_Raw": SHORT | NET_ADMIN | NET_RAW,
    "--cap-drop CAP_CHOWN --cap-drop kill": SHORT & ~(1 << 0 | 1 << 5),
    "--cap-drop ALL": 0,
    "--cap-drop all --cap-add net_raw": NET_RAW,
    "--cap-add ALL": ALL,
}


@pytest.mark.parametrize("words", ASKED)
def test_C02_options_change_the_list(host, words):
    """Red when: settle() adds before it drops all, or takes no notice of a layer."""
    wanted = own(host) if ASKED[words] == ALL else ASKED[words]
    with pod(host, "p", "--rootfs", "busybox"):
        assert posture(inside(host, "p", "cat /proc/self/status", *words.split())) == guarded(wanted)
    done = host.nsbox("run", *words.split(), "--", *STATUS, check=True)
    assert posture(done.stdout) == guarded(wanted)
    with pod(host, "q", "--rootfs", "busybox", "--init", "sleep 1000", *words.split()) as pid:
        assert of_pid(host, pid) == guarded(wanted)
        assert posture(inside(host, "q", "cat /proc/self/status")) == guarded(wanted)


def test_C02_privileged_is_all_that_nsbox_has_and_without_no_new_privs(host):
    """Red when: settle() or confine() takes no notice of `privileged`."""
    everything = own(host)
    assert everything & SYS_ADMIN
    done = host.nsbox("run", "--privileged", "--", *STATUS, check=True)
    assert posture(done.stdout) == guarded(everything, 0)
    done = host.nsbox("run", "--privileged", "--cap-drop", "NET_RAW", "--", *STATUS, check=True)
    assert posture(done.stdout) == guarded(everything & ~NET_RAW, 0)
    with pod(host, "p", "--privileged", "--init", "sleep 1000") as pid:
        assert of_pid(host, pid) == posture(inside(host, "p", "cat /proc/self/status")) == guarded(everything, 0)


def test_C02_a_members_own_words_come_after_the_pods(host):
    """Red when: settle() is given the layers the other way round, or the record does not keep them."""
    with pod(host, "p", "--rootfs", "busybox", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"):
        for words, wanted in {
            "": SHORT & ~1 | NET_ADMIN,
            "--cap-drop net_admin --cap-add chown": SHORT,
            "--cap-add net_raw": SHORT & ~1 | NET_ADMIN | NET_RAW,
            "--cap-drop all": 0,
        }.items():
            assert posture(inside(host, "p", "cat /proc/self/status", *words.split())) == guarded(wanted), words


TELLING = ["sh", "-c", "echo $$; exec sleep 1000"]


def pid_of(stranger) -> int:
    """The PID, in its host, of a process that runs TELLING."""
    return int(stranger.stdout.readline())


def test_C02_what_is_named_outside_a_pod_is_the_same_list(host):
    """Beside another program's process a member is confined as in a pod; --privileged is nsenter's way.

    Red when: of_member() keeps everything where the target is no pod.
    """
    stranger = host.popen(["unshare", "--net", "--uts", *TELLING])
    try:
        pid = pid_of(stranger)
        assert posture(inside(host, str(pid), "cat /proc/self/status")) == guarded(SHORT)
        assert posture(inside(host, str(pid), "cat /proc/self/status", "--privileged")) == guarded(own(host), 0)
    finally:
        stranger.end()


def test_C02_who_has_no_right_at_all_can_still_join_what_is_his(user_host):
    """There is nothing to cut with, and with no_new_privs nothing that need be.

    Red when: cut_bounding_set() does not ask for CAP_SETPCAP first.
    """
    stranger = user_host.popen(TELLING)
    try:
        pid = pid_of(stranger)
        found = posture(inside(user_host, str(pid), "cat /proc/self/status"))
        assert {**found, "CapBnd": 0} == guarded(0)
        line = refused(user_host, "join", str(pid), "--cap-add", "NET_RAW", "--", "true")
        assert line == f"nsbox: cannot join process {pid} with CAP_NET_RAW: nsbox does not have that itself"
    finally:
        stranger.end()


BAD = {
    "--cap-add BOGUS": "cannot add capability 'BOGUS': there is none of that name",
    "--cap-drop cap_": "cannot drop capability 'cap_': there is none of that name",
    "--cap-add cap_cap_chown": "cannot add capability 'cap_cap_chown': there is none of that name",
    "--cap-add net_raw,chown": "cannot add capability 'net_raw,chown': there is none of that name",
    "--cap-add 12": "cannot add capability '12': there is none of that name",
    "--cap-add chown --cap-drop CAP_CHOWN": "cannot change capabilities: CHOWN is both added and dropped",
    "--cap-add all --cap-drop ALL": "cannot change capabilities: ALL is both added and dropped",
}


@pytest.mark.parametrize("words", BAD)
def test_C02_a_word_that_names_no_capability_is_wrong_use(host, words):
    """Red when: parse_rights() passes over what is in no table."""
    for verb in (["create", "p"], ["run"], ["join", "1"]):
        command = [] if verb[0] == "create" else ["--", "true"]
        assert refused(host, *verb, *words.split(), *command, status=2) == f"nsbox: {BAD[words]}"


LIMITED = ["setpriv", "--bounding-set", "-net_raw,-audit_write", "--"]


def test_C02_what_nsbox_lacks_itself_is_an_error_where_it_is_named_and_left_out_where_not(host):
    """Red when: require() is not called for a member, for the pause or for an --init."""
    reason = "with CAP_NET_RAW: nsbox does not have that itself"
    with pod(host, "p", "--rootfs", "busybox"):
        for words in (["join", "p", "--cap-add", "NET_RAW", "--", "true"],
                      ["create", "q", "--cap-add", "NET_RAW"], ["create", "q", "--cap-add", "NET_RAW", "--init", "sleep 9"],
                      ["run", "--cap-add", "NET_RAW", "--", "true"]):
            done = host.run([*LIMITED, *NSBOX, *words])
            assert done.returncode == 125 and done.stderr.splitlines()[0].endswith(reason), done
        assert host.nsbox("ls", "-q").stdout == "p\n"
        done = host.run([*LIMITED, *NSBOX, "join", "p", "--", *STATUS], check=True)
        assert posture(done.stdout) == guarded(SHORT & ~(1 << 29))
        done = host.run([*LIMITED, *NSBOX, "join", "p", "--privileged", "--", *STATUS], check=True)
        assert posture(done.stdout) == guarded(own(host) & ~NET_RAW & ~(1 << 29), 0)


def test_B12_the_right_to_chroot_is_kept_in_a_chroot_where_it_is_named(host, rootfs):
    """Red when: settle() takes it away from a chrooted member whatever was asked for."""
    with pod(host, "p", "--rootfs", rootfs, "--chroot"):
        for words, wanted in {"--cap-add sys_chroot": SHORT | SYS_CHROOT, "--cap-add all": own(host) & ~SYS_CHROOT,
                              "--privileged --cap-add sys_chroot": own(host)}.items():
            found = posture(inside(host, "p", "cat /proc/self/status", *words.split()))
            assert found["CapEff"] == found["CapBnd"] == wanted, words


_IN_PYTHON = """
import json, nsbox
def status(run, **words):
    return run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True, **words).stdout
with nsbox.Pod(rootfs="busybox", cap_add=["net_admin"], cap_drop=["CHOWN"]) as pod:
    print(json.dumps([status(pod.run), status(pod.run, cap_add=["CAP_NET_RAW"], cap_drop=["NET_ADMIN"]),
                      status(pod.run, privileged=True)]))
for wrong in ({"cap_add": ["BOGUS"]}, {"cap_add": ["KILL"], "cap_drop": ["kill"]}):
    try:
        nsbox.Pod(**wrong)
    except nsbox.SpecError:
        continue
    raise AssertionError(wrong)
"""


def test_C02_the_library_takes_the_same_words(host):
    """Red when: Pod() or _member_spec() leaves `rights` out of the spec."""
    first, second, third = map(posture, json.loads(host.python(_IN_PYTHON, check=True).stdout))
    assert first == guarded(SHORT & ~1 | NET_ADMIN)
    assert second == guarded(SHORT & ~1 | NET_RAW)
    assert third == guarded(own(host), 0)


# ---- setuid programs and the like ----

_BECOME = "import os, sys; os.setgid(1000); os.setuid(1000); os.execv(sys.argv[1], sys.argv[1:])"


def test_B23_C03_a_setuid_program_gives_nobody_more_rights(host, rootfs):
    """The same in a pod that is privileged, to see that the program would.

    Red when: keep_only() does not set no_new_privs.
    """
    program = rootfs / "bin/raise"
    program.write_bytes(Path("/usr/bin/cat").read_bytes())  # not busybox, which goes back to who it was by itself
    program.chmod(0o4755)
    with pod(host, "p", "--rootfs", rootfs, *with_python(rootfs)):
        def uid(*words: str) -> str:
            run = [python_path(), "-I", "-S", "-c", _BECOME, "/bin/raise", "/proc/self/status"]
            said = host.nsbox("join", "p", *words, "--", *run, check=True).stdout
            return next(line.split()[2] for line in said.splitlines() if line.startswith("Uid:"))
        assert uid() == "1000"
        assert uid("--privileged") == "0", "the program is not setuid, so it proves nothing"


# ---- what is closed stays closed ----

# Takes off, or makes writable, whatever covers parts of /proc and /sys; says what it could.
_UNDO = """
for place in $(cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(proc|sys)/'); do
    mount -o remount,bind,rw $place 2>/dev/null && echo "writable $place"
    umount $place 2>/dev/null && echo "off $place"
done
echo "tried as $(id -u)"
"""
NESTED = ["unshare", "-U", "-r", "-m", "--", "sh", "-c", _UNDO]


@pytest.mark.parametrize("options", [pytest.param([], id="root"), USERNS])
def test_B25_a_pod_cannot_undo_its_masks(host, options):
    """Nor in a user namespace of its own, where it has all rights: a mount from outside is locked in there.
    Without a filter of system calls, so that it is the rights that hold.

    Red when: OF_MEMBERS has SYS_ADMIN.
    """
    with pod(host, "p", "--rootfs", "busybox", *options):
        for own_root in ([], ["--rootfs", "busybox"]):
            places = inside(host, "p", "cut -d' ' -f5 /proc/self/mountinfo", *own_root).split()
            assert "/proc/sys" in places and {"/proc/kcore", "/proc/keys", "/proc/interrupts"} & {*places}, places
            assert inside(host, "p", _UNDO, *own_root) == "tried as 0"
            way = [*own_root, "--seccomp", "unconfined"]
            assert inside(host, "p", _UNDO, *way) == "tried as 0"
            assert host.nsbox("join", "p", *way, "--", *NESTED).stdout == "tried as 0\n"
            undone = inside(host, "p", _UNDO, *way, "--cap-add", "SYS_ADMIN")
            assert "off /proc/sys\n" in undone, "it does not work with the right, so it proves nothing"
