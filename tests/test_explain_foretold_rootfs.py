"""--dry-run of rootfs build and rm: a plan, held against what the real command that follows tells of itself.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re
from collections.abc import Iterator

import pytest
from fakehost import PATH, UID, FakeHost

pytestmark = pytest.mark.needs_root

IDS = re.compile(r"(?<=-)[0-9a-f]{8}\b")  # of a build, made up anew each time
PACKAGE = re.compile(r"busybox-static_[\w.*]+deb")  # its version is not known before
# A busybox that needs a loader, so that another one is downloaded; and Debian's tools for that.
TOOLS = {
    "busybox": "true",
    "apt-get": "cp /usr/bin/busybox busybox-static_1.2_all.deb",
    "dpkg-deb": 'mkdir -p "$3/bin"; cp "$2" "$3/bin/busybox"; chmod 755 "$3/bin/busybox"',
}
MMDEBSTRAP = """root=$(echo "$@" | tr ' ' '\\n' | grep -E '/(entry/rootfs|work/stage)$')
mkdir -p "$root/etc/apt/apt.conf.d" "$root/etc/apt/sources.list.d" "$root/nsbox/result" """
RECIPE = "[rootfs]\nkind = mmdebstrap\nsuite = sid\nslim = yes\n[stage]\nscript = build\ninclude = gcc\nlend = npm\n"


@pytest.fixture(params=[0, UID], ids=["root", "user"])
def empty_host(base, request) -> Iterator[FakeHost]:
    """A fake host with an empty store."""
    with FakeHost(base, uid=request.param) as host:
        yield host


def tools(host: FakeHost, **scripts: str) -> dict[str, str]:
    """Programs of these names that come first on the PATH: the variables for that."""
    folder = host.work / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh -e\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{PATH}"}


def told(host: FakeHost, env: dict[str, str], *words: str) -> tuple[int, str, list[tuple[object, ...]]]:
    """Its status, why it failed, and what it told: who did what, what for, and the same by hand."""
    file = host.work / "events"
    done = host.nsbox("rootfs", words[0], "--events", file, *words[1:], env=env)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    said = [line for line in done.stderr.splitlines() if done.returncode and line.startswith("nsbox: ")]
    steps = [(one["task"], one["who"], *map(plain, (one["text"], one["by_hand"])), one["doing"], one["why"], one["man"],
              one["child"]) for one in events]  # fmt: skip
    return done.returncode, "".join(said[-1:]), steps


def plain(value: object) -> str:
    return PACKAGE.sub("PACKAGE", IDS.sub("ID", str(value)))


def foretold_as_done(host: FakeHost, env: dict[str, str], *words: str) -> list[tuple[object, ...]]:
    before, files = host.snapshot(), sorted(host.scratch.rglob("*"))
    foretold = told(host, env, words[0], "--dry-run", *words[1:])
    (host.work / "events").unlink()
    host.assert_same_as(before)
    assert sorted(host.scratch.rglob("*")) == files
    done = told(host, env, *words)
    (host.work / "events").unlink()
    assert foretold == done, words
    return done[2]


def test_a_build_of_busybox_is_foretold_as_it_is_done(empty_host):
    """And its removal, what replaces it, and what cannot be.

    Red when: of_build() tells the last rename alone; or of_removal() does not look whether there is such an entry.
    """
    assert len(foretold_as_done(empty_host, {}, "build", "busybox")) == 5
    assert foretold_as_done(empty_host, {}, "build", "busybox") == []
    assert len(foretold_as_done(empty_host, {}, "build", "--force", "busybox")) == 6
    assert foretold_as_done(empty_host, {}, "build", "nothing") == []
    assert foretold_as_done(empty_host, {}, "build", "--include", "curl", "busybox") == []
    assert foretold_as_done(empty_host, {}, "rm", "busybox", "nothing") == []
    assert len(foretold_as_done(empty_host, {}, "rm", "busybox", "busybox")) == 1


def test_a_download_is_foretold(empty_host):
    """Red when: of_build() forgets how the program is started: so that it dies with the builder."""
    steps = foretold_as_done(empty_host, tools(empty_host, **TOOLS), "build", "busybox")
    assert "download" in str(steps) and "PACKAGE" in str(steps)


def test_a_build_of_debian_is_foretold_word_by_word(base):
    """With and without a stage; by a mmdebstrap that makes next to nothing.

    Red when: foretold_hook() leaves the variables out; or the order of the options differs.
    """
    with FakeHost(base) as host:
        env = tools(host, mmdebstrap=MMDEBSTRAP) | {"npm_config_//x.example/:_authToken": "s3cret"}
        (host.work / "mine").mkdir()
        (host.work / "mine/recipe.ini").write_text(RECIPE)
        (host.work / "mine/build").write_text("#!/bin/sh\n")
        assert "--include=curl" in str(foretold_as_done(host, env, "build", "debian", "--include", "curl"))
        steps = str(foretold_as_done(host, env, "build", str(host.work / "mine")))
        assert "--include=gcc" in steps and "NPM_CONFIG_USERCONFIG" in steps
        assert "s3cret" not in steps


def test_explain_tells_a_build(bare_host):
    """As text, and nothing but that.

    Red when: explain refuses it as it refuses prune.
    """
    said = bare_host.nsbox("explain", "rootfs", "build", "busybox", check=True)
    assert "$ busybox --list-full" in said.stdout and "linking the applets" in said.stdout and not said.stderr
    assert bare_host.nsbox("rootfs", "ls", "--json", check=True).stdout == "[]\n"
