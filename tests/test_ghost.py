"""The example with the real programs, by the script that shows it to people: nginx before Ghost.

NSBOX_TESTS_GHOST_STORE names a store that has both root file systems; without it they are built.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import needs_program, skip_or_fail, why_no_root
from fakehost import NSBOX, PATH, UID, FakeHost
from procfs import TOP

pytestmark = [pytest.mark.needs_root, pytest.mark.ghost, pytest.mark.timeout(3600)]
DEMO_S = 900.0


@pytest.fixture(scope="module")
def ghost_store(base: Path) -> Path:
    """A store of root's with nginx and Ghost."""
    skip_or_fail(why_no_root())
    given = os.environ.get("NSBOX_TESTS_GHOST_STORE")
    if given:
        return Path(given)
    store = base / "ghost-store"
    store.mkdir()
    for recipe in ("nginx", "ghost"):
        subprocess.run([*NSBOX, "rootfs", "build", recipe], check=True, env={**os.environ, "NSBOX_STORE": str(store)})
    return store


@pytest.fixture
def user_ghost_store(base: Path, ghost_store: Path) -> Iterator[Path]:
    """A copy that belongs to the ordinary user."""
    store = base / "user-ghost-store"
    subprocess.run(["cp", "-a", ghost_store, store], check=True)
    subprocess.run(["chown", "-R", "--no-dereference", f"{UID}:{UID}", store], check=True)
    yield store
    shutil.rmtree(store)


def check_demo(host: FakeHost) -> None:
    before = host.snapshot()
    done = host.run([TOP / "scripts/demo-ghost", "--port", "8081"], timeout=DEMO_S)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert said.count("\n<title>Ghost</title>\n") == 3  # the pid namespace shared, and not, and Ghost as PID 1
    assert re.search(r"^\d+ +1 .* pause$", said, re.MULTILINE)
    assert "node current/index.js" in said and "nginx: master process" in said
    assert re.search(r"^pid .* same$", said, re.MULTILINE) and re.search(r"^mnt .* own$", said, re.MULTILINE)
    assert "node sees: node; nginx sees: nginx\n" in said
    assert "\nzombies under the pause: 0\n" in said and "\nzombies under node: 1\n" in said
    assert re.search(r"^\d+ +\d+ +\d+ +\d+ +Z ", said, re.MULTILINE)
    host.assert_same_as(before)


def test_the_demo_shows_ghost_through_nginx(base, ghost_store):
    """Red when: a check of the demo does not hold, or it leaves a pod behind."""
    with FakeHost(base, store=ghost_store) as host:
        check_demo(host)


def test_the_same_for_an_ordinary_user(base, user_ghost_store):
    """Red when: the same without root."""
    with FakeHost(base, uid=UID, store=user_ghost_store) as host:
        check_demo(host)


def test_the_pictures_of_the_readme_can_be_drawn_again(tmp_path, ghost_store):
    """Red when: the script draws before Ghost answers, or another pod than that of the README."""
    needs_program("chromium")
    subprocess.run([TOP / "scripts/pictures", tmp_path], check=True, env={**os.environ, "NSBOX_STORE": str(ghost_store)})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in (TOP / "docs").iterdir())
    for name in ("page-light.png", "page-dark.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    for svg in (tmp_path / "map.svg", TOP / "docs/map.svg"):
        words = "".join(ElementTree.parse(svg).getroot().itertext())
        for word in ("pod blog", "nginx", "node", "127.0.0.1:8080/tcp", "80/tcp nginx", "2368/tcp node"):
            assert word in words


def test_the_demo_leaves_a_taken_port_and_its_owner_alone(base, ghost_store):
    """Red when: the demo goes on although its first command failed."""
    with FakeHost(base, store=ghost_store) as host:
        host.nsbox("create", "first", "-p", "8081:80", check=True)
        before = host.snapshot()
        done = host.run([TOP / "scripts/demo-ghost", "--port", "8081"], timeout=DEMO_S)
        assert done.returncode == 125 and "in use" in done.stderr
        host.assert_same_as(before)
        host.nsbox("rm", "first", check=True)


def test_the_demo_leaves_another_pod_of_its_name_alone(base, ghost_store):
    """Red when: the demo removes by name a pod that it did not make."""
    with FakeHost(base, store=ghost_store) as host:
        same_suffix = host.work / "od"
        same_suffix.write_text("#!/bin/sh\necho beef\n")
        same_suffix.chmod(0o755)
        pause = int(host.nsbox("create", "blog-beef", check=True).stdout)
        before = host.snapshot()
        done = host.run([TOP / "scripts/demo-ghost"], env={"PATH": f"{host.work}:{PATH}"}, timeout=DEMO_S)
        assert done.returncode == 125 and "blog-beef" in done.stderr, done.stderr
        host.assert_same_as(before)
        assert pause in host.processes()
        host.nsbox("rm", "-f", "blog-beef", check=True)


@pytest.mark.parametrize("shown", ["$ nsbox create ", "$ nsbox join "])
def test_a_stopped_demo_takes_its_pod_along(base, ghost_store, shown):
    """Red when: a signal during the create, or after it, leaves the pod."""
    with FakeHost(base, store=ghost_store) as host:
        before = host.snapshot()
        demo = host.popen([TOP / "scripts/demo-ghost", "--port", "8081"])
        for line in demo.stdout:
            if line.startswith(shown):
                break
        demo.terminate()
        said = demo.communicate(timeout=60)
        assert demo.returncode == 143, said
        host.assert_same_as(before)
