"""How nsbox says no to a word, and words made at random to say it to."""

import random

import pytest

from nsbox.errors import SpecError

# What the parsers look at, and what people and terminals trip over.
_LETTERS = ":,=/.\"'+-_ \\\n\0\t\x1b\x9b\u202e\ud800\udcffab019\uff18\u0661\u212aproc"


def refusal(function, *args) -> str:
    """The message with which `function` refuses: one line, fit for a terminal."""
    with pytest.raises(SpecError) as caught:
        function(*args)
    for line in (str(caught.value), caught.value.hint):
        assert line.isprintable(), "a raw control character would reach the terminal"
        assert not line.endswith("."), line
    assert str(caught.value).startswith("cannot ")
    assert len(str(caught.value)) < 400
    assert caught.value.exit_status == 2
    return str(caught.value)


def random_texts(count):
    """The same texts in every run."""
    dice = random.Random(1)
    for _ in range(count):
        yield "".join(dice.choices(_LETTERS, k=dice.randrange(12)))
