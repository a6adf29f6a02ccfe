from ipaddress import IPv4Address, IPv6Address

import pytest
from netd_world import ULA, attach, other, stored

from nexus_netd.kernel import Flow
from nexus_netd.model import Link, Protocol, Publication
from nexus_rpc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from nexus_rpc.ids import new_vm_id

LOOPBACK = IPv4Address("127.0.0.1")
ANY = IPv4Address("0.0.0.0")
CLIENT = IPv4Address("192.0.2.9")


@pytest.fixture
async def pair(netd):
    return [await attach(netd) for _ in range(2)]


def link(pair, protocol=Protocol.ANY, ports=()):
    return Link(pair[0].vm_id, pair[1].vm_id, protocol, ports)


async def test_links_come_and_go(netd, kernel, agree, pair):
    nothing = kernel.rules
    wide, narrow = link(pair, Protocol.TCP, (80, 443)), link(pair, Protocol.TCP, (443,))
    await netd.link(wide)
    await netd.link(wide)
    await netd.link(narrow)
    await agree(netd)
    assert await netd.unlink(wide) is True
    await agree(netd)  # what both of them need is still there
    assert await netd.unlink(wide) is False
    assert await netd.unlink(narrow) is True
    assert kernel.rules == nothing


async def test_a_link_s_flows_are_cut_with_it_unless_another_allows_them(netd, kernel, pair):
    one, two = pair

    def flow(port, protocol=6):
        return Flow(one.ipv4, two.ipv4, protocol, port, b"%d" % port)

    await netd.link(link(pair))
    await netd.link(link(pair, Protocol.TCP, (443,)))
    await netd.link(link(pair, Protocol.ICMP))
    back = Flow(two.ipv4, CLIENT, 6, 22, b"x")
    kernel.tracked = [flow(80), flow(443), flow(0, 1), back]
    await netd.unlink(link(pair))
    assert kernel.tracked == [flow(443), flow(0, 1), back]
    await netd.unlink(link(pair, Protocol.TCP, (443,)))
    assert kernel.tracked == [flow(0, 1), back]


async def test_links_cross_networks_and_go_with_either_port(netd, kernel, agree):
    await netd.create_network(other())
    one, two = await attach(netd), await attach(netd, network="blue")
    await netd.link(link((one, two)))
    await netd.link(link((two, one)))
    await agree(netd)
    await netd.detach(two.vm_id)
    assert list(netd.view().links_with(one.vm_id)) == []
    await agree(netd)
    with pytest.raises(NotFound):
        await netd.link(link((one, two)))


async def test_both_ends_are_told(netd, pair):
    for guest in pair:
        with netd.state.feed.watch(guest.vm_id) as told:
            await netd.link(link(pair))
            assert (await anext(told)).what == "changed"
            await netd.unlink(link(pair))


def publication(guest, host_ip=LOOPBACK, host_port=8080, guest_port=80, protocol=Protocol.TCP):
    return Publication(guest.vm_id, host_ip, host_port, guest_port, protocol)


async def test_publications_come_and_go(netd, kernel, agree, pair):
    nothing = kernel.rules
    one, two = publication(pair[0]), publication(pair[0], host_port=8081)
    await netd.publish(one)
    await netd.publish(one)
    await netd.publish(two)
    await agree(netd)
    assert await netd.unpublish(Protocol.TCP, LOOPBACK, 8080) is True
    await agree(netd)  # both lead to one port of the guest
    assert await netd.unpublish(Protocol.TCP, LOOPBACK, 8080) is False
    assert await netd.unpublish(Protocol.TCP, LOOPBACK, 8081) is True
    assert kernel.rules == nothing


async def test_flows_of_a_publication_are_cut_with_it(netd, kernel, pair):
    guest = pair[0]
    kernel.addresses.add(IPv4Address("198.51.100.1"))
    await netd.publish(publication(guest, ANY))
    await netd.publish(publication(guest, IPv4Address("198.51.100.1"), 9090))
    first = Flow(CLIENT, IPv4Address("198.51.100.1"), 6, 8080, guest.ipv4)
    second = Flow(CLIENT, IPv4Address("198.51.100.1"), 6, 9090, guest.ipv4)
    by_host = Flow(IPv4Address("172.16.0.1"), guest.ipv4, 6, 22, guest.ipv4)
    kernel.tracked = [first, second, by_host]
    await netd.unpublish(Protocol.TCP, ANY, 8080)
    assert kernel.tracked == [second, by_host]


@pytest.mark.parametrize(
    ("taken", "asked", "meet"),
    [
        (LOOPBACK, LOOPBACK, True),
        (LOOPBACK, ANY, True),
        (ANY, LOOPBACK, True),
        (IPv4Address("127.0.0.2"), LOOPBACK, False),
        (IPv6Address("::"), LOOPBACK, False),
    ],
)
async def test_one_port_of_the_host_leads_to_one_place(start, agree, taken, asked, meet):
    netd = await start(ipv6=ULA)
    one, two = await attach(netd), await attach(netd)
    await netd.publish(publication(one, taken))
    await netd.publish(publication(two, asked, protocol=Protocol.UDP))
    before = stored(netd)
    if meet:
        with pytest.raises(AlreadyExists, match=one.vm_id) as caught:
            await netd.publish(publication(two, asked))
        assert caught.value.reason == "HOST_PORT_PUBLISHED"
        assert stored(netd) == before
    else:
        await netd.publish(publication(two, asked))
    await agree(netd)


@pytest.mark.parametrize(
    ("listens", "asked", "meet"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("::1", "127.0.0.1", False),
    ],
)
async def test_a_port_that_a_process_listens_on_is_its(netd, kernel, pair, listens, asked, meet):
    heard = IPv6Address(listens) if ":" in listens else IPv4Address(listens)
    kernel.listen(Protocol.TCP, heard, 8080)
    kernel.listen(Protocol.UDP, heard, 8081)
    await netd.publish(publication(pair[0], IPv4Address(asked), 8081))
    if not meet:
        await netd.publish(publication(pair[0], IPv4Address(asked)))
        return
    with pytest.raises(FailedPrecondition) as caught:
        await netd.publish(publication(pair[0], IPv4Address(asked)))
    assert caught.value.reason == "HOST_PORT_IN_USE"


@pytest.mark.parametrize("host_ip", ["192.0.2.1", "::", "::1", "fd00::1"])
async def test_addresses_that_nothing_can_be_forwarded_from(netd, pair, host_ip):
    address = IPv6Address(host_ip) if ":" in host_ip else IPv4Address(host_ip)
    with pytest.raises(InvalidArgument) as caught:
        await netd.publish(publication(pair[0], address))
    assert caught.value.metadata == {"field": "publication.host_ip"}


async def test_ipv6_loopback_leads_nowhere(start):
    netd = await start(ipv6=ULA)
    guest = await attach(netd)
    with pytest.raises(InvalidArgument, match=r"127\.0\.0\.1"):
        await netd.publish(publication(guest, IPv6Address("::1")))


async def test_a_publication_of_no_port(netd):
    with pytest.raises(NotFound):
        await netd.publish(Publication(new_vm_id(), LOOPBACK, 80, 80))


OPERATIONS = ["link", "unlink", "publish", "unpublish"]


async def _do(netd, operation, pair):
    match operation:
        case "link":
            await netd.link(link(pair, Protocol.UDP))
        case "unlink":
            await netd.unlink(link(pair))
        case "publish":
            await netd.publish(publication(pair[0], host_port=9000))
        case "unpublish":
            await netd.unpublish(Protocol.TCP, LOOPBACK, 8080)


async def _prepare(start, kernel):
    netd = await start()
    pair = [await attach(netd) for _ in range(2)]
    await netd.link(link(pair))
    await netd.publish(publication(pair[0]))
    kernel.tracked = [
        Flow(pair[0].ipv4, pair[1].ipv4, 6, 80, b"1"),
        Flow(CLIENT, LOOPBACK, 6, 8080, pair[0].ipv4),
    ]
    return netd, pair


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_at_any_call_changes_nothing(start, kernel, agree, operation):
    failures = 0
    for number in range(1, 50):
        netd, pair = await _prepare(start, kernel)
        before = stored(netd)
        if not await kernel.fails_at(number, _do(netd, operation, pair)):
            break
        failures += 1
        assert stored(netd) == before
        await agree(netd)
        await netd.cleanup(force=True)
    assert failures >= 1


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_any_call_the_next_start_finds_its_way(start, kernel, agree, operation):
    kills = 0
    for number in range(1, 50):
        netd, pair = await _prepare(start, kernel)
        if not await kernel.kills_at(number, _do(netd, operation, pair)):
            break
        kills += 1
        netd = await start()
        await netd.start()
        await agree(netd)
        await _do(netd, operation, pair)
        await agree(netd)
        assert len(kernel.tracked) == (1 if operation.startswith("un") else 2)
        await netd.cleanup(force=True)
    assert kills >= (1 if operation == "link" else 2)
