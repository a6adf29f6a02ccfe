"""Reading the console log: order, bounds, and files that are no log."""

import os

import pytest

from nexus_vmm import console
from nexus_vmm.console import LIMIT, last_words, read_console


@pytest.fixture
def log(tmp_path):
    for age, (name, text) in enumerate(
        [("previous", b"boot "), ("log.1", b"one "), ("log.2", b"two "), ("log", b"three")]
    ):
        path = tmp_path / name
        path.write_bytes(text)
        os.utime(path, (100 + age, 100 + age))
    return tmp_path


def test_files_are_read_by_age(log):
    assert read_console(log, 0) == b"boot one two three"


@pytest.mark.parametrize(
    ("tail", "text"), [(3, b"ree"), (7, b"o three"), (100, b"boot one two three")]
)
def test_the_tail_goes_over_files(log, tail, text):
    assert read_console(log, tail) == text


def test_no_log_is_no_error(tmp_path):
    assert read_console(tmp_path / "none", 0) == b""
    assert read_console(tmp_path, 0) == b""


def test_at_most_the_limit_is_read(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * LIMIT + b"end")
    text = read_console(tmp_path, 2**32 - 1)
    assert (len(text), text[-3:]) == (LIMIT, b"end")


def test_links_pipes_and_directories_are_passed_over(log, tmp_path):
    secret = tmp_path.parent / "secret"
    secret.write_text("secret")
    (log / "log.3").symlink_to(secret)
    os.mkfifo(log / "log.4")
    (log / "log.5").mkdir()
    (log / ".previous").write_text("half")
    assert read_console(log, 0) == b"boot one two three"


def test_of_very_many_files_only_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(console, "_MAX_ENTRIES", 3)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x")
    assert read_console(tmp_path, 0) == b"xxx"


def test_the_last_words_are_one_printable_line(tmp_path):
    assert last_words(tmp_path) == ""
    text = b"".join(b"line %d\r\n" % number for number in range(9))
    (tmp_path / "log").write_bytes(text + b"\n \x1b[31mKernel\t panic\x00\xff\r\n\n")
    told = "line 5 | line 6 | line 7 | line 8 | [31mKernel panic \N{REPLACEMENT CHARACTER}"
    assert last_words(tmp_path) == told
    (tmp_path / "log").write_bytes(b"x" * 10_000 + b"end")
    assert last_words(tmp_path) == "x" * 397 + "end"
