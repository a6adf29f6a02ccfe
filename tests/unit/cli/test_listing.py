"""The words that `vm list` takes are those that it knows to ask for and to show."""

import argparse

import pytest

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.masks import check_mask
from nexusctl import views
from nexusctl.arguments import listing, values
from nexusctl.columns import COLUMNS
from nexusctl.commands.vm_list import ORDERS


def test_every_state_can_be_asked_for():
    assert {views.vm_state(state) for state in pb.VmState.values() if state} == set(listing.STATES)


def test_every_order_can_be_asked_for():
    assert tuple(ORDERS) == listing.ORDERS
    assert set(ORDERS.values()) | {0} == set(pb.VmOrder.values())


def test_every_column_can_be_asked_for():
    assert tuple(COLUMNS) == listing.COLUMNS
    assert set(listing.DEFAULT_COLUMNS) <= set(COLUMNS)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_asks_for_fields_that_there_are(name):
    check_mask("field_mask", COLUMNS[name].fields, pb.Vm.DESCRIPTOR)


@pytest.mark.parametrize(
    ("text", "value"), [("a=b", ("a", "b")), ("a=", ("a", "")), ("a=b=c", ("a", "b=c"))]
)
def test_tags(text, value):
    assert values.tag(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (values.tag, "a"),
        (values.tag, "=b"),
        (values.wanted_tag, "a="),
        (values.wanted_tag, "=b"),
        (values.revision, "-1"),
        (values.revision, "²"),
        (values.revision, str(2**64)),
    ],
)
def test_what_is_none(kind, text):
    with pytest.raises(argparse.ArgumentTypeError):
        kind(text)


def test_a_revision_may_be_large():
    assert values.revision(str(2**64 - 1)) == 2**64 - 1
    assert values.wanted_tag("team") == ("team", "")
