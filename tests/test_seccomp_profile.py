"""The kept filter programs decide what profile.py says, about every call: read by a machine of our own.

The profile is evaluated here rule by rule, as it reads; the program is what libseccomp made of it. Each
is asked about every number of a call there is, as the three machines would make it, and about the
arguments at which a decision could change, the halves of 64 bits that the kernel does not look at too.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import os
import random
from functools import cache

import bpf
import pyseccomp
import pytest

from nsbox import capabilities
from nsbox.privilege import seccomp
from nsbox.privilege.seccomp import compiler, profile

MACHINES = {"x86_64": "X86_64", "aarch64": "AARCH64"}
each_program = pytest.mark.parametrize(
    "variant, machine", [pytest.param(variant, machine, id=f"{name}-{machine}")
                         for variant, name in seccomp.BUILT.items() for machine in MACHINES])  # fmt: skip
# Of the numbers in use the highest is below 500; what is above is x32, or has the sign bit.
NUMBERS = [*range(1024), *(1 << bit for bit in range(10, 32)), 0xFFFF_FFFF]
# A libseccomp of some age does not know these calls. Their numbers are the same everywhere.
NEWER = {"cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455,
         "futex_requeue": 456}


def rules_of(variant: seccomp.Variant) -> list[profile.Rule]:
    return profile.pause_rules() if variant.pause else profile.default_rules(variant.capabilities, nested=variant.nested)


@cache
def names(machine: str) -> dict[int, str]:
    """The calls of a machine by their numbers, as libseccomp knows them."""
    arch, found = getattr(pyseccomp.Arch, MACHINES[machine]), {}
    for number in range(1024):
        try:
            found[number] = pyseccomp.resolve_syscall(arch, number).decode()
        except ValueError:
            continue
    return found


def said(rules: list[profile.Rule], call: str, args: tuple[int, ...]) -> int:
    """What the profile says of a call; rules that contradict each other are a fault of it."""
    found = {
        rule.action for rule in rules if call in rule.calls
        and all(args[test.argument] & test.mask == test.value for test in rule.tests)
    }  # fmt: skip
    assert len(found) <= 1, (call, args, found)
    return found.pop() if found else profile.NO_RULE


def arguments(rules: list[profile.Rule], call: str) -> list[tuple[int, ...]]:
    """Arguments at which a decision about the call could change, and some at random."""
    tests = [test for rule in rules if call in rule.calls for test in rule.tests]
    if not tests:
        return [(0,) * 6, (2**64 - 1,) * 6]
    dice = random.Random(call)
    words = {0, 1, 2**31, 2**32 - 1, *(1 << bit for bit in range(32)), *(dice.getrandbits(32) for _ in range(50))}
    for test in tests:
        words |= {test.value, test.value ^ 1, test.value - 1 & 2**32 - 1, test.value + 1 & 2**32 - 1}
    argument = tests[0].argument
    wide = {high << 32 | word for word in words for high in (0, 1, 2**31, 2**32 - 1)}
    return [tuple(word if at == argument else 7 for at in range(6)) for word in sorted(wide)]


def faults(program: bytes, rules: list[profile.Rule], machine: str, newer: dict[str, int]) -> list[str]:
    """Where a program decides otherwise than the profile says."""
    steps, found = bpf.instructions(program), []
    known = {number: call for call, number in newer.items()} | names(machine)
    for number in NUMBERS:
        call = known.get(number, "")
        for args in arguments(rules, call):
            wanted, got = said(rules, call, args), bpf.decide(steps, number, machine, args)
            if machine == "x86_64" and bpf.X32 <= number < 0xFFFF_FFFF:
                wanted = profile.OTHER_MACHINE
            if wanted != got:
                found.append(f"{call or number} {args[:2]}: {bpf.action_name(got)}, not {bpf.action_name(wanted)}")
    return found


@each_program
def test_C14_a_kept_program_decides_as_the_profile_says(variant, machine):
    """Red when: a word of profile.py is changed and nothing built; TIOCSTI is compared by all 64 bits (see
    the next test); a byte of the .bpf is changed."""
    program = seccomp.built(variant, machine)
    assert program is not None
    assert faults(program, rules_of(variant), machine, NEWER)[:5] == []


@each_program
def test_what_the_profile_gives_now_is_what_is_kept(variant, machine):
    """By what it decides: another libseccomp may make other bytes. Red when: as above."""
    kept, now = seccomp.built(variant, machine), seccomp.compiled(variant, machine)
    assert faults(now, rules_of(variant), machine, {})[:5] == []
    assert kept is not None and max(len(kept), len(now)) < 4096 * 8  # BPF_MAXINSNS


@each_program
def test_C14_a_call_made_as_another_machine_would_ends_the_process(variant, machine):
    """Red when: Plan.other_machine is ALLOW, or compile_plan() adds the compatible machine."""
    steps = bpf.instructions(seccomp.built(variant, machine) or b"")
    for other in set(bpf.AUDIT_ARCH) - {machine}:
        assert {bpf.decide(steps, number, other) for number in NUMBERS} == {profile.KILL_PROCESS}


TIOCSTI, TIOCLINUX, CLONE_NEWUSER, CLONE_NEWTIME, AF_ALG = 0x5412, 0x541C, 0x1000_0000, 0x80, 38
TRICKS = {
    "ioctl TIOCSTI": ("ioctl", (0, TIOCSTI)), "ioctl TIOCSTI and a bit more": ("ioctl", (0, 1 << 32 | TIOCSTI)),
    "ioctl TIOCLINUX and a bit more": ("ioctl", (0, 1 << 63 | TIOCLINUX)), "ioctl TIOCSETD": ("ioctl", (0, 0x5423)),
    "clone NEWUSER": ("clone", (CLONE_NEWUSER | 17,)), "clone NEWUSER and a bit more": ("clone", (1 << 32 | CLONE_NEWUSER,)),
    "unshare NEWUSER": ("unshare", (CLONE_NEWUSER,)), "unshare NEWTIME": ("unshare", (1 << 40 | CLONE_NEWTIME,)),
    "clone3": ("clone3", ()), "socket ALG": ("socket", (AF_ALG,)), "socket ALG and a bit more": ("socket", (1 << 32 | AF_ALG,)),
    "personality READ_IMPLIES_EXEC": ("personality", (1 << 32 | 0x40_0000,)),
}
PLAIN = {
    "ioctl TCGETS": ("ioctl", (0, 0x5401)), "ioctl TIOCSWINSZ": ("ioctl", (0, 0x5414)), "ioctl FIONREAD": ("ioctl", (0, 0x541B)),
    "clone of a thread": ("clone", (0x3D_0F00,)), "clone of a child": ("clone", (0x120_0011,)), "unshare FILES": ("unshare", (0x400,)),
    "socket INET6": ("socket", (10,)), "socket of a caller with noise above": ("socket", (5 << 32 | 2,)),
    "personality": ("personality", (0xFFFF_FFFF,)),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_C14_no_bit_that_the_kernel_does_not_look_at_gets_a_call_through(machine):
    """In numbers of the kernel's headers, not of profile.py.

    Red when: Test.mask is 2**64 - 1 (a comparison of all 64 bits), or clone3 is among the calls for everyone.
    """
    steps = bpf.instructions(seccomp.built(seccomp.Variant(), machine) or b"")
    numbers = {call: number for number, call in names(machine).items()}
    for what, (call, args) in TRICKS.items():
        assert bpf.action_name(bpf.decide(steps, numbers[call], machine, args)) in ("EPERM", "ENOSYS", "EAFNOSUPPORT"), what
    for what, (call, args) in PLAIN.items():
        assert bpf.action_name(bpf.decide(steps, numbers[call], machine, args)) == "ALLOW", what


def test_a_capability_opens_its_own_calls_and_nothing_else():
    """Red when: _WITH_CAPABILITY gives one a call of _NOBODY, or default_rules() forgets `capabilities`."""
    usual = {call for rule in profile.default_rules() if rule.action == profile.ALLOW for call in rule.calls}
    for capability in profile.CAPABILITIES:
        rules = profile.default_rules(frozenset({capability}))
        allowed = {call for rule in rules if rule.action == profile.ALLOW for call in rule.calls}
        more = allowed - usual | ({"clone"} if capability == "SYS_ADMIN" else set())
        assert more and usual <= allowed, capability
        for call in more:
            assert said(rules, call, (0x1000_0000,) * 6) == profile.ALLOW
        assert not more & set(profile._NOBODY.split())
        assert said(rules, "ioctl", (0, TIOCSTI)) == profile.EPERM
    assert profile.CAPABILITIES <= set(capabilities.NAMES) - capabilities.OF_MEMBERS


def test_nested_opens_the_calls_for_namespaces_and_mounts_and_no_more():
    """Red when: nested lets all calls of _WITH_CAPABILITY through, or none."""
    plain, nested = profile.default_rules(), profile.default_rules(nested=True)
    changed = {call for call in names("x86_64").values() if said(plain, call, (0x1000_0000,) * 6) != said(nested, call, (0x1000_0000,) * 6)}
    assert changed == {"clone", "clone3", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "sethostname", "setdomainname",
                       "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"}  # fmt: skip


def test_every_name_in_the_profile_is_one_that_libseccomp_knows():
    """Red when: a name is misspelt, say "opnat"."""
    everything = {call for rule in profile.default_rules(profile.CAPABILITIES, nested=True) for call in rule.calls}
    assert set(compiler.unknown_calls(everything)) <= {*NEWER, "riscv_hwprobe"}


def test_there_is_a_program_for_this_machine_and_none_for_an_unknown_one():
    """Red when: built() looks for any name it is given."""
    assert seccomp.built(seccomp.Variant(), "m68k") is None
    assert seccomp.built(seccomp.Variant(frozenset({"SYSLOG"})), "x86_64") is None
    assert seccomp.built(seccomp.Variant()) == seccomp.built(seccomp.Variant(), os.uname().machine)


def test_a_machine_without_a_kept_program_has_one_compiled(monkeypatch):
    """Red when: program() needs a kept one."""
    monkeypatch.setattr(seccomp, "MACHINES", ())
    made = seccomp.program(seccomp.Filter("default"), 0)
    assert made is not None and bpf.decide(made.code, 0, os.uname().machine) == profile.ALLOW


def test_a_listing_says_what_each_instruction_does():
    """What scripts/build-seccomp --show prints. Red when: an instruction is none of those that listing() knows."""
    for variant in seccomp.BUILT:
        for machine in MACHINES:
            lines = list(bpf.listing(seccomp.built(variant, machine) or b""))
            assert lines[0].split() == ["0", "load", "machine"] and any("KILL_PROCESS" in line for line in lines)
