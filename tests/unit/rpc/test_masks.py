import pytest

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.errors import InvalidArgument
from nexus_rpc.masks import check_mask

VM = pb.Vm(
    name="hello",
    spec=pb.VmSpec(memory_mib=128, image="debian", tags={"a": "b"}),
    history=[pb.Transition(reason="because")],
)


def masked(*paths):
    vm = pb.Vm()
    vm.CopyFrom(VM)
    check_mask("field_mask", paths, pb.Vm.DESCRIPTOR).apply(vm)
    return vm


def test_no_path_is_no_mask():
    assert check_mask("field_mask", [], pb.Vm.DESCRIPTOR) is None


def test_only_what_is_named_stays():
    assert masked("name") == pb.Vm(name="hello")
    assert masked("name", "id") == pb.Vm(name="hello")
    assert masked("spec.memory_mib") == pb.Vm(spec=pb.VmSpec(memory_mib=128))
    assert masked("spec.tags", "history") == pb.Vm(
        spec=pb.VmSpec(tags={"a": "b"}), history=VM.history
    )
    assert not masked("last_exit.signal", "name").HasField("last_exit")


def test_a_whole_field_counts_more_than_a_part_of_it():
    assert masked("spec", "spec.image") == pb.Vm(spec=VM.spec)


def test_what_a_mask_names():
    mask = check_mask("field_mask", ["spec.image", "name"], pb.Vm.DESCRIPTOR)
    assert [mask.names(field) for field in ("spec", "name", "history")] == [True, True, False]


@pytest.mark.parametrize(
    "path", ["", ".", "nome", "name.x", "spec.", "spec.nothing", "spec.tags.a", "history.reason"]
)
def test_a_path_that_leads_nowhere_is_named(path):
    with pytest.raises(InvalidArgument) as caught:
        check_mask("field_mask", ["name", path], pb.Vm.DESCRIPTOR)
    assert caught.value.metadata["field"] == "field_mask"
    assert repr(path) in caught.value.message
