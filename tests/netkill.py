"""A program for the inside of a fake host: publishes and unpublishes, cut off at each step in turn.

Arguments: what is there before ("nothing", "proxy", "killed"), "publish" or "unpublish", the signal
("KILL", or "TERM", of which an exception is made as in the command), and how many steps to go on
each time. There is one pod, "web". A step is one call of a function, of Python or of C, that the
command comes to. After each: what is open on the host is listed, no process counts as a member, and
the next command finishes what was begun. After TERM all is done, or nothing. Prints the number of
steps.
"""

import os
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

from nsbox.errors import Interrupted
from nsbox.pod import portfile, publish, report, store
from nsbox.ports import parse_publish

PORT, CUT_OFF = "127.0.0.1:8080", 100


def do(what: str, word: str) -> None:
    if what == "unpublish":
        return publish.unpublish("web", parse_publish(word))
    bound = publish.bind(parse_publish(word))
    try:
        publish.publish("web", bound)
    finally:
        publish.close(bound)


def listening() -> list[str]:
    """What listens on the host: see proc(5), /proc/net/tcp; state 0A is LISTEN."""
    rows = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
    return sorted(f"{socket.inet_ntoa(bytes.fromhex(row[1][:8])[::-1])}:{int(row[1][9:], 16)}"
                  for row in rows if row[3] == "0A")


def listed(state: str) -> list[str]:
    return sorted(f"{row['host_address']}:{row['host_port']}" for row in publish.published("web")
                  if state in ("", row["state"]))


def cut_off_at(step: int, what: str, signum: int) -> bool:
    """Do it in a child that gets a signal at the given step; False if it had fewer."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, CUT_OFF, -signum), f"it failed: {code}"
        return code != 0
    signal.signal(signal.SIGTERM, interrupt)
    try:
        counted(step, what, signum)
    except Interrupted:
        os._exit(CUT_OFF)
    finally:
        traceback.print_exc()
        os._exit(1)


def interrupt(signum: int, _frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)
    raise Interrupted(signum)


def counted(step: int, what: str, signum: int) -> NoReturn:
    me, seen = os.getpid(), 0

    def count(_frame: object, _event: str, _arg: object) -> None:
        nonlocal seen
        seen += 1
        if os.getpid() != me:  # the proxy: only the command itself is killed
            sys.setprofile(None)
        elif seen == step:
            sys.setprofile(None)
            os.kill(me, signum)
    sys.setprofile(count)
    do(what, "8080:80")
    sys.setprofile(None)
    os._exit(0)


def wait(condition: object, what: str) -> None:
    for _ in range(300):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError(f"{what}: open {listening()}, listed as open {listed('open')}, in all {listed('')}")


def kill_proxy() -> None:
    who = portfile.read(store.directory("web")).proxy
    if who is not None:
        try:
            os.kill(who.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait(lambda: not listening(), "a proxy is not known")


def one(before: str, what: str, signum: int, step: int) -> bool:
    where = f"{what} with {before} before, signal {signum} at step {step}"
    if before != "nothing":
        do("publish", "9090:80")
    if what == "unpublish":
        do("publish", "8080:80")
    if before == "killed":
        kill_proxy()
    rows = listed("")
    cut_off = cut_off_at(step, what, signum)
    wait(lambda: listening() == listed("open"), where)
    if signum == signal.SIGTERM:
        changed = {*rows, PORT} if what == "publish" else {*rows} - {PORT}
        assert set(listed("")) in (set(rows), changed), f"{where}: {listed('')} were {rows}"
        assert (PORT in listed("")) == (PORT in listening()), f"{where}: half done, {listed('')} of {listening()}"
    wait(lambda: report.summaries()[0]["members"] == 0, f"{where}: a proxy counts as a member")
    do("publish", "9191:80")
    wait(lambda: listening() == listed("open") == listed(""), f"{where}, then the next publish")
    assert before == "nothing" or "127.0.0.1:9090" in listening(), where
    assert cut_off or (PORT in listening()) == (what == "publish"), where
    for port in publish.published("web"):
        do("unpublish", f"{port['host_port']}:{port['pod_port']}")
    assert not listening() and not listed(""), f"{where}, then unpublish"
    kill_proxy()
    os.unlink(os.path.join(os.environ["NSBOX_STATE"], "pods/web/ports.json"))
    return cut_off


if __name__ == "__main__":
    before, what, signame, stride = *sys.argv[1:4], int(sys.argv[4])
    step = 1
    while one(before, what, signal.Signals["SIG" + signame], step):
        step += stride
    print(step)
