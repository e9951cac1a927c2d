"""`nsbox run`: create, join and remove in one."""

import argparse
from typing import Any

from ..errors import NsboxError, exit_status_of
from ..spec import MemberSpec
from . import clean, create, options, publish

_EXAMPLE = """\
example:
  sudo nsbox run --rootfs rootfs -- /bin/sh
  sudo nsbox run --rootfs rootfs --userns -- /bin/sh     with a root that is nobody on the host
  sudo nsbox run --ulimit nofile=64:128 -- sh -c 'ulimit -n'

The first stands for
  sudo unshare --pid --uts --ipc --mount -f chroot rootfs /bin/sh

with its own network and /proc, a reaping PID 1, and nothing left behind.
"""


def add_parser(verbs: Any) -> None:
    """Add `run`."""
    parser = options.verb(verbs, "run", "make a pod, run a command in it, remove the pod", _EXAMPLE, "run:run",
                          foretold=True)
    parser.add_argument("--name", metavar="NAME", help="the pod's name; one is made up if not given")
    create.add_pod_options(parser)
    options.add_root_options(parser)
    options.add_member_options(parser, verbs)


def run(args: argparse.Namespace) -> int:
    """Run the command in a pod that lives as long as it does; its exit status is ours."""
    member = MemberSpec(
        argv=options.member_argv(args), env=options.member_env(args), workdir=options.workdir(args),
        user=options.user(args),
    )  # fmt: skip
    tty = options.wants_tty(args)
    spec = create.pod_spec(args, args.name)._replace(die_with_parent=True)
    from ..pod import create as maker
    from ..pod import store

    spare = store.spare_memory()
    try:
        with publish.at_birth(args.publish, args.publish_mode, spec.net) as serve:
            maker.create(spec, serve.intend)
            clean.say_changes()
            publish.tell_free_ports(args.publish, serve(spec.name))
        status = _join(spec.name, member, tty=tty)
        spare.clear()
        _remove(spec.name)
    except BaseException:
        spare.clear()
        maker.abandon(spec.name)
        raise
    return status


def _join(name: str, member: MemberSpec, *, tty: bool) -> int:
    from ..pod import attach, target

    found = target.find(name)
    try:
        return exit_status_of(attach.run_as_client(found, member, tty=tty))
    finally:
        found.close()


def _remove(name: str) -> None:
    from ..pod import lifecycle

    try:
        lifecycle.remove(name, force=True)
    except NsboxError as err:
        raise NsboxError(f"cannot remove pod {name!r}", hint="try: nsbox prune") from err
