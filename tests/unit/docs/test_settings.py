"""docs/settings.md is made from the table of settings, and says what the code does."""

import re
import shlex
from pathlib import Path

import pytest

from deploy import manual
from nexus_vmm.config import table as config
from nexus_vmm.config import versions
from nexus_vmm.config.quotas import RESOURCES
from nexusctl.arguments import parse

PAGE = (Path(__file__).parents[3] / "docs/settings.md").read_text()


def test_the_table():
    assert manual.with_settings(PAGE) == PAGE, "make docs"


def test_the_budgets():
    told = re.findall(r"^\| `(\w+)` \| .* \| .*`capacity\.(\w+)`", PAGE, re.MULTILINE)
    assert [what for what, _ in told] == list(RESOURCES)
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)[`=]", PAGE))
    assert named == config.TABLE.keys()


def test_how_many_versions_are_kept():
    assert f"The last {versions.KEPT} versions are kept" in PAGE


@pytest.mark.parametrize("command", re.findall(r"^nexusctl (.*)$", PAGE, re.MULTILINE))
def test_commands(command):
    options = parse(shlex.split(command))
    config.check(dict(getattr(options, "values", ())))
