"""Why a call failed: each state is made for real, the kernel refuses for real, and the right rule is named, alone.

A "provoked" test makes the state, makes the call in it, and asks the advice in the same process; then the
next command is typed there, and must show the cause.
"""

import json
import sys
from collections.abc import Sequence

import pytest
from fakehost import UID, FakeHost
from test_doctor import FILTERED

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]
ONE_USER = 45671  # RLIMIT_NPROC counts a user's processes on the whole machine: nobody else has this one

DRIVER = """
import errno, json, os, resource, signal, subprocess, sys, threading, time
from nsbox.errors import NsboxError
from nsbox.explain import advice
from nsbox.linux import mounts, syscalls, trouble
from nsbox.linux.flags import CloneFlag as C, MountAttr, MountFlag
from nsbox.net import listen
from nsbox.privilege import credentials, idmaps

def thread():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def in_new(flags):
    '''The PID of a child in new namespaces, which waits.'''
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(flags)
            os.write(w, b".")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(r, 1) == b"."
    born.append(pid)
    return pid

def plainly(call, work, *asked):
    '''A call of os.something, with its error as nsbox words it.'''
    try:
        work()
    except OSError as err:
        raise trouble.failed(call, err.errno, *asked) from None

def report(err):
    cause = err.__cause__ if isinstance(err, NsboxError) else err
    case = advice.case_of(cause)
    rows = [one._asdict() for one in advice.advice(case)]
    shown = {}
    for row in rows:
        if row["verdict"] == advice.APPLIES:
            command = row["next"].partition(";")[0].replace("/PID/", "/self/")
            shown[row["rule"]] = subprocess.run(["sh", "-c", command], capture_output=True, text=True).stdout
    failure = err if isinstance(err, NsboxError) else NsboxError("cannot")
    failure.__cause__ = cause
    os.write(1, json.dumps({"call": case.call, "errno": errno.errorcode[case.code], "rows": rows, "shown": shown,
                            "hint": advice.hint(failure)}).encode())

born = []
def run():
    try:
        act()
    except (NsboxError, OSError) as err:
        report(err)
    else:
        os.write(1, b"null")
    finally:
        for pid in born:
            os.kill(pid, 9)

def act():
"""


def provoke(host: FakeHost, code: str, before: Sequence[str] = (), **kw):
    """What the advice is where `code`, the body of a function, runs into its error; `before` starts it."""
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    done = host.run([*before, sys.executable, "-P", "-c", f"{DRIVER}{body}\nrun()\n"], **kw)
    assert done.returncode == 0 and done.stderr == "", done
    found = json.loads(done.stdout)
    assert found is not None, "nothing was refused"
    assert all(row["seen"] and row["next"] and row["source"].endswith(")") for row in found["rows"])
    return found


def applying(found) -> list[str]:
    return [row["rule"] for row in found["rows"] if row["verdict"] == "applies here"]


def filtered(number: int, code: int) -> list[str]:
    """Words that start a command for which one call fails with this errno."""
    import struct

    lines = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x0005_0000 | code), (0x06, 0, 0, 0x7FFF_0000))
    program = b"".join(struct.pack("HBBI", *line) for line in lines).hex()
    return [sys.executable, "-I", "-c", FILTERED, program]


def sh(script: str, *words: str) -> list[str]:
    return [*words, "sh", "-ec", script + '; exec "$@"', "sh"]


INNER = ["unshare", "--user", "--map-root-user"]
MOUNTS = ["unshare", "--mount", "--propagation", "private"]
# A plain directory with the host's tree bound below it, as a root.
CHROOT = """mkdir -p {top}; cd {top}
for d in $(ls /); do
    if [ -L "/$d" ]; then cp -a "/$d" "$d"; elif [ -d "/$d" ]; then mkdir -p "$d"; mount --rbind "/$d" "$d"; fi
done; exec chroot . "$@" """

# ---- rows: (name, errno, what the one rule that applies begins with, what its next command shows, how) ----

ROOT_ROWS = {
    "several threads unshare": (
        "EINVAL", "a process with several threads makes", "Threads:", "thread(); syscalls.unshare(C.CLONE_NEWUSER)", []),
    "no user namespace left": (
        "ENOSPC", "a limit on namespaces", "user.max_user_namespaces = 0", "syscalls.unshare(C.CLONE_NEWUSER)",
        sh("echo 0 > /proc/sys/user/max_user_namespaces", *INNER)),
    "no network namespace left": (
        "ENOSPC", "a limit on namespaces", "user.max_net_namespaces = 0",
        "syscalls.unshare(C.CLONE_NEWNET | C.CLONE_NEWUTS)",
        sh("echo 0 > /proc/sys/user/max_net_namespaces", *INNER)),
    "an id without a number": (
        "EPERM", "its user or group has no number", "", "syscalls.unshare(C.CLONE_NEWUSER)", ["unshare", "--user"]),
    "unshare without a right": (
        "EPERM", "without a new user namespace", "CapEff:\t0000000000000000", "syscalls.unshare(C.CLONE_NEWNET)",
        ["setpriv", f"--reuid={UID}", "--clear-groups"]),
    "a filter on unshare": (
        "EPERM", "a seccomp filter refuses", "Seccomp:\t2", "syscalls.unshare(C.CLONE_NEWUSER)", filtered(272, 1)),
    "a filter on clone3": (
        "ENOSYS", "a seccomp filter hides", "Seccomp:\t2", "syscalls.clone3(C.CLONE_NEWUSER, 17)", filtered(435, 38)),
    "a filter on keyctl": (
        "EPERM", "a seccomp filter refuses", "Seccomp:\t2", "syscalls.join_new_session_keyring()", filtered(250, 1)),
    "its own user namespace": (
        "EINVAL", "nobody enters the user namespace that he is in", "",
        "syscalls.setns(os.pidfd_open(os.getpid()), C.CLONE_NEWUSER)", []),
    "several threads setns": (
        "EINVAL", "a process with several threads cannot change", "Threads:",
        "pid = in_new(C.CLONE_NEWUSER); thread(); syscalls.setns(os.pidfd_open(pid), C.CLONE_NEWUSER)", []),
    "a PID namespace above": (
        "EINVAL", "of PID namespaces only the own one", "",
        "fd = os.pidfd_open(os.getpid())\nsyscalls.unshare(C.CLONE_NEWPID)\npid = os.fork()\n"
        "if pid == 0:\n    syscalls.setns(fd, C.CLONE_NEWPID)\nos.waitpid(pid, 0); os._exit(0)", []),
    "a process that has ended": (
        "ESRCH", "the process whose namespaces these are has ended", "",
        "pid = in_new(C.CLONE_NEWUTS); fd = os.pidfd_open(pid); os.kill(pid, 9); os.waitpid(pid, 0); born.clear()\n"
        "syscalls.setns(fd, C.CLONE_NEWUTS)", []),
    "setns without a right": (
        "EPERM", "entering a namespace needs CAP_SYS_ADMIN", "",
        "syscalls.setns(os.pidfd_open(os.getpid()), C.CLONE_NEWUTS)", ["setpriv", f"--reuid={UID}", "--clear-groups"]),
    "a map twice": (
        "EPERM", "a map is written once", "",
        "pid = in_new(C.CLONE_NEWUSER)\nfor _ in (1, 2):\n    idmaps.write_file(pid, 'uid_map', '0 0 5')", []),
    "a map that overlaps": (
        "EINVAL", "a line is INSIDE OUTSIDE COUNT", "", "idmaps.write_file(in_new(C.CLONE_NEWUSER), 'uid_map', '0 0 5\\n4 9 1')", []),
    "ids that the writer lacks": (
        "EPERM", "only ids that the writer's own", "0          0          1",
        "idmaps.write_file(in_new(C.CLONE_NEWUSER), 'uid_map', '0 5 1')", INNER),
    "id 0 without SETFCAP": (
        "EPERM", "to give outer id 0 away needs CAP_SETFCAP", "CapEff:",
        "idmaps.write_file(in_new(C.CLONE_NEWUSER), 'uid_map', '0 0 1')", ["setpriv", "--bounding-set=-setfcap"]),
    "setgroups too late": (
        "EPERM", "setgroups is changed before gid_map", "",
        "pid = in_new(C.CLONE_NEWUSER); idmaps.write_file(pid, 'gid_map', '0 0 1'); idmaps.write_file(pid, 'setgroups', 'deny')",
        []),
    "a group that is not mapped": (
        "EINVAL", "its user namespace has no such user or group", "", "credentials.become(0, 7)", INNER),
    "pivot_root to a plain directory": (
        "EINVAL", "the new root is no mount point", "", "os.chdir('/run/lock'); syscalls.pivot_root('.', '.')", MOUNTS),
    "pivot_root to a shared mount": (
        "EINVAL", "the new root, or the mount around it, passes mounts on", "shared",
        "os.chdir('/run/lock'); syscalls.pivot_root('.', '.')",
        sh("mount -t tmpfs x /run/lock; mount --make-rshared /", *MOUNTS)),
    "pivot_root to the root": (
        "EBUSY", "the new root is on the mount that is the root already", "/", "syscalls.pivot_root('/', '/')", MOUNTS),
    "umount of a plain directory": (
        "EINVAL", "only at a mount point", "", "syscalls.umount_detach('/tmp')", MOUNTS),
    "a locked mount": (
        "EINVAL", "mounts that came from a more privileged", "/proc", "syscalls.umount_detach('/proc')",
        [*INNER, "--mount", "--propagation", "private"]),
    "mounts of another user namespace": (
        "EPERM", "the mount namespace belongs to another", "", "syscalls.fsopen('tmpfs')", INNER),
    "a type that there is not": (
        "ENODEV", "the kernel has no such type", "", "mounts.new_filesystem('nosuchfs', {}, MountAttr(0))", []),
    "a type for the machine's root": (
        "EPERM", "in a user namespace only some types", "", "mounts.new_filesystem('ext4', {'source': 'x'}, MountAttr(0))",
        [*INNER, "--mount"]),
    "a masked /proc": (
        "EPERM", "who sees only a masked", "/proc/bus", "mounts.new_filesystem('proc', {}, MountAttr(0))",
        sh("mount -t tmpfs mask /proc/bus; exec unshare --user --map-root-user --mount --pid --fork \"$@\"", *MOUNTS)),
    "a /proc of another's PID namespace": (
        "EPERM", "a new /proc, /sys or mqueue needs rights", "", "mounts.new_filesystem('proc', {}, MountAttr(0))",
        [*INNER, "--mount"]),
    "a port that is taken": (
        "EADDRINUSE", "somebody listens there", "8080",
        "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 8080)); s.listen()\n"
        "listen.listen(listen.Forward('tcp', '127.0.0.1', 8080, 80))", []),
    "an address of nobody": (
        "EADDRNOTAVAIL", "no interface of this network namespace", "127.0.0.1",
        "listen.listen(listen.Forward('tcp', '192.0.2.7', 8080, 80))", []),
    "a device in a user namespace": (
        "EPERM", "a device is made by who has CAP_MKNOD", "",
        "plainly('mknodat', lambda: os.mknod('/tmp/nsbox-no-device', 0o020666, os.makedev(1, 3)))", INNER),
    "a PID namespace without PID 1": (
        "ENOMEM", "the PID namespace has no PID 1 any more", "",
        "syscalls.unshare(C.CLONE_NEWPID); pid = os.fork()\nif pid == 0:\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\ntry:\n    syscalls.clone3(C(0), 17)\nexcept OSError as err:\n"
        "    vars(err)['scene'] = trouble.scene(); syscalls.setns(os.open('/proc/self/ns/pid', 0), C.CLONE_NEWPID); raise",
        []),
    "no descriptor left": (
        "EMFILE", "the process has as many descriptors", "",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (9, 64))\ntry:\n    while True:\n        syscalls.memfd_create('x')\n"
        "finally:\n    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))", []),
}  # fmt: skip
USER_ROWS = {
    "more ids than one's own": (
        "EPERM", "without CAP_SETUID and CAP_SETGID one can map one id", "",
        "idmaps.write_file(in_new(C.CLONE_NEWUSER), 'uid_map', '0 100000 65536')", []),
    "groups before deny": (
        "EPERM", "without CAP_SETGID a gid_map needs", "",
        f"idmaps.write_file(in_new(C.CLONE_NEWUSER), 'gid_map', '0 {UID} 1')", []),
    "groups that are denied": (
        "EPERM", "this user namespace denies setgroups", "deny", "credentials.become(0, 0, (0,))", INNER),
    "somebody else": ("EPERM", "only root, in a pod its root", "CapEff:\t0000000000000000",
                      "plainly('setresuid', lambda: os.setresuid(0, 0, 0), 0)", []),
    "a hostname": ("EPERM", "the names of a UTS namespace are set by", "uts:[", "syscalls.sethostname('x')", []),
    "mounts": ("EPERM", "changing mounts needs CAP_SYS_ADMIN", "",
               "syscalls.mount_propagation('/', MountFlag.MS_PRIVATE)", []),
    "a root directory": ("EPERM", "chroot(2) needs CAP_SYS_CHROOT", "CapEff:", "plainly('chroot', lambda: os.chroot('/tmp'))", []),
    "a filter": ("EACCES", "a filter needs no_new_privs", "NoNewPrivs:\t0",
                 "syscalls.seccomp_filter(bytes.fromhex('06000000' '0000ff7f'), 0)", []),
    "a low port": ("EACCES", "low ports are for who has", "1024",
                   "listen.listen(listen.Forward('tcp', '127.0.0.1', 80, 80))", []),
    "a process of somebody else": ("EPERM", "signals go to processes of the same user", "Uid:\t0",
                                   "plainly('kill', lambda: os.kill(1, 0), 1, 0)", []),
}  # fmt: skip


def check(found, error: str, rule: str, shown: str) -> None:
    assert found["errno"] == error
    [applies] = applying(found)
    assert applies.startswith(rule), found
    assert shown in found["shown"][applies], found["shown"]
    assert applies in found["hint"] or found["hint"].partition("; see: ")[2]
    assert "; see: " in found["hint"]


@pytest.mark.parametrize("name", ROOT_ROWS)
def test_provoked(host, name):
    """Red when: the probe of that rule is turned round, or another rule of the call has the probe `always`."""
    error, rule, shown, code, before = ROOT_ROWS[name]
    check(provoke(host, code, before), error, rule, shown)


@pytest.mark.parametrize("name", USER_ROWS)
def test_provoked_by_an_ordinary_user(user_host, name):
    """Red when: lacks() in advice/case.py looks at another set of capabilities."""
    error, rule, shown, code, before = USER_ROWS[name]
    check(provoke(user_host, code, before), error, rule, shown)


def test_a_user_with_as_many_processes_as_he_may_have(host):
    """Red when: too_many_processes in advice/machine.py counts nsbox's own user only."""
    code = "resource.setrlimit(resource.RLIMIT_NPROC, (6, 40))\ntry:\n    while True:\n" \
           "        pid = syscalls.clone3(C(0), 17)\n        pid or signal.pause()\n        born.append(pid)\n" \
           "except OSError:\n    report_limit = resource.setrlimit(resource.RLIMIT_NPROC, (9, 40)); raise"
    found = provoke(host, code, user=ONE_USER)
    check(found, "EAGAIN", "the user has as many processes", "")


@pytest.mark.parametrize("how", ["a directory", "a mount"])
def test_in_a_chroot_no_user_namespace_is_made(host, how):
    """Where its root is a mount of its own, mountinfo does not tell: the kernel is asked for the real root.

    Red when: chrooted in advice/making.py trusts mountinfo alone, or enters no mount namespace.
    """
    top = host.work / "top"
    script = CHROOT.format(top=top)
    if how == "a mount":
        script = f"mkdir -p {top}; mount --rbind / {top}; exec chroot {top} \"$@\""
    found = provoke(host, "syscalls.unshare(C.CLONE_NEWUSER)", [*MOUNTS, "sh", "-ec", script, "sh"])
    check(found, "EPERM", "who is in a chroot", "")
    assert found["shown"][applying(found)[0]].splitlines()[-1].split()[-1] == "/"


def test_in_a_chroot_mounts_cannot_be_made_private(host):
    """Red when: _plain_root in advice/mounting.py takes any mount for one at /."""
    code = "syscalls.mount_propagation('/', MountFlag.MS_PRIVATE)"
    found = provoke(host, code, [*MOUNTS, "sh", "-ec", CHROOT.format(top=host.work / "top"), "sh"])
    check(found, "EINVAL", "the root directory here is no mount of its own", "")


# ---- the whole way: a verb that fails ----

MASKED = sh("mount -t tmpfs mask /proc/bus", *MOUNTS)
BECOME = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
NSBOX = [sys.executable, "-P", "-m", "nsbox"]


def masked(host: FakeHost, *words: str):
    """Run nsbox as the ordinary user where /proc is masked: the pause is refused, far from the command."""
    return host.run([*MASKED, *BECOME, *NSBOX, *words], user=0,
                    env={"XDG_RUNTIME_DIR": str(host.state.parent), "NSBOX_STATE": None})


def test_the_hint_is_the_rule_that_is_known_and_the_next_command(user_host):
    """Red when: _run in linux/process.py sends no scene, or hint in advice ignores what was proven."""
    done = masked(user_host, "create", "x")
    line, hint = done.stderr.splitlines()
    assert done.returncode == 125 and line.startswith("nsbox: cannot mount proc on /proc: ")
    assert hint.endswith("; see: findmnt -R /proc")


def test_explain_shows_every_rule_under_the_call_that_failed(user_host):
    """Red when: told_of in cli/advice.py does not show what it found."""
    done = masked(user_host, "create", "x", "--explain")
    assert done.returncode == 125
    said = done.stderr
    number = next(line.split()[1].rstrip(",") for line in said.splitlines() if line.startswith("call "))
    failed = next(line for line in said.splitlines() if line.split()[:1] == [number])
    assert " pause " in failed and ("fsconfig" in failed or "fsmount" in failed) and "EPERM" in said
    table = said[said.index("what can be the reason:"):]
    assert table.index("applies here        who sees only a masked /proc") < table.index("does not apply here")
    assert "over parts of /proc lie mounts: /proc/bus" in table and "$ findmnt -R /proc" in table
    assert "[user_namespaces(7)]" in table
    assert max(len(line) for line in table.splitlines()[:-2]) <= 120


def test_events_hold_the_rules_beside_the_call(user_host):
    """Red when: _event in cli/explain.py leaves them out, or gives them to another call."""
    file = user_host.work / "events"
    done = masked(user_host, "create", "x", "--events", str(file))
    assert done.returncode == 125 and len(done.stderr.splitlines()) == 2
    events = [json.loads(line) for line in file.read_text().splitlines()]
    [event] = [one for one in events if "advice" in one]
    assert event["error"] == "EPERM" and event["call"] in ("fsconfig", "fsmount")
    assert {"rule", "source", "verdict", "seen", "next"} == set(event["advice"][0])
    assert [one["rule"][:24] for one in event["advice"] if one["verdict"] == "applies here"] == ["who sees only a masked /"]
    file.unlink()


def test_what_is_not_known_is_said_to_be_learnt_elsewhere(user_host):
    """Red when: hint in advice says nothing, or says --explain to who has just used it; _run in linux/process.py sends
    no scene with an OSError, so that the rights of the command are taken for those of the pause."""
    words = [*filtered(165, 1), *NSBOX, "create", "x"]  # mount(2): a filter that is proven
    line, hint = user_host.run(words).stderr.splitlines()
    assert hint.startswith("hint: a seccomp filter ") and "; see: grep Seccomp" in hint
    words = [*filtered(170, 1), *NSBOX, "create", "x"]  # sethostname: it cannot be tried without harm
    line, hint = user_host.run(words).stderr.splitlines()
    assert "nsbox doctor" in hint and "--explain" in hint
    line, hint = user_host.run([*words, "--explain"]).stderr.splitlines()[-2:]
    assert line.startswith("nsbox: cannot ") and "nsbox doctor" in hint and "--explain" not in hint


def test_a_port_that_is_taken_names_who_to_ask(host):
    """Red when: listen in net/listen.py does not remember the port."""
    program = [sys.executable, "-c", "import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 8080)); s.listen()\n"
               "print('up', flush=True); time.sleep(60)"]  # fmt: skip
    other = host.popen(program)
    assert other.stdout.readline() == "up\n"
    line, hint = host.nsbox("create", "x", "-p", "8080:80").stderr.splitlines()
    assert line == "nsbox: cannot publish 127.0.0.1:8080: bind: Address already in use"
    assert hint.endswith("; see: sudo ss -lnpt 'sport = :8080'")
    shown = host.run(["sh", "-c", hint.partition("sudo ")[2]]).stdout
    assert "127.0.0.1:8080" in shown and "python" in shown
    other.end()


def test_success_loads_nothing_of_it(host):
    """Red when: front.py or explain.py imports advice at its top."""
    done = host.run([sys.executable, "-P", "-X", "importtime", "-m", "nsbox", "run", "--explain", "--", "true"], check=True)
    assert "nsbox.cli.explain" in done.stderr and "nsbox.explain.advice" not in done.stderr


# ---- nsbox explain error ----

def test_an_error_can_be_asked_about_without_having_it(host):
    """Red when: run in cli/advice.py gives the Case no arguments."""
    done = host.nsbox("explain", "error", "unshare", "EPERM", "CLONE_NEWUSER", check=True)
    assert done.stderr == "" and "who is in a chroot" in done.stdout and "[unshare(2)]" in done.stdout
    assert "applies here   " not in done.stdout and "CAP_SYS_ADMIN" not in done.stdout
    done = host.run([*BECOME, *NSBOX, "explain", "--json", "error", "unshare", "EPERM", "CLONE_NEWNET"], check=True)
    [proven] = [row for row in json.loads(done.stdout) if row["verdict"] == "applies here"]
    assert "CAP_SYS_ADMIN" in proven["rule"] and proven["source"] == "capabilities(7)"


@pytest.mark.parametrize("words, rule", [
    (["pivot_root", "EINVAL", "/run"], "passes mounts on (shared)"),
    (["mount", "ENODEV", "nosuchfs"], "no such type"),
    (["uid_map", "EINVAL", "0 0 5\n3 9 1"], "none overlaps another"),
    (["setresuid", "EINVAL", "4294967290"], ""),
    (["setns", "EINVAL", "1", "CLONE_NEWUSER"], "nobody enters the user namespace"),
    (["bind", "EADDRNOTAVAIL", "192.0.2.7:80"], "no interface of this network namespace"),
    (["bind", "EADDRNOTAVAIL", "[::1]:80/udp"], ""),
], ids=str)  # fmt: skip
def test_arguments_may_be_given(host, words, rule):
    """Red when: arguments in advice/given.py puts them where the rules do not look."""
    done = host.nsbox("explain", "--json", "error", *words, check=True)
    found = [row["rule"] for row in json.loads(done.stdout) if row["verdict"] == "applies here"]
    assert len(found) == bool(rule) and rule in "".join(found)


def test_the_rules_are_listed(host):
    """Red when: advice in its __init__ leaves out one of the modules of rules."""
    done = host.nsbox("explain", "error", check=True)
    assert {"unshare", "setns", "mount", "bind"} <= {line.split()[0] for line in done.stdout.splitlines()}
    done = host.nsbox("explain", "--json", "error", "setns", check=True)
    rows = json.loads(done.stdout)
    assert {"EINVAL", "EPERM", "ESRCH"} <= {row["errno"] for row in rows} and all(row["source"] for row in rows)


@pytest.mark.parametrize("words", [["nosuch"], ["unshare", "ENOSUCH"], ["unshare", "strerror"], ["unshare", "EPERM", "CLONE_X"],
                                   ["setns", "EINVAL", "one"], ["bind", "EACCES", "1:99999"],
                                   ["setns", "EINVAL", "9" * 5000], ["uid_map", "EPERM", "0 0 1", "x"]],
                         ids=str)  # fmt: skip
def test_what_is_no_error_is_refused(host, words):
    """Red when: _call or _errno in cli/advice.py takes anything."""
    done = host.nsbox("explain", "error", *words)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("nsbox: cannot "), done


def test_a_name_on_the_way_steers_neither_terminal_nor_shell(host):
    """Who may mount gives names, and others type what is proposed. Red when: _no_mount_point proposes the bare path;
    run in cli/advice.py prints it as it is."""
    done = host.nsbox("explain", "error", "pivot_root", "EINVAL", "/run/a\x1b[2J;touch x", check=True)
    assert "\x1b" not in done.stdout and "$ findmnt '/run/a\\x1b[2J;touch x'" in done.stdout
