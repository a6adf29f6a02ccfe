"""The wire format of netlink: attributes and messages, whole and broken."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_netd.linux.netlink import Shapes, attribute, attributes, messages, nest, text, u8, u32

VALUES = st.dictionaries(st.integers(1, 60), st.binary(max_size=40), max_size=20)


def encoded(values):
    return b"".join(attribute(kind, value) for kind, value in values.items())


@given(VALUES)
def test_attributes_are_read_as_they_were_written(values):
    assert attributes(encoded(values)) == values
    assert attributes(b"head" + encoded(values), 4) == values


def test_attributes_have_length_kind_and_padding():
    assert attribute(3, b"abc") == b"\7\0\3\0abc\0"
    assert text(3, "ab") == b"\7\0\3\0ab\0\0"
    assert u8(1, 7) == b"\5\0\1\0\7\0\0\0"
    assert u32(2, 7) == struct.pack("=HHI", 8, 2, 7)
    assert attributes(nest(9, u8(1, 7), u32(2, 7))) == {9: u8(1, 7) + u32(2, 7)}


@given(st.binary(max_size=200), st.integers(0, 220))
def test_whatever_the_bytes_are_reading_ends(data, offset):
    for value in attributes(data, offset).values():
        assert len(value) <= len(data)
    for *_, message in messages(data):
        assert 16 <= len(message) <= len(data)


def test_messages_are_split_at_their_padded_lengths():
    one = struct.pack("=IHHII", 18, 16, 2, 7, 99) + b"ab"
    other = struct.pack("=IHHII", 16, 17, 0, 8, 0)
    assert list(messages(one + bytes(2) + other)) == [(16, 2, 7, 99, one), (17, 0, 8, 0, other)]
    assert list(messages(one[:-1])) == []


@settings(deadline=None)
@given(st.lists(VALUES, max_size=8), st.sets(st.integers(1, 6), min_size=1))
def test_shapes_find_what_a_walk_finds(several, kinds):
    """Whatever lay where in messages before."""
    shapes = Shapes(4, tuple(kinds))
    for values in several * 2:
        data = b"head" + encoded(values)
        found = shapes.find(data)
        assert {kind: found.get(kind) for kind in kinds} == {
            kind: values.get(kind) for kind in kinds
        }


def test_shapes_do_not_take_another_attribute_of_the_same_place():
    shapes = Shapes(0, (1, 2))
    for one, other in (((1, b"aaaa"), (2, b"bbbb")), ((2, b"bbbb"), (1, b"aaaa"))) * 2:
        assert shapes.find(attribute(*one) + attribute(*other)) == {1: b"aaaa", 2: b"bbbb"}
