"""What explanations say of flows, case by case."""

from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from explaining import (
    HOST,
    ICMP,
    ME,
    OTHER,
    PYPI,
    PYPI6,
    SIBLING,
    STRANGER,
    TCP,
    UDP,
    outcome,
    pin,
    world,
)

from nexus_netd.model import (
    EgressRule,
    Link,
    Mode,
)
from nexus_netd.reports.explain import concerned, explain


@pytest.mark.parametrize(
    ("destination", "protocol", "port", "allowed", "rule"),
    [
        ("192.0.2.1", TCP, 443, True, "open"),
        ("2001:db8::1", UDP, 53, True, "open"),
        ("169.254.169.254", TCP, 80, False, "metadata"),
        ("fd00:ec2::254", TCP, 80, False, "metadata"),
        ("fe80::1", ICMP, 0, False, "metadata"),
        ("10.9.0.1", UDP, 53, True, "dns"),
        ("fd00:9::1", TCP, 53, True, "dns"),
        ("10.9.0.1", ICMP, 0, True, "ping"),
        ("10.9.0.1", TCP, 8080, True, "host port"),
        ("10.9.0.1", UDP, 8080, False, "host"),
        ("10.9.0.1", TCP, 22, False, "host"),
        ("10.8.0.1", UDP, 514, False, "host"),
        ("10.8.0.1", UDP, 53, False, "host"),
        ("10.8.0.1", ICMP, 0, False, "host"),
        (str(HOST), TCP, 22, False, "host"),
        (str(HOST), ICMP, 0, False, "host"),
        (str(HOST), UDP, 53, False, "host"),
        ("10.9.0.3", TCP, 22, False, "other guest"),
        ("fd00:9::3", TCP, 22, False, "other guest"),
        ("10.8.0.4", TCP, 22, False, "other guest"),
        ("10.9.0.2", TCP, 22, False, "other guest"),
        ("10.9.0.99", TCP, 22, False, "foreign network"),
        ("10.9.255.255", UDP, 9, False, "foreign network"),
        ("10.8.0.9", TCP, 22, False, "foreign network"),
        ("fd00:9::99", TCP, 22, False, "foreign network"),
        ("224.0.0.251", UDP, 5353, False, "no address"),
        ("255.255.255.255", UDP, 67, False, "no address"),
        ("127.0.0.1", TCP, 22, False, "no address"),
        ("0.0.0.0", TCP, 22, False, "no address"),
        ("240.0.0.1", TCP, 22, False, "no address"),
        ("ff02::1", ICMP, 0, False, "no address"),
        ("::1", TCP, 22, False, "no address"),
    ],
)
def test_where_an_open_policy_leads(destination, protocol, port, allowed, rule):
    assert outcome(world(), ip_address(destination), protocol, port) == (allowed, rule)


def test_without_ipv6_nothing_of_it_is_reached():
    facts = world(spec=OTHER)
    for destination in ("2001:db8::1", "fd00:9::1", "fd00:9::3"):
        assert outcome(facts, ip_address(destination), TCP, 53) == (False, "no address")


def test_policy_none_refuses_metadata_and_all_else_but_the_host():
    facts = world(Mode.NONE)
    assert outcome(facts, ip_address("169.254.169.254"), TCP, 80) == (False, "policy none")
    assert outcome(facts, PYPI, TCP, 80) == (False, "policy none")
    assert outcome(facts, ip_address("10.9.0.1"), UDP, 53) == (True, "dns")
    assert outcome(facts, "pypi.org", TCP, 443) == (False, "policy none")


def test_the_number_of_connections_comes_before_all_but_routes():
    full = world(connections=100)
    for destination in ("10.9.0.1", "10.9.0.3", "192.0.2.1", "169.254.169.254", str(HOST)):
        assert outcome(full, ip_address(destination), TCP, 53) == (False, "connections")
    assert outcome(full, ip_address("10.9.0.99"), TCP, 53) == (False, "foreign network")
    assert outcome(world(connections=99), PYPI, TCP, 53) == (True, "open")


def test_a_rule_is_named_and_shown():
    rules = [
        EgressRule(False, ip_network("192.0.2.0/25"), protocol=TCP, ports=(1, 1024)),
        EgressRule(domain="*.pypi.org", protocol=TCP, ports=(443, 443)),
    ]
    facts = world(rules, pins=[pin(ip_address("192.0.2.200"), 1, "files.pypi.org")])
    found = explain(facts, PYPI, TCP, 80)
    assert (found.allowed, found.rule, found.egress_rule) == (False, "rule 0", rules[0])
    assert "refused by rule 0: deny 192.0.2.0/25 tcp/1-1024" in found.why
    found = explain(facts, ip_address("192.0.2.200"), TCP, 443)
    assert (found.allowed, found.rule, found.egress_rule) == (True, "rule 1", rules[1])
    assert "given as files.pypi.org, is allowed by rule 1: allow *.pypi.org tcp/443" in found.why
    assert outcome(facts, ip_address("192.0.2.200"), TCP, 80) == (False, "no rule")


def test_an_address_whose_pin_has_expired_is_told_with_its_name():
    rules = [EgressRule(domain="pypi.org", protocol=TCP, ports=(443, 443))]
    expired = explain(world(rules, name="pypi.org"), PYPI, TCP, 443)
    assert (expired.allowed, expired.rule) == (False, "no rule")
    assert "given as pypi.org" in expired.why
    assert "look the name up again" in expired.why
    other_port = explain(world(rules, name="pypi.org", pins=[pin()]), PYPI, TCP, 80)
    assert "for this port and protocol" in other_port.why
    assert "look the name up" not in other_port.why


@pytest.mark.parametrize(
    ("link", "passing"),
    [
        (Link(ME, SIBLING), {(TCP, 22), (TCP, 80), (UDP, 22), (ICMP, 0)}),
        (Link(ME, SIBLING, TCP), {(TCP, 22), (TCP, 80)}),
        (Link(ME, SIBLING, TCP, (22, 23)), {(TCP, 22)}),
        (Link(ME, SIBLING, ICMP), {(ICMP, 0)}),
        (Link(SIBLING, ME), set()),
        (Link(ME, STRANGER), set()),
    ],
)
def test_links(link, passing):
    facts = world(Mode.NONE, links=[link])
    for destination in ("10.9.0.3", "fd00:9::3", "sibling-name.nexus"):
        for flow in ((TCP, 22), (TCP, 80), (UDP, 22), (ICMP, 0)):
            target = destination if "name" in destination else ip_address(destination)
            allowed = flow in passing
            rule = "link" if allowed else "other guest"
            assert outcome(facts, target, *flow) == (allowed, rule)


def test_names_of_vms():
    facts = world(links=[Link(ME, SIBLING)])
    assert outcome(facts, "sibling-name.nexus", TCP, 22) == (True, "link")
    for name in ("stranger-name.nexus", "nobody.nexus", ".nexus"):
        assert outcome(facts, name, TCP, 22) == (False, "other guest")
        assert "create a link" in explain(facts, name, TCP, 22).why
    assert "stays within the VM" in explain(facts, "me-name.nexus", TCP, 22).why


def test_a_name_that_the_policy_does_not_know():
    rules = [EgressRule(domain="pypi.org"), EgressRule(cidr=IPv4Network("192.0.2.0/24"))]
    for name in ("evil.example", "files.pypi.org"):
        found = explain(world(rules), name, TCP, 443)
        assert (found.allowed, found.rule) == (False, "no rule")
        assert f"the resolver refuses {name}" in found.why
        assert "add a rule with the domain" in found.why


def test_a_name_that_was_given():
    rules = [EgressRule(False, ip_network("2001:db8::/32")), EgressRule(domain="pypi.org")]
    pins = [pin(PYPI6, 1), pin(PYPI, 1), pin(HOST, 1, "else.example")]
    found = explain(world(rules, pins=pins), "pypi.org", TCP, 443)
    assert (found.allowed, found.rule, found.egress_rule) == (True, "rule 1", rules[1])
    assert found.pins == tuple(pins[:2])
    assert "but 2001:db8::80 is refused by rule 0" in found.why
    only_refused = explain(world(rules, pins=pins[:1]), "pypi.org", TCP, 443)
    assert (only_refused.allowed, only_refused.rule) == (False, "rule 0")


def test_a_name_that_stands_for_the_host():
    rules = [EgressRule(domain="host.example")]
    facts = world(rules, pins=[pin(HOST, 0, "host.example")])
    assert outcome(facts, "host.example", TCP, 443) == (False, "host")
    assert set(concerned(facts.pins, "host.example")) == {HOST}


@pytest.mark.parametrize(
    ("rules", "protocol", "port", "allowed", "rule", "words"),
    [
        (Mode.OPEN, TCP, 443, True, "open", "every name"),
        ([EgressRule(domain="pypi.org")], TCP, 443, True, "rule 0", "no address yet"),
        (
            [
                EgressRule(False, ip_network("10.0.0.0/8")),
                EgressRule(domain="*.org"),
                EgressRule(domain="pypi.org"),
            ],
            TCP,
            443,
            True,
            "rule 1",
            "rule 0 decides on",
        ),
        (
            [EgressRule(domain="pypi.org", protocol=TCP, ports=(443, 443))],
            UDP,
            443,
            False,
            "no rule",
            "for this port and protocol",
        ),
        (
            [EgressRule(domain="pypi.org", protocol=TCP, ports=(443, 443))],
            TCP,
            80,
            False,
            "no rule",
            "for this port and protocol",
        ),
        (
            [EgressRule(False, protocol=UDP), EgressRule()],
            UDP,
            53,
            False,
            "rule 0",
            "deny anywhere",
        ),
        ([EgressRule(False, protocol=UDP), EgressRule()], TCP, 53, True, "rule 1", "anywhere"),
        ([EgressRule(domain="x.org"), EgressRule()], TCP, 53, True, "rule 1", "allow anywhere"),
    ],
)
def test_a_name_that_was_not_given_yet(rules, protocol, port, allowed, rule, words):
    found = explain(world(rules), "pypi.org", protocol, port)
    assert (found.allowed, found.rule, found.pins) == (allowed, rule, ())
    assert words in found.why
