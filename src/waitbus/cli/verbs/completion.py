"""`waitbus completion`: completion scripts of bash, zsh and fish, made from the verbs' own parsers."""

from __future__ import annotations

import argparse

from waitbus.cli.main import VERBS, module_of
from waitbus.cli.parser import make_parser
from waitbus.ui.output import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ONLY_PRINTS = True  # what is printed is all it is for
# Verbs that end in a command of the user's own.
COMMANDS = ("on", "run")

_EPILOG = """\
examples:
  bash   echo 'eval "$(waitbus completion bash)"' >> ~/.bashrc
  zsh    waitbus completion zsh > ~/.zfunc/_waitbus       with ~/.zfunc in $fpath, before compinit
  fish   waitbus completion fish > ~/.config/fish/completions/waitbus.fish
"""


class Flag:
    """One option of a verb, as completion needs it."""

    __slots__ = ("choices", "help", "metavar", "names", "repeats", "takes_value")

    def __init__(self, action: argparse.Action) -> None:
        self.names = action.option_strings
        self.help = " ".join((action.help or "").split())
        self.takes_value = action.nargs != 0
        self.choices = [str(choice) for choice in action.choices or ()]
        self.metavar = str(action.metavar or action.dest)
        self.repeats = isinstance(action.default, list)


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description = (
        "Print a completion script that completes verbs, flags, and the values of flags with few values."
    )
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="the shell to print it for")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    out(SCRIPTS[args.shell]())
    return 0


def flags_of(verb: str) -> tuple[list[Flag], list[str]]:
    """A verb's flags, and the words its first argument may be."""
    module = module_of(verb)
    flags: list[Flag] = []
    words: list[str] = list(getattr(module, "WORDS", ()))
    for action in make_parser(verb, VERBS[verb], module)._actions:
        if action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            flags.append(Flag(action))
        elif action.choices:
            words = [str(choice) for choice in action.choices]
    return flags, words


# --- bash -------------------------------------------------------------------------------------------------------------

_BASH = """\
# bash completion for waitbus
# It depends on nothing of the shell it runs in: IFS, options, COMP_WORDBREAKS, or aliases (hence the backslashes).
_waitbus() {
    \\local cur prev verb base word i
    \\local -a words
    cur="${COMP_WORDS[COMP_CWORD]-}" verb="${COMP_WORDS[1]-}" prev='' base=''
    COMPREPLY=() words=()
    if (( COMP_CWORD > 0 )); then prev="${COMP_WORDS[COMP_CWORD-1]-}"; fi
    # bash usually makes a word of the = in --flag=value
    if [[ $cur == '=' ]]; then
        cur=''
    elif [[ $prev == '=' ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]-}"
    elif [[ $cur == --*=* ]]; then
        prev="${cur%%=*}" base="${cur%%=*}=" cur="${cur#*=}"
    fi
    if (( COMP_CWORD == 1 )); then
        words=(@VERBS@ --help --version)
    else
        case $verb in
            @COMMANDS@)
                for (( i = 2; i < COMP_CWORD; i++ )); do
                    if [[ ${COMP_WORDS[i]-} == -- ]]; then
                        if (( i == COMP_CWORD - 1 )); then
                            while IFS= \\read -r word; do
                                if [[ $word ]]; then COMPREPLY+=("$word"); fi
                            done <<< "$(\\compgen -c -- "$cur")"
                        fi
                        \\return 0
                    fi
                done
                ;;
        esac
        case "$verb $prev" in
@VALUES@
            *)
                case $verb in
@FLAGS@
                esac
                ;;
        esac
    fi
    for (( i = 0; i < ${#words[@]}; i++ )); do
        if [[ ${words[i]} == "$cur"* ]]; then COMPREPLY+=("$base${words[i]}"); fi
    done
    \\return 0
}
\\complete -o default -F _waitbus waitbus"""


def bash() -> str:
    """The script for bash, 3.2 (of macOS) or newer."""
    values: list[str] = []
    plain: list[str] = []
    flag_lines: list[str] = []
    for verb in VERBS:
        flags, words = flags_of(verb)
        names = [name for flag in flags for name in flag.names]
        flag_lines.append(f"                    {verb}) words=({' '.join([*words, *names])}) ;;")
        for flag in flags:
            keys = [f"'{verb} {name}'" for name in flag.names]
            if flag.choices:
                values.append(f"            {'|'.join(keys)}) words=({' '.join(flag.choices)}) ;;")
            elif flag.takes_value:
                plain += keys
    # Any value: the shell's own completion of file names takes over.
    values.append(f"            {'|'.join(plain)}) \\return 0 ;;")
    parts = {"VERBS": " ".join(VERBS), "COMMANDS": "|".join(COMMANDS)}
    return _filled(_BASH, {**parts, "VALUES": "\n".join(values), "FLAGS": "\n".join(flag_lines)})


# --- zsh --------------------------------------------------------------------------------------------------------------

_ZSH = """\
#compdef waitbus
# zsh completion for waitbus
_waitbus() {
    local -a verbs
    verbs=(
@VERBS@
    )
    if (( CURRENT == 2 )); then
        _describe -t verbs 'verb' verbs
        _arguments '--help[show help]' '--version[print the version]'
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
@FLAGS@
    esac
}
if [[ ${funcstack[1]-} == _waitbus ]]; then
    _waitbus "$@"
else
    compdef _waitbus waitbus
fi"""


def zsh() -> str:
    """The script for zsh: for a directory in `$fpath`, or to be sourced after `compinit`."""
    verbs = [f"        {_quoted(f'{verb}:{summary}')}" for verb, summary in VERBS.items()]
    lines: list[str] = []
    for verb in VERBS:
        flags, words = flags_of(verb)
        specs = [_quoted(spec) for flag in flags for spec in _zsh_specs(flag)]
        if words:
            specs.append(_quoted(f"1: :({' '.join(words)})"))
        if verb in COMMANDS:
            specs.append("'*:: :_normal'")
        elif not words:
            specs.append("'*: :_default'")
        lines.append("\n".join([f"        {verb})", "            _arguments -s -S \\"]))
        lines += [f"                {spec} \\" for spec in specs[:-1]]
        lines += [f"                {specs[-1]}", "            ;;"]
    return _filled(_ZSH, {"VERBS": "\n".join(verbs), "FLAGS": "\n".join(lines)})


def _zsh_specs(flag: Flag) -> Iterator[str]:
    value = ""
    if flag.takes_value:
        action = f"({' '.join(flag.choices)})" if flag.choices else "_default"
        value = f":{_escaped(flag.metavar, ':')}:{action}"
    for name in flag.names:
        yield f"{'*' if flag.repeats else ''}{name}[{_escaped(flag.help, '[]:')}]{value}"


def _escaped(text: str, special: str) -> str:
    return "".join([f"\\{char}" if char in special else char for char in text])


# --- fish -------------------------------------------------------------------------------------------------------------


def fish() -> str:
    """The script for fish."""
    lines = ["# fish completion for waitbus", "complete -c waitbus -f"]
    lines.append("complete -c waitbus -n __fish_use_subcommand -l version -d 'print the version'")
    for verb, summary in VERBS.items():
        lines.append(f"complete -c waitbus -n __fish_use_subcommand -a {verb} -d {_fish_quoted(summary)}")
    for verb in VERBS:
        begin = f"complete -c waitbus -n '__fish_seen_subcommand_from {verb}'"
        flags, words = flags_of(verb)
        if words:
            lines.append(f"{begin} -a {_fish_quoted(' '.join(words))}")
        if verb in COMMANDS:
            # It skips our two words and what flags take; it reads the first words with -- as flags of its own.
            taking = " ".join(name for flag in flags if flag.takes_value for name in flag.names)
            lines.append(f"{begin} -a '(__fish_complete_subcommand --fcs-skip=2 -_ {taking})'")
        for flag in flags:
            parts = [f"-{'l' if name.startswith('--') else 's'} {name.lstrip('-')}" for name in flag.names]
            if flag.choices:
                parts.append(f"-x -a {_fish_quoted(' '.join(flag.choices))}")
            elif flag.takes_value:
                parts.append("-r -F")
            lines.append(" ".join([begin, *parts, "-d", _fish_quoted(flag.help)]))
    return "\n".join(lines)


SCRIPTS = {"bash": bash, "fish": fish, "zsh": zsh}


def _filled(template: str, parts: dict[str, str]) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


def _quoted(text: str) -> str:
    """One word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
