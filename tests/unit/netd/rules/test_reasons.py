"""The table of reasons, beside the contract that names them."""

import re
from pathlib import Path

import pytest

from nexus_netd.rules import reasons

PROTO = Path("protos/nexus/netd/v1/netd.proto")


@pytest.fixture
def contract(request):
    return (request.config.rootpath / PROTO).read_text()


def test_the_contract_names_every_reason(contract):
    named = set(re.findall(r'"([a-z][a-z ]*)"', contract.replace("rule N", "rule")))
    assert reasons.REASONS.keys() <= named | {"rule"}


def test_rules_are_found_by_their_numbers():
    assert reasons.of("rule 255") is reasons.REASONS["rule"]
    assert reasons.of("no rule") is reasons.REASONS["no rule"]
    with pytest.raises(KeyError):
        reasons.of("whim")


@pytest.mark.parametrize("name", reasons.REASONS)
def test_what_is_refused_has_a_way_out(name):
    allowed = {"open", "rule", "link", "host port", "dns", "ping"}
    reason = reasons.REASONS[name]
    assert reason.says
    assert bool(reason.way_out) == (name not in allowed - {"rule"})
