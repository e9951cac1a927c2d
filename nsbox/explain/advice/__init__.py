"""Why a call failed: which rules of the manual pages give this errno, and which of them apply here.

Only what goes wrong loads this. A rule is data (:class:`.case.Rule`): calls, errnos, a sentence, where to read, a
look at the actual state, and the next command to type. To add one: a row in the module of its subject;
tests/test_advice.py holds the rows to the errnos that the manual pages list.
"""

import errno
import os

from ...errors import HINTS, CommandError, NsboxError
from ...linux import trouble
from .. import catalogue
from . import identity, joining, making, mounting, others
from .case import APPLIES, NOT, UNKNOWN, Advice, Case, Rule, unknown

__all__ = ["APPLIES", "NOT", "UNKNOWN", "Advice", "Case", "advice", "calls", "case_of", "hint", "rules_for"]
RULES: tuple[Rule, ...] = (*making.RULES, *joining.RULES, *identity.RULES, *mounting.RULES, *others.RULES)
_ANY = ""
_MORE = "again with --explain it says what can be the reason; nsbox doctor, what this machine allows"


def calls() -> list[str]:
    """The calls that there are rules for, besides those for any call."""
    return sorted({call for rule in RULES for call in rule.calls if call})


def rules_for(call: str, code: int) -> list[Rule]:
    """The rules that can give this errno to this call; those for any call come last."""
    found: list[Rule] = []
    for rule in RULES:
        fits = call in rule.calls or _ANY in rule.calls
        if fits and any(getattr(errno, name) == code for name in rule.errors):
            if all(rule.probe is not other.probe for other in found):  # a rule for any call, which it has itself
                found.append(rule)
    return found


def case_of(err: BaseException | None) -> Case | None:
    """The call that failed, if `err` is one of ours that says which: "call: reason"."""
    if not isinstance(err, OSError) or not err.errno:
        return None
    call, colon, _ = (err.strerror or "").partition(":")
    if not colon or call not in catalogue.CALLS and call not in calls():
        return None
    return Case(call, err.errno, trouble.asked_of(err), trouble.scene_of(err))


def advice(case: Case) -> list[Advice]:
    """Each rule that can be the reason, held against what is so here, in the kernel's order."""
    found = []
    for rule in rules_for(case.call, case.code):
        if not rule.when(case):
            continue
        try:
            seen = rule.probe(case)
        except (OSError, ValueError, IndexError, NsboxError) as err:
            seen = unknown(f"it could not be looked at: {err}")
        found.append(Advice(rule.says, rule.source, seen.verdict, seen.words, seen.next or rule.next))
    return found


def hint(err: NsboxError, *, explained: bool = False) -> str:
    """What to tell in one line: the rule that is known to apply and the next command, or where to learn more.

    What a room said itself, knowing the purpose, stays.

    Args:
        explained: all rules have been told already.
    """
    cause = err.__cause__
    case = case_of(cause)
    if case is None or not isinstance(cause, OSError):
        return err.hint
    found = advice(case)
    own = err.hint and not _is_general(err.hint, case)
    proven = next((one for one in found if one.verdict == APPLIES), None)
    if proven is not None:
        return f"{err.hint if own else f'{proven.rule} ({proven.seen})'}; see: {proven.next}"
    guessed = err.hint == trouble.advice(cause)
    if own and not guessed or not found or isinstance(err, CommandError):
        return err.hint
    more = "nsbox doctor says what this machine allows" if explained else _MORE
    return f"{err.hint}; {more}" if err.hint else more


def _is_general(text: str, case: Case) -> bool:
    """Whether it is the hint that every failure of the kind gets."""
    call = "write uid_map" if case.call.startswith("write ") else case.call
    general = HINTS.get((call, case.code), "")
    return bool(general) and text.startswith(general)


def written(case: Case) -> str:
    """The errno by its name, with what it means."""
    return f"{errno.errorcode.get(case.code, case.code)} ({os.strerror(case.code)})"
