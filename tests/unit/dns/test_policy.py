"""What a query leads to."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from nexus_dns.metrics import Outcome
from nexus_dns.policy import Ask, Local, decide_for_guest, decide_for_host
from nexus_dns.query import parse

GUEST, OPEN, NONE = (ip_address(f"172.16.0.{last}") for last in (2, 3, 4))


def decide(view, address, name, kind="A", **options):
    wire = dns.message.make_query(name, kind, use_edns=False, **options).to_wire()
    query = parse(wire, by_tcp=False)
    if address is None:
        return decide_for_host(view, query)
    return decide_for_guest(view, view.guest_at(address), query)


def test_an_open_guest_has_its_own_servers_and_no_slots(view):
    assert decide(view, OPEN, "x.example") == Ask(("1.1.1.1", "8.8.8.8"), any_name=True)


def test_a_name_with_a_rule_is_pinned_even_where_every_name_is_answered(view):
    view.put_guest(replace(view.guest_at(GUEST), any_name=True))
    assert decide(view, GUEST, "pypi.org").slots == (0, 7)
    assert not decide(view, GUEST, "pypi.org").any_name
    assert decide(view, GUEST, "x.example") == Ask(("9.9.9.9",), any_name=True)


def test_a_restricted_guest_has_the_slots_of_all_rules(view):
    private = (ip_network("10.1.0.0/16"),)
    assert decide(view, GUEST, "pypi.org") == Ask(("9.9.9.9",), False, (0, 7), private)
    assert decide(view, GUEST, "a.PyPI.org", "AAAA") == Ask(("9.9.9.9",), False, (1,), private)


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "TXT", "ANY"])
@pytest.mark.parametrize("name", ["example.com", "org", "com.", "arpa", "8.8.8.8.in-addr.arpa"])
def test_other_names_are_refused(view, name, kind):
    for address in GUEST, NONE:
        found = decide(view, address, name, kind)
        assert found.code == dns.rcode.REFUSED
        assert found.outcome is (Outcome.KIND if kind == "ANY" else Outcome.NAME)


@pytest.mark.parametrize("number", range(70))
def test_every_type_is_pinned_or_plain_or_not_there(view, number):
    kind = dns.rdatatype.RdataType(number)
    found = decide(view, GUEST, "pypi.org", kind)
    if kind.name in {"A", "AAAA", "CNAME", "MX", "TXT", "SRV", "NS", "SOA", "PTR"}:
        assert isinstance(found, Ask)
    elif kind.name in {"TYPE0", "NONE", "OPT"}:
        assert found == Local(dns.rcode.REFUSED, Outcome.KIND)
    else:
        assert found == Local(dns.rcode.NOERROR, Outcome.KIND)


@pytest.mark.parametrize("address", [GUEST, OPEN, NONE, None])
@pytest.mark.parametrize("number", [0, 41, *range(128, 256)])
def test_what_is_no_type_of_records(view, address, number):
    kind = dns.rdatatype.RdataType(number)
    assert decide(view, address, "worker.nexus", kind) == Local(dns.rcode.REFUSED, Outcome.KIND)


@pytest.mark.parametrize("number", [2, 3, 4, 254, 255, 1000])
def test_other_classes(view, number):
    found = decide(view, OPEN, "pypi.org", "A", rdclass=number)
    assert found == Local(dns.rcode.REFUSED, Outcome.KIND)


def texts(local):
    return [each.to_text() for rrset in local.records for each in rrset]


def test_names_of_vms(view):
    assert texts(decide(view, GUEST, "WORKER.nexus")) == ["172.16.0.2"]
    assert texts(decide(view, GUEST, "worker.nexus", "AAAA")) == ["fd00::2"]
    assert texts(decide(view, GUEST, "quiet.nexus")) == ["172.16.0.4"]
    assert texts(decide(view, NONE, "quiet.nexus")) == ["172.16.0.4"]
    assert decide(view, GUEST, "worker.nexus", "TXT") == Local(dns.rcode.NOERROR, Outcome.LOCAL)


def test_a_vm_that_is_there_looks_like_one_that_is_not(view):
    there, not_there = (decide(view, NONE, name) for name in ("worker.nexus", "nobody.nexus"))
    assert there == not_there == Local(dns.rcode.REFUSED, Outcome.NAME)
    there, not_there = (
        decide(view, NONE, f"{last}.0.16.172.in-addr.arpa", "PTR") for last in (2, 99)
    )
    assert there == not_there == Local(dns.rcode.NXDOMAIN, Outcome.LOCAL)


def test_pointers(view):
    assert texts(decide(view, GUEST, "4.0.16.172.in-addr.arpa", "PTR")) == ["quiet.nexus."]
    assert texts(decide(view, None, "2.0.16.172.in-addr.arpa", "PTR")) == ["worker.nexus."]
    assert decide(view, GUEST, "4.0.16.172.in-addr.arpa", "A").code == dns.rcode.NOERROR


def test_the_host(view):
    assert texts(decide(view, None, "browser.nexus")) == ["172.16.0.3"]
    assert decide(view, None, "nobody.nexus").code == dns.rcode.NXDOMAIN
    assert decide(view, None, "a.browser.nexus").code == dns.rcode.NXDOMAIN
    assert decide(view, None, "nexus", "SOA").code == dns.rcode.NOERROR
    assert decide(view, None, "pypi.org").code == dns.rcode.REFUSED
    assert decide(view, None, "1.0.0.10.in-addr.arpa", "PTR").code == dns.rcode.NXDOMAIN
