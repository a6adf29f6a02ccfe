"""docs/cli.md tells of each command and option that there is, and of no other."""

import re
from pathlib import Path

import pytest

from nexusctl.arguments import parser
from nexusctl.failure import _EXIT_BY_CODE, REFUSED

MANUAL = Path(__file__).parents[3] / "docs/cli.md"
EVERYWHERE = {"--endpoint", "--help"}


def leaves(node):
    if not node.children:
        yield node
    for child in node.children.values():
        yield from leaves(child)


def sections():
    text = MANUAL.read_text()
    parts = re.split(r"^### `(.+)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def command(heading):
    """Return "nexusctl vm create" of "nexusctl vm create NAME [OPTIONS]"."""
    words = heading.split()
    return " ".join(word for word in words if re.fullmatch(r"[a-z][a-z-]*", word))


LEAVES = {leaf.prog: leaf for leaf in leaves(parser())}


def test_each_command_has_its_section():
    assert sorted(map(command, sections())) == sorted(LEAVES)


@pytest.mark.parametrize("heading", sections())
def test_each_option_is_told_and_no_other(heading):
    told = set(re.findall(r"`(--[a-z0-9-]+)", sections()[heading].split("\n## ")[0]))
    options = {
        name
        for option in LEAVES[command(heading)].options
        for name in option.option_strings
        if name.startswith("--")
    }
    assert told == options - EVERYWHERE


@pytest.mark.parametrize("heading", sections())
def test_each_argument_is_in_the_heading(heading):
    for option in LEAVES[command(heading)].options:
        if not option.option_strings and option.metavar:
            assert option.metavar in heading


def test_every_exit_code_is_told():
    table = MANUAL.read_text().split("## Exit codes")[1].split("\n## ")[0]
    for code in {0, 1, 2, REFUSED, 125, 126, 127, *_EXIT_BY_CODE.values()}:
        assert re.search(rf"^\| {code} \|", table, flags=re.MULTILINE)
