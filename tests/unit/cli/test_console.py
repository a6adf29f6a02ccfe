"""The way out of a console."""

import pytest

from nexusctl.console import Escape


@pytest.mark.parametrize(
    ("keys", "typed", "left"),
    [
        (b"ls\r", b"ls\r", False),
        (b"~.", b"", True),
        (b"ls\r~.more", b"ls\r", True),
        (b"ls\n~.", b"ls\n", True),
        (b"ls ~.", b"ls ~.", False),
        (b"~~.", b"~.", False),
        (b"~~\r~.", b"~\r", True),
        (b"~a~.", b"~a~.", False),
        (b"~\r~.", b"~\r", True),
        (b"\r~", b"\r", False),
    ],
)
def test_a_tilde_and_a_dot_at_the_beginning_of_a_line_leave(keys, typed, left):
    whole, single = Escape(), Escape()
    assert (whole.filter(keys), whole.left) == (typed, left)
    one_by_one = b""
    for key in keys:
        if not single.left:
            one_by_one += single.filter(bytes([key]))
    assert (one_by_one, single.left) == (typed, left)
