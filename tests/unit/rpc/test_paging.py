import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_rpc import paging
from nexus_rpc.errors import InvalidArgument


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_token_gives_its_key_back(key):
    assert paging.decode(paging.encode(key)) == key


def test_the_first_page_begins_before_every_key():
    assert paging.decode("") == 0


@pytest.mark.parametrize(("asked", "given_"), [(0, 100), (1, 1), (1000, 1000), (5000, 1000)])
def test_sizes(asked, given_):
    assert paging.page_size(asked) == given_


def test_a_negative_size_is_refused():
    with pytest.raises(InvalidArgument, match="page_size is -1"):
        paging.page_size(-1)


@pytest.mark.parametrize(
    "token", ["!", "abc", "/w==", "é", "YQ==", paging.encode(2**63), paging.encode(-1)]
)
def test_a_made_up_token_is_refused(token):
    with pytest.raises(InvalidArgument, match="page_token"):
        paging.decode(token)


KEYS = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)


@given(st.text(max_size=50), KEYS)
def test_a_sealed_token_gives_its_key_back(name, number):
    assert paging.unseal("list", paging.seal("list", name, number), str, int) == (name, number)


def test_the_first_page_of_a_list_begins_after_no_key():
    assert paging.unseal("list", "", str, int) == ()


@pytest.mark.parametrize(
    "token",
    [
        "!",
        "é",
        "YQ==",
        paging.encode(1),
        paging.seal("list", 1),
        paging.seal("list", "a", "1"),
        paging.seal("list", "a", True),
        paging.seal("list", "a", 1, 1),
        paging.seal("list", "a", 2**63),
        paging.seal("list", "\ud800", 1),
        paging.seal("list", "a" * 2000, 1),
        base64.urlsafe_b64encode(b"[" * 700).decode(),
    ],
)
def test_a_made_up_sealed_token_is_refused(token):
    with pytest.raises(InvalidArgument, match="unchanged"):
        paging.unseal("list", token, str, int)


def test_a_token_of_another_list_is_told_as_such():
    with pytest.raises(InvalidArgument, match="another filter or order"):
        paging.unseal("list", paging.seal("other", "a", 1), str, int)
