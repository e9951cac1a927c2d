"""Copying until the child has ended, and the signals meanwhile. Needs no root.

Each docstring ends with the change to the code that turns the test red; each was tried.
"""

import errno
import hashlib
import os
import select
import signal
import termios

import pytest
from forked import DEADLINE_S, forked, wait_exit, wait_until

from nsbox.linux import terminal
from nsbox.linux.relay import Relay, attend

MIB = 1 << 20
NO_SIGNALS = frozenset()
WATCH_S = 2.0
CPU_SHARE = 0.1


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_all(fd):
    return b"".join(iter(lambda: os.read(fd, MIB), b""))


def never(signum):
    raise AssertionError(f"signal {signum}")


def attended(pid, relays, on_signal=never, signals=NO_SIGNALS, **options):
    """attend() our child `pid`, with a deadline; return its exit status."""
    def too_late(*_):
        raise TimeoutError("attend does not end")
    old = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_S)
    pidfd = os.pidfd_open(pid)
    try:
        attend(pidfd, relays, on_signal, signals, **options)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        os.close(pidfd)
    return wait_exit(pid)


def run(command):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and so would the command
    os.execvp(command[0], command)


def on_pty(*command):
    """Start `command` on a new pty without output processing; return (pid, master_fd)."""
    master_fd, slave_fd = terminal.open_pty("/dev/ptmx")
    settings = termios.tcgetattr(slave_fd)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave_fd, termios.TCSANOW, settings)

    def body():
        os.setsid()
        terminal.make_controlling(slave_fd)
        run(command)
    pid = forked(body)
    os.close(slave_fd)
    return pid, master_fd


def on_pipes(*command):
    """Start `command`; return (pid, its stdin's write end, its stdout's read end)."""
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()

    def body():
        os.dup2(in_r, 0)
        os.dup2(out_w, 1)
        run(command)
    pid = forked(body)
    os.close(in_r)
    os.close(out_w)
    return pid, in_w, out_r


def feeder(data):
    """A process that writes `data` to a pipe; return (pid, read end)."""
    read_fd, write_fd = os.pipe()
    pid = forked(lambda: (os.close(read_fd), write_all(write_fd, data)))
    os.close(write_fd)
    return pid, read_fd


def output_file(tmp_path):
    return os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def cpu_s(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


def assert_idle(pid):
    """The process uses next to no processor time for two seconds, and lives on."""
    pidfd = os.pidfd_open(pid)
    before = cpu_s(pid)
    ended = select.select([pidfd], [], [], WATCH_S)[0]
    os.close(pidfd)
    assert not ended, "it ended"
    assert cpu_s(pid) - before < CPU_SHARE * WATCH_S


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


@pytest.mark.parametrize("start", [on_pty, on_pipes])
def test_E22_a_grandchild_that_keeps_the_output_open_neither_hangs_nor_costs_a_byte(
        start, tmp_path):
    """Red: leave out child_ended (it hangs); or stop at the child's end (bytes are missing)."""
    hold_r, hold_w = os.pipe()
    os.set_inheritable(hold_r, True)  # dash knows one-digit descriptors only, so by /proc
    script = f"trap '' HUP; head -c 1 </proc/self/fd/{hold_r} >/dev/null & head -c 1048576 /dev/zero; exit 3"
    pid, *fds = start("sh", "-c", script)
    os.close(hold_r)
    out_fd = output_file(tmp_path)
    assert attended(pid, [Relay(fds[-1], out_fd, close_src=True, close_dst=True)]) == 3
    assert (tmp_path / "out").stat().st_size == MIB
    for fd in (hold_w, *fds[:-1]):
        os.close(fd)


def test_E22_a_grandchild_that_writes_for_ever_does_not_hang(tmp_path):
    """Red: let _unread_bytes answer a number without end (1 << 60)."""
    pid, in_w, out_r = on_pipes("sh", "-c", "yes & exit 4")
    os.close(in_w)
    out_fd = output_file(tmp_path)
    assert attended(pid, [Relay(out_r, out_fd, close_src=True, close_dst=True)]) == 4


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
    while got < MIB:
        got += len(os.read(out[0], MIB))
    assert (got, wait_exit(pid)) == (MIB, 3)
    for fd in out:
        os.close(fd)


def test_G07_a_program_that_does_not_read_its_pty_costs_no_processor_time():
    """Red: poll with 0 ms."""
    feeder_pid, source_fd = feeder(b"line\n" * MIB)

    def body():
        pid, master_fd = on_pty("sleep", "1000")
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


def test_G07_signals_are_served_while_a_terminal_is_full():
    """Red: let _open_writer answer (-1, PIPE_BUF) for a terminal: the write blocks, not the poll."""
    outer_master, outer_slave = os.openpty()
    terminal.RawMode(outer_slave).enter()
    told_r, told_w = os.pipe()

    def body():
        pid, master_fd = on_pty("yes")
        attended(pid, [Relay(master_fd, outer_slave, close_src=True)],
                 lambda signum: (os.write(told_w, b"%d" % signum), os.kill(pid, signal.SIGKILL),
                                 os._exit(7)), frozenset({signal.SIGTERM}))
    pid = forked(body)
    assert select.select([outer_master], [], [], DEADLINE_S)[0]
    assert_idle(pid)
    os.read(outer_master, 1)  # room for one byte, and poll says: writable
    os.kill(pid, signal.SIGTERM)
    assert wait_exit(pid) == 7
    assert os.read(told_r, 10) == b"%d" % signal.SIGTERM
    for fd in (outer_master, outer_slave, told_r, told_w):
        os.close(fd)
