"""Words on the command line: a bad one gets one line and the right status."""

import json
import os
import re
import shlex
import shutil

import pytest
from conftest import needs_program
from manywords import run_each

from nsbox.cli import front

pytestmark = pytest.mark.needs_root

POD_VERBS = ("inspect", "ps", "logs", "wait", "stop", "kill", "rm")
# fmt: off
BAD_NAMES = (
    "../x", "/x", ".", "..", "a/b", "a%2fb", "", "-rf", ".hidden", "a b", "a\nb", "\x1b[31m", "é", "ｅ",
    "CON", "a" * 64, "a" * 255, "a" * 256, "a\0b", "a" * 10_000, b"a\xffb", "\u202ea", "５",
    "1" * 30 + "x/..",
)
# fmt: on
UNKNOWN_PIDS = ("0", "4194305", "99999999", "9" * 40, "9" * 5000)


@pytest.fixture(scope="module")
def quiet(request):
    """One fake host for the words that must do nothing: it is compared once, at the end."""
    from conftest import FakeHost, unchanged

    base, store = request.getfixturevalue("base"), request.getfixturevalue("store")
    yield from unchanged(FakeHost(base, store=store))


def refused(done, status: int = 2) -> str:
    """The one line, and at most one hint, of a command that said no."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("nsbox: cannot "), done.stderr
    assert len(lines) == 1 or len(lines) == 2 and lines[1].startswith("hint: "), done.stderr
    assert all(line.isprintable() and not line.endswith(".") for line in lines), done.stderr
    assert len(lines[0]) < 300, lines[0]
    return lines[0]


# ---- names and PIDs ----


@pytest.mark.parametrize("verb", ["create", "join", "run", *POD_VERBS])
def test_H01_no_verb_takes_a_bad_name(quiet, verb):
    """Red when: name_fault in spec.py allows a slash; or a verb does not come by check_name."""
    forms = {
        "run": lambda name: ["run", "--name=" + name, "--", "true"],
        "create": lambda name: ["create", "--", name],
        "join": lambda name: ["join", name, "--", "true"],
    }
    form = forms.get(verb, lambda name: [verb, "--", name])
    lines = [
        form(name)
        for name in map(os.fsdecode, BAD_NAMES)
        if verb not in ("join", "create") or name[:1] != "-"
    ]
    for done in run_each(quiet, lines):
        refused(done)


def test_H01_a_name_of_a_record_is_checked_when_it_is_read_back(host):
    """Red when: store.look() opens what it is told without _checked()."""
    host.nsbox("create", "web", check=True)
    host.run(
        ["sh", "-c", "cp -r $NSBOX_STATE/pods/web '/run/x y' && mv '/run/x y' $NSBOX_STATE/pods/"],
        check=True,
    )
    assert "corrupt" in host.nsbox("ls", check=True).stdout
    for verb in POD_VERBS:
        refused(host.nsbox(verb, "x y"))
    host.run(["sh", "-c", "rm -r $NSBOX_STATE/pods/'x y'"], check=True)
    host.nsbox("rm", "web", check=True)


@pytest.mark.parametrize("verb", ["join", *POD_VERBS])
def test_H01_an_unknown_pod_or_pid_is_named(quiet, verb):
    """Red when: target.find takes an OverflowError of pidfd_open for its own."""
    command = ("--", "true") if verb == "join" else ()
    nobody, *numbers = run_each(
        quiet, [[verb, target, *command] for target in ("nobody", *UNKNOWN_PIDS)]
    )
    assert "'nobody'" in refused(nobody, 125)
    for pid, done in zip(UNKNOWN_PIDS, numbers, strict=True):
        assert pid[:20] in refused(done, 2 if verb in ("stop", "rm") else 125)


def test_H01_a_number_is_no_name(quiet):
    for name in ("0", "12", "007"):
        refused(quiet.nsbox("create", name))
    assert "it is a PID" in refused(quiet.nsbox("rm", "-f", "12"))


# ---- options, and what looks like one ----

BAD_WORDS = """
creat | help | --foo | -x ls | --debugg | create --privi | create --root busybox | create -z |
create a b | create --rootfs | create x --rootfs=/no --debug | create x -- true |
create -- true | create x --with foo | create x --share foo | create x --share pid,+net |
create x --stop-timeout -1 | create x --stop-timeout nan | create x --stop-timeout 1e3 |
create x --label foo | create x --label =x | create x --init= | create x --init=' |
create x --monotonic abc | create x --monotonic 1_0 | create x --pause foo | create x -v foo |
create x --in-place | create x --chroot | create x --read-only | create x --tmpfs foo |
create x --mount type=bind | create x --hostname -a | create x -v /a:/b -v /c:/b | join |
join web | join web -- | join -- true | join web --foo -- true | join web --foo true |
join web -t -- true | join web -d -t -- true | join web -t -T -- true |
join web --json -- true | join web -e =x -- true | join web -e= -- true |
join web --env-file -- true | join web --share foo -- true | run | run -- |
run --foo -- true | run --name a/b -- true | run -e =x -- true | ls foo | ls -- foo |
ls --jso | inspect | inspect -- | ps | logs | logs web web | wait | stop | stop web -t x |
stop web -t -1 | kill | kill -s FOO web | kill -s 0 web | kill -s 65 web | kill -s= web |
kill -s | rm | rm -f | rm --foo web | prune x | completion | completion tcsh | rootfs |
rootfs foo | rootfs --foo | rootfs rm
"""  # one command line between two bars


def test_H20_bad_words_get_one_line_and_status_2(host):
    """Also H02: nothing after a wrong word is taken for something else.

    Red when: allow_abbrev is left out (--privi, --root), or the front ignores what follows "--".
    """
    host.nsbox("create", "web", check=True)
    before = host.nsbox("ls", "--json").stdout
    for done in run_each(host, [words.split() for words in BAD_WORDS.split("|")]):
        try:
            refused(done)
        except AssertionError as err:
            raise AssertionError(f"nsbox {' '.join(done.args)}") from err
    assert host.nsbox("ls", "--json").stdout == before
    host.nsbox("rm", "web", check=True)


def test_hints_lead_to_the_right_help(quiet):
    """Red when: a verb's unknown option is reported by the parser of all verbs."""
    assert "see: nsbox create --help" in quiet.nsbox("create", "--foo").stderr
    assert "did you mean: nsbox create" in quiet.nsbox("crate").stderr
    assert "nsbox --debug VERB" in quiet.nsbox("ls", "--debug").stderr
    assert "./DIR" in quiet.nsbox("create", "--rootfs", "nosuch").stderr


def test_H02_the_users_command_is_never_parsed(host):
    """Red when: _split_command cuts at the last "--"."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    for command in (["--help"], ["-x"], ["--", "x"], ["-d"], ["--version"]):
        done = host.nsbox("join", "web", "--", *command)
        assert (done.returncode, done.stdout) == (127, ""), (command, done.stderr)
        assert f"cannot run '{command[0]}'" in done.stderr
    words = ["echo", "--", "-d", "--help", "--", "", "a b", "$HOME", "*", "--json"]
    for head in (
        ["join", "web"],
        ["run", "--rootfs", "busybox"],
        ["join", "web", "-e=1", "-w", "/"],
    ):
        assert host.nsbox(*head, "--", *words).stdout == " ".join(words[1:]) + "\n"
    assert host.nsbox("join", "web", "ls", "-d", "/").stdout == "/\n"
    assert "after --" in host.nsbox("join", "web", "echo", "--", "x").stderr
    host.nsbox("rm", "--", "web", check=True)


def test_H10_no_command_is_wrong_use(host):
    """Red when: member_argv lets an empty first word pass."""
    host.nsbox("create", "web", check=True)
    for words in (
        ["join", "web", "--"],
        ["join", "web", "--", ""],
        ["join", "web"],
        ["run"],
        ["run", "--"],
        ["run", "--", ""],
        ["join", "-d", "web", "--"],
    ):
        assert "there is no command" in refused(host.nsbox(*words)) or words == ["join", "web"]
    refused(host.nsbox("create", "x", "--init", "''"))
    done = host.python("import sys; sys.argv = []; from nsbox.cli import main; sys.exit(main())")
    assert done.returncode == 2 and "usage: nsbox" in done.stderr
    host.nsbox("rm", "web", check=True)


@pytest.mark.parametrize(
    "status, script",
    [
        (0, "true"),
        (1, "false"),
        (42, "exit 42"),
        (125, "exit 125"),
        (126, "exit 126"),
        (127, "exit 127"),
        (255, "exit 255"),
        (137, "kill -9 $$"),
        (143, "kill -15 $$"),
        (129, "kill -1 $$"),
    ],
)
def test_the_exit_status_is_the_member_s_own(quiet, status, script):
    """Red when: exit_status_of adds 128 to 0 too."""
    done = quiet.nsbox("run", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize(
    "status, command",
    [(127, "no-such-program"), (127, "/no/such"), (126, "/etc"), (126, "/etc/passwd")],
)
def test_a_command_that_cannot_be_run_is_126_or_127(quiet, status, command):
    refused(quiet.nsbox("run", "--", command), status)


# ---- help, completion, JSON ----


@pytest.mark.parametrize("verb", front.VERBS)
def test_every_verb_has_help_with_an_example_of_it(quiet, verb):
    """Red when: a verb's parser has no epilog."""
    for option in ("--help", "-h"):
        done = quiet.nsbox(verb, option)
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.startswith(f"usage: nsbox {verb}")
        example = done.stdout.partition("\nexample:\n")[2]
        assert re.search(rf"nsbox {verb}\b", example), done.stdout
        assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert re.search(rf"^    {verb}\s", quiet.nsbox("--help").stdout, re.MULTILINE)


def test_nsbox_alone_prints_the_help_on_stderr(quiet):
    done = quiet.nsbox()
    assert (done.returncode, done.stdout) == (2, "") and "VERB --help" in done.stderr
    assert quiet.nsbox("--version").stdout.startswith("nsbox ")


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
nsbox() { [ "$*" = "ls -q" ] && echo web; }
_nsbox; printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_completions_are_scripts_that_complete(quiet):
    """Red when: the template's case has no ;; or names no verb, choice or pod; a quote is left out of fish's."""
    for shell in ("bash", "zsh", "fish"):
        script = quiet.scratch / shell
        script.write_text(quiet.nsbox("completion", shell, check=True).stdout)
        if shutil.which(shell):
            quiet.run([shell, "-n", script], check=True)
    # Their quoting is that of sh too, so it is looked at where there is no fish; zsh takes bash's after its head.
    function, end, lines = (quiet.scratch / "fish").read_text().partition("end\n")
    assert function.startswith("function __nsbox_explains_error\n") and end
    for line in lines.splitlines():
        assert shlex.split(line)[:3] == ["complete", "-c", "nsbox"], line
    assert (quiet.scratch / "zsh").read_text().endswith((quiet.scratch / "bash").read_text())

    def complete(*words):
        return quiet.run(
            ["bash", "-c", COMPLETE, "bash", quiet.scratch / "bash", *words], check=True
        ).stdout.split()

    needs_program("bash")
    assert complete("nsbox", "") == list(front.VERBS)
    assert complete("nsbox", "cr") == ["create"]
    assert complete("nsbox", "rm", "") == [*complete("nsbox", "rm", "-"), "web"]
    assert {"--rootfs", "--volume", "--init"} <= set(complete("nsbox", "create", "--"))
    assert complete("nsbox", "rootfs", "b") == ["build"]
    assert complete("nsbox", "completion", "z") == ["zsh"]
    # Red when: the words after "explain error" are those of any verb, or options before it are counted.
    assert complete("nsbox", "explain", "e") == ["error"]
    assert complete("nsbox", "explain", "c") == ["create"]
    assert complete("nsbox", "explain", "error", "unsh") == ["unshare"]
    assert "uid_map" in complete("nsbox", "explain", "--json", "error", "")
    assert complete("nsbox", "explain", "--json", "error", "unshare", "EPE") == ["EPERM"]
    assert "web" in complete("nsbox", "explain", "error", "setns", "EPERM", "")
    assert "-a 'unshare" not in lines and " unshare " in lines and " EPERM " in lines


def test_json_of_every_verb_that_answers_parses(host):
    """Red when: a verb prints anything but JSON on stdout with --json."""

    def answer(*words):
        return json.loads(host.nsbox(*words, check=True).stdout)

    made = answer("create", "web", "--json", "--rootfs", "busybox", "--label", "a=é\x1b")
    assert made["name"] == "web" and host.host_pid(made["pid"])
    assert [row["name"] for row in answer("ls", "--json")] == ["web"]
    assert [about["name"] for about in answer("inspect", "--json", "web", str(made["pid"]))] == [
        "web",
        "web",
    ]
    assert answer("ps", "--json", "web")[0]["pid"] == made["pid"]
    started = answer("join", "-d", "--json", "web", "--", "sh", "-c", "exit 3")
    assert answer("wait", "--json", "web") == [
        {"pod": "web", "pid": started["pid"], "exit_status": 3}
    ]
    assert [entry["name"] for entry in answer("rootfs", "ls", "--json")] == ["busybox"]
    host.nsbox("stop", "web", check=True)
    assert answer("prune", "--json") == ["web"]
    assert answer("ls", "--json") == answer("prune", "--json") == []
