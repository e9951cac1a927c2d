"""The words of --userns, and which ids are free. No root and no kernel needed."""

import pytest
from refusals import random_texts, refusal

from nsbox import idranges, parse, spec
from nsbox.errors import SpecError
from nsbox.idranges import IdRange

LAST = 2**32 - 1  # no id

BAD_MAPS = [
    "", " ", "autos", "Auto", "keep", "0", "0:1", "0:1:2:3", "0:100000:65536,", ",0:100000:65536",
    "0:100000:65536,,1:2:3", "0 100000 65536", "0:100000:65536\n", "-0:100000:1", "+0:1:1", "00:1:1",
    "0:0x10:1", "0:1e5:1", "0:1_0:1", "0:\uff11:1", "0:\u0661:1", "0::1", "0:100000:0", "0:1:99999999999",
    f"0:1:{LAST}", f"0:{LAST}:1", f"0:100000:1,{LAST}:5:1", f"0:0:{2**32}", "0:auto:1", "0:100000:65536\0",
    "1:100000:65536",                      # nobody would be root inside
    "0:100000:10,9:200000:10",             # overlap inside
    "0:100000:10,10:100009:10",            # overlap outside
    "0:100000:10,20:300000:5,5:400000:1",  # overlap inside, not beside each other
    ",".join(f"{number}:{number}:1" for number in range(341)),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_MAPS)
def test_C06_a_bad_map_is_refused_in_one_line(text):
    """Also in a spec that comes from a file. Red when: _map_fault returns "" at once."""
    refusal(parse.parse_userns, text)
    plain = spec.pod_spec_to_dict(spec.PodSpec("web", "web", spec.RootSpec("")))
    if text:
        with pytest.raises(SpecError):
            spec.pod_spec_from_dict({**plain, "userns": text})


@pytest.mark.parametrize("text, ranges", [
    ("0:100000:65536", [(0, 100000, 65536)]),
    ("0:0:1", [(0, 0, 1)]),
    (f"0:0:{LAST}", [(0, 0, LAST)]),
    ("1000:1000:1,0:100000:1000,1001:101000:64536", [(1000, 1000, 1), (0, 100000, 1000), (1001, 101000, 64536)]),
    (f"0:1:1,5:{LAST - 1}:1", [(0, 1, 1), (5, LAST - 1, 1)]),
    (",".join(f"{number}:{2 * number}:1" for number in range(340)), [(number, 2 * number, 1) for number in range(340)]),
])  # fmt: skip
def test_C06_a_good_map_is_taken_as_it_is_written(text, ranges):
    """Red when: LINES_MAX is 339, or _END one less."""
    assert parse.parse_userns(text) == text
    assert list(idranges.read_map(text)) == ranges
    pod = spec.PodSpec("web", "web", spec.RootSpec(""), userns=text)
    assert spec.pod_spec_from_dict(spec.pod_spec_to_dict(pod)) == pod


def test_words_made_at_random_are_refused_or_good():
    """Red when: _RANGE is not matched to the end of the word."""
    for text in random_texts(3000):
        try:
            parse.parse_userns(text)
        except SpecError:
            continue
        assert all(word.replace(":", "").isdigit() for word in text.split(",")), text


def test_the_first_free_ids_are_found_between_those_in_use():
    """Red when: first_free does not sort what is in use, or forgets the end of `within`."""
    free = idranges.first_free
    assert free([(100, 30)], [], 10) == 100
    assert free([(100, 30)], [(110, 10), (100, 10)], 10) == 120
    assert free([(100, 30)], [(95, 6)], 10) == 101
    assert free([(100, 30)], [(109, 1), (119, 1)], 10) == 120
    assert free([(100, 30)], [(110, 11)], 10) == 100
    assert free([(100, 30)], [(105, 20)], 10) is None
    assert free([(100, 9), (200, 10)], [], 10) == 200
    assert free([], [], 10) is None
    assert free([(0, 30)], [(0, 25), (3, 1)], 10) is None


@pytest.mark.parametrize("own, count, ranges", [
    (1000, 65536, [(0, 200, 1000), (1000, 1000, 1), (1001, 1200, 64536)]),
    (5, 5, [(0, 200, 5), (5, 5, 1)]),
    (70000, 10, [(0, 200, 10), (70000, 70000, 1)]),
])  # fmt: skip
def test_a_kept_id_lies_between_the_others(own, count, ranges):
    """Red when: around gives the ids above the own one from `start` on again."""
    assert list(idranges.around(own, 200, count)) == ranges


def test_a_map_is_an_identity_if_all_of_it_is():
    """Red when: is_identity asks any() of its lines."""
    assert idranges.is_identity([IdRange(0, 0, LAST)]) and idranges.is_identity([])
    assert not idranges.is_identity([IdRange(0, 0, 1), IdRange(1, 100001, 65535)])
