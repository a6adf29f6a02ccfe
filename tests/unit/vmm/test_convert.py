from nexus.vmm.v1 import vmm_pb2
from nexus_rpc import vms
from nexus_vmm.states import LIVE


def test_clients_take_the_same_states_for_live():
    assert {vmm_pb2.VmState.Value(f"VM_STATE_{state.name}") for state in LIVE} == vms.LIVE
