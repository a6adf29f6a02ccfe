"""What netd said, as it is looked up."""

from ipaddress import ip_address

import pytest

from nexus_dns.view import Guest, Served, View

FIRST, SECOND = ip_address("172.16.0.2"), ip_address("172.16.0.3")


def guest(vm_id, *addresses, name="", **others):
    return Guest(vm_id, frozenset(addresses), "default", name, **others)


@pytest.fixture
def view():
    view = View()
    view.put_guest(guest("one", FIRST, name="Alpha"))
    return view


def test_a_guest_is_found_by_address_and_name(view):
    assert view.guest_at(FIRST).vm_id == view.guest_named(b"alpha").vm_id == "one"
    assert view.guest_at(SECOND) is view.guest_named(b"beta") is None


def test_a_change_leaves_nothing_of_before_but_the_share(view):
    share = view.guest_at(FIRST).share
    view.put_guest(guest("one", SECOND, name="beta"))
    assert view.guest_at(FIRST) is view.guest_named(b"alpha") is None
    assert view.guest_at(SECOND).share is share


def test_an_address_and_a_name_that_another_has_now(view):
    view.put_guest(guest("two", FIRST, name="alpha"))
    view.remove_guest("one")
    assert view.guest_at(FIRST).vm_id == view.guest_named(b"alpha").vm_id == "two"
    view.remove_guest("two")
    view.remove_guest("two")
    assert view.guest_at(FIRST) is view.guest_named(b"alpha") is None


def test_what_was_not_said_is_forgotten(view):
    view.put_network(Served("default", frozenset({FIRST}), ()))
    view.put_network(Served("other", frozenset({SECOND}), ()))
    view.put_guest(guest("two", SECOND))
    view.keep({"other"}, {"two"})
    assert view.listen() == {SECOND}
    assert view.guest_at(FIRST) is None
    assert view.guest_at(SECOND).vm_id == "two"


def test_servers_are_the_guests_or_the_networks(view):
    view.put_network(Served("default", frozenset(), ("9.9.9.9",)))
    assert view.upstream(view.guest_at(FIRST)) == ("9.9.9.9",)
    view.put_guest(guest("one", FIRST, upstream=("1.1.1.1",)))
    assert view.upstream(view.guest_at(FIRST)) == ("1.1.1.1",)
    view.remove_network("default")
    view.put_guest(guest("one", FIRST))
    assert view.upstream(view.guest_at(FIRST)) == ()


def test_changes_of_networks_are_told(view):
    assert not view.networks_changed.is_set()
    view.remove_network("default")
    assert not view.networks_changed.is_set()
    view.put_network(Served("default", frozenset(), ()))
    assert view.networks_changed.is_set()
