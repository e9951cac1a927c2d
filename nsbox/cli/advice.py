"""Why a call failed: the hint of an error, the table of --explain, and `nsbox explain error`."""

import errno
import json
import os
from collections.abc import Sequence

from .. import parse
from ..errors import SpecError
from ..explain import advice
from ..explain.advice import given, text
from ..explain.teller import Teller, Told
from ..show.text import printable
from . import clean

_WIDTH_MIN, _WIDTH_MAX, _WIDTH_UNKNOWN = 60, 120, 100
_TOLD_AS = {"netlink": "sendto"}  # a message, which is told as the call that sent it
_USE = "as in: nsbox explain error unshare EPERM CLONE_NEWUSER"
Reasons = dict[int, list[dict[str, str]]]


def told_of(err: BaseException, teller: Teller, *, shown: bool) -> Reasons:
    """What can be the reason of an error, by the number of the call that failed; told on stderr if `shown`."""
    case = advice.case_of(err if isinstance(err, OSError) else err.__cause__)
    if case is None:
        return {}
    call = _failed(teller.told, case)
    found = advice.advice(case)
    if shown and found:
        what = f"call {call.number}, {call.text}" if call is not None else case.call
        clean.tell(*text.lines(f"{what} = {advice.written(case)}; what can be the reason:", found, _width()))
    return {} if call is None else {call.number: [one._asdict() for one in found]}


def _failed(told: Sequence[Told], case: advice.Case) -> Told | None:
    """The last call that failed so."""
    word = case.call.partition(" ")[0]
    call = _TOLD_AS.get(word, word)
    found = [one for one in told if one.call == call and one.error and getattr(errno, one.error, 0) == case.code]
    return found[-1] if found else None


def _width() -> int:
    try:
        columns = os.get_terminal_size(2).columns
    except OSError:
        columns = _WIDTH_UNKNOWN
    return min(max(columns, _WIDTH_MIN), _WIDTH_MAX)


def run(words: Sequence[str], as_json: bool) -> int:
    """`nsbox explain error [CALL [ERRNO [ARGUMENT …]]]`: the rules, and which of them apply to this shell.

    Raises:
        SpecError: there is no such call or errno.
    """
    if len(words) < 2:
        return _list(words, as_json)
    call, code = _call(words[0]), _errno(words[1])
    case = advice.Case(call, code, given.arguments(call, words[2:]))
    found = advice.advice(case)
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=2))
        return 0
    title = f"{call}({', '.join(words[2:])}) = {advice.written(case)}; what can be the reason, and whether it is here:"
    print(*map(printable, text.lines(title, found, _width())), sep="\n")
    return 0


def _list(words: Sequence[str], as_json: bool) -> int:
    """The calls that there are rules for, or those of one call."""
    if not words:
        rows = [{"call": call, "errors": sorted({name for _, name in _errors(call)})} for call in advice.calls()]
        print(json.dumps(rows, indent=2) if as_json else
              "\n".join(f"{row['call']:<18} {' '.join(row['errors'])}" for row in rows))  # fmt: skip
        return 0
    call = _call(words[0])
    found = [{"errno": name, "rule": rule.says, "source": rule.source, "next": rule.next}
             for code, name in _errors(call) for rule in advice.rules_for(call, code)]  # fmt: skip
    print(json.dumps(found, indent=2) if as_json else
          "\n".join(f"{row['errno']:<12} {row['rule']} [{row['source']}]" for row in found))  # fmt: skip
    return 0


def _errors(call: str) -> list[tuple[int, str]]:
    """The errnos that there are rules for, of this very call."""
    names = {name for rule in advice.RULES if call in rule.calls for name in rule.errors}
    return sorted({(getattr(errno, name), name) for name in names}, key=lambda one: one[1])


def _call(word: str) -> str:
    call = given.SHORT.get(word, word)
    if call not in advice.calls():
        raise SpecError(f"cannot find rules of a call {parse.quote(word)}", hint="see: nsbox explain error")
    return call


def _errno(word: str) -> int:
    code = getattr(errno, word.upper(), None) if word.upper().startswith("E") else None
    if not isinstance(code, int):
        raise SpecError(f"cannot find an errno {parse.quote(word)}", hint=_USE)
    return code
