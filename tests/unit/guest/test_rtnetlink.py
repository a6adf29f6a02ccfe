import struct

from hypothesis import given
from hypothesis import strategies as st

from nexus_guest import rtnetlink


@given(st.dictionaries(st.integers(0, 65535), st.binary(max_size=40), max_size=5))
def test_attributes_come_back(wanted):
    data = b"".join(rtnetlink.attribute(kind, value) for kind, value in wanted.items())
    assert len(data) % 4 == 0
    assert rtnetlink.attributes(data) == wanted


@given(st.binary(max_size=100))
def test_noise_ends(noise):
    assert len(rtnetlink.attributes(noise)) <= 25
    assert len(list(rtnetlink.messages(noise))) <= 6


def test_attribute_as_the_kernel_lays_it_out():
    assert rtnetlink.attribute(1, b"abcde") == struct.pack("=HH", 9, 1) + b"abcde\0\0\0"
