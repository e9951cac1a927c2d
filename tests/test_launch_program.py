"""The program between interpreter and command, run as it is: what it executes, says and refuses.

"Red when" in a docstring says how to break the program so that the test fails; each was tried.

The aarch64 program runs under qemu-aarch64-static, which executes the command for it: its logic and
its numbers of calls can be seen there, and not what the arm64 kernel makes of its ELF header.
"""

import errno
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from test_pause_program import CHECKOUT, _cannot_run, need

from nsbox.pod import launch

# Becomes argv[2:], with the descriptors in argv[1] alone besides 0 to 2.
AS_NSBOX = """
import os, sys
keep = {int(word) for word in sys.argv[1].split(",") if word}
for fd in range(3, 100):
    if fd not in keep:
        try:
            os.close(fd)
        except OSError:
            pass
os.execve(sys.argv[2], sys.argv[3:], os.environb)
"""
REFUSAL = b"nsbox: cannot run this command: execve: it leads to /proc/self/exe, which is no program of the pod\n"
EXECVE, LIMITS = 4, 5


class Launch:
    """The program of one machine, written to a file and started as nsbox starts it."""

    def __init__(self, machine: str, tmp_path: Path) -> None:
        self.machine, self.path, self.emulator = machine, tmp_path / "launch", ""
        if machine != platform.machine():
            need(f"qemu-{machine}-static")
            self.emulator = shutil.which(f"qemu-{machine}-static")

    def start(self, candidates, argv, *, fds, env={}, what=0, filter=None, limits=b"", pass_fds=None, **kw):
        """The process of the program; `fds` are what launch.descriptors() takes."""
        built = launch.program([os.fsencode(one) for one in candidates], what, filter, self.machine, limits)
        assert built is not None
        image = bytearray(built.image)
        numbers = launch.descriptors(*fds)
        image[built.descriptors_at : built.descriptors_at + len(numbers)] = numbers
        self.path.write_bytes(image)
        self.path.chmod(0o755)
        start = [self.path, *argv]
        if self.emulator:  # its -0 sets the argv[0] of the program
            start = [self.emulator, self.emulator, "-0", argv[0], self.path, *argv[1:]]
        pass_fds = list(fds) if pass_fds is None else pass_fds
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", AS_NSBOX, ",".join(map(str, pass_fds)), *start],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=pass_fds, **kw)  # fmt: skip

    def run(self, candidates, argv, *, with_report=True, step=EXECVE, **kw):
        """What the launched command said and how it ended; and what the step gave by the report, or None."""
        report_r, report_w = os.pipe()
        process = self.start(candidates, argv, fds=[report_w], pass_fds=[report_w] if with_report else [], **kw)
        os.close(report_w)
        out, err = process.communicate(timeout=60)
        report = read_all(report_r)
        assert report == b"" or struct.unpack("=II", report)[0] == step, report
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        return done, struct.unpack("=II", report)[1] if report else None


def read_all(fd):
    with open(fd, "rb") as file:
        return file.read()


@pytest.fixture(params=launch.MACHINES)
def launched(request, tmp_path):
    return Launch(request.param, tmp_path).run


def script(path, text, mode=0o755):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("machine", launch.MACHINES)
def test_the_kept_bytes_are_what_the_source_assembles_to(machine):
    """Red when: an instruction in MACHINE.S or a byte of MACHINE.bin is changed."""
    need(f"{machine}-linux-gnu-as", f"{machine}-linux-gnu-objcopy")
    build = CHECKOUT / "scripts/build-programs"
    checked = subprocess.run([build, "--check", f"launch/{machine}"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("machine", launch.MACHINES)
def test_a_program_is_small_and_writes_to_no_executable_page(machine):
    """Red when: `.skip 1024` stands before `end:`, or p_flags of a segment is 7."""
    assert launch.program([], machine=machine) is not None
    built = launch.program([], machine=machine).image
    assert len(built) < 1024
    assert struct.unpack_from("<II", built, 64) == (1, 0b101)  # PT_LOAD, read and execute
    assert struct.unpack_from("<II", built, 120) == (0x6474E551, 0b110)  # PT_GNU_STACK, no execute


def test_there_is_a_program_for_this_machine_and_none_for_an_unknown_one():
    """Red when: program() looks for any name it is given, or forgets uname."""
    assert launch.program([b"x"], machine="m68k") is None
    assert launch.program([b"x"], machine="../launch/x86_64") is None
    assert launch.program([b"x"]) == launch.program([b"x"], machine=platform.machine())


def test_the_command_gets_its_arguments_and_environment_byte_for_byte(launched):
    """Red when: envp is taken from one place further, or the list of arguments begins at argc."""
    env = {b"ONE": b"\xff\n", b"TWO": b""}
    done, report = launched(
        [sys.executable], ["its name", "-I", "-S", "-c", "import os, sys; print(sys.orig_argv, os.environb)", "", b"\xfe x"],
        env=env)  # fmt: skip
    assert (done.returncode, report) == (0, None), done.stderr
    argv, _, environ = done.stdout.decode().partition("] ")
    assert argv.startswith("['its name', '-I', ") and argv.endswith(", '', '\\udcfe x'"), argv
    for name, value in env.items():
        assert f"{name!r}: {value!r}" in environ, environ


def test_the_command_does_not_get_the_report(launched):
    """Red when: the program does not mark the report."""
    done, report = launched([shutil.which("ls")], ["ls", "/proc/self/fd"])
    assert (done.stdout, report) == (b"0\n1\n2\n3\n", None)  # 3 is the directory that ls reads


def test_places_are_tried_in_turn_and_the_first_that_runs_is_it(launched, tmp_path):
    """Red when: ENOENT or ENOTDIR ends the search."""
    (tmp_path / "file").write_text("")
    second = script(tmp_path / "second", "#!/bin/sh\necho second\n")
    third = script(tmp_path / "third", "#!/bin/sh\necho third\n")
    done, report = launched([tmp_path / "none", tmp_path / "file/x", second, third], ["x"])
    assert (done.stdout, done.returncode, report) == (b"second\n", 0, None)


def test_one_that_may_not_be_run_is_passed_over_for_a_later_one(launched, tmp_path):
    """Red when: EACCES ends the search."""
    closed = script(tmp_path / "closed", "#!/bin/sh\n", mode=0o644)
    later = script(tmp_path / "later", "#!/bin/sh\necho later\n")
    assert launched([closed, later], ["x"])[0].stdout == b"later\n"
    assert launched([closed, tmp_path / "none"], ["x"])[1] == errno.EACCES


def test_where_there_is_none_the_error_is_told(launched, tmp_path):
    """Red when: the report is not written, or told with another length."""
    assert launched([tmp_path / "none"], ["x"])[1] == errno.ENOENT
    assert launched([], ["x"])[1] == errno.ENOENT


def test_one_that_is_found_and_cannot_be_run_ends_the_search(launched, tmp_path):
    """Red when: the search goes on after any other error."""
    odd = script(tmp_path / "odd", "neither a script nor a program\n")
    fine = script(tmp_path / "fine", "#!/bin/sh\necho fine\n")
    done, report = launched([odd, fine], ["x"])
    assert (done.stdout, report) == (b"", errno.ENOEXEC)


def test_a_long_list_is_read_to_its_end(launched, tmp_path):
    """Red when: the sizes in the program's header are not those of what was appended."""
    fine = script(tmp_path / "fine", "#!/bin/sh\necho fine\n")
    places = [f"/none/{number:>04}{'x' * 200}" for number in range(1000)]
    assert launched([*places, fine], ["x"])[0].stdout == b"fine\n"


def test_A05_the_program_does_not_work_for_anybody_but_nsbox(launched, tmp_path):
    """Red when: it goes on where there is no report."""
    fine = script(tmp_path / "fine", "#!/bin/sh\necho fine\n")
    done, _ = launched([fine], ["x"], with_report=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"", REFUSAL, 126)


def test_the_command_gets_its_limits_and_a_refused_one_is_told(launched):
    """Red when: the loop does not go on to the next limit, takes the soft one twice, or its error is passed over."""
    numbers = (resource.RLIMIT_NOFILE, 50, 60), (resource.RLIMIT_CPU, 500, 700), (resource.RLIMIT_CORE, 0, 2**64 - 1)
    packed = b"".join(struct.pack("<QQQ", *row) for row in numbers)
    done, report = launched([shutil.which("cat")], ["cat", "/proc/self/limits"], limits=packed)
    assert (done.returncode, report) == (0, None), done.stderr
    found = {line[:26].strip(): line[26:].split()[:2] for line in done.stdout.decode().splitlines()}
    assert found["Max open files"] == ["50", "60"] and found["Max cpu time"] == ["500", "700"]
    assert found["Max core file size"] == ["0", "unlimited"]
    for wrong in ((resource.RLIMIT_NOFILE, 2, 1), (99, 1, 1)):
        _, report = launched([shutil.which("true")], ["true"], limits=packed + struct.pack("<QQQ", *wrong), step=LIMITS)
        assert report == errno.EINVAL, wrong


@pytest.mark.parametrize("first_line", ["#!/proc/self/exe", "#!/proc/self/exe -c"])
def test_A05_a_script_that_is_run_by_the_program_itself_is_refused(tmp_path, first_line):
    """Natively: under qemu the link leads to qemu. Red when: it goes on where there is no report."""
    if platform.machine() not in launch.MACHINES:
        _cannot_run(f"no program for {platform.machine()}")
    looping = script(tmp_path / "looping", f"{first_line}\n")
    done, report = Launch(platform.machine(), tmp_path).run([looping], ["x"])
    assert (done.stdout, done.stderr, done.returncode, report) == (b"", REFUSAL, 126, None)
