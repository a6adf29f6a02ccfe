import asyncio
import time
from ipaddress import IPv4Network

import pytest
from netd_world import attach

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.kernel import Counters, Flow, ForeignDrop
from nexus_netd.once import Once
from nexus_netd.reports.denials import Denials
from nexus_netd.servicer import NAME, Servicer
from nexus_rpc.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from nexus_rpc.ids import new_vm_id


@pytest.fixture
def serve(database, kernel):
    def serve(netd):
        denials = Denials(kernel, netd.view(), netd.name_given)
        return Servicer(netd, Once(database), netd.state.store, denials)

    return serve


@pytest.fixture
def servicer(netd, serve):
    return serve(netd)


def test_its_name():
    assert NAME == "nexus.netd.v1.NetworkService"


async def attach_port(servicer, vm=None, request_id="", **fields):
    request = pb.AttachPortRequest(vm_id=vm or new_vm_id(), request_id=request_id, **fields)
    return (await servicer.AttachPort(request, None)).port


async def detach_port(servicer, vm, request_id=""):
    request = pb.DetachPortRequest(vm_id=vm, request_id=request_id)
    return (await servicer.DetachPort(request, None)).detached


async def get_port(servicer, vm):
    return (await servicer.GetPort(pb.GetPortRequest(vm_id=vm), None)).port


RULES = pb.EgressPolicy(mode=pb.EGRESS_MODE_RULES, rules=[pb.EgressRule(domain="pypi.org")])


async def test_a_port_in_full(servicer, kernel):
    vm = new_vm_id()
    port = await attach_port(servicer, vm)
    assert (port.vm_id, port.tap, port.mac) == (vm, "nexus0", "02:fc:ac:10:00:02")
    assert (port.ipv4, port.gateway) == ("172.16.0.2/12", "172.16.0.1")
    assert list(port.dns) == ["172.16.0.1"]
    assert (port.network, port.bridge, port.ipv6) == ("default", "nexbr0", "")
    assert (port.policy.mode, port.own_policy) == (pb.EGRESS_MODE_OPEN, False)
    assert port.limits.connections == 4_096
    assert abs(port.create_time.ToNanoseconds() / 1e9 - time.time()) < 60
    kernel.through["nexus0"] = Counters(1, 2, 3, 4, 5)
    (address,) = kernel.routed
    kernel.refused[address] = 6
    kernel.tracked = [Flow(address, address, 6, 80, b"")] * 7
    found = await get_port(servicer, vm)
    assert found.counters == pb.PortCounters(
        egress_bytes=1,
        egress_packets=2,
        ingress_bytes=3,
        ingress_packets=4,
        dropped_packets=5,
        denied_packets=6,
        connections=7,
    )
    found.ClearField("counters")
    assert found == port


async def test_a_port_with_all_of_its_own(servicer):
    port = await attach_port(
        servicer,
        ipv4="172.16.0.9",
        policy=RULES,
        limits=pb.Limits(egress_bytes=1_000),
        upstream_dns=["9.9.9.9"],
        search=["corp.example"],
    )
    assert (port.ipv4, port.own_policy) == ("172.16.0.9/12", True)
    assert port.policy.rules[0].domain == "pypi.org"
    assert (list(port.upstream_dns), list(port.search)) == (["9.9.9.9"], ["corp.example"])
    assert (port.limits.egress_bytes, port.limits.connections) == (1_000, 4_096)


@pytest.mark.parametrize("vm", ["", "short", "UPPERCASE2345", "a" * 14, "a" * 13 + "\n", "é" * 13])
async def test_what_is_no_id_is_refused(servicer, kernel, vm):
    kernel.calls.clear()
    for call in (
        servicer.AttachPort(pb.AttachPortRequest(vm_id=vm), None),
        servicer.DetachPort(pb.DetachPortRequest(vm_id=vm), None),
        servicer.GetPort(pb.GetPortRequest(vm_id=vm), None),
        servicer.SetPolicy(pb.SetPolicyRequest(vm_id=vm), None),
        servicer.SetLimits(pb.SetLimitsRequest(vm_id=vm), None),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.metadata == {"field": "vm_id"}
    assert kernel.calls == []


async def test_what_is_not_there(servicer):
    vm = new_vm_id()
    for call in (
        servicer.GetPort(pb.GetPortRequest(vm_id=vm), None),
        servicer.SetPolicy(pb.SetPolicyRequest(vm_id=vm), None),
        servicer.SetLimits(pb.SetLimitsRequest(vm_id=vm), None),
        servicer.CreateLink(
            pb.CreateLinkRequest(link=pb.Link(from_vm_id=vm, to_vm_id=new_vm_id())), None
        ),
        servicer.PublishPort(
            pb.PublishPortRequest(publication=pb.Publication(vm_id=vm, host_port=80)), None
        ),
    ):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "PORT_NOT_FOUND"
    for call in (
        servicer.GetNetwork(pb.GetNetworkRequest(name="blue"), None),
        servicer.UpdateNetwork(pb.UpdateNetworkRequest(network=pb.Network(name="blue")), None),
        servicer.MigrateNetwork(pb.MigrateNetworkRequest(name="blue", subnet="10.0.0.0/8"), None),
        servicer.ListPorts(pb.ListPortsRequest(network="blue"), None),
    ):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "NETWORK_NOT_FOUND"


async def test_pages_go_by_age(servicer):
    for _ in range(5):
        await attach_port(servicer)
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        request = pb.ListPortsRequest(page_size=2, page_token=token)
        page = await servicer.ListPorts(request, None)
        seen += [port.ipv4 for port in page.ports]
        token, pages = page.next_page_token, pages + 1
    assert seen == [f"172.16.0.{n}/12" for n in range(2, 7)]
    assert pages == 3


async def test_a_page_that_fits_exactly_is_the_last(servicer):
    for _ in range(2):
        await attach_port(servicer)
    page = await servicer.ListPorts(pb.ListPortsRequest(page_size=2), None)
    assert (len(page.ports), page.next_page_token) == (2, "")


async def test_pages_of_links_and_publications(servicer):
    one, two, three = [(await attach_port(servicer)).vm_id for _ in range(3)]
    pairs = [(one, two), (two, three), (one, three)]
    for source, target in pairs:
        link = pb.Link(from_vm_id=source, to_vm_id=target)
        answer = await servicer.CreateLink(pb.CreateLinkRequest(link=link), None)
        assert answer.link == link
    for number, vm in enumerate((one, two, one)):
        publication = pb.Publication(vm_id=vm, host_port=8000 + number)
        answer = await servicer.PublishPort(pb.PublishPortRequest(publication=publication), None)
        assert answer.publication.guest_port == 8000 + number
    first = await servicer.ListLinks(pb.ListLinksRequest(page_size=2), None)
    rest = await servicer.ListLinks(
        pb.ListLinksRequest(page_size=2, page_token=first.next_page_token), None
    )
    told = [(link.from_vm_id, link.to_vm_id) for link in [*first.links, *rest.links]]
    assert (told, rest.next_page_token) == (pairs, "")
    with_two = await servicer.ListLinks(pb.ListLinksRequest(vm_id=two), None)
    assert len(with_two.links) == 2
    published = await servicer.ListPublications(pb.ListPublicationsRequest(vm_id=one), None)
    assert [one.host_port for one in published.publications] == [8000, 8002]
    page = await servicer.ListPublications(pb.ListPublicationsRequest(page_size=1), None)
    assert page.next_page_token
    assert page.publications[0] == pb.Publication(
        vm_id=one,
        host_ip="127.0.0.1",
        host_port=8000,
        guest_port=8000,
        protocol=pb.PROTOCOL_TCP,
    )
    gone = await servicer.DeleteLink(pb.DeleteLinkRequest(link=first.links[0]), None)
    assert gone.deleted
    ended = await servicer.UnpublishPort(pb.UnpublishPortRequest(host_port=8000), None)
    assert ended.unpublished


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListPortsRequest(page_size=-1),
        pb.ListPortsRequest(page_token="nonsense"),
        pb.ListPortsRequest(page_token="bm9uc2Vuc2U="),
    ],
)
async def test_a_bad_page_is_refused(servicer, request_):
    with pytest.raises(InvalidArgument):
        await servicer.ListPorts(request_, None)


async def test_policy_and_limits(servicer):
    vm = (await attach_port(servicer)).vm_id
    answer = await servicer.SetPolicy(pb.SetPolicyRequest(vm_id=vm, policy=RULES), None)
    assert (answer.port.own_policy, answer.cut) == (True, 0)
    answer = await servicer.SetPolicy(pb.SetPolicyRequest(vm_id=vm), None)
    assert (answer.port.own_policy, answer.port.policy.mode) == (False, pb.EGRESS_MODE_OPEN)
    request = pb.SetLimitsRequest(vm_id=vm, limits=pb.Limits(connections=5))
    assert (await servicer.SetLimits(request, None)).port.limits.connections == 5


async def test_networks(servicer, kernel):
    request = pb.CreateNetworkRequest(network=pb.Network(name="blue", subnet="10.1.0.0/24"))
    made = (await servicer.CreateNetwork(request, None)).network
    assert (made.bridge, made.gateway, list(made.dns)) == (
        "nexbr1",
        "10.1.0.1",
        ["8.8.8.8", "1.1.1.1"],
    )
    await attach_port(servicer, network="blue")
    listed = (await servicer.ListNetworks(pb.ListNetworksRequest(), None)).networks
    assert [(one.name, one.ports) for one in listed] == [("blue", 1), ("default", 0)]
    request = pb.UpdateNetworkRequest(network=pb.Network(name="blue", search=["corp"]))
    updated = (await servicer.UpdateNetwork(request, None)).network
    assert list(updated.search) == ["corp"]
    request = pb.MigrateNetworkRequest(name="blue", subnet="10.2.0.0/24")
    moved = await servicer.MigrateNetwork(request, None)
    assert (moved.network.subnet, moved.ports[0].ipv4) == ("10.2.0.0/24", "10.2.0.2/24")
    await detach_port(servicer, moved.ports[0].vm_id)
    request = pb.DeleteNetworkRequest(name="blue", request_id="one")
    assert (await servicer.DeleteNetwork(request, None)).deleted
    assert (await servicer.DeleteNetwork(request, None)).deleted  # the first call's answer
    with pytest.raises(InvalidArgument):
        await servicer.DeleteNetwork(pb.DeleteNetworkRequest(), None)


async def test_what_stands_in_the_way_is_told(servicer, netd, kernel):
    await netd.ensure()
    found = (await servicer.GetNetwork(pb.GetNetworkRequest(), None)).network
    assert (found.name, list(found.warnings)) == ("default", [])
    kernel.drops = [
        ForeignDrop("inet filter", "FORWARD", "forward"),
        ForeignDrop("ip filter", "INPUT", "input"),
    ]
    kernel.foreign_routes.append((IPv4Network("172.17.0.0/16"), "docker0"))
    kernel.versions.clear()
    told = (await servicer.GetNetwork(pb.GetNetworkRequest(), None)).network.warnings
    for text, words in zip(
        told,
        (
            ("chain FORWARD of table inet filter", "nexusctl setup-firewall"),
            ("chain INPUT of table ip filter", "nexusctl setup-firewall"),
            ("172.17.0.0/16 on docker0",),
            ("does not forward IPv4",),
        ),
        strict=True,
    ):
        assert all(word in text for word in words), text


async def test_ensure_tells_the_network_and_what_was_repaired(servicer):
    request = pb.EnsureNetworkRequest(request_id="one")
    first = await servicer.EnsureNetwork(request, None)
    assert (first.network.name, first.network.subnet) == ("default", "172.16.0.0/12")
    assert "bridge nexbr0 made" in first.repaired
    assert not (await servicer.EnsureNetwork(request, None)).repaired


async def test_cleanup_repeated_gives_the_first_answer_and_removes_nothing_more(servicer):
    vm = new_vm_id()
    await attach_port(servicer, vm)
    publication = pb.Publication(vm_id=vm, host_port=80)
    await servicer.PublishPort(pb.PublishPortRequest(publication=publication), None)
    request = pb.CleanupNetworkRequest(request_id="one")
    first = await servicer.CleanupNetwork(request, None)
    assert first == pb.CleanupNetworkResponse(
        taps=["nexus0"],
        bridges=["nexbr0"],
        tables=["bridge nexus", "inet nexus"],
        leases=1,
        ways=1,
    )
    port = await attach_port(servicer, vm)
    assert await servicer.CleanupNetwork(request, None) == first
    assert await attach_port(servicer, vm) == port
    assert (await servicer.CleanupNetwork(pb.CleanupNetworkRequest(), None)).leases == 1
    assert (
        await servicer.CleanupNetwork(pb.CleanupNetworkRequest(), None)
        == pb.CleanupNetworkResponse()
    )


async def test_a_late_repeat_of_attach_does_not_bring_a_port_back(servicer):
    vm = new_vm_id()
    port = await attach_port(servicer, vm, "one")
    assert await attach_port(servicer, vm, "one") == port
    await detach_port(servicer, vm)
    with pytest.raises(NotFound):
        await attach_port(servicer, vm, "one")


async def test_a_late_repeat_of_detach_does_not_take_the_next_port_away(servicer):
    vm = new_vm_id()
    await attach_port(servicer, vm)
    assert await detach_port(servicer, vm, "one") is True
    await attach_port(servicer, vm)
    assert await detach_port(servicer, vm, "one") is True
    assert (await get_port(servicer, vm)).vm_id == vm


async def test_a_request_id_means_one_request(servicer, kernel):
    await attach_port(servicer, request_id="one")
    other = new_vm_id()
    for call in (attach_port(servicer, other, "one"), detach_port(servicer, other, "one")):
        with pytest.raises(AlreadyExists) as caught:
            await call
        assert caught.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(InvalidArgument):
        await attach_port(servicer, other, "x" * 65)
    assert len(kernel.present) == 1


async def test_a_request_that_failed_may_be_made_again(start, serve):
    servicer = serve(await start(subnet="10.0.0.0/30"))
    first, second = new_vm_id(), new_vm_id()
    await attach_port(servicer, first)
    with pytest.raises(ResourceExhausted):
        await attach_port(servicer, second, "one")
    await detach_port(servicer, first)
    assert (await attach_port(servicer, second, "one")).ipv4 == "10.0.0.2/30"


class Context:
    """A call's context, as far as a stream needs it."""

    def __init__(self):
        self.watching = asyncio.Event()

    async def send_initial_metadata(self, metadata):
        self.watching.set()


async def test_what_happens_is_streamed(servicer, netd):
    context = Context()
    told = servicer.WatchNetwork(pb.WatchNetworkRequest(), context)
    waiting = asyncio.ensure_future(anext(told))
    await context.watching.wait()
    guest = await attach(netd)
    happening = await waiting
    while happening.what == "repaired":  # the network is made for it
        happening = await anext(told)
    assert (happening.what, happening.vm_id) == ("attached", guest.vm_id)
    assert (happening.network, happening.details) == (
        "default",
        "172.16.0.2 at nexus0 on nexbr0",
    )
    netd.state.feed.close()
    assert [one async for one in told] == []
    with pytest.raises(InvalidArgument):
        await anext(servicer.WatchNetwork(pb.WatchNetworkRequest(vm_id="x"), None))


async def test_denials_are_streamed(servicer):
    with pytest.raises(InvalidArgument):
        await anext(servicer.WatchDenials(pb.WatchDenialsRequest(last=1_001), None))
    assert [one async for one in servicer.WatchDenials(pb.WatchDenialsRequest(last=9), None)] == []
