"""Queries, good and hostile."""

import struct

import dns.edns
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_dns.query import LARGEST, Malformed, Query, parse


def wire(name="pypi.org", kind="A", **options):
    return dns.message.make_query(name, kind, **options).to_wire()


def test_a_query():
    query = parse(wire("FILES.pypi.org", "AAAA", use_edns=0, want_dnssec=True), by_tcp=False)
    assert query.labels == (b"files", b"pypi", b"org", b"")
    assert query.domain == "files.pypi.org"
    assert query.name.to_text() == "FILES.pypi.org."
    assert (query.kind, query.is_internet, query.dnssec) == (28, True, True)


@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({"use_edns": False}, 512),
        ({"use_edns": 0, "payload": 100}, 512),
        ({"use_edns": 0, "payload": 1000}, 1000),
        ({"use_edns": 0, "payload": 4096}, LARGEST),
    ],
)
def test_room(options, room):
    assert parse(wire(**options), by_tcp=False).room == room
    assert parse(wire(**options), by_tcp=True).room == 65_535


def test_a_name_for_people_has_no_odd_bytes():
    body = b"\x05a.\x00\xff\n\x00\0\1\0\1"
    query = parse(struct.pack("!6H", 1, 256, 1, 0, 0, 0) + body, by_tcp=False)
    assert query.domain == "a\\.\\000\\255\\010"


def test_a_signed_query_is_for_somebody_else():
    signed = dns.message.make_query("pypi.org", "A", use_edns=False)
    signed.use_tsig({dns.name.from_text("key."): b"secret"})
    with pytest.raises(Malformed) as caught:
        parse(signed.to_wire(), by_tcp=False)
    assert dns.message.from_wire(caught.value.reply).rcode() == 1


def check(data):
    """Whatever the bytes are, they are a query, or malformed with an answer to the same number."""
    for by_tcp in False, True:
        try:
            query = parse(data, by_tcp=by_tcp)
        except Malformed as error:
            reply = error.reply
            good = reply is None or (len(reply) == 12 and reply[:2] == data[:2] and reply[2] & 0x80)
            assert good, reply  # not every query is malformed
            continue
        assert isinstance(query, Query)
        assert 512 <= query.room <= 65_535
        assert len(query.domain) <= 1024
        assert query.labels


@given(st.binary(max_size=1300))
def test_any_bytes(data):
    check(data)


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_good_header(data):
    check(struct.pack("!6H", 1, 0x0100, 1, 0, 0, 1) + data)


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 200),
)
def test_a_query_with_wrong_bytes(changes, length):
    data = bytearray(wire(use_edns=0, want_dnssec=True, options=[dns.edns.NSIDOption(b"x")]))
    for at, value in changes:
        data[at % len(data)] = value
    check(bytes(data))
    check(bytes(data[:length]))
