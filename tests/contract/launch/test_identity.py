"""The launcher's ids are those of the services, whose code it cannot import."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_launch import handover, identity
from nexus_rpc import ids
from nexus_vmm.config.table import TABLE

CHARACTERS = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=13, max_size=13)


@given(CHARACTERS)
def test_an_id_gives_the_same_user(vm_id):
    assert identity.is_vm_id(vm_id)
    assert ids.is_vm_id(vm_id)
    assert identity.vm_uid(vm_id) == ids.vm_uid(vm_id)
    assert ids.is_vm_uid(identity.vm_uid(vm_id))


@given(st.text(max_size=15) | st.text("abcz27", min_size=12, max_size=14))
def test_the_same_texts_are_ids(text):
    assert identity.is_vm_id(text) == ids.is_vm_id(text)


def test_all_users_are_told_from_others():
    first, last = identity.vm_uid("a" * 13), identity.vm_uid("7" * 13)
    assert (first, last) == (0x70000000, 0x7FFFFFFF)
    assert not ids.is_vm_uid(first - 1)
    assert not ids.is_vm_uid(last + 1)


def test_every_size_that_a_spec_may_have_can_be_launched():
    kinds = {name: setting.kind for name, setting in TABLE.items()}
    vcpus, memory = kinds["default.vcpu_count"], kinds["default.memory_mib"]
    assert (vcpus.least, vcpus.most) == handover.VCPUS
    assert (memory.least, memory.most) == handover.MEMORY_MIB
