from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_netd.model import EgressRule, Mode, Policy
from nexus_netd.operations.pins import MOST, Pins, matches, slots

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")


class Clock:
    def __init__(self):
        self.at = 1_000.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pins(clock):
    return Pins(clock, lambda: 5_000.0)


def policy(*domains):
    return Policy(Mode.RULES, tuple(EgressRule(domain=domain) for domain in domains))


def test_a_pin_is_given_and_ends(pins, clock):
    renewal = pins.give("a", "pypi.org", [(ONE, 0)], 60.0)
    assert (list(renewal.remove), dict(renewal.add)) == ([], {(ONE, 0): 60.0})
    clock.at += 20
    assert pins.live("a") == {(ONE, 0): 40.0}
    assert pins.count() == 1
    (pin,) = pins.of("a")
    assert (pin.domain, pin.address, pin.expires) == ("pypi.org", ONE, 5_040.0)
    clock.at += 40
    assert (pins.live("a"), list(pins.of("a"))) == ({}, [])
    # It is remembered nevertheless.
    assert pins.given("a", ONE, 0)
    assert not pins.given("a", ONE, 1)
    assert pins.name("a", ONE) == "pypi.org"
    assert pins.name("a", TWO) == ""


def test_a_pin_is_prolonged_never_shortened(pins, clock):
    pins.give("a", "pypi.org", [(ONE, 0)], 60.0)
    shorter = pins.give("a", "pypi.org", [(ONE, 0)], 30.0)
    assert (list(shorter.remove), dict(shorter.add)) == ([], {})
    longer = pins.give("a", "pypi.org", [(ONE, 0)], 90.0)
    assert (list(longer.remove), dict(longer.add)) == ([(ONE, 0)], {(ONE, 0): 90.0})
    clock.at += 91  # the kernel may be a little behind
    late = pins.give("a", "pypi.org", [(ONE, 0)], 5.0)
    assert list(late.remove) == [(ONE, 0)]
    clock.at += 60
    assert list(pins.give("a", "pypi.org", [(ONE, 0)], 5.0).remove) == []


def test_one_guest_s_pins_are_bounded_and_others_left_alone(pins):
    pins.give("b", "pypi.org", [(ONE, 0)], 60.0)
    for number in range(MOST + 10):
        renewal = pins.give("a", "x.org", [(IPv4Address(0xC0000000 + number), 0)], 60.0)
        gone = number - MOST
        assert list(renewal.remove) == ([(IPv4Address(0xC0000000 + gone), 0)] if gone >= 0 else [])
    assert len(pins.live("a")) == MOST
    assert pins.live("b")


def test_more_at_once_than_there_is_room_for(pins):
    keys = [(IPv4Address(number), 0) for number in range(MOST + 5)]
    renewal = pins.give("a", "x.org", keys, 60.0)
    assert set(renewal.add) == set(keys[5:])
    assert pins.live("a").keys() == set(keys[5:])


def test_another_policy_gives_names_other_slots(pins, clock):
    pins.give("a", "pypi.org", [(ONE, 0)], 60.0)
    pins.give("a", "x.files.org", [(TWO, 1)], 60.0)
    clock.at += 10
    renewal = pins.move("a", policy("other.org", "*.files.org", "x.files.org"))
    assert set(renewal.remove) == {(ONE, 0)}
    assert dict(renewal.add) == {(TWO, 2): 50.0}
    assert pins.live("a") == {(TWO, 1): 50.0, (TWO, 2): 50.0}
    assert not pins.given("a", ONE, 0)


def test_what_the_kernel_has_is_taken_up_under_the_rule_s_pattern(pins):
    pins.load("a", policy("*.pypi.org"), {(ONE, 0): 30.0, (TWO, 7): 30.0})
    assert pins.live("a") == {(ONE, 0): 30.0}
    assert pins.move("a", policy("x.org", "*.pypi.org")).add == {(ONE, 1): 30.0}


def test_forgetting_and_taking_back(pins):
    pins.give("a", "pypi.org", [(ONE, 0)], 60.0)
    everything = pins.everything("a")
    assert pins.forget("a") == [(ONE, 0)]
    assert pins.live("a") == {}
    pins.restore("a", everything)
    assert pins.live("a") == {(ONE, 0): 60.0}


LABELS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)


@given(LABELS, LABELS)
def test_a_pattern_stands_for_all_below_and_not_for_itself(pattern, name):
    below = len(name) > len(pattern) and name[-len(pattern) :] == pattern
    assert matches("*." + ".".join(pattern), ".".join(name)) == below
    assert matches(".".join(pattern), ".".join(name)) == (pattern == name)


def test_slots_are_those_of_rules_that_allow_the_name():
    rules = policy("pypi.org", "*.pypi.org", "x.pypi.org")
    assert slots(rules, "x.pypi.org") == [1, 2]
    assert slots(rules, "pypi.org") == [0]
    assert slots(Policy(), "pypi.org") == []
