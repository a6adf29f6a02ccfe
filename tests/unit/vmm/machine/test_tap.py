"""A TAP as vmm sees it: what it has carried, and whether it can be opened by now."""

import asyncio

import pytest

from nexus_vmm.machine.tap import obstacle, packets, until_free


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


MINE = 70_000


@pytest.fixture
def device(tmp_path):
    """A TAP as netd leaves it: persistent, of the VM's user, open by nobody."""
    made = tmp_path / "tap0"
    made.mkdir()
    for name, value in (("owner", f"{MINE}"), ("tun_flags", "0x1802"), ("carrier", "0")):
        (made / name).write_text(f"{value}\n")
    return made


def test_nothing_is_in_the_way_of_a_tap_that_is_in_place(device):
    assert obstacle("tap0", MINE, device.parent) == ""
    (device / "carrier").unlink()  # a device that is down has none, and can be opened
    assert obstacle("tap0", MINE, device.parent) == ""


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("tun_flags", "0x1002", "open"),  # it goes with the process that makes it
        ("carrier", "1", "open"),
        ("owner", "0", "belongs to the user 0"),
        ("owner", "-1", "belongs to the user -1"),
    ],
)
def test_what_is_in_the_way_of_one_is_told(device, name, value, why):
    (device / name).write_text(f"{value}\n")
    assert why in obstacle("tap0", MINE, device.parent)


def test_a_tap_that_is_not_there_is_told_of(tmp_path):
    assert "nexus-netd" in obstacle("tap0", MINE, tmp_path)


async def test_one_that_is_being_made_is_waited_for(device):
    (device / "carrier").write_text("1\n")
    waiting = asyncio.create_task(until_free("tap0", MINE, 10, device.parent))
    await asyncio.sleep(0)
    assert not waiting.done()
    (device / "carrier").write_text("0\n")
    assert await waiting == ""


async def test_the_wait_for_one_has_an_end(device):
    (device / "carrier").write_text("1\n")
    assert "open" in await until_free("tap0", MINE, 0.05, device.parent)
