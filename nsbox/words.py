"""The smallest words of the command line: names, numbers, and how a word is quoted back.

Touches nothing. ASCII only where it counts: int() alone would take "８０", "8_0", "+80"
and " 80 ".
"""

import codecs
import os
import re

from .errors import SpecError
from .spec import SIZE_MAX_BYTES, SIZE_MIN_BYTES, STOP_TIMEOUT_MAX_S, hostname_fault, name_fault

SPELLED = "nsbox.spelled"  # an error handler for streams and str.encode(): what cannot be encoded is spelled out
_QUOTED_MAX = 120
_INTEGER = re.compile(r"0|[1-9][0-9]*")
_SECONDS = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")
_SIZE = re.compile(r"(0|[1-9][0-9]*)([bkmg]?)", re.ASCII | re.IGNORECASE)
_UNIT_BYTES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def quote(word: str | bytes) -> str:
    """`word` between quotes, fit for a terminal: no control character, not too long."""
    text = os.fsdecode(word) if isinstance(word, bytes) else word
    return repr(text if len(text) <= _QUOTED_MAX else text[:_QUOTED_MAX] + "...")


def printable(text: str) -> str:
    """`text` with every control character spelled out: a name must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else spell(char) for char in text)


def spell(char: str) -> str:
    """A character as an escape; a byte that is no text, as os.fsdecode keeps it, as \\xff."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def _spell_out(err: UnicodeError) -> tuple[str, int]:
    if not isinstance(err, UnicodeEncodeError):
        raise err
    return "".join(map(spell, err.object[err.start : err.end])), err.end


codecs.register_error(SPELLED, _spell_out)


def encode(word: str, what: str) -> bytes:
    """The bytes that the kernel is given for `word`: those of the command line, unchanged.

    Raises:
        SpecError: `word` holds a NUL, or a character that the locale cannot write.
    """
    try:
        raw = os.fsencode(word)
    except UnicodeEncodeError as err:
        why = "this locale has no bytes for it"
        raise SpecError(f"cannot use {what} {quote(word)}: {why}") from err
    if b"\0" in raw:
        raise SpecError(f"cannot use {what} {quote(word)}: it holds a NUL")
    return raw


def check_name(text: str, what: str = "pod") -> str:
    """`text`, if it can name a pod. Safe then as a file name: no slash, no leading dot."""
    if why := name_fault(text):
        raise SpecError(f"cannot use {what} name {quote(text)}: {why}")
    return text


def check_hostname(text: str) -> str:
    """`text`, if it can be a hostname. See hostname(7)."""
    if why := hostname_fault(text):
        raise SpecError(f"cannot use hostname {quote(text)}: {why}")
    return text


def hostname_of(name: str) -> str:
    """The hostname of a pod that was given none: its name, with what no hostname holds left out."""
    labels = (label.strip("-") for label in name.replace("_", "-").split("."))
    return ".".join(label for label in labels if label)


def parse_integer(text: str, what: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, in plain digits: no sign, no leading zero."""
    number = int(text) if len(text) <= 20 and _INTEGER.fullmatch(text) else None
    if number is None or not low <= number <= high:
        raise SpecError(f"cannot use {what} {quote(text)}: not a whole number from {low} to {high}")
    return number


def parse_size(text: str, what: str) -> int:
    """A size in bytes, from "512", "512b", "64k", "64m" or "2g": powers of 1024."""
    match = _SIZE.fullmatch(text) if len(text) <= 20 else None
    if not match:
        raise SpecError(
            f"cannot use {what} {quote(text)}: not a size",
            hint="a size is a whole number and, if you like, one of b k m g, as in 64m",
        )
    size = int(match[1]) * _UNIT_BYTES[match[2].lower()]
    if not SIZE_MIN_BYTES <= size <= SIZE_MAX_BYTES:
        raise SpecError(f"cannot use {what} {quote(text)}: not between 1 byte and 2^60 bytes")
    return size


def parse_seconds(text: str, what: str) -> float:
    """A time in seconds, "10" or "0.5"; never negative, infinite or nan."""
    number = float(text) if _SECONDS.fullmatch(text) else -1.0
    if not 0 <= number <= STOP_TIMEOUT_MAX_S:
        most = f"{STOP_TIMEOUT_MAX_S:.0f}"
        raise SpecError(f"cannot use {what} {quote(text)}: not a number of seconds up to {most}")
    return number
