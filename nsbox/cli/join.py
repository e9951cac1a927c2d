"""`nsbox join`."""

import argparse
import signal
from typing import Any

from .. import parse
from ..errors import SpecError, exit_status_of
from ..spec import MemberSpec
from . import clean, options

_EXAMPLE = """\
example:
  sudo nsbox join web -- hostname
  sudo nsbox join web --rootfs debian -- cat /etc/os-release
  sudo nsbox join web -u www-data -- id
  sudo nsbox join web -d -- httpd -f -p 8080
  sudo nsbox join web --ulimit core=unlimited -- sh    may leave core files
  sudo nsbox join 4711 --share net -- ip address       any process, of any program

TARGET is a pod's name or a host PID. What a member does not share with a pod is new for it;
what it does not share with another program's process stays the caller's, as with nsenter.
"""


def add_parser(verbs: Any) -> None:
    """Add `join`."""
    parser = options.verb(
        verbs, "join", "run a command as a member of a pod, or beside any process", _EXAMPLE, "join:run", foretold=True
    )
    parser.add_argument("target", metavar="TARGET", help="a pod's name, or the host PID of any process")
    parser.add_argument("-d", "--detach", action="store_true", help="print the host PID and return; "
                        "see nsbox logs and nsbox wait")
    parser.add_argument("--json", action="store_true", help="with -d: answer in JSON")
    parser.add_argument("--share", metavar="LIST", help="what to share with the target: any of user cgroup ipc uts "
                        "net pid time mnt, with commas; +KIND adds to the default")
    parser.add_argument("--hostname", metavar="HOST", help="for a member that does not share uts")  # fmt: skip
    options.add_seccomp_option(parser)
    options.add_ulimit_option(parser)
    options.add_root_options(parser)
    options.add_rights_options(parser)
    options.add_member_options(parser, verbs)


def run(args: argparse.Namespace) -> int:
    """Join a member; its exit status is ours, or its PID is printed."""
    spec = _member_spec(args)
    tty = not args.detach and options.wants_tty(args)
    from ..pod import target

    found = target.find(args.target)
    try:
        if args.share is not None:
            default = found.pod.share if found.pod and found.pod.share is not None else found.kinds
            spec = spec._replace(share=parse.parse_share(args.share, default))
        if args.detach:
            return _detach(found, spec, args)
        from ..pod import attach

        return exit_status_of(attach.run_as_client(found, spec, tty=tty))
    finally:
        found.close()


def _member_spec(args: argparse.Namespace) -> MemberSpec:
    if args.json and not args.detach:
        raise SpecError("cannot answer in JSON: without -d the command's own output is the answer")
    if args.detach and args.tty:
        raise SpecError("cannot give a detached member a terminal", hint="leave -t or -d out")
    root = options.root_spec(args)
    asked = bool(root.path or root.volumes or root.tmpfs)
    return MemberSpec(
        argv=options.member_argv(args),
        root=root if asked else None,
        env=options.member_env(args),
        workdir=options.workdir(args),
        hostname=parse.check_hostname(args.hostname) if args.hostname else None,
        user=options.user(args),
        rights=options.rights(args),
        seccomp=options.seccomp(args),
        ulimits=parse.parse_ulimits(args.ulimit),
    )


def _detach(found: Any, spec: MemberSpec, args: argparse.Namespace) -> int:
    from ..pod import supervise

    pid = supervise.detach(found, spec)
    text = str(pid)
    if args.json:
        import json

        text = json.dumps({"pid": pid, "pod": found.pod.name if found.pod else None})
    clean.answer(lambda: text, lambda: _kill(pid))
    return 0


def _kill(pid: int) -> None:
    from ..pod import lifecycle

    lifecycle.kill(str(pid), signal.SIGKILL)
