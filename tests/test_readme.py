"""The README is true: its commands are run in a fake host, one after the other, and answer as it says.

In a block marked console, "$ " begins a command; what follows is its output. PIDs, sizes and
times differ from run to run, so digits of the output match any digits, and widths any widths; an id
of a network, in the name of its bridge and in its IPv6 subnet, matches any id.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakehost import NSBOX, FakeHost

README = Path(__file__).parent.parent / "README.md"
STORE = "/var/lib/nsbox/rootfs"
_MARK = "@@next command@@"
_VARIES = r"(?<=^nsb)[0-9a-f]{8}|(?<=6f78:)[0-9a-f]+|\d+"

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(300)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """(command, its output as the README has it), in order."""
    found: list[tuple[str, str]] = []
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, said = found[-1]
                found[-1] = command, said + line + "\n"
    return found


def as_pattern(said: str) -> str:
    """A regular expression for `said`: any number for a number, any spaces for spaces."""
    lines = []
    for line in said.splitlines():
        words = [re.sub(_VARIES, lambda found: r"\d+" if found[0].isdigit() else "[0-9a-f]+", re.escape(word))
                 for word in line.split()]
        lines.append(r"[ ]*" + r"[ ]+".join(words) + r"[ ]*\n")
    return "".join(lines)


def script(tmp: str) -> str:
    """All commands for one shell, with a mark before each; stderr goes where stdout goes.

    Their files are in the directory `tmp`: in /tmp of the machine another run would find them.
    """
    python = " ".join(NSBOX)
    lines = [f"nsbox() {{ {python} \"$@\"; }}", 'sudo() { "$@"; }', "exec 2>&1", "set +m"]
    for command, _ in steps():
        lines += [f"echo '{_MARK}'", command.replace(" /tmp/", f" {tmp}/")]
    return "\n".join(lines) + "\n"


def test_every_console_command_of_the_readme_answers_as_it_says(host: FakeHost) -> None:
    wanted = steps()
    assert len(wanted) > 25
    done = host.run(["bash", "-c", script(str(host.work))], timeout=280)
    answers = done.stdout.split(_MARK + "\n")[1:]
    assert len(answers) == len(wanted), done.stdout
    for (command, said), answer in zip(wanted, answers, strict=True):
        real = answer.replace(str(host.store), STORE)
        assert re.fullmatch(as_pattern(said), real), f"$ {command}\nREADME:\n{said}\nreally:\n{real}"


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_example_of_the_readme_runs(host: FakeHost, code: str) -> None:
    done = host.python(code, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_the_readme_lists_every_verb_and_every_verb_is_in_the_readme() -> None:
    done = subprocess.run([*NSBOX, "--help"], capture_output=True, text=True, check=True)
    verbs = set(re.findall(r"^    ([a-z]+)(?:  |$)", done.stdout, re.MULTILINE))
    assert len(verbs) > 10
    [section] = re.findall(r"^## Commands$(.*?)^## ", README.read_text(), re.MULTILINE | re.DOTALL)
    documented = set(re.findall(r"`(?:nsbox )?([a-z]+)\b[^`]*`", section.split("**Exit")[0].split("|---|---|")[1]))
    assert verbs <= documented, verbs - documented


def test_the_scripts_that_the_readme_names_are_there() -> None:
    for name in re.findall(r"(?:^|sudo )(scripts/[a-z-]+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert (README.parent / name).stat().st_mode & 0o111, name
    assert sys.version_info >= (3, 11)
