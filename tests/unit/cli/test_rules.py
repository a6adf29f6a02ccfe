"""Rules as people write them: what each text means, and what is wrong with bad ones."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.netd.v1 import netd_pb2 as pb
from nexusctl import rules
from nexusctl.failure import USAGE, Failure

TCP, UDP, ICMP = pb.PROTOCOL_TCP, pb.PROTOCOL_UDP, pb.PROTOCOL_ICMP


def rule(**fields):
    return pb.EgressRule(action=pb.ACTION_ALLOW, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("any", [rule()]),
        ("any:53/udp", [rule(protocol=UDP, first_port=53)]),
        ("any/icmp", [rule(protocol=ICMP)]),
        ("any/any", [rule()]),
        ("pypi.org", [rule(domain="pypi.org")]),
        ("PyPI.org.:443/TCP", [rule(domain="pypi.org", protocol=TCP, first_port=443)]),
        ("*.ubuntu.com", [rule(domain="*.ubuntu.com")]),
        ("_ldap.example.org", [rule(domain="_ldap.example.org")]),
        ("localhost:80", [rule(domain="localhost", protocol=TCP, first_port=80)]),
        ("192.0.2.7", [rule(cidr="192.0.2.7/32")]),
        ("192.0.2.7:443", [rule(cidr="192.0.2.7/32", protocol=TCP, first_port=443)]),
        ("10.0.0.0/8", [rule(cidr="10.0.0.0/8")]),
        ("10.0.0.0/8/udp", [rule(cidr="10.0.0.0/8", protocol=UDP)]),
        ("10.0.0.0/8:22", [rule(cidr="10.0.0.0/8", protocol=TCP, first_port=22)]),
        (
            "any:53/any",
            [rule(protocol=TCP, first_port=53), rule(protocol=UDP, first_port=53)],
        ),
        (
            "10.0.0.0/8:22,80-90/tcp",
            [
                rule(cidr="10.0.0.0/8", protocol=TCP, first_port=22),
                rule(cidr="10.0.0.0/8", protocol=TCP, first_port=80, last_port=90),
            ],
        ),
        ("0.0.0.0/0", [rule(cidr="0.0.0.0/0")]),
        ("2001:db8::/32", [rule(cidr="2001:db8::/32")]),
        ("2001:db8::1", [rule(cidr="2001:db8::1/128")]),
        ("[2001:db8::/32]:443", [rule(cidr="2001:db8::/32", protocol=TCP, first_port=443)]),
        ("[2001:db8::1]/icmp", [rule(cidr="2001:db8::1/128", protocol=ICMP)]),
    ],
)
def test_good_rules(text, expected):
    assert rules.parse("allow", text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a destination is any, an address"),
        ("pypi.org:", "the port is missing"),
        (":443", "a destination is any, an address"),
        ("pypi.org:0", "'0': a port is 1 to 65535"),
        ("pypi.org:65536", "'65536': a port is 1 to 65535"),
        ("pypi.org:https", "'https': a port is 1 to 65535"),
        ("pypi.org:80-", "'': a port is 1 to 65535"),
        ("pypi.org:90-80", "the first port of a range is the lower one"),
        ("pypi.org:80,", "'': a port is 1 to 65535"),
        ("pypi.org:٣", "a port is 1 to 65535"),
        ("pypi.org/sctp", "the protocol is one of any, tcp, udp, icmp"),
        ("pypi.org:80/icmp", "ICMP has no ports"),
        ("https://pypi.org", "no URL"),
        ("pypi..org", "a destination is any, an address"),
        ("-x.org", "a destination is any, an address"),
        ("*", "a destination is any, an address"),
        ("a.*.org", "a destination is any, an address"),
        ("x" * 64 + ".org", "a destination is any, an address"),
        ("a b.org", "a destination is any, an address"),
        ("bücher.example", "xn--"),
        ("10.0.0.1/8", "bits beyond its prefix; meant is 10.0.0.0/8"),
        ("10.0.0.300", "is no address and no subnet"),
        ("10.0.0", "is no address and no subnet"),
        ("10.0.0.0/33", "is no address and no subnet"),
        ("2001:db8::1/32", "bits beyond its prefix; meant is 2001:db8::/32"),
        ("fe80::1%eth0", "is no address and no subnet"),
        ("[2001:db8::1", "an IPv6 address in brackets"),
        ("[2001:db8::1]443", "an IPv6 address in brackets"),
        ("[2001:db8::1]:", "an IPv6 address in brackets"),
    ],
)
def test_bad_rules_say_what_is_wrong_with_which(text, why):
    with pytest.raises(Failure) as caught:
        rules.parse("allow", text)
    assert caught.value.exit_code == USAGE
    assert why in caught.value.message
    assert caught.value.message.startswith("--allow is ")


def test_a_name_cannot_be_denied():
    with pytest.raises(Failure, match="a name can only be allowed"):
        rules.parse("deny", "pypi.org")
    (denied,) = rules.parse("deny", "10.0.0.0/8")
    assert (denied.action, rules.action(denied)) == (pb.ACTION_DENY, "deny")


def test_what_is_denied_on_a_port_is_denied_with_tcp_and_udp():
    denied = rules.parse("deny", "10.0.0.0/8:22,80-90")
    assert [(each.protocol, each.first_port) for each in denied] == [
        (TCP, 22),
        (TCP, 80),
        (UDP, 22),
        (UDP, 80),
    ]
    assert len(rules.parse("deny", "10.0.0.0/8:22/udp")) == 1


PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted)


@given(
    st.sampled_from(["any", "pypi.org", "*.a.b", "10.0.0.0/8", "2001:db8::/32", "::/0"]),
    st.none() | PORTS,
    st.sampled_from([TCP, UDP]),
)
def test_a_rule_comes_back_from_its_text(destination, ports, protocol):
    (wanted,) = rules.parse("allow", destination)
    wanted.protocol = protocol
    if ports:
        wanted.first_port = ports[0]
        wanted.last_port = ports[1] if ports[1] != ports[0] else 0
    assert rules.parse("allow", rules.text(wanted)) == [wanted]


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_a_usage_error(text):
    with suppress(Failure):
        for each in rules.parse("allow", text):
            assert rules.parse("allow", rules.text(each)) == [each]
