"""Lists of VMs: each filter, order and page against a plain model of them."""

import sqlite3

import pytest
import vmm_guest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.errors import InvalidArgument
from nexus_vmm.api.convert import STATES
from nexus_vmm.api.listing import check_listing
from nexus_vmm.records import rows

NUMBERED = {number: state for state, number in STATES.items()}
LETTERS = str.maketrans("0189", "abcd")  # what an id has no place for
KEYS = {
    pb.VM_ORDER_UNSPECIFIED: lambda vm: vm.seq,
    pb.VM_ORDER_CREATE_TIME: lambda vm: vm.seq,
    pb.VM_ORDER_NAME: lambda vm: vm.name,
    pb.VM_ORDER_STATE_TIME: lambda vm: vm.changed,
    pb.VM_ORDER_MEMORY: lambda vm: vm.spec.memory_mib,
}


@pytest.fixture(scope="module")
def db():
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.row_factory = sqlite3.Row
    for script in rows.MIGRATIONS:
        db.executescript(script)
    states = [*NUMBERED.values()]
    for number in range(60):
        tags = {"team": "blue", "env": "prod"} if number % 3 else {"team": 're\'d "x"]', "a": ""}
        spec = vmm_guest.spec(
            memory_mib=128 * (1 + number * 7 % 5),
            image=("debian", "alpine.3")[number % 2],
            tags=tuple(sorted(tags.items())) if number % 4 else (),
        )
        name = f"{'abc'[number % 3]}-{number * 31 % 60:02}"
        vm = rows.insert(db, f"{number:013}".translate(LETTERS), name, spec, number)
        db.execute(
            "UPDATE vms SET state = ?, changed = ? WHERE seq = ?",
            (states[number % len(states)], number * 17 % 13, vm.seq),
        )
    yield db
    db.close()


def listed(db, request):
    """Return all pages of a list, each at most as long as asked for."""
    found, pages = [], 0
    while True:
        page = check_listing(request).page(db)
        assert len(page.vms) <= (request.page_size or 100)
        found += page.vms
        pages += 1
        request.page_token = page.next_token
        if not page.next_token:
            assert pages <= 1 or page.vms, "a last page without any VM"
            return found


def expected(db, request):
    wanted = request.filter

    def fits(vm):
        tags = dict(vm.spec.tags)
        return (
            (not wanted.states or vm.state in [NUMBERED[number] for number in wanted.states])
            and vm.name.startswith(wanted.name_prefix)
            and wanted.image in ("", vm.spec.image)
            and all(key in tags and value in ("", tags[key]) for key, value in wanted.tags.items())
        )

    vms = [vm for vm in rows.every(db) if fits(vm)]
    vms.sort(key=lambda vm: (KEYS[request.order_by](vm), vm.seq), reverse=request.descending)
    return vms


@settings(deadline=None)
@given(
    states=st.lists(st.sampled_from(sorted(NUMBERED)), max_size=3),
    tags=st.dictionaries(
        st.sampled_from(["team", "env", "a", "none"]),
        st.sampled_from(["", "blue", "prod", 're\'d "x"]']),
        max_size=2,
    ),
    prefix=st.sampled_from(["", "a", "b-", "b-1", "zz"]),
    image=st.sampled_from(["", "debian", "alpine.3", "none"]),
    order=st.sampled_from(sorted(KEYS)),
    descending=st.booleans(),
    size=st.sampled_from([0, 1, 2, 7, 60, 61]),
)
def test_lists_are_what_the_model_says(db, states, tags, prefix, image, order, descending, size):
    request = pb.ListVmsRequest(
        page_size=size,
        filter=pb.VmFilter(states=states, tags=tags, name_prefix=prefix, image=image),
        order_by=order,
        descending=descending,
    )
    assert [vm.seq for vm in expected(db, request)] == [vm.seq for vm in listed(db, request)]


@pytest.mark.parametrize("order", KEYS)
def test_a_page_begins_after_a_vm_that_is_gone(db, order):
    request = pb.ListVmsRequest(page_size=20, order_by=order)
    everything = expected(db, request)
    page = check_listing(request).page(db)
    db.execute("BEGIN")
    rows.delete(db, page.vms[-1].id)
    request.page_token = page.next_token
    following = check_listing(request).page(db).vms
    db.execute("ROLLBACK")
    assert following == everything[20:40]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "!"}, "page_token"),
        ({"order_by": 99}, "order_by"),
        ({"filter": pb.VmFilter(states=[pb.VM_STATE_UNSPECIFIED])}, "filter.states"),
        ({"filter": pb.VmFilter(states=[77])}, "filter.states"),
        ({"filter": pb.VmFilter(name_prefix="A%")}, "filter.name_prefix"),
        ({"filter": pb.VmFilter(image="../x")}, "filter.image"),
        ({"filter": pb.VmFilter(tags={"Team": "blue"})}, "filter.tags"),
        ({"filter": pb.VmFilter(tags={"team": "\n"})}, "filter.tags.team"),
        ({"field_mask": FieldMask(paths=["nome"])}, "field_mask"),
        ({"field_mask": FieldMask(paths=["history.reason"])}, "field_mask"),
        ({"field_mask": FieldMask(paths=["spec.tags.team"])}, "field_mask"),
        ({"field_mask": FieldMask(paths=["name"] * 101)}, "field_mask"),
    ],
)
def test_bad_fields_are_named(fields, field):
    with pytest.raises(InvalidArgument) as caught:
        check_listing(pb.ListVmsRequest(**fields))
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    "other",
    [
        {"order_by": pb.VM_ORDER_NAME},
        {"descending": True},
        {"filter": pb.VmFilter(image="debian")},
    ],
)
def test_a_token_belongs_to_its_list(db, other):
    token = check_listing(pb.ListVmsRequest(page_size=1)).page(db).next_token
    with pytest.raises(InvalidArgument, match="another filter or order"):
        check_listing(pb.ListVmsRequest(page_token=token, **other))
    # The size of a page, and what is told of each VM, may change on the way.
    mask = FieldMask(paths=["name"])
    check_listing(pb.ListVmsRequest(page_token=token, page_size=9, field_mask=mask))


def test_histories_come_where_the_mask_names_them(db):
    assert check_listing(pb.ListVmsRequest(page_size=2)).page(db).histories == {}
    request = pb.ListVmsRequest(page_size=2, field_mask=FieldMask(paths=["history", "name"]))
    page = check_listing(request).page(db)
    assert page.histories == {vm.seq: [] for vm in page.vms}


@pytest.mark.parametrize("order", KEYS)
@pytest.mark.parametrize(
    "spec",
    ["{", '{"memory_mib": "x", "tags": 7}', '{"memory_mib": 256}', "7", '{"tags": ["team", [1]]}'],
)
def test_a_damaged_record_keeps_no_other_from_being_listed(db, order, spec):
    db.execute("BEGIN")
    for number in range(0, 60, 7):
        vm_id = f"{number:013}".translate(LETTERS)
        assert db.execute("UPDATE vms SET spec = ? WHERE id = ?", (spec, vm_id)).rowcount == 1
    for descending in (False, True):
        request = pb.ListVmsRequest(page_size=3, order_by=order, descending=descending)
        assert len({vm.seq for vm in listed(db, request)}) == 60
    wanted = pb.VmFilter(tags={"team": ""}, image="debian")
    found = listed(db, pb.ListVmsRequest(filter=wanted))
    db.execute("ROLLBACK")
    assert all(dict(vm.spec.tags)["team"] for vm in found)
