"""Names, patterns and the reverse tree."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_dns import names
from nexus_dns.names import Allowed, allowed, labels, parse, reverse


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("pypi.org", ["pypi.org", "PYPI.ORG", "pypi.org."], ["a.pypi.org", "xpypi.org", "org"]),
        ("*.pypi.org", ["a.pypi.org", "b.A.pypi.org"], ["pypi.org", "apypi.org", "org", "."]),
        ("PyPI.org", ["pypi.org"], []),
        ("xn--bcher-kva.example", ["bücher.example"], ["bucher.example"]),
        ("_dmarc.pypi.org", ["_DMARC.pypi.org"], []),
    ],
)
def test_patterns(pattern, matches, others):
    table = Allowed([(pattern, 3)])
    assert all(table.slots(parse(name)) == (3,) for name in matches)
    assert not any(table.slots(parse(name)) for name in others)


def test_all_rules_that_match_count():
    table = Allowed([("*.org", 9), ("a.b.org", 2), ("*.b.org", 4), ("a.b.org", 9), ("b.org", 1)])
    assert table.slots(parse("a.b.org")) == (2, 4, 9)


@pytest.mark.parametrize(
    "pattern", ["*", "a.*.org", "*a.org", "a..org", "*..org", f"{'x' * 64}.org", "a." * 130]
)
def test_what_is_no_pattern(pattern):
    with pytest.raises(ValueError, match=r"expected|no domain name"):
        Allowed([(pattern, 0)])


def test_a_dot_within_a_label_is_none():
    name = dns.name.Name([b"a.pypi", b"org", b""])
    assert Allowed([("*.pypi.org", 0)]).slots(labels(name)) == ()


def plainly(rules, name):
    """Decide as the contract words it, one rule after another."""
    text = ".".join(part.decode() for part in name[:-1])
    return tuple(
        sorted(
            {
                slot
                for pattern, slot in rules
                if (text.endswith(pattern[1:]) if pattern[0] == "*" else text == pattern)
            }
        )
    )


part = st.text("ab", min_size=1, max_size=2)
domain = st.lists(part, min_size=1, max_size=4).map(".".join)
rule = st.tuples(st.builds(str.__add__, st.sampled_from(["", "*."]), domain), st.integers(0, 9))


@given(st.lists(rule, max_size=8), domain)
def test_slots_are_those_of_a_plain_search(rules, name):
    assert Allowed(rules).slots(parse(name)) == plainly(rules, parse(name))


def test_equal_rules_are_kept_once():
    one = allowed((("pypi.org", 0), ("*.pypi.org", 1)))
    assert allowed((("pypi.org", 0), ("*.pypi.org", 1))) is one
    assert allowed((("pypi.org", 0),)) is not one
    del one
    assert len(names._KNOWN) == 0


@given(st.ip_addresses())
def test_the_reverse_name_of_an_address(address):
    assert reverse(parse(address.reverse_pointer)) == ip_network(address)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("10.in-addr.arpa", "10.0.0.0/8"),
        ("16.172.in-addr.arpa", "172.16.0.0/16"),
        ("0/25.2.0.192.in-addr.arpa", "192.0.2.0/24"),
        ("b._dns-sd._udp.0.168.192.in-addr.arpa", "192.168.0.0/24"),
        ("256.10.in-addr.arpa", "10.0.0.0/8"),
        ("9.4.3.2.10.in-addr.arpa", "10.2.3.4/32"),
        ("d.f.ip6.arpa", "fd00::/8"),
        ("c.f.ip6.arpa", "fc00::/8"),
        ("10.d.f.ip6.arpa", "fd00::/8"),
        ("in-addr.arpa", None),
        ("ip6.arpa", None),
        ("x.in-addr.arpa", None),
        ("1.0.0.127.example", None),
    ],
)
def test_reverse_names(name, network):
    assert reverse(parse(name)) == (ip_network(network) if network else None)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.sampled_from(["v4", "v6"]))
def test_no_reverse_name_is_too_much(parts, tree):
    tail = names._V4 if tree == "v4" else names._V6
    found = reverse((*(part.lower() for part in parts), *tail))
    assert found is None or isinstance(found.network_address, IPv4Address | IPv6Address)
