"""What a caller may have left: locale, umask, directory, closed or full stdio, few descriptors."""

import os
import shutil
import sys

import pytest
from fakehost import NSBOX

from nsbox.cli import front

pytestmark = pytest.mark.needs_root

LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX"},
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "tr_TR.UTF-8"},
    {"LC_ALL": "no_SUCH"},
    {"PYTHONIOENCODING": "utf-8:strict"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONUTF8": "1"},
    {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"},
]
RAW = b"\xff\xfe \xc3\xa9 \x80"


@pytest.fixture
def web(host):
    """A host with a pod "web" of busybox."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", check=True)


@pytest.fixture
def shell(web):
    """Run a script; `nsbox` in it is the command."""

    def run(script, **kw):
        head = "nsbox() { " + f"{sys.executable} -P -m nsbox" + ' "$@"; }\n'
        return web.run(["bash", "-c", head + script], **kw)

    return run


@pytest.mark.parametrize(
    "locale", LOCALES, ids=lambda env: " ".join(f"{key}={value}" for key, value in env.items())
)
def test_H08_bytes_in_are_bytes_out(web, locale):
    """Arguments, variables and standard streams; messages spell them, in one line.

    Red when: _open_stdio does not set errors="backslashreplace": a strict stdout raises.
    """

    def nsbox(*words):
        return web.nsbox(*words, text=False, env=locale)

    assert nsbox("join", "web", "--", "printf", "%s", RAW).stdout == RAW
    assert nsbox("join", "web", "-e", b"A=" + RAW, "--", "sh", "-c", 'printf %s "$A"').stdout == RAW
    assert (
        nsbox(
            "run",
            "--rootfs",
            "busybox",
            "--tmpfs",
            b"/" + RAW,
            "--",
            "sh",
            "-c",
            "cd /\xff*; pwd".encode("latin-1"),
        ).stdout
        == b"/" + RAW + b"\n"
    )
    assert (
        nsbox(
            "join", "-d", "web", "--", "sh", "-c", "exec -a x sleep 1000; sleep 1000", RAW
        ).returncode
        == 0
    )
    for words in (
        ["ps", "web"],
        ["ps", "--json", "web"],
        ["inspect", "web"],
        ["inspect", "--json", "web"],
        ["ls"],
    ):
        done = nsbox(*words)
        assert (done.returncode, done.stderr) == (0, b""), done
        assert (
            b"\xff" not in done.stdout
            and b"\xfe" not in done.stdout
            or b"latin" in str(locale).encode()
        )
    for status, words in (
        (127, ["join", "web", "--", b"no" + RAW]),
        (2, ["inspect", b"w" + RAW]),
        (2, ["create", "é"]),
        (2, [RAW]),
        (2, ["create", b"--" + RAW]),
        (125, ["run", "-v", b"/nope" + RAW + b":/mnt", "--", "true"]),
        (125, ["join", "web", "-w", b"/nope" + RAW, "--", "true"]),
        (125, ["create", "--rootfs", b"./" + RAW]),
        (125, ["join", "web", "--env-file", RAW, "--", "true"]),
    ):
        done = nsbox(*words)
        lines = done.stderr.split(b"\n")
        assert done.returncode == status and lines[0].startswith(b"nsbox: cannot "), done
        assert len(lines) <= 3 and b"bug" not in done.stderr, done


def test_H08_a_byte_that_is_no_text_is_spelled_in_one_form(web):
    """As \\xff, by every verb, in what it answers and in what it refuses.

    Red when: NsboxError leaves what repr() made of it; or a stream has Python's own backslashreplace.
    """
    raw = b"no-\xff-\xfe"
    store = web.work / os.fsdecode(raw)
    shutil.copytree(web.store, store, symlinks=True)
    web.nsbox("join", "web", "-d", "--", "sh", "-c", "exec -a x sleep 1000; sleep 1000", raw, check=True)
    given = {"rootfs": [["rootfs", "build", raw], ["rootfs", "rm", raw]], "net": [["net", "rm", raw], ["net", "link", "web", raw]],
             "completion": [["completion", raw]], "why": [["why", raw, "web"], ["why", "web", raw]],
             "doctor": [["doctor", raw]], "ls": [["ls", raw]], "prune": [["prune", raw]], "publish": [["publish", "web", raw]], "unpublish": [["unpublish", "web", raw]],
             "xlate": [["xlate", "path", raw], ["xlate", "path", b"/" + raw, "--from", "web"], ["xlate", "pid", "1", "--from", raw]],
             "explain": [["explain", raw], ["explain", "error", raw], ["explain", "create", raw]],
             "map": [["map", raw], ["map", "--only", raw], ["map", "--diff", raw], ["map", "-o", b"/none/" + raw]],
             "create": [["create", raw], ["create", "--rootfs", b"./" + raw], ["create", "--hostname", raw], ["create", "--sysctl", raw]],
             "join": [["join", raw, "--", "true"], ["join", "web", "--", raw], ["join", "web", "-w", b"/" + raw, "--", "true"]],
             "run": [["run", "-v", b"/" + raw + b":/mnt", "--", "true"], ["run", "--env-file", raw, "--", "true"], ["run", "--", raw],
                     ["run", "--seccomp", b"./" + raw, "--", "true"]]}  # fmt: skip
    for verb in front.VERBS:
        for words in given.get(verb, [[verb, raw]]):
            done = web.nsbox(*words, text=False)
            assert done.returncode in (2, 125, 126, 127) and done.stdout == b"", (words, done)
            assert b"\\xff-\\xfe" in done.stderr and b"udc" not in done.stderr and done.stderr.isascii(), (words, done)
    for words in (["ps", "web"], ["rootfs", "ls"], ["explain", "join", "web", "--", raw], ["explain", "--sh", "join", "web", "--", "true", raw],
                  ["kill", "--check", "web"], ["map"], ["map", "--svg"], ["map", "--html"], ["map", "--dot"]):  # fmt: skip
        done = web.nsbox(*words, text=False, env={"NSBOX_STORE": os.fsdecode(store)})
        assert done.returncode == 0 and b"udc" not in done.stdout + done.stderr, (words, done)


def test_H09_big_arguments_pass_or_are_refused_by_execve(web):
    """Red when: the argument goes to a supervisor through its argv, or E2BIG is a traceback."""
    count = ["sh", "-c", 'printf %s "$1" | wc -c', "sh"]
    for size in (100_000, 131_071):
        assert web.nsbox("join", "web", "--", *count, "x" * size).stdout.split() == [str(size)]
        assert (
            web.nsbox(
                "run", "-e", "A=" + "x" * (size - 2), "--", "sh", "-c", 'printf %s "A=$A" | wc -c'
            ).stdout
            == f"{size}\n"
        )
    # The kernel refuses these at the command itself, so they reach nsbox from a program.
    for words in (
        "['join', 'web', '--', 'true', 'x' * 131072]",
        "['join', 'web', '--', 'true'] + ['x' * 100000] * 30",
        "['join', '-e', 'A=' + 'x' * 131070, 'web', '--', 'true']",
    ):
        done = web.python(f"import sys; from nsbox.cli import main; sys.exit(main({words}))")
        assert done.returncode == 126, done.stderr
        assert done.stderr.startswith(
            "nsbox: cannot run 'true': execve: Argument list too long\nhint: "
        ), done.stderr


@pytest.mark.parametrize("umask", ["000", "077", "777"])
def test_H11_the_caller_s_umask_changes_nothing(web, umask, shell):
    """Red when: clean.begin leaves the umask; or execute does not set it for the member."""
    done = shell(f"""umask {umask}
        nsbox create u --rootfs busybox >/dev/null || exit
        nsbox join u -- sh -c 'umask; stat -c "%a %n" / /dev /dev/null /dev/shm /dev/pts /proc'
        nsbox join -d u -- sh -c 'echo said; touch /tmp/made; stat -c %a /tmp/made' >/dev/null
        nsbox wait u; nsbox logs u
        find $NSBOX_STATE -type d -printf '%m\n' | sort -u
        find $NSBOX_STATE -type f -printf '%m\n' | sort -u
        nsbox rm u""")
    assert done.stderr == "" and done.stdout.split("\n") == [
        "0022",
        "755 /",
        "755 /dev",
        "666 /dev/null",
        "1777 /dev/shm",
        "755 /dev/pts",
        "555 /proc",
        "0",
        "said",
        "644",
        "700",
        "600",
        "",
    ], done


def test_H11_a_deleted_or_closed_directory_is_no_obstacle(shell):
    """Red when: the front or a spec asks os.getcwd()."""
    done = shell("""mkdir /run/gone; cd /run/gone; rmdir /run/gone
        nsbox create gone --rootfs busybox >/dev/null
        nsbox join gone -- pwd; nsbox run -- pwd; nsbox rm gone
        nsbox run --rootfs ./x -- true; echo $?; nsbox run -v ./a:/mnt -- true; echo $?
        mkdir -m 0 /run/shut; cd /run/shut; nsbox run -- pwd; cd /; rmdir /run/shut""")
    assert done.stdout.split() == ["/", "/", "125", "2", "/"], done
    assert [line[:23] for line in done.stderr.splitlines()] == [
        "nsbox: cannot use rootf",
        "nsbox: cannot use volum",
    ]


def test_H11_nothing_of_the_environment_is_needed(web):
    """Red when: something reads os.environ["HOME"]."""
    for env in (
        ["env", "-i"],
        ["env", "-u", "HOME", "-u", "PATH", "-u", "TERM", "-u", "LANG"],
        ["env", "HOME=/nope", "PATH=/nope", "TERM=\x1b", "TMPDIR=/nope"],
    ):
        done = web.run([*env, *NSBOX, "run", "--", "env"])
        assert (done.returncode, done.stderr) == (0, ""), done
        assert {line.partition("=")[0] for line in done.stdout.splitlines()} == {
            "PATH",
            "HOME",
            "LANG",
            "container",
        }


def test_H12_python_s_variables_do_no_harm(web):
    env = {
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    assert web.nsbox("join", "web", "--", "echo", "x", env=env).stdout == "x\n"
    for words in (["create", "../x"], ["join", "web", "--"], ["ls", "x"]):
        assert web.nsbox(*words, env=env).returncode == 2
    assert web.nsbox("create", "--help", env=env).returncode == 0


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_G09_closed_stdio_is_null_to_us_and_to_the_pod(web, shell, closed):
    """Red when: clean._open_stdio does not open /dev/null: a record or a rootfs becomes stdin.

    Or when it leaves sys.stdout None: AttributeError at the first flush.
    """
    done = shell(script_closed(closed))
    assert done.returncode == 0
    log = (web.work / "log").read_text().split()
    fds, statuses = [word for word in log if not word.isdigit()], [
        int(word) for word in log if word.isdigit()
    ]
    assert statuses == [0, 0, 0, 0, 0, 0, 0, 2, 0], (statuses, done)
    wanted = ["/dev/null" if mark in closed.split() else "pipe" for mark in ("<&-", ">&-", "2>&-")]
    wanted[0] = "/dev/null"
    found = ["pipe" if fd.startswith("pipe:") else fd for fd in fds]
    assert found[:3] == [wanted[0], "/dev/shm/fds", wanted[2]], (fds, closed)
    assert "Traceback" not in done.stderr and "bug" not in done.stderr, done.stderr
    if "2>&-" not in closed:
        assert done.stderr.count("nsbox: cannot") == 1


def script_closed(closed: str) -> str:
    look = "for n in 0 1 2 3 4 5 6 7; do readlink /proc/self/fd/$n; done > /dev/shm/fds; true"
    return f"""cd "$HOME"; : > log
        nsbox create c --rootfs busybox {closed}; echo $? >> log
        nsbox join c -- sh -c '{look}' {closed}; echo $? >> log
        nsbox join c -- cat /dev/shm/fds >> log
        nsbox join -d c -- sleep 1000 {closed}; echo $? >> log
        for words in ls 'ps c' 'inspect c' --help; do nsbox $words {closed}; echo $? >> log; done
        nsbox create .. {closed}; echo $? >> log
        nsbox rm c {closed}; echo $? >> log"""


def test_G15_nobody_reads_the_answer(shell):
    """Red when: the front leaves what was buffered to Python's own last flush."""
    done = shell(
        """for words in ls 'ls --json' 'inspect web' --help 'completion bash' 'create --help'; do
            nsbox $words | true; echo ${PIPESTATUS[0]}; done
        nsbox ls | head -1"""
    )
    lines = done.stdout.split("\n")
    assert set(lines[:6]) <= {"0", "141"} and lines[6].startswith("NAME"), done
    assert done.stderr == ""


def test_G15_a_full_device_is_an_error_and_what_cannot_be_told_is_undone(web, shell):
    """Red when: create leaves its pod behind although nobody learned the PID."""
    done = shell(
        """for words in ls 'ls --json' 'ps web' --help 'completion zsh' \\
            'create full' 'join -d web sleep 1000' 'create full --json'
        do nsbox $words >/dev/full; echo $?; done"""
    )
    assert done.stdout.split() == ["125"] * 8, done
    assert done.stderr == "nsbox: cannot write the answer to stdout: No space left on device\n" * 8
    done = shell("nsbox create .. 2>/dev/full; echo $?; nsbox rm nobody 2>/dev/full; echo $?")
    assert (done.stdout.split(), done.stderr) == (["2", "125"], "")
    assert web.nsbox("ls", "-q").stdout == "web\n"
    assert "sleep" not in web.nsbox("ps", "web").stdout


def test_H13_few_descriptors_are_refused_before_anything_is_made(web, shell):
    """Red when: clean.begin does not count what is free: a broken record is left behind."""
    done = shell(
        """for n in 6 12 24 40; do
            for words in 'create few --rootfs busybox' 'join web true' 'run -- true'; do
            (ulimit -Sn $n; nsbox $words >/dev/null; echo $n $?); nsbox rm -f few; done; done"""
    )
    for line in done.stdout.splitlines():
        few, status = map(int, line.split())
        assert status == (125 if few < 27 else 0), done
    for line in done.stderr.splitlines():
        assert (
            line.startswith("nsbox: cannot work with ")
            or line == "hint: raise the limit, as with: ulimit -n 1024"
        ), line
    assert web.nsbox("ls", "-q").stdout == "web\n"


def test_H13_a_huge_limit_costs_no_time(web):
    """Red when: something closes descriptors one by one up to the limit."""
    code = """
import resource, subprocess, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
start = time.monotonic()
subprocess.run([sys.executable, "-P", "-m", "nsbox", "join", "web", "--", "true"], check=True)
assert time.monotonic() - start < 5
"""
    assert web.python(code).returncode == 0
