"""The process that forks for a program which uses the library.

A program may have threads, and its namespaces are its own business. So the first call starts
one small process with a single thread, which is kept; each request is done by a worker that
it forks. A worker is to the library what the command `nsbox` is to a shell: the parent of the
member it starts, which dies with it. All of them end when the program does, however that was:
the spawner reads an end of file then, removes the pods that were not to be kept, and ends.

program                    spawner                    worker
  request, fds ----------> fork --------------------> create or join
  <---------------------------------------- {"pid": …}, a pidfd; or {"error": …}
  <---------------------------------------- {"ended": …} when a member has ended
"""

import contextlib
import os
import signal
import socket
import sys
from typing import Any, Callable, Iterable, NoReturn

from ..errors import NsboxError
from ..linux import process, trouble
from ..privilege import attributes
from ..spec import member_spec_from_dict, pod_spec_from_dict
from ..ports import Port
from . import attach, create, lifecycle, publish, store, supervise, target, wire

# The workers that made a pod which ends with the program, by the environment of their requests.
_mine: dict[tuple[tuple[str, str], ...], set[process.Identity]] = {}


def serve(channel_fd: int) -> NoReturn:
    """Serve requests until the program closes its end. Runs as the main function of the spawner."""
    attributes.set_name("nsbox:spawner")
    os.umask(0o077)
    os.chdir("/")  # the program's directory may be on a disk that somebody wants to unmount
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, _collect)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # inherited from the thread that started us
    channel = socket.socket(fileno=channel_fd)
    our_pidfd = process.open_pid(os.getpid())
    while (received := wire.receive(channel)) is not None:
        request, fds = received
        try:
            _start_worker(request, fds, channel, our_pidfd)
        except OSError as err:  # too many processes or files: said, and survived
            _refuse(request, fds, err)
        for fd in fds:
            os.close(fd)
    _remove_pods()
    os._exit(0)


def _start_worker(
    request: dict[str, Any], fds: list[int], channel: socket.socket, our_pidfd: int
) -> None:
    started_r, started_w = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            channel.close()
            os.close(started_w)
            noted = os.read(started_r, 1)
            os.close(started_r)
            if not noted:  # we could not be noted, and the program was told of an error
                os._exit(0)
            _work(request, fds, our_pidfd)
        _note(pid, request)
        os.write(started_w, b"n")
    finally:
        os.close(started_r)
        os.close(started_w)


def _refuse(request: dict[str, Any], fds: list[int], cause: OSError) -> None:
    failure = NsboxError(f"cannot {request.get('verb')}: the spawner has no process or file left for it")
    failure.__cause__ = OSError(cause.errno, f"fork: {os.strerror(cause.errno or 0)}")
    if fds:
        with contextlib.suppress(OSError), socket.socket(fileno=fds.pop(0)) as reply:
            wire.send(reply, {"error": trouble.encode(failure).decode()})


def _note(pid: int, request: dict[str, Any]) -> None:
    if request["verb"] == "create" and request["spec"]["die_with_parent"]:
        environment = tuple(sorted(request["environment"].items()))
        _mine.setdefault(environment, set()).add(process.identify(pid))


def _remove_pods() -> None:
    """The program has ended: its pods end, and leave no record."""
    for environment, makers in _mine.items():
        _take_environment(environment)
        for entry in _entries():
            if entry.record is not None and entry.record.maker in makers:
                try:
                    lifecycle.remove(entry.name, force=True)
                except (NsboxError, OSError):
                    continue  # nobody is left to be told; nsbox prune finds it


def _entries() -> list[store.Entry]:
    try:
        return store.entries()
    except (NsboxError, OSError):
        return []


def _take_environment(environment: Iterable[tuple[str, str]]) -> None:
    for name in wire.ENVIRONMENT:
        os.environ.pop(name, None)
    os.environ.update(environment)


def _collect(_signum: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _work(request: dict[str, Any], fds: list[int], spawner_pidfd: int) -> NoReturn:
    """Do one request and end. Never returns into the spawner's loop."""
    reply = socket.socket(fileno=fds[0])
    try:
        attributes.die_with_parent(spawner_pidfd)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _take_environment(request["environment"].items())
        _VERBS[request["verb"]](request, fds[1:], reply)
    except NsboxError as err:
        wire.send(reply, {"error": trouble.encode(err).decode()})
    except Exception as err:
        failure = NsboxError(f"cannot {request.get('verb')}: {err!r}")
        wire.send(reply, {"error": trouble.encode(failure).decode()})
    finally:
        os._exit(0)


def _create(request: dict[str, Any], fds: list[int], reply: socket.socket) -> None:
    spec = pod_spec_from_dict(request["spec"])
    ports = [Port(*row) for row in request["ports"]]
    try:
        bound = publish.bind(ports)
        try:
            wanted = [one.forward for one in bound]
            record, started = create.create(spec, lambda fd: publish.intend(fd, wanted))
            if bound:
                publish.publish(spec.name, bound)
        finally:
            publish.close(bound)
    except BaseException:
        create.abandon(spec.name)
        raise
    wire.send(reply, {"pid": started.pid, "name": record.name})
    reply.close()
    if spec.die_with_parent:  # we are the parent: the pod lives as long as we do, and we as long as the program
        os.waitpid(started.pid, 0)


def _join(request: dict[str, Any], fds: list[int], reply: socket.socket) -> None:
    spec = member_spec_from_dict(request["spec"])
    found = target.find(request["target"])

    def tell(started: process.Spawned) -> None:
        wire.send(reply, {"pid": started.pid}, [started.pidfd])

    code = attach.run(found, spec, tty=False, fds=(fds[0], fds[1], fds[2]), started_here=tell)
    wire.send(reply, {"ended": code})


def _detach(request: dict[str, Any], fds: list[int], reply: socket.socket) -> None:
    found = target.find(request["target"])
    wire.send(reply, {"pid": supervise.detach(found, member_spec_from_dict(request["spec"]))})


_VERBS: dict[str, Callable[[dict[str, Any], list[int], socket.socket], None]] = {
    "create": _create,
    "join": _join,
    "detach": _detach,
}

if __name__ == "__main__":
    serve(int(sys.argv[1]))
