"""Every reason that a service gives stands in its proto, and what stands there is given."""

import ast
import re
from pathlib import Path

import pytest

import nexus_gateway
import nexus_netd
import nexus_rpc
import nexus_vmm
import nexusctl
from nexus_gateway.reasons import _ERRORS as OF_GUESTS
from nexus_rpc.errors import NexusError
from nexusctl.failure import _TRY

PROTOS = Path(nexus_rpc.__file__).parents[1] / "nexus"
CONVENTIONS = (PROTOS / "vmm/v1/vmm.proto").read_text().partition("service ")[0]
ERRORS = {error.__name__ for error in NexusError.__subclasses__()} | {"__init__"}


def given(package):
    """Return the reasons with which a package's sources make errors."""
    found = set()
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(name) | ast.Attribute(attr=name),
                    args=[ast.Constant(str(reason)), *_],
                ) if name in ERRORS and reason.isupper():
                    found.add(reason)
    return found


def told(text):
    """Return the reasons in the comments of a proto: capitals in brackets."""
    inside = re.findall(r"\(([A-Z][A-Z0-9_]+(?:, [A-Z][A-Z0-9_]+)*)\)", text.replace("//", ""))
    return {reason for some in inside for reason in some.split(", ")}


SERVICES = {
    "vmm": given(nexus_vmm),
    "netd": given(nexus_netd),
    "gateway": given(nexus_gateway) | OF_GUESTS.keys(),
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_proto_names_the_reasons_of_its_service(service):
    protos = "".join(path.read_text() for path in (PROTOS / service).rglob("*.proto"))
    conventions = told(CONVENTIONS)
    assert given(nexus_rpc) <= conventions
    assert told(protos) - conventions == SERVICES[service] - conventions


def test_a_way_out_is_known_for_reasons_that_there_are():
    of_grpc = {error.code.name for error in NexusError.__subclasses__()} | {"UNIMPLEMENTED"}
    there = set().union(*SERVICES.values(), given(nexus_rpc), given(nexusctl), of_grpc)
    assert _TRY.keys() <= there
