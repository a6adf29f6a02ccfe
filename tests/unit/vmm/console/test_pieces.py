"""The files of the console log: their order, what is no file, and making room for a boot."""

import contextlib
import os

import pytest
from vmm_ring import Ring

from nexus_vmm.console import pieces as module
from nexus_vmm.console.pieces import pieces, put_aside, read_piece


@pytest.fixture
def ring(tmp_path):
    return Ring(tmp_path, limit=4)


def names(directory):
    return [piece.path.name for piece in pieces(directory)]


def text(directory):
    found = pieces(directory)
    return b"".join(read_piece(piece, 0, growing=True) for piece in found)


def test_pieces_are_in_the_order_of_what_was_printed(ring, tmp_path):
    for letter in b"abcdefg":
        ring.print(bytes([letter]) * 4)
    assert names(tmp_path) == ["log.2", "log.3", "log.4", "log", "log.1"]
    assert text(tmp_path) == b"ccccddddeeeeffffgggg"


@pytest.mark.parametrize("count", range(1, 9))
def test_pieces_of_one_tick_of_the_clock_are_in_their_turn(ring, tmp_path, count):
    ring.tick = 2_000_000_000
    for letter in b"abcdefgh"[:count]:
        ring.print(bytes([letter]) * 4)
    printed = b"".join(bytes([letter]) * 4 for letter in b"abcdefgh"[:count])
    assert text(tmp_path) == printed[-20:]


def test_without_a_directory_there_is_no_log(tmp_path):
    with pytest.raises(FileNotFoundError):
        pieces(tmp_path / "none")
    assert pieces(tmp_path) == []
    put_aside(tmp_path / "none")


def test_links_pipes_and_directories_are_no_pieces(ring, tmp_path):
    ring.print(b"text")
    secret = tmp_path.parent / "secret"
    secret.write_text("secret")
    (tmp_path / "log.3").symlink_to(secret)
    os.mkfifo(tmp_path / "log.4")
    (tmp_path / "old.1").mkdir()
    (tmp_path / ".hidden").write_text("half")
    assert names(tmp_path) == ["log"]


def test_of_very_many_files_only_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_ENTRIES", 7)
    monkeypatch.setattr(module, "_MAX_PIECES", 3)
    for number in range(9):
        (tmp_path / f"log.{number}").touch()
    assert len(pieces(tmp_path)) == 3


def test_a_piece_that_is_put_aside_under_the_look_is_found(ring, tmp_path, monkeypatch):
    for letter in b"ab":
        ring.print(bytes([letter]) * 4)
    lstat = type(tmp_path).lstat
    boots = iter(range(3))

    def late(path):
        if next(boots, None) is not None:
            put_aside(tmp_path)
            ring.start()
            ring.print(b"boot")
        return lstat(path)

    monkeypatch.setattr(type(tmp_path), "lstat", late)
    assert text(tmp_path) == b"aaaabbbb" + b"boot" * 3


def test_what_came_into_the_place_of_a_piece_is_not_read(ring, tmp_path):
    ring.print(b"text")
    (piece,) = pieces(tmp_path)
    piece.path.rename(tmp_path / "old.1")
    assert read_piece(piece, 0, growing=True) is None
    secret = tmp_path.parent / "secret"
    secret.write_text("text")
    for place in (piece.path.write_text, lambda _: piece.path.symlink_to(secret)):
        place("text")
        assert read_piece(piece, 0, growing=True) is None
        piece.path.unlink()
    os.mkfifo(piece.path)
    assert read_piece(piece, 0, growing=True) is None


def test_a_piece_that_was_emptied_or_grew_is_told_apart(ring, tmp_path):
    ring.print(b"ab")
    (piece,) = pieces(tmp_path)
    ring.print(b"cd")
    assert read_piece(piece, 1, growing=True) == b"b"
    assert read_piece(piece, 0, growing=False) is None
    piece.path.write_bytes(b"x")
    assert read_piece(piece, 0, growing=True) is None


def test_what_a_boot_printed_goes_aside_with_its_time(ring, tmp_path):
    for boot in (b"one", b"two", b"three"):
        put_aside(tmp_path)
        ring.start()
        for letter in boot:
            ring.print(bytes([letter]) * 4)
    assert names(tmp_path)[:6] == ["old.1", "old.2", "old.3", "old.4", "old.5", "old.6"]
    assert text(tmp_path) == b"".join(bytes([letter]) * 4 for letter in b"onetwothree")
    assert [piece.changed for piece in pieces(tmp_path)] == sorted(
        piece.changed for piece in pieces(tmp_path)
    )


def test_a_clock_that_went_back_between_boots_changes_no_order(ring, tmp_path):
    ring.print(b"one")
    put_aside(tmp_path)
    ring.now = 0
    ring.print(b"two")
    assert text(tmp_path) == b"onetwo"


def test_what_an_earlier_release_left_goes_aside_too(ring, tmp_path):
    ring.print(b"new")
    (tmp_path / "previous").write_bytes(b"old ")
    os.utime(tmp_path / "previous", (1, 1))
    put_aside(tmp_path)
    assert (names(tmp_path), text(tmp_path)) == (["old.1", "old.2"], b"old new")


def test_the_oldest_of_too_many_bytes_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_OLD_BYTES", 10)
    ring = Ring(tmp_path, limit=4)
    for letter in b"abcd":
        ring.print(bytes([letter]) * 4)
    put_aside(tmp_path)
    assert text(tmp_path) == b"ccccdddd"
    (tmp_path / "log").write_bytes(b"more than there is room for")
    put_aside(tmp_path)
    assert text(tmp_path) == b""


def test_the_oldest_of_too_many_pieces_goes_and_empty_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_OLD_PIECES", 2)
    for boot in (b"a", b"b", b"", b"c"):
        (tmp_path / "log").write_bytes(boot)
        put_aside(tmp_path)
    assert text(tmp_path) == b"bc"


def test_putting_aside_may_end_anywhere_and_be_done_again(tmp_path, monkeypatch):
    ring = Ring(tmp_path, limit=4)
    for letter in b"abcde":
        ring.print(bytes([letter]) * 4)
    whole = text(tmp_path)
    rename = type(tmp_path).rename
    for _ in range(5):
        calls = []

        def once(path, target, calls=calls):
            if calls:
                raise OSError("killed")
            calls.append(rename(path, target))

        monkeypatch.setattr(type(tmp_path), "rename", once)
        with contextlib.suppress(OSError):
            put_aside(tmp_path)
        assert text(tmp_path) == whole
    assert names(tmp_path) == [f"old.{number}" for number in range(1, 6)]
