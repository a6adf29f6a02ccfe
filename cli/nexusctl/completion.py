"""Completion scripts for bash and zsh, made from the parser itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments import parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nexusctl.arguments import Parser

_BASH = """\
_nexusctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} path= previous= word words=
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $word == -- ]] && return
        [[ " {valued} " != *" $previous "* ]] &&
            [[ " {paths} " == *" ${{path:+$path/}}$word "* ]] &&
            path=${{path:+$path/}}$word
        previous=$word
    done
    [[ -n $previous && " {valued} " == *" $previous "* ]] && return
    case $path in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _nexusctl nexusctl
"""

_EMPTY = '""'  # how a shell writes a word of no letters

_ZSH_HEAD = """\
#compdef nexusctl
autoload -U +X bashcompinit && bashcompinit
"""


def script(shell: str) -> str:
    """Return the script for `shell`, "bash" or "zsh": source it from the shell's start file."""
    nodes = dict(_nodes("", parser()))
    text = _BASH.format(
        paths=" ".join(path for path in nodes if path),
        valued=" ".join(sorted(set(_valued(nodes.values())))),
        cases="\n".join(
            f'        {path or _EMPTY}) words="{" ".join(_words(node))}" ;;'
            for path, node in nodes.items()
        ),
    )
    return _ZSH_HEAD + text if shell == "zsh" else text


def _nodes(path: str, node: Parser) -> Iterator[tuple[str, Parser]]:
    yield path, node
    for name, child in node.children.items():
        yield from _nodes(f"{path}/{name}".lstrip("/"), child)


def _words(node: Parser) -> Iterator[str]:
    yield from node.children
    for option in node.options:
        yield from option.option_strings
        if not option.option_strings and option.choices:
            yield from option.choices


def _valued(nodes: Iterable[Parser]) -> Iterator[str]:
    """Yield the options that take a value, after which a file's name serves as well as any."""
    for node in nodes:
        for option in node.options:
            if option.nargs != 0:
                yield from option.option_strings
