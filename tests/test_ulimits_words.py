"""--ulimit as a word, in a spec and in a record: what is taken, and what is refused before anything is touched.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re

import pytest

from nsbox import parse, spec, ulimits
from nsbox.pod import record as records
from nsbox.pod.files import CorruptFile
from nsbox.linux.process import Identity
from refusals import random_texts, refusal

POD = spec.PodSpec("web", "web", spec.RootSpec(""))
MEMBER = spec.MemberSpec((b"true",))
RECORD = records.PodRecord("0" * 16, "web", "intent", Identity("b", 1, 1), None, 1.0, "web")
NO_END = 2**64 - 1

WORDS = {
    "nofile=1024": (1024, 1024), "nofile=1024:4096": (1024, 4096), "nofile=0": (0, 0), "nofile=7:7": (7, 7),
    "core=unlimited": (NO_END, NO_END), "core=0:unlimited": (0, NO_END), "core=unlimited:unlimited": (NO_END, NO_END),
    "as=18446744073709551615": (NO_END, NO_END), "as=18446744073709551614:unlimited": (NO_END - 1, NO_END),
    "stack=9007199254740993": (2**53 + 1, 2**53 + 1), **{f"{name}=1:2": (1, 2) for name in ulimits.NAMES},
}  # fmt: skip


@pytest.mark.parametrize("text", WORDS)
def test_a_limit_is_a_name_and_one_number_or_two(text):
    """In a spec and a record it is the same again. Red when: SOFT alone leaves the hard limit open."""
    name = text.partition("=")[0]
    made = parse.parse_ulimits([text])
    assert made == ((name, WORDS[text]),)
    for one, there, back in ((POD, spec.pod_spec_to_dict, spec.pod_spec_from_dict),
                             (MEMBER, spec.member_spec_to_dict, spec.member_spec_from_dict),
                             (RECORD, records.pod_to_dict, records.pod_from_dict)):
        given = one._replace(ulimits=made)
        assert back(json.loads(json.dumps(there(given)))) == given


REFUSED = {
    "": "not NAME=", "nofile": "not NAME=", "nofile:1": "not NAME=", "=1": "no limit ''", "nofiles=1": "no limit 'nofiles'",
    "NOFILE=1": "no limit", "RLIMIT_NOFILE=1": "no limit", " nofile=1": "no limit", "nofile =1": "no limit", "no\nfile=1": "no limit",
    "nofile=": "not a number", "nofile=1:": "not a number", "nofile=:1": "not a number", "nofile=:": "not a number",
    "nofile=-1": "not a number", "nofile=+1": "not a number", "nofile= 1": "not a number", "nofile=1 ": "not a number",
    "nofile=1\n": "not a number", "nofile=1:2:3": "not a number", "nofile=1k": "not a number", "nofile=0x10": "not a number",
    "nofile=1_0": "not a number", "nofile=01": "not a number", "nofile=1.0": "not a number", "nofile=\uff18": "not a number",
    "nofile=infinity": "not a number", "nofile=Unlimited": "not a number", "nofile=18446744073709551616": "not a number",
    "nofile=99999999999999999999": "not a number", f"nofile={'9' * 5000}": "not a number", "nofile=1=2": "not a number",
    "nofile=2:1": "above the hard one, 1", "nofile=unlimited:1": "above the hard one", "as=18446744073709551615:1": "above",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_what_is_no_limit_is_refused(text):
    """Red when: int() alone reads the number, or the comparison of the two is left out."""
    said = refusal(parse.parse_ulimits, [text])
    assert said.startswith("cannot set limit ") and REFUSED[text] in said, said


def test_the_hint_has_every_name():
    """Red when: _HINT leaves one out."""
    with pytest.raises(spec.decode.SpecError) as caught:
        parse.parse_ulimits(["files=1"])
    assert caught.value.hint.endswith(" ".join(sorted(ulimits.NAMES))) and len(ulimits.NAMES) == 16


def test_no_word_gets_through_that_is_none():
    """Red when: a part is stripped before it is looked at."""
    for text in random_texts(3000):
        if not re.fullmatch("(0|[1-9][0-9]*)(:(0|[1-9][0-9]*))?", text):
            refusal(parse.parse_ulimits, ["core=" + text])
        refusal(parse.parse_ulimits, [text])


def test_of_a_name_that_comes_again_the_last_counts():
    """Red when: settle() keeps the first, or what came from the pod."""
    made = parse.parse_ulimits(["nproc=5", "as=1", "nproc=3:4"])
    assert made == (("as", (1, 1)), ("nproc", (3, 4)))
    assert ulimits.settle(made, (("nproc", (9, 9)),)) == (("as", (1, 1)), ("nproc", (9, 9)))
    assert ulimits.settle((), made) == made and parse.parse_ulimits([]) == ()


@pytest.mark.parametrize("data", [
    None, {}, [["nofile", 1]], [["nofile", [1]]], [["nofile", [1, 2, 3]]], [["nofile", [2, 1]]], [["nofile", [True, 1]]],
    [["nofile", ["1", "2"]]], [["nofile", [-1, 1]]], [["nofile", [1, 2**64]]], [["files", [1, 1]]], [["NOFILE", [1, 1]]],
    [["nofile", [1.0, 1]]], [["nofile", [1, 1]], ["nofile", [2, 2]]],
], ids=str)  # fmt: skip
def test_a_limit_that_is_none_comes_in_by_no_file(data):
    """Red when: of_list is taken for exactly(list)."""
    refusal(spec.pod_spec_from_dict, spec.pod_spec_to_dict(POD) | {"ulimits": data})
    refusal(spec.member_spec_from_dict, spec.member_spec_to_dict(MEMBER) | {"ulimits": data})


@pytest.mark.parametrize("data", [None, [], 1, {"nofile": 1}, {"nofile": [2, 1]}, {"files": [1, 1]}, {"nofile": [1, 2**64]}], ids=str)
def test_a_record_with_such_a_limit_is_corrupt(data):
    """And one of an nsbox that had none is not. Red when: _ulimits() lets SpecError out, or the key is demanded."""
    plain = json.loads(json.dumps(records.pod_to_dict(RECORD)))
    with pytest.raises(CorruptFile):
        records.pod_from_dict(plain | {"ulimits": data})
    older = plain
    del older["ulimits"]
    assert records.pod_from_dict(older) == RECORD
