"""docs/security.md: each test that it names exists, and the caps of the launcher are told."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/security.md").read_text()


def test_each_claim_names_a_test_that_exists():
    tests = "".join(path.read_text() for path in (ROOT / "tests/system").glob("test_*.py"))
    named = set(re.findall(r"`(?:[\w/.]*::)?(test_\w+)`", PAGE))
    assert len(named) >= 20
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_each_test_of_the_jail_is_a_claim():
    jail = (ROOT / "tests/system/test_jail.py").read_text()
    assert {name for name in re.findall(r"def (test_\w+)", jail) if f"{name}`" not in PAGE} == set()


def test_the_launchers_capabilities_are_told():
    unit = (ROOT / "deploy/systemd/nexus-vm@.service").read_text()
    held = set(re.search(r"^CapabilityBoundingSet=(.*)", unit, re.MULTILINE)[1].split())
    row = next(line for line in PAGE.splitlines() if "launcher and jailer, a moment" in line)
    assert set(re.findall(r"CAP_\w+", row)) == held
