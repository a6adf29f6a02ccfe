import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_rpc.errors import InvalidArgument
from nexus_rpc.ids import check_name, check_vm_id, check_vm_ref, is_vm_id, new_vm_id


def test_new_ids_are_ids_and_differ():
    ids = {new_vm_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_vm_id(vm_id) for vm_id in ids)


@pytest.mark.parametrize("name", ["a", "hello", "a-b", "0", "x" * 63])
def test_good_names(name):
    assert check_name("name", name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "x" * 64, "a b", "a\n", "../etc", "ä", "a\0"]
)
def test_bad_names(name):
    with pytest.raises(InvalidArgument) as caught:
        check_name("name", name)
    assert caught.value.metadata["field"] == "name"


def test_a_name_that_reads_as_an_id_is_refused():
    with pytest.raises(InvalidArgument, match="reads as a VM id"):
        check_name("name", new_vm_id())


@given(st.text(max_size=80))
def test_an_id_is_never_a_name(text):
    if is_vm_id(text):
        with pytest.raises(InvalidArgument):
            check_name("name", text)
        assert check_vm_ref("vm", text) == check_vm_id("vm", text) == text
