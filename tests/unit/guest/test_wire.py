import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_guest import wire
from nexus_guest.wire import Decoder, Frame, Kind, WireError

BYTES = st.sampled_from([Kind.DATA, Kind.STDOUT, Kind.STDERR])
JSON = st.sampled_from([Kind.REQUEST, Kind.REPLY, Kind.ERROR, Kind.EXIT])
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
FRAMES = st.one_of(
    st.builds(Frame, BYTES, st.binary(max_size=300)),
    st.builds(Frame, JSON, st.just(b""), st.dictionaries(st.text(), VALUES, max_size=4)),
    st.just(Frame(Kind.END)),
)


def encode(frame: Frame) -> bytes:
    if frame.kind in (Kind.REQUEST, Kind.REPLY, Kind.ERROR, Kind.EXIT):
        return wire.encode_message(frame.kind, frame.message)
    return wire.encode(frame.kind, frame.payload)


def raw(kind: int, payload: bytes) -> bytes:
    return (len(payload) + 1).to_bytes(4, "big") + bytes([kind]) + payload


@given(st.lists(FRAMES, max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(frames, data):
    stream = b"".join(map(encode, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
    assert got == frames
    assert not decoder.pending


@given(st.binary(max_size=200))
def test_noise_gives_frames_or_a_wire_error_and_nothing_else(noise):
    with contextlib.suppress(WireError):
        Decoder().feed(noise)


@given(JSON, st.binary(max_size=80))
def test_noise_in_json_frames(kind, payload):
    try:
        frames = Decoder().feed(raw(kind, payload))
    except WireError:
        return
    assert frames[0].message == json.loads(payload)


@pytest.mark.parametrize("length", [0, wire.MAX_PAYLOAD + 2, 2**31, 2**32 - 1])
def test_impossible_length_is_refused_at_its_fourth_byte(length):
    decoder = Decoder()
    header = length.to_bytes(4, "big")
    assert decoder.feed(header[:3]) == []
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match=str(length)):
            decoder.feed(header[3:])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [0, 9, 255])
def test_unknown_kind_is_refused_before_its_payload_arrives(kind):
    with pytest.raises(WireError, match=f"kind {kind}"):
        Decoder().feed(wire.MAX_PAYLOAD.to_bytes(4, "big") + bytes([kind]))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b'"op"',
        b"null",
        b"1",
        b"{}{}",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 500_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(payload):
    with pytest.raises(WireError, match="REQUEST"):
        Decoder().feed(raw(Kind.REQUEST, payload))


def test_end_has_no_payload():
    with pytest.raises(WireError, match="END"):
        Decoder().feed(raw(Kind.END, b"x")[:5])


def test_largest_frame_passes_and_one_byte_more_does_not():
    largest = wire.encode(Kind.DATA, bytes(wire.MAX_PAYLOAD))
    assert Decoder().feed(largest) == [Frame(Kind.DATA, bytes(wire.MAX_PAYLOAD))]
    with pytest.raises(ValueError, match="at most"):
        wire.encode(Kind.DATA, bytes(wire.MAX_PAYLOAD + 1))


def test_a_decoder_that_failed_stays_failed():
    decoder = Decoder()
    with pytest.raises(WireError):
        decoder.feed(bytes(4))
    with pytest.raises(WireError):
        decoder.feed(wire.encode(Kind.END))


def test_pending_tells_an_unfinished_frame():
    decoder = Decoder()
    decoder.feed(wire.encode(Kind.DATA, b"abc")[:-1])
    assert decoder.pending
    assert decoder.feed(b"c") == [Frame(Kind.DATA, b"abc")]
    assert not decoder.pending
