"""Completion scripts for bash and zsh, made from the parser itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.arguments import parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexusctl.arguments import Parser

_BASH = """\
_nexusctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local path= word words=
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            --) return ;;
            -*) ;;
            *) case " {paths} " in
                *" ${{path:+$path/}}$word "*) path=${{path:+$path/}}$word ;;
            esac ;;
        esac
    done
    case $path:$previous in
{values}
    esac
    case $path in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _nexusctl nexusctl
"""

_ZSH_HEAD = """\
#compdef nexusctl
autoload -U +X bashcompinit && bashcompinit
"""


def script(shell: str) -> str:
    """Return the script for `shell`, "bash" or "zsh": source it from the shell's start file."""
    nodes = dict(_nodes("", parser()))
    text = _BASH.format(
        paths=" ".join(path for path in nodes if path),
        values="\n".join(_values(nodes)),
        cases="\n".join(
            f'        {_quoted(path)}) words="{" ".join(_words(node))}" ;;'
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


def _values(nodes: dict[str, Parser]) -> Iterator[str]:
    """Yield a case for each option that takes a value: a file's name serves as well as any."""
    for path, node in nodes.items():
        names = [
            f"{_quoted(path)}:{name}"
            for option in node.options
            if option.nargs != 0
            for name in option.option_strings
        ]
        if names:
            yield f"        {'|'.join(names)}) return ;;"


def _quoted(path: str) -> str:
    return path or '""'
