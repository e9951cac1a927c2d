"""What people run on a checkout."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from fakehost import PATH
from procfs import TOP, until

SCRIPTS = ("scripts/setup", "scripts/test", "scripts/demo", "scripts/demo-ghost", "scripts/test-fresh", ".ci/run")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_run_and_is_sound_bash(name):
    assert os.access(TOP / name, os.X_OK)
    subprocess.run(["bash", "-n", TOP / name], check=True)


@pytest.mark.parametrize("name", ["scripts/setup", "scripts/test", "scripts/test-fresh"])
def test_a_script_tells_its_use(name):
    asked = subprocess.run([TOP / name, "--help"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith(f"usage: {name} ")


@pytest.mark.parametrize("name", ["scripts/setup", "scripts/test-fresh"])
def test_a_script_refuses_what_it_does_not_know(name):
    asked = subprocess.run([TOP / name, "--no-such"], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith("usage:")


def test_a_set_up_checkout_is_left_alone_at_once():
    if not (TOP / ".venv/.nsbox-setup-test").exists():
        pytest.skip("this checkout was not set up by scripts/setup")
    done = subprocess.run([TOP / "scripts/setup", "--test", "--no-link", "--no-rootfs"],
                          capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["==> ready"]  # and no step before it


@pytest.mark.slow
@pytest.mark.needs_root
def test_the_demo_holds_and_leaves_nothing(host):
    # No link and no rootfs: the machine's files are not the fake host's own.
    done = host.run([TOP / "scripts/demo", "--no-link", "--no-rootfs"], timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of this held." in done.stdout


@pytest.mark.slow
@pytest.mark.needs_root
def test_an_interrupted_demo_takes_its_pod_along(host):
    demo = host.popen([TOP / "scripts/demo", "--no-link", "--no-rootfs"])
    for line in demo.stdout:
        if line.startswith("# The third"):
            break
    demo.terminate()
    demo.communicate(timeout=60)
    assert demo.returncode == 143


@pytest.mark.fresh
@pytest.mark.needs_root
@pytest.mark.timeout(3600)
def test_both_commands_work_on_a_fresh_debian():
    subprocess.run([TOP / "scripts/test-fresh", "demo", "test"], check=True, stdin=subprocess.DEVNULL)


STUB = """#!/bin/sh
# Instead of mmdebstrap: something that goes on for ever, and something that it started.
sleep 1000 &
echo "$TMPDIR" >"$HOME/made"
exec sleep 1000
"""


@pytest.mark.needs_root
@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
def test_a_signal_ends_the_fresh_machine_and_all_that_was_started(host, name):
    """Red when: it waits for what it started in the foreground; or that has no first process, with which all ends."""
    (host.work / "mmdebstrap").write_text(STUB)
    (host.work / "mmdebstrap").chmod(0o755)
    before, there, made = host.snapshot(), host.processes(), host.work / "made"
    fresh = host.popen([TOP / "scripts/test-fresh", "--dir", host.scratch, "demo"],
                       env={"PATH": f"{host.work}:{PATH}"})
    for _ in until(60):
        if made.exists() and made.read_text():
            break
    work = Path(made.read_text().strip())
    assert work.parent == host.scratch and work.name.startswith("nsbox-fresh.")
    fresh.send_signal(signal.Signals[f"SIG{name}"])
    _, said = fresh.communicate(timeout=60)
    assert fresh.returncode == {"TERM": 143, "HUP": 143, "INT": 130}[name], said
    assert not work.exists() and host.processes().keys() == there.keys()
    host.assert_same_as(before)
