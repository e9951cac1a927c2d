"""The process that forks for a program which uses the library.

A program may have threads, and its namespaces are its own business. So the first call starts
one small process with a single thread, which is kept; each request is done by a worker that
it forks. A worker is to the library what the command `nsbox` is to a shell: the parent of the
member it starts, which dies with it. All of them end when the program does.

program                    spawner                    worker
  request, fds ----------> fork --------------------> create or join
  <---------------------------------------- {"pid": …}, a pidfd; or {"error": …}
  <---------------------------------------- {"ended": …} when a member has ended
"""

import os
import signal
import socket
import sys
from typing import Any, Callable, NoReturn

from ..errors import NsboxError
from ..linux import process
from ..privilege import attributes
from ..spec import member_spec_from_dict, pod_spec_from_dict
from . import attach, create, supervise, target, wire




def serve(channel_fd: int) -> NoReturn:
    """Serve requests until the program closes its end. Runs as the main function of the spawner."""
    attributes.set_name("nsbox:spawner")
    os.umask(0o077)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, _collect)
    channel = socket.socket(fileno=channel_fd)
    while (received := wire.receive(channel)) is not None:
        request, fds = received
        if os.fork() == 0:
            channel.close()
            _work(request, fds)
        for fd in fds:
            os.close(fd)
    os._exit(0)


def _collect(_signum: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _work(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Do one request and end. Never returns into the spawner's loop."""
    reply = socket.socket(fileno=fds[0])
    try:
        attributes.die_with_parent(os.pidfd_open(os.getppid()))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in wire.ENVIRONMENT:
            os.environ.pop(name, None)
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        _VERBS[request["verb"]](request, fds[1:], reply)
    except NsboxError as err:
        wire.send(reply, {"error": process.encode_error(err).decode()})
    except Exception as err:
        failure = NsboxError(f"cannot {request.get('verb')}: {err!r}")
        wire.send(reply, {"error": process.encode_error(failure).decode()})
    finally:
        os._exit(0)


def _create(request: dict[str, Any], fds: list[int], reply: socket.socket) -> None:
    spec = pod_spec_from_dict(request["spec"])
    record, started = create.create(spec)
    wire.send(reply, {"pid": started.pid, "name": record.name})
    reply.close()
    if spec.die_with_parent:  # we are the parent: the pod lives as long as we do, and we as long as the program
        os.waitpid(started.pid, 0)


def _join(request: dict[str, Any], fds: list[int], reply: socket.socket) -> None:
    spec = member_spec_from_dict(request["spec"])
    found = target.find(request["target"])

    def tell(started: process.Spawned) -> None:
        wire.send(reply, {"pid": started.pid}, [started.pidfd])
        for fd in fds:
            os.close(fd)  # or an end of a pipe would stay open here when the member closes its own

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
