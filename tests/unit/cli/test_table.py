import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexusctl.table import render

ROWS = [["hello", "ready", "debian"], ["a-long-name-of-a-vm", "stopped", "x"]]
HEADER = ["NAME", "STATE", "IMAGE"]


def test_columns_line_up():
    assert render(HEADER, ROWS) == (
        "NAME                 STATE    IMAGE\n"
        "hello                ready    debian\n"
        "a-long-name-of-a-vm  stopped  x\n"
    )


def test_the_widest_column_gives_way_first():
    assert render(HEADER, ROWS, columns=28) == (
        "NAME         STATE    IMAGE\nhello        ready    debian\na-long-nam…  stopped  x\n"
    )


@given(
    st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3)),
    st.integers(min_value=7, max_value=80),
)
def test_it_fits_whatever_stands_in_it(rows, columns):
    lines = render(HEADER, rows, columns=columns).split("\n")
    assert len(lines) == len(rows) + 2
    assert max(map(len, lines)) <= columns


def test_colours_do_not_count():
    plain = render(HEADER, ROWS, columns=30)
    styled = render(HEADER, ROWS, columns=30, styles={"ready": "green"})
    assert "\x1b[32mready  \x1b[0m" in styled
    for code in ("\x1b[1m", "\x1b[32m", "\x1b[0m"):
        styled = styled.replace(code, "")
    assert [line.rstrip() for line in styled.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("text", ["\x1b[2J", "\n", "\u202e", "\x9b"])
def test_a_cell_cannot_steer_the_terminal(text):
    assert text not in render(["X"], [[f"a{text}b"]]).splitlines()[1]
