"""Servers' answers, good and hostile, as restricted guests see them, and as they are relayed."""

import struct
from ipaddress import ip_network

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_dns import replies
from nexus_dns.answers import Answer, BadAnswer, read
from nexus_dns.query import parse


def reply(*lines, name="pypi.org", kind="A", code=dns.rcode.NOERROR, soa=None, **options):
    query = dns.message.make_query(name, kind, id=7, **options)
    message = dns.message.make_response(query, recursion_available=True)
    message.set_rcode(code)
    message.answer.extend(dns.rrset.from_text(*line.split(maxsplit=3)) for line in lines)
    if soa:
        message.authority.append(dns.rrset.from_text(*soa.split(maxsplit=3)))
    return message


def line(owner, ttl, kind, value):
    return dns.rrset.from_text(owner, ttl, "IN", kind, value)


def wire_of(*rrsets, **options):
    message = reply(**options)
    message.answer.extend(rrsets)
    return message.to_wire()


def texts(answer):
    return [f"{rrset.name} {rrset.ttl} {each}" for rrset in answer.records for each in rrset]


def test_a_chain_has_one_ttl_and_nothing_beside_it():
    answer = read(
        wire_of(
            line("other.", 1, "A", "8.8.4.4"),
            line("cdn.", 40, "A", "8.8.8.8"),
            line("pypi.org.", 300, "CNAME", "cdn."),
        ),
        (),
    )
    assert texts(answer) == ["pypi.org. 40 cdn.", "cdn. 40 8.8.8.8"]
    assert (answer.addresses, answer.ttl, answer.struck) == (("8.8.8.8",), 40, 0)


def test_a_chain_that_leads_nowhere():
    answer = read(wire_of(line("pypi.org.", 300, "CNAME", "gone."), code=dns.rcode.NXDOMAIN), ())
    assert (answer.code, texts(answer)) == (dns.rcode.NXDOMAIN, ["pypi.org. 300 gone."])
    assert answer.addresses == ()


def test_an_answer_that_says_there_is_none_keeps_the_zones_mark():
    message = reply(code=dns.rcode.NXDOMAIN)
    message.authority.append(line("org.", 900, "SOA", "a. b. 1 2 3 4 60"))
    message.authority.append(line("org.", 900, "NS", "a."))
    answer = read(message.to_wire(), ())
    (soa,) = answer.authority
    assert (soa.rdtype.name, soa.ttl) == ("SOA", 60)


def test_an_answer_for_a_name_that_is_said_not_to_be():
    with pytest.raises(BadAnswer):
        read(wire_of(line("pypi.org.", 9, "A", "8.8.8.8"), code=dns.rcode.NXDOMAIN), ())


def test_private_addresses():
    wire = wire_of(
        dns.rrset.from_text("pypi.org.", 60, "IN", "A", "10.1.2.3", "8.8.8.8", "127.0.0.1")
    )
    assert read(wire, ()).addresses == ("8.8.8.8",)
    assert read(wire, ()).struck == 2
    found = read(wire, [ip_network("10.1.0.0/16"), ip_network("fd00::/8")])
    assert (sorted(found.addresses), found.struck) == (["10.1.2.3", "8.8.8.8"], 1)
    private = wire_of(line("pypi.org.", 60, "A", "10.1.2.3"))
    assert read(private, ()) == Answer(dns.rcode.REFUSED, struck=1)


def test_texts_are_given_as_they_are():
    wire = wire_of(dns.rrset.from_text("pypi.org.", 9, "IN", "TXT", '"10.0.0.1"', "b"), kind="TXT")
    answer = read(wire, ())
    assert (len(texts(answer)), answer.addresses) == (2, ())


@pytest.mark.parametrize("count", [33, 128])
def test_at_most_32_addresses(count):
    found = [f"8.8.{n}.8" for n in range(count)]
    answer = read(wire_of(dns.rrset.from_text_list("pypi.org.", 60, "IN", "A", found)), ())
    assert len(set(answer.addresses) & set(found)) == 32
    assert answer.addresses == tuple(each.to_text() for each in answer.records[-1])


def test_a_bomb_of_names_is_not_read():
    name = b"\x01a" * 127 + b"\0"
    records = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4" * 129
    header = struct.pack("!6H", 7, 0x8180, 1, 129, 0, 0)
    with pytest.raises(BadAnswer):
        read(header + name + b"\0\1\0\1" + records, ())


def query(name="pypi.org", kind="A", **options):
    message = dns.message.make_query(name, kind, id=99, **options)
    return parse(message.to_wire(), by_tcp=False)


def test_a_relayed_answer_is_the_clients():
    message = reply(name="PyPI.org")
    message.flags |= dns.flags.AD | dns.flags.AA
    message.answer.append(line("pypi.org.", 60, "CNAME", "x.pypi.org."))
    message.authority.append(line("org.", 900, "NS", "a."))
    message.additional.append(line("a.", 900, "A", "10.0.0.1"))
    wire = replies.relay(query("pYpI.org", use_edns=0, want_dnssec=True), message.to_wire())
    answer = dns.message.from_wire(wire)
    assert answer.id == 99
    assert answer.question[0].name.to_text() == "pYpI.org."  # the case may be a secret (0x20)
    assert dns.flags.to_text(answer.flags) == "QR RD RA"
    assert (answer.answer, answer.authority) == (message.answer, message.authority)
    assert (answer.additional, answer.edns, answer.ednsflags) == ([], 0, dns.flags.DO)


def test_a_relayed_answer_without_edns_and_without_room():
    message = reply()
    message.answer.append(
        dns.rrset.from_text_list("pypi.org.", 60, "IN", "A", [f"8.8.{n}.8" for n in range(40)])
    )
    wire = replies.relay(query(use_edns=False), message.to_wire())
    answer = dns.message.from_wire(wire)
    assert answer.flags & dns.flags.TC
    assert (answer.answer, answer.edns) == ([], -1)


GOOD = reply()
GOOD.answer.append(line("pypi.org.", 60, "CNAME", "x.pypi.org."))
GOOD.answer.append(line("x.pypi.org.", 60, "A", "8.8.8.8"))
GOOD.authority.append(line("org.", 900, "SOA", "a. b. 1 2 3 4 60"))
HEAD = GOOD.to_wire()[:26]


def check(data):
    try:
        answer = read(data, ())
    except BadAnswer:
        pass
    else:
        assert len(answer.addresses) <= 32
        assert 5 <= answer.ttl <= 3600
        out = replies.build(query(), answer.code, answer.records, answer.authority)
        assert len(out) <= 512
        dns.message.from_wire(out)
    try:
        out = replies.relay(query(), data)
    except replies.Cut:
        return
    assert len(out) <= 512
    assert out[12:26] == HEAD[12:26]


@given(st.binary(max_size=200), st.integers(0, 0xFFFF), st.lists(st.integers(0, 9), min_size=3))
def test_any_bytes_behind_the_question(data, flags, counts):
    check(struct.pack("!6H", 7, flags | 0x8000, 1, *counts[:3]) + HEAD[12:] + data)


@given(
    st.lists(st.tuples(st.integers(26, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(26, 200),
)
def test_an_answer_with_wrong_bytes(changes, length):
    data = bytearray(GOOD.to_wire())
    for at, value in changes:
        data[26 + at % (len(data) - 26)] = value
    check(bytes(data))
    check(bytes(data[:length]))
