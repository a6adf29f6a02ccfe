"""Packets of a TAP, from the kernel's counters."""

import pytest

from nexus_vmm.machine.traffic import packets


def test_both_ways_count(tmp_path):
    counters = tmp_path / "tap0/statistics"
    counters.mkdir(parents=True)
    (counters / "rx_packets").write_text("7\n")
    (counters / "tx_packets").write_text("35\n")
    assert packets("tap0", tmp_path) == 42


@pytest.mark.parametrize("left", ["", "tap0/statistics", "tap0/statistics/rx_packets"])
def test_of_a_tap_that_is_not_there_or_goes_there_are_none(tmp_path, left):
    # A counter of a device that is just being removed gives an error when it is read.
    (tmp_path / left).mkdir(parents=True, exist_ok=True)
    assert packets("tap0", tmp_path) == 0


def test_the_kernel_has_them_for_each_device():
    assert packets("lo") >= 0
