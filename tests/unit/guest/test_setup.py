import pytest

from nexus_guest.control import pretty_name
from nexus_guest.errors import GuestError
from nexus_guest.machine import hosts
from nexus_guest.network import Network

GOOD = {
    "mac": "02:fc:00:00:00:0A",
    "ipv4": "172.16.0.2/12",
    "gateway": "172.16.0.1",
    "dns": ["8.8.8.8", "2001:4860:4860::8888"],
}
SIX = {"ipv6": "fd00::2/128", "ipv6_gateway": "fd00::1"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=x\nPRETTY_NAME="Debian GNU/Linux 12"\n', "Debian GNU/Linux 12"),
        ("PRETTY_NAME=Alpine\nPRETTY_NAME=Other", "Alpine"),
        ("", "unknown"),
        ("PRETTY_NAME=" + "x" * 1000, "x" * 256),
    ],
)
def test_name_of_the_system(text, name):
    assert pretty_name(text) == name


def test_hosts_has_one_line_for_the_hostname():
    first = hosts("127.0.0.1 localhost\n10.0.0.1 db\n", "one")
    assert first == "127.0.0.1 localhost\n10.0.0.1 db\n127.0.1.1\tone\t# set by nexus\n"
    assert hosts(first, "two") == first.replace("one", "two")
    assert hosts("", "one") == "127.0.0.1\tlocalhost\n127.0.1.1\tone\t# set by nexus\n"


def test_network_is_read():
    network = Network.of(GOOD)
    assert network.mac == bytes.fromhex("02fc0000000a")
    assert (network.ipv4.address, network.ipv4.prefix) == (bytes([172, 16, 0, 2]), 12)
    assert network.ipv4.gateway == bytes([172, 16, 0, 1])
    assert network.dns == ["8.8.8.8", "2001:4860:4860::8888"]
    assert (network.ipv6, network.search, network.mtu) == (None, [], 0)


def test_ipv6_and_search_domains_are_read():
    network = Network.of(GOOD | SIX | {"search": ["corp.example", "nexus"], "mtu": 9000})
    assert (network.ipv6.address.hex(), network.ipv6.prefix) == ("fd" + "0" * 29 + "2", 128)
    assert network.ipv6.gateway.hex() == "fd" + "0" * 29 + "1"
    assert (network.search, network.mtu) == (["corp.example", "nexus"], 9000)


@pytest.mark.parametrize(
    "change",
    [
        {"mac": "02:fc:00:00:00"},
        {"mac": "02-fc-00-00-00-0a"},
        {"ipv4": "172.16.0.2"},
        {"ipv4": "172.16.0/12"},
        {"ipv4": "172.16.0.2/33"},
        {"ipv4": "172.16.0.2/-1"},
        {"gateway": "example.org"},
        {"gateway": None},
        {"dns": ["8.8.8.8\nsearch x"]},
        {"dns": "8.8.8.8"},
        {"ipv6": "fd00::2", "ipv6_gateway": "fd00::1"},
        {"ipv6": "fd00::2/129", "ipv6_gateway": "fd00::1"},
        {"ipv6": "172.16.0.2/12", "ipv6_gateway": "fd00::1"},
        {"ipv6": 6},
        {"ipv6_gateway": "172.16.0.1", "ipv6": "fd00::2/128"},
        {"ipv6_gateway": None, "ipv6": "fd00::2/128"},
        {"search": ["a b"]},
        {"search": ["a\nnameserver 6.6.6.6"]},
        {"search": "corp.example"},
        {"mtu": -1},
        {"mtu": 65_522},
        {"mtu": True},
        {"mtu": "1500"},
    ],
)
def test_bad_network_is_named(change):
    with pytest.raises(GuestError) as caught:
        Network.of(GOOD | change)
    assert caught.value.reason == "INVALID_FIELD"
    assert next(iter(change)) in caught.value.message
