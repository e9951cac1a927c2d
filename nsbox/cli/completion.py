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
        case $word in
            -*) ;;
            *) words="$words $(nsbox ls -q 2>/dev/null)" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _nsbox nsbox
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
    if args.shell == "fish":
        print(_fish(words), end="")
        return 0
    cases = "\n".join(f'            {verb}) words="{" ".join(known)}" ;;' for verb, known in words.items())
    script = _BASH.format(verbs=" ".join(words), cases=cases)
    if args.shell == "zsh":
        script = "#compdef nsbox\nautoload -U +X bashcompinit && bashcompinit\n" + script
    print(script, end="")
    return 0


def _options_of(verb: str) -> list[str]:
    from . import front

    parser = front.build_parser([verb])
    (group,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return sorted(
        word for action in group.choices[verb]._actions for word in action.option_strings if word.startswith("--")
    )


def _fish(words: dict[str, list[str]]) -> str:
    from . import front

    lines = ["complete -c nsbox -f"]
    for verb, known in words.items():
        purpose = front.VERBS[verb][1].replace("'", "\\'")
        lines.append(f"complete -c nsbox -n __fish_use_subcommand -a {verb} -d '{purpose}'")
        lines += [f"complete -c nsbox -n '__fish_seen_subcommand_from {verb}' -l {word[2:]}" for word in known]
    lines.append("complete -c nsbox -n 'not __fish_use_subcommand' -a '(nsbox ls -q 2>/dev/null)'")
    return "\n".join(lines) + "\n"
