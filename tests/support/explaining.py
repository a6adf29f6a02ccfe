"""A small world of guests, networks and links to explain flows in."""

from ipaddress import IPv4Network, IPv6Network, ip_address

from nexus_netd.model import (
    Guest,
    HostPort,
    Limits,
    Mode,
    NetworkSpec,
    Pin,
    Policy,
    Port,
    Protocol,
)
from nexus_netd.reports.explain import Facts, explain
from nexus_netd.subnet import Subnet
from nexus_netd.view import View

TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP
DEFAULT = NetworkSpec(
    "default",
    "nexbr0",
    Subnet(IPv4Network("10.9.0.0/16")),
    IPv6Network("fd00:9::/64"),
    host_ports=(HostPort(TCP, 8080),),
)
OTHER = NetworkSpec(
    "other", "nexbr1", Subnet(IPv4Network("10.8.0.0/24")), host_ports=(HostPort(UDP, 514),)
)
ME, SIBLING, STRANGER = "me", "sibling", "stranger"
HOST = ip_address("198.51.100.1")
PYPI, PYPI6 = ip_address("192.0.2.80"), ip_address("2001:db8::80")


def put(view, vm, spec, host, rules_or_mode=Mode.OPEN):
    mine = (
        Policy(rules_or_mode)
        if isinstance(rules_or_mode, Mode)
        else Policy(Mode.RULES, tuple(rules_or_mode))
    )
    guest = Guest(
        vm,
        f"nexus{host}",
        spec.bridge,
        f"02:fc:00:00:00:{host:02x}",
        1500,
        spec.subnet.interface(host).ip,
        spec.gateway,
        spec.ipv6[host] if spec.ipv6 else None,
        spec.ipv6_gateway,
        mine,
        3,
        Limits(connections=100),
    )
    port = Port(
        host, vm, spec.name, host, spec.bridge, guest.tap, guest.mac, 0.0, vm_name=f"{vm}-name"
    )
    view.put_port(port, guest)
    return guest


def world(rules_or_mode=Mode.OPEN, *, spec=DEFAULT, links=(), pins=(), connections=0, name=""):
    view = View()
    view.put_network(DEFAULT)
    view.put_network(OTHER)
    guest = put(view, ME, spec, 2, rules_or_mode)
    put(view, SIBLING, DEFAULT, 3)
    put(view, STRANGER, OTHER, 4)
    for link in links:
        view.put_link(link)
    counted = dict.fromkeys(guest.addresses, connections)
    return Facts(view, guest, pins, (HOST,), counted, lambda _: name)


def pin(address=PYPI, slot=0, domain="pypi.org"):
    return Pin(ME, domain, address, slot, 1e10)


def outcome(*arguments):
    found = explain(*arguments)
    assert found.why
    return found.allowed, found.rule
