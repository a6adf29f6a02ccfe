"""docs/network.md says what the code does, where a table of it can be compared."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import nexus_netd
from nexus_dns import answers, limits
from nexus_netd import kernel, metrics, model, requested
from nexus_netd.operations.network import MOST
from nexus_netd.reports import denials
from nexus_netd.rules import elements, policy, reasons
from nexus_rpc import errors
from nexusctl.arguments import parse

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/network.md").read_text()


def table(heading):
    """Return the cells of the first table below the heading, by the first column."""
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found, heading
    rows = re.search(r"\n\|---.*\n((?:\|.*\n)+)", rest)[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first.strip("`"): others for first, *others in cells}


def test_reasons():
    assert table("Reading denials") == {
        name: [reason.says, reason.way_out] for name, reason in reasons.REASONS.items()
    }


def raised():
    """Return the reasons of all errors that netd's code raises to callers, with their status."""
    found = {"KERNEL": kernel.KernelError.code}
    for path in Path(nexus_netd.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            cls = getattr(errors, call.func.id, None)
            if inspect.isclass(cls) and cls in errors.NexusError.__subclasses__():
                found[call.args[0].value] = cls.code
    return {reason: code.name for reason, code in found.items()}


def test_errors():
    assert {reason: status for reason, (status, _) in table("Errors").items()} == raised()


def test_metrics():
    ports = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in metrics._families(())
    }
    own = re.findall(r'"(nexus\.netd\.\w+)", *(?:"By"|""|self)?', inspect.getsource(metrics))
    counters = {"repairs", "denials", "bytes", "packets"}
    others = {
        f"nexus_netd_{name}_total" if name in counters else f"nexus_netd_{name}"
        for name in (one.rpartition(".")[2] for one in own)
    }
    told = table("Metrics")
    assert told.keys() == ports.keys() | others
    for name, family in ports.items():
        labels = ", ".join(f"`{label}`" for label in family._labelnames)
        assert told[name][0] == labels


@pytest.mark.parametrize(
    "words",
    [
        f"At most {requested.MOST_RULES} rules",
        f"At most {MOST}.",
        f"there are {MOST} |",
        f"The default is {model.CONNECTIONS:,} connections",
        (
            f"At most {elements.EVENTS} packets a second and guest are looked at, "
            f"{elements.EVENTS_BURST} at once"
        ),
        f"The last {denials.KEPT_OF_ONE:,} of each VM and {denials.KEPT_IN_ALL:,} in all",
        f"at most {denials.LOGGED_OF_ONE} a second and VM, {denials.LOGGED_IN_ALL} in all",
        (
            f"{limits.QUERIES_PER_SECOND:.0f} queries a second ({limits.QUERIES_AT_ONCE} at once), "
            f"{limits.IN_FLIGHT_PER_GUEST} open ones and {limits.CONNECTIONS_PER_GUEST} TCP"
        ),
        f"at least {answers.LEAST_TTL} s, at most an hour",
        f"Of each answer {answers.MOST_ADDRESSES} addresses are given",
    ],
)
def test_numbers(words):
    assert words in " ".join(PAGE.split())


def test_an_hour():
    assert answers.GREATEST_TTL == 3_600


def test_metadata():
    said = re.search(r"\nMetadata is (.*)\.\n", PAGE)[1].replace(" and ", ", ")
    assert set(said.split(", ")) == {
        str(cidr.network_address) if cidr.prefixlen == cidr.max_prefixlen else str(cidr)
        for cidr in policy.METADATA
    }


COMMANDS = re.findall(r"^(?:\$ )?nexusctl (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command):
    assert parse(shlex.split(command))
