"""Reading the console log, and reading on in it while it is written."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_ring import Ring

from nexus_vmm.console import reader as console
from nexus_vmm.console.pieces import put_aside
from nexus_vmm.console.reader import LIMIT, Reader, last_words, read_console, tail

SECOND = 1_000_000_000


@pytest.fixture
def ring(tmp_path):
    return Ring(tmp_path, limit=8, files=3)


def test_the_log_is_read_over_its_pieces(ring, tmp_path):
    ring.print(b"boot ")
    put_aside(tmp_path)
    for text in (b"one ", b"two ", b"three"):
        ring.print(text)
    assert read_console(tmp_path) == b"boot one two three"
    assert read_console(tmp_path, 7) == b"o three"
    assert read_console(tmp_path, 100) == b"boot one two three"


def test_no_log_is_no_error(tmp_path):
    assert read_console(tmp_path / "none") == b""
    assert read_console(tmp_path) == b""


def test_at_most_the_limit_is_read(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * LIMIT + b"end")
    (tmp_path / "old.1").write_bytes(b"x" * LIMIT)
    text = read_console(tmp_path, 2**32 - 1)
    assert (len(text), text[-3:]) == (LIMIT, b"end")


@pytest.mark.parametrize(
    ("tail_bytes", "tail_lines", "text"),
    [
        (0, 0, b"a\nbb\r\nccc\n"),
        (0, 1, b"ccc\n"),
        (0, 2, b"bb\r\nccc\n"),
        (0, 3, b"a\nbb\r\nccc\n"),
        (0, 2**32 - 1, b"a\nbb\r\nccc\n"),
        (6, 1, b"ccc\n"),
        (6, 2, b"\r\nccc\n"),
        (3, 1, b"cc\n"),
        (100, 0, b"a\nbb\r\nccc\n"),
    ],
)
def test_the_tail_is_the_shorter_of_bytes_and_lines(tail_bytes, tail_lines, text):
    assert tail(b"a\nbb\r\nccc\n", tail_bytes, tail_lines) == text


def test_an_unfinished_line_is_a_line():
    assert tail(b"a\nlogin: ", 0, 1) == b"login: "
    assert tail(b"\n\n\n", 0, 2) == b"\n\n"
    assert tail(b"", 0, 2) == b""


def test_since_gives_the_pieces_that_were_changed_then_or_later(ring, tmp_path):
    ring.print(b"old boot")
    put_aside(tmp_path)
    began = ring.now + 1
    for text in (b"the boot", b"goes on"):
        ring.print(text)
    assert read_console(tmp_path, since=began) == b"the bootgoes on"
    assert read_console(tmp_path, since=began - 1) == b"old bootthe bootgoes on"
    assert read_console(tmp_path, since=ring.now) == b"goes on"
    assert read_console(tmp_path, since=ring.now + 1) == b""


def test_the_last_words_are_one_printable_line(tmp_path):
    assert last_words(tmp_path) == ""
    text = b"".join(b"line %d\r\n" % number for number in range(9))
    (tmp_path / "log").write_bytes(text + b"\n \x1b[31mKernel\t panic\x00\xff\r\n\n")
    told = "line 5 | line 6 | line 7 | line 8 | [31mKernel panic \N{REPLACEMENT CHARACTER}"
    assert last_words(tmp_path) == told
    (tmp_path / "log").write_bytes(b"x" * 10_000 + b"end")
    assert last_words(tmp_path) == "x" * 397 + "end"


def test_reading_on_goes_over_pieces_and_boots(ring, tmp_path):
    reader = Reader(tmp_path)
    assert reader.more() == (b"", 0)
    ring.print(b"a")
    assert reader.more() == (b"a", 0)
    assert reader.more() == (b"", 0)
    ring.print(b"b")
    ring.print(b"c" * 7)
    ring.print(b"d")
    assert reader.more() == (b"bcccccccd", 0)
    put_aside(tmp_path)
    ring.start()
    assert reader.more() == (b"", 0)
    ring.print(b"boot")
    assert reader.more() == (b"boot", 0)


def test_what_is_past_since_is_read_on_from(ring, tmp_path):
    ring.print(b"old")
    reader = Reader(tmp_path, since=ring.now + 1)
    assert reader.more() == (b"", 0)
    ring.print(b"new")
    assert reader.more() == (b"new", 0)


def test_a_writer_that_went_all_the_way_round_is_noticed(ring, tmp_path):
    reader = Reader(tmp_path)
    ring.print(b"a" * 4)
    assert reader.more() == (b"aaaa", 0)
    for letter in b"bcde":
        ring.print(bytes([letter]) * 8)
    # Three files: `log` holds "e" by now, and is longer than when it was read.
    assert reader.more() == (b"ccccccccddddddddeeeeeeee", 1)
    assert reader.more() == (b"", 0)


def test_what_was_put_aside_and_removed_unread_is_noticed(ring, tmp_path):
    reader = Reader(tmp_path)
    ring.print(b"a")
    assert reader.more() == (b"a", 0)
    for path in tmp_path.iterdir():
        path.unlink()
    assert reader.more() == (b"", 1)
    ring.print(b"b")
    assert reader.more() == (b"b", 0)


def test_of_very_much_news_the_end_is_read_and_the_rest_counted(tmp_path):
    reader = Reader(tmp_path)
    (tmp_path / "old.1").write_bytes(b"x" * 10)
    (tmp_path / "log").write_bytes(b"y" * LIMIT)
    data, lost = reader.more()
    assert (data, lost) == (b"y" * LIMIT, 10)
    (tmp_path / "log.1").write_bytes(b"z")
    os.utime(tmp_path / "log.1", (2**33, 2**33))
    assert reader.more() == (b"z", 0)


def test_a_piece_that_is_put_aside_under_the_reader_is_read_after_all(ring, tmp_path, monkeypatch):
    ring.print(b"text")
    read_piece = console.read_piece

    def late(piece, start, *, growing):
        put_aside(tmp_path)
        return read_piece(piece, start, growing=growing)

    monkeypatch.setattr(console, "read_piece", late)
    assert Reader(tmp_path).more() == (b"text", 0)


def test_a_removed_log_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        Reader(tmp_path / "none").more()


STEPS = st.lists(
    st.one_of(st.just("boot"), st.just("read"), st.integers(1, 9)), min_size=1, max_size=60
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_nothing_is_given_twice_or_out_of_order_or_left_out_unsaid(tmp_path_factory, steps):
    """Numbers are printed; what is read are all of them, or fewer with the last, and a loss."""
    directory = tmp_path_factory.mktemp("log")
    ring = Ring(directory, limit=8, files=3)
    reader = Reader(directory)
    printed = read = 0
    for step in [*steps, "read"]:
        if step == "boot":
            put_aside(directory)
            ring.start()
        elif step == "read":
            data, lost = reader.more()
            news = iter([number % 256 for number in range(read, printed)])
            assert all(number in news for number in data)  # in order, and each once
            assert not data or data[-1] == (printed - 1) % 256
            missing = printed - read - len(data)
            # A reader that has not seen anything yet has no place that could be lost.
            assert lost or not missing or not read
            assert not lost or printed - read > 8  # the writer may have gone round
            read = printed
        else:
            ring.print(bytes((printed + number) % 256 for number in range(step)))
            printed += step
