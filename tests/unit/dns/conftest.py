"""A resolver over a view in memory, with stand-ins for the world's servers and for netd."""

from ipaddress import ip_address, ip_network

import dns.message
import pytest
from dns_fakes import FakeNetd, FakeUpstream

from nexus_dns.names import Allowed
from nexus_dns.resolver import Resolver
from nexus_dns.view import Guest, Served, View

GUEST = ip_address("172.16.0.2")
OPEN = ip_address("172.16.0.3")
NONE = ip_address("172.16.0.4")


@pytest.fixture
def view():
    view = View()
    view.put_network(Served("default", frozenset({ip_address("172.16.0.1")}), ("9.9.9.9",)))
    for guest in (
        Guest(
            vm_id="guest",
            addresses=frozenset({GUEST, ip_address("fd00::2")}),
            network="default",
            name="worker",
            names=Allowed([("pypi.org", 0), ("*.pypi.org", 1), ("pypi.org", 7)]),
            linked=frozenset({"none"}),
            private_ok=(ip_network("10.1.0.0/16"),),
        ),
        Guest(
            vm_id="open",
            addresses=frozenset({OPEN}),
            network="default",
            name="browser",
            upstream=("1.1.1.1", "8.8.8.8"),
            any_name=True,
        ),
        Guest(vm_id="none", addresses=frozenset({NONE}), network="default", name="quiet"),
    ):
        view.put_guest(guest)
    return view


@pytest.fixture
def upstream():
    return FakeUpstream()


@pytest.fixture
def netd():
    return FakeNetd()


@pytest.fixture
def resolver(view, upstream, netd):
    return Resolver(view, upstream, netd)


@pytest.fixture
def ask(resolver):
    """Ask as the guest at an address; None is the host."""

    async def ask(address, name, kind="A", *, by_tcp=False, **options):
        client = resolver.guest(address) if address else resolver.host()
        query = dns.message.make_query(name, kind, **options)
        wire = await resolver.answer(client, query.to_wire(), by_tcp=by_tcp)
        return dns.message.from_wire(wire)

    return ask
