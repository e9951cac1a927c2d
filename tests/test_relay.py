"""Copying until the child has ended, and the signals meanwhile. Needs no root.

Each docstring ends with the change to the code that turns the test red; each was tried.
"""

import errno
import hashlib
import os
import select
import signal

import pytest
from forked import (
    DEADLINE_S,
    MIB,
    assert_idle,
    attended,
    cpu_s,
    deadline,
    feeder,
    forked,
    on_pipes,
    on_pty,
    output_file,
    read_all,
    wait_exit,
    wait_until,
    write_all,
)

from nsbox.linux import terminal
from nsbox.linux.relay import Relay


def test_E22_a_mebibyte_on_a_pty_arrives_whole_with_the_exit_status_50_times(tmp_path):
    """Red: retire the outputs too, not the inputs alone, when the child has ended."""
    for _ in range(50):
        pid, master_fd = on_pty("sh", "-c", "head -c 1048576 /dev/zero; exit 3")
        out_fd = output_file(tmp_path)
        assert attended(pid, [Relay(master_fd, out_fd, close_src=True, close_dst=True)]) == 3
        assert (tmp_path / "out").stat().st_size == MIB


def test_E22_a_mebibyte_through_pipes_arrives_whole_with_the_exit_status_50_times(tmp_path):
    """Red: as above; or let child_ended allow 1 byte less than FIONREAD says."""
    for _ in range(50):
        pid, in_w, out_r = on_pipes("sh", "-c", "head -c 1048576 /dev/zero; exit 3")
        os.close(in_w)
        out_fd = output_file(tmp_path)
        assert attended(pid, [Relay(out_r, out_fd, close_src=True, close_dst=True)]) == 3
        assert (tmp_path / "out").stat().st_size == MIB


def test_E22_the_status_survives_a_program_that_closes_its_pty_before_it_ends(tmp_path):
    """Red: take EIO of the master for the end of the source while the child lives."""
    for _ in range(50):  # cat closes 0, 1 and 2 itself, then exits
        pid, master_fd = on_pty("cat", "/dev/null")
        out_fd = output_file(tmp_path)
        assert attended(pid, [Relay(master_fd, out_fd, close_src=True, close_dst=True)]) == 0


class Watching(Relay):
    """Tells on `told_fd` when the pty has been found closed."""

    told_fd = -1

    def _read(self):
        super()._read()
        if self.stalled:
            os.write(self.told_fd, b"closed")


def test_E22_a_program_may_close_its_pty_and_open_it_again(tmp_path):
    """Red: as above."""
    told_r, Watching.told_fd = os.pipe()
    os.set_inheritable(told_r, True)
    pid, master_fd = on_pty("sh", "-c",
                            "t=$(tty); exec 0<&- 1<&- 2<&-; "
                            f"head -c 6 </proc/self/fd/{told_r} >/dev/null; "
                            "head -c 1048576 /dev/zero >$t; exit 3")
    output = Watching(master_fd, output_file(tmp_path), close_src=True)
    assert attended(pid, [output]) == 3
    assert (tmp_path / "out").stat().st_size == MIB
    for fd in (told_r, Watching.told_fd, output.dst_fd):
        os.close(fd)


@pytest.mark.parametrize("start", [on_pty, on_pipes])
def test_E22_a_grandchild_that_keeps_the_output_open_neither_hangs_nor_costs_a_byte(
        start, tmp_path):
    """Red: leave out child_ended (it hangs); or stop at the child's end (bytes are missing)."""
    hold_r, hold_w = os.pipe()
    os.set_inheritable(hold_r, True)  # dash knows one-digit descriptors only, so by /proc
    script = (f"trap '' HUP; head -c 1 </proc/self/fd/{hold_r} >/dev/null & "
              "head -c 1048576 /dev/zero; exit 3")
    pid, *fds = start("sh", "-c", script)
    os.close(hold_r)
    out_fd = output_file(tmp_path)
    assert attended(pid, [Relay(fds[-1], out_fd, close_src=True, close_dst=True)]) == 3
    assert (tmp_path / "out").stat().st_size == MIB
    for fd in (hold_w, *fds[:-1]):
        os.close(fd)


class Outrun(Relay):
    """Finds something more to read each time."""

    def _read(self):
        super()._read()
        select.select([self.src_fd], [], [], DEADLINE_S)


def test_E22_a_grandchild_that_writes_for_ever_does_not_hang():
    """Red: let _unread_bytes answer a number without end (1 << 60)."""
    pid, in_w, out_r = on_pipes("sh", "-c", "yes & read end; exit 4")
    assert select.select([out_r], [], [], DEADLINE_S)[0]
    os.close(in_w)
    null_fd = os.open("/dev/null", os.O_WRONLY)
    assert attended(pid, [Outrun(out_r, null_fd, close_src=True, close_dst=True)]) == 4


def test_without_draining_the_end_of_the_child_is_the_end():
    """Red: drain=True always (the full pipe that nobody reads is waited for)."""
    pid, in_w, out_r = on_pipes("head", "-c", "100000", "/dev/zero")
    os.close(in_w)
    unread_r, unread_w = os.pipe()
    assert attended(pid, [Relay(out_r, unread_w, close_src=True)], drain=False) == 0
    os.close(unread_r)
    os.close(unread_w)


def test_G08_a_hundred_megabytes_go_in_and_out_bit_for_bit():
    """Red: write self._buffer[1:], or drop what a short write left."""
    block = os.urandom(MIB)
    data = block * 100
    feeder_pid, source_fd = feeder(data)
    sink_r, sink_w = os.pipe()
    answer_r, answer_w = os.pipe()
    sink_pid = forked(lambda: (os.close(sink_w), write_all(
        answer_w, hashlib.sha256(read_all(sink_r)).hexdigest().encode())))
    os.close(sink_r)
    pid, in_w, out_r = on_pipes("cat")
    status = attended(pid, [Relay(source_fd, in_w, is_input=True, close_src=True, close_dst=True),
                            Relay(out_r, sink_w, close_src=True, close_dst=True)])
    assert status == wait_exit(feeder_pid) == wait_exit(sink_pid) == 0
    assert os.read(answer_r, 100).decode() == hashlib.sha256(data).hexdigest()
    os.close(answer_r)
    os.close(answer_w)


@pytest.mark.parametrize("text", [b"", b"one\ntwo\n", b"no newline", b"line\n" * 20000],
                         ids=["nothing", "lines", "open-line", "many"])
def test_G08_the_end_of_the_input_reaches_a_program_on_a_pty(tmp_path, text):
    """Red: leave the eof_byte out; or write it once after an open line."""
    feeder_pid, source_fd = feeder(text)
    pid, master_fd = on_pty("cat")
    out_fd = output_file(tmp_path)
    assert attended(pid, [
        Relay(source_fd, master_fd, is_input=True, eof_byte=b"\x04", close_src=True),
        Relay(master_fd, out_fd, close_src=True, close_dst=True)]) == 0
    assert wait_exit(feeder_pid) == 0
    assert (tmp_path / "out").read_bytes() == text


def test_a_reader_that_has_gone_ends_an_endless_writer():
    """Red: leave EPIPE out of _GONE; or do not close what the relay owns in stop."""
    gone_r, gone_w = os.pipe()
    os.close(gone_r)
    for start in (on_pty, on_pipes):
        pid, *rest = start("yes")
        output = Relay(rest[-1], gone_w, close_src=True)
        relays = [output]
        if start is on_pty:  # the same master is the other direction's destination
            silent_r, silent_w = os.pipe()
            relays.append(Relay(silent_r, rest[-1], is_input=True, close_src=True))
        assert attended(pid, relays) == -(signal.SIGHUP if start is on_pty else signal.SIGPIPE)
        assert output.broken and all(relay.finished for relay in relays)
        os.close(silent_w if start is on_pty else rest[0])
    os.close(gone_w)


def test_a_full_disk_is_an_error_and_the_owned_descriptors_are_closed():
    """Red: swallow every OSError in _write; or leave out the retiring at the end of attend."""
    pid, in_w, out_r = on_pipes("yes")
    os.close(in_w)
    full_fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        attended(pid, [Relay(out_r, full_fd, close_src=True, close_dst=True)])
    assert caught.value.errno == errno.ENOSPC
    for fd in (out_r, full_fd):
        with pytest.raises(OSError):
            os.fstat(fd)


def relaying(kind, command, fds):
    """Attend `command`, output to `fds[1]`, in a process of its own; return its PID."""
    def body():
        pid, *rest = (on_pty if kind == "pty" else on_pipes)(*command)
        os._exit(attended(pid, [Relay(rest[-1], fds[1], close_src=True)]))
    return forked(body)


@pytest.mark.parametrize("kind", ["pipe", "pty"])
def test_G07_a_reader_that_does_not_read_costs_no_processor_time_and_no_byte(kind):
    """Red: always poll the source in wants_to_read; or poll with 0 ms."""
    out = os.openpty() if kind == "pty" else os.pipe()
    if kind == "pty":
        terminal.RawMode(out[1]).enter()
    pid = relaying(kind, ("sh", "-c", "head -c 1048576 /dev/zero; exit 3"), out)
    assert select.select([out[0]], [], [], DEADLINE_S)[0]
    assert_idle(pid)
    got = 0
    while got < MIB and select.select([out[0]], [], [], DEADLINE_S)[0]:
        got += len(os.read(out[0], MIB))
    assert (got, wait_exit(pid)) == (MIB, 3)
    for fd in out:
        os.close(fd)


@pytest.mark.parametrize("command", ["exec sleep 1000", "exec sleep 1000 0<&- 1<&- 2<&-"],
                         ids=["unread", "closed"])
def test_G07_a_program_that_does_not_read_its_pty_costs_no_processor_time(command):
    """Red: poll with 0 ms; or end the pause of a stalled direction in every step."""
    feeder_pid, source_fd = feeder(b"line\n" * MIB)

    def body():
        pid, master_fd = on_pty("sh", "-c", command)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGKILL))
        attended(pid, [Relay(source_fd, master_fd, is_input=True, eof_byte=b"\x04"),
                       Relay(master_fd, 2, close_src=True)])
    pid = forked(body)
    os.close(source_fd)
    wait_until(lambda: cpu_s(pid) > 0.001, "start")
    assert_idle(pid)
    os.kill(pid, signal.SIGTERM)
    assert wait_exit(pid) == 0
    assert wait_exit(feeder_pid) == 1  # EPIPE


def test_G07_signals_and_input_are_served_while_a_terminal_is_full():
    """Red: leave inbox.events out of what _copy polls for."""
    outer_master, outer_slave = os.openpty()
    terminal.RawMode(outer_slave).enter()
    told_r, told_w = os.pipe()
    typed_r, typed_w = os.pipe()

    def body():
        pid, master_fd = on_pty("sh", "-c", "yes & read line; exit 7")
        relays = [Relay(master_fd, outer_slave), Relay(typed_r, master_fd, is_input=True)]
        os._exit(attended(pid, relays, lambda signum: os.write(told_w, b"%d" % signum),
                          frozenset({signal.SIGTERM}), drain=False))
    pid = forked(body)
    assert select.select([outer_master], [], [], DEADLINE_S)[0]
    assert_idle(pid, 0.3)
    os.kill(pid, signal.SIGTERM)
    told = select.select([told_r], [], [], DEADLINE_S)[0]
    os.write(typed_w, b"a line\n")
    assert wait_exit(pid) == 7
    assert told and os.read(told_r, 10) == b"%d" % signal.SIGTERM
    for fd in (outer_master, outer_slave, told_r, told_w, typed_r, typed_w):
        os.close(fd)


def test_G07_a_terminal_with_less_room_than_a_page_is_not_blocked_on():
    """Red: let _open_writer answer (-1, PIPE_BUF) for a terminal."""
    outer_master, outer_slave = os.openpty()
    terminal.RawMode(outer_slave).enter()
    full_fd = os.open(os.ttyname(outer_slave), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(full_fd, bytes(512))
    while not select.select([], [full_fd], [], 0.05)[1]:
        os.read(outer_master, 200)
    feeder_pid, source_fd = feeder(bytes(MIB // 16))
    relay = Relay(source_fd, outer_slave, close_src=True)
    with deadline():
        relay.step({source_fd: select.POLLIN})
        relay.step({outer_slave: select.POLLOUT})
    relay.stop()
    wait_exit(feeder_pid)
    for fd in (outer_master, outer_slave, full_fd):
        os.close(fd)
