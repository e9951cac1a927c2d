"""`nsbox completion`: what a shell needs to complete verbs, options and the names of pods."""

import argparse
from typing import Any

from . import options

_EXAMPLE = """\
example:
  source <(nsbox completion bash)
  nsbox completion zsh > ~/.zfunc/_nsbox
  nsbox completion fish | source
"""
_BASH = """\
_nsbox() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{verbs}"
    else
        case $verb in
{cases}
        esac
        local at=2
        while [[ $verb = explain && ${{COMP_WORDS[at]-}} = -* ]]; do at=$((at + 1)); done
        if [ "$verb ${{COMP_WORDS[at]-}}" = "explain error" ]; then
            case $((COMP_CWORD - at)) in
                1) COMPREPLY=($(compgen -W "{calls}" -- "$word")); return ;;
                2) COMPREPLY=($(compgen -W "{errnos}" -- "$word")); return ;;
            esac
        fi
        case $word in
            -*) ;;
            *) words="$words $(nsbox ls -q 2>/dev/null)" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _nsbox nsbox
"""


_FISH_ERROR = """\
function __nsbox_explains_error
    set -l words (string match -v -- '-*' (commandline -opc))
    test "$words[2..3]" = 'explain error' -a (count $words) -eq $argv[1]
end
"""


def add_parser(verbs: Any) -> None:
    """Add `completion`."""
    parser = options.verb(
        verbs, "completion", "print completions for bash, zsh or fish", _EXAMPLE, "completion:run"
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the script for one shell."""
    from . import front

    words = {verb: _options_of(verb) for verb in front.VERBS}
    words["explain"] += ["error", *(verb for verb, known in words.items() if "--dry-run" in known)]
    if args.shell == "fish":
        print(_fish(words), end="")
        return 0
    cases = "\n".join(f'            {verb}) words="{" ".join(known)}" ;;' for verb, known in words.items())
    calls, errnos = _explained()
    script = _BASH.format(verbs=" ".join(words), cases=cases, calls=" ".join(calls), errnos=" ".join(errnos))
    if args.shell == "zsh":
        script = "#compdef nsbox\nautoload -U +X bashcompinit && bashcompinit\n" + script
    print(script, end="")
    return 0


def _explained() -> tuple[list[str], list[str]]:
    """The calls and the errnos that `explain error` knows, each as one word."""
    from ..explain import advice
    from ..explain.advice import given

    short = {call: word for word, call in given.SHORT.items() if " " in call}
    calls = {short.get(call, call) for call in advice.calls()}
    errnos = {name for rule in advice.RULES for name in rule.errors}
    return sorted(call for call in calls if " " not in call), sorted(errnos)


def _options_of(verb: str) -> list[str]:
    """The long options of a verb, and what else can stand behind it: verbs of its own, choices."""
    from . import front

    words: list[str] = []
    _collect(_verbs_of(front.build_parser([verb]))[verb], words)
    return sorted(set(words))


def _verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def _collect(parser: argparse.ArgumentParser, words: list[str]) -> None:
    for action in parser._actions:
        words += [word for word in action.option_strings if word.startswith("--")]
        if not action.option_strings and action.choices is not None:
            words += action.choices
    for below in _verbs_of(parser).values():
        _collect(below, words)


def _fish(words: dict[str, list[str]]) -> str:
    from . import front

    lines = ["complete -c nsbox -f"]
    for verb, known in words.items():
        purpose = front.VERBS[verb][1].replace("'", "\\'")
        lines.append(f"complete -c nsbox -n __fish_use_subcommand -a {verb} -d '{purpose}'")
        lines += [f"complete -c nsbox -n '__fish_seen_subcommand_from {verb}' {_fish_word(word)}" for word in known]
    lines.append("complete -c nsbox -n 'not __fish_use_subcommand' -a '(nsbox ls -q 2>/dev/null)'")
    for count, what in enumerate(_explained(), 3):
        lines.append(f"complete -c nsbox -n '__nsbox_explains_error {count}' -a '{' '.join(what)}'")
    return _FISH_ERROR + "\n".join(lines) + "\n"


def _fish_word(word: str) -> str:
    return f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
