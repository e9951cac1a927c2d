"""--dry-run of the verbs that act, and `nsbox explain VERB`: what a verb would do, and nothing of it done."""

import argparse
import contextlib
import os
import sys
from typing import Any, Callable, Collection, Iterator, NoReturn

from .. import parse
from ..errors import NsboxError, SpecError
from ..explain import text
from ..explain.teller import Teller, Told
from ..pod import statedir
from . import clean, options
from .explain import failing, listening, write_down

Act = Callable[[argparse.Namespace], int]

_PUBLISH, _UNPUBLISH = "nsbox.cli.publish:run", "nsbox.cli.publish:undo"
_END, _ROOTFS = "nsbox.cli.end:", "nsbox.cli.rootfs:"
_NET = "nsbox.cli.net:"


def tell(act: Act, args: argparse.Namespace) -> int:
    """Tell what the verb would do; its exit status."""
    if args.step or args.explain:
        raise SpecError("cannot tell it before and while it is done: --dry-run stands without --explain and --step")
    screen = None if "-" in (args.sh, args.events) else text.Screen(1)
    if args.handler.startswith((_END, _ROOTFS)):
        told: list[Told] = []
        try:
            told = _planned(args)
            if screen is not None:
                screen.planned(told)
        finally:
            write_down(args, told)
        _check(screen)
        return 0
    return _rehearse(act, args, screen)


def _planned(args: argparse.Namespace) -> list[Told]:
    from ..explain.plans import Plan

    plan = Plan()
    if args.handler.startswith(_ROOTFS):
        from ..images import foretell
        from .rootfs import packages

        if args.handler.endswith(":run_rm"):
            plan.build(foretell.of_removal(args.names))
        else:
            plan.build(foretell.of_build(args.recipe, include=packages(args), force=args.force))
        return plan.told
    if args.handler.endswith(":kill"):
        for target in args.targets:
            plan.kill(target, parse.parse_signal(args.signal))
        return plan.told
    grace_s = options.seconds(args.time, "--time")
    for name in args.pods:
        plan.end(parse.check_name(name), force=getattr(args, "force", False), grace_s=grace_s)
    return plan.told


def _rehearse(act: Act, args: argparse.Namespace, screen: text.Screen | None) -> int:
    from ..explain import rehearse

    if getattr(args, "in_place", False):
        raise SpecError("cannot rehearse with --in-place: that may make directories in the rootfs")
    if os.isatty(0) and os.isatty(1) and hasattr(args, "tty") and not (args.no_tty or getattr(args, "detach", False)):
        args.tty = True  # as it would be if its answer were not kept back
    pods, network = _pods(args), _changes_the_host(args)
    clean.is_rehearsal = network
    covered = os.geteuid() == 0 and (pods is not None or getattr(args, "net", "none") != "none")
    account = _Account(screen)
    try:
        if network:
            _take_ports(args, account)
        with rehearse.stage(covered=covered, network=network, pods=pods):
            account.of(lambda: act(args), rehearse.leave)
    finally:
        write_down(args, account.told, account.reasons)
    _check(screen)
    clean.tell("nsbox: rehearsed: nothing of it is left")
    return 0


def _check(screen: text.Screen | None) -> None:
    """What was told beforehand is the answer, so that it is an error if it could not be written."""
    if screen is not None and screen.failure:
        clean.lose_answer(OSError(screen.failure, os.strerror(screen.failure)))
    clean.flush_answer()


class _Account:
    """What is told, and why what failed may have failed."""

    def __init__(self, screen: text.Screen | None) -> None:
        self.told: list[Told] = []
        self.reasons: dict[int, Any] = {}
        self._screen = screen

    def of(self, act: Callable[[], object], leave: Callable[[str], NoReturn] | None = None) -> None:
        """Do it, and tell it."""
        teller = Teller(self._screen, leave)
        try:
            with failing(teller, self.reasons, shown=self._screen is not None), listening(teller), _without_answer():
                act()
        finally:
            self.told = teller.told


def _pods(args: argparse.Namespace) -> Collection[str] | None:
    """Those that run and that something would be done to; None: it reaches none that is there already."""
    if args.handler in (_PUBLISH, _UNPUBLISH, f"{_NET}connect"):
        return {args.pod}
    if args.handler == f"{_NET}disconnect":
        return {args.pod, args.network}
    if args.handler == f"{_NET}link":
        return set(args.pods)
    return set() if args.handler in (f"{_NET}rm", f"{_NET}reload") else None


def _changes_the_host(args: argparse.Namespace) -> bool:
    """Whether links, rules or settings of the host's network are made: those who may not say so themselves."""
    if os.geteuid() != 0:
        return False
    if args.handler == _UNPUBLISH:
        return statedir.has_nets()
    net = getattr(args, "net", "none")
    by_nat = getattr(args, "publish_mode", "proxy") == "nat"
    return args.handler.startswith(_NET) or by_nat or net not in ("none", "host", "user") and ":" not in net


def _take_ports(args: argparse.Namespace, account: _Account) -> None:
    """See whether the ports are free on the host: in the copy of its network nobody listens."""
    from ..pod import publish
    from .publish import check_mode, ports_of

    def take() -> None:
        publish.close(publish.bind(ports))

    ports = ports_of(getattr(args, "publish" if args.handler != _PUBLISH else "specs", []))
    if not ports:
        return
    check_mode(ports, args.publish_mode, getattr(args, "net", None))
    try:
        take()
    except NsboxError:
        account.of(take)  # told only if it fails: else it comes in its turn
        raise


@contextlib.contextmanager
def _without_answer() -> Iterator[None]:
    """What the verb says on stdout is of something that will not be there any more."""
    sys.stdout.flush()
    kept_fd, null_fd = os.dup(1), os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null_fd, 1)
    os.close(null_fd)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept_fd, 1)
        os.close(kept_fd)
