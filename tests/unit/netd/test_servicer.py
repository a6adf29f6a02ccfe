import time

import pytest

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.once import Once
from nexus_netd.servicer import NAME, Servicer
from nexus_netd.subnet import Subnet
from nexus_rpc.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from nexus_rpc.ids import new_vm_id

NETWORK = pb.Network(
    bridge="nexbr0", subnet="172.16.0.0/12", gateway="172.16.0.1", dns=["8.8.8.8"], mtu=1500
)


@pytest.fixture
def servicer(netd, database):
    return Servicer(netd, Once(database), NETWORK, Subnet.parse("172.16.0.0/12"))


def test_its_name():
    assert NAME == "nexus.netd.v1.NetworkService"


async def attach(servicer, vm, request_id=""):
    request = pb.AttachPortRequest(vm_id=vm, request_id=request_id)
    return (await servicer.AttachPort(request, None)).port


async def detach(servicer, vm, request_id=""):
    request = pb.DetachPortRequest(vm_id=vm, request_id=request_id)
    return (await servicer.DetachPort(request, None)).detached


async def test_a_port_in_full(servicer):
    vm = new_vm_id()
    port = await attach(servicer, vm)
    assert (port.vm_id, port.tap, port.mac) == (vm, "nexus0", "02:fc:ac:10:00:02")
    assert (port.ipv4, port.gateway, list(port.dns)) == (
        "172.16.0.2/12",
        "172.16.0.1",
        ["8.8.8.8"],
    )
    assert abs(port.create_time.ToNanoseconds() / 1e9 - time.time()) < 60
    assert (await servicer.GetPort(pb.GetPortRequest(vm_id=vm), None)).port == port


@pytest.mark.parametrize("vm", ["", "short", "UPPERCASE2345", "a" * 14, "a" * 13 + "\n", "é" * 13])
async def test_what_is_no_id_is_refused(servicer, kernel, vm):
    for call in (
        servicer.AttachPort(pb.AttachPortRequest(vm_id=vm), None),
        servicer.DetachPort(pb.DetachPortRequest(vm_id=vm), None),
        servicer.GetPort(pb.GetPortRequest(vm_id=vm), None),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.metadata == {"field": "vm_id"}
    assert kernel.calls == []


async def test_get_of_none(servicer):
    with pytest.raises(NotFound) as caught:
        await servicer.GetPort(pb.GetPortRequest(vm_id=new_vm_id()), None)
    assert caught.value.reason == "PORT_NOT_FOUND"


async def test_pages_go_by_address(servicer):
    for _ in range(5):
        await attach(servicer, new_vm_id())
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
        await attach(servicer, new_vm_id())
    page = await servicer.ListPorts(pb.ListPortsRequest(page_size=2), None)
    assert (len(page.ports), page.next_page_token) == (2, "")


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


async def test_ensure_tells_the_network_and_what_was_repaired(servicer):
    request = pb.EnsureNetworkRequest(request_id="one")
    first = await servicer.EnsureNetwork(request, None)
    assert first.network == NETWORK
    assert first.repaired[0] == "bridge nexbr0 made"
    assert not (await servicer.EnsureNetwork(request, None)).repaired


async def test_cleanup_repeated_gives_the_first_answer_and_removes_nothing_more(servicer):
    vm = new_vm_id()
    await attach(servicer, vm)
    request = pb.CleanupNetworkRequest(request_id="one")
    first = await servicer.CleanupNetwork(request, None)
    assert first == pb.CleanupNetworkResponse(
        taps=["nexus0"], bridge="nexbr0", tables=["inet nexus"], leases=1
    )
    port = await attach(servicer, vm)
    assert await servicer.CleanupNetwork(request, None) == first
    assert await attach(servicer, vm) == port
    assert (await servicer.CleanupNetwork(pb.CleanupNetworkRequest(), None)).leases == 1
    assert (
        await servicer.CleanupNetwork(pb.CleanupNetworkRequest(), None)
        == pb.CleanupNetworkResponse()
    )


async def test_a_late_repeat_of_attach_does_not_bring_a_port_back(servicer):
    vm = new_vm_id()
    port = await attach(servicer, vm, "one")
    assert await attach(servicer, vm, "one") == port
    await detach(servicer, vm)
    with pytest.raises(NotFound):
        await attach(servicer, vm, "one")


async def test_a_late_repeat_of_detach_does_not_take_the_next_port_away(servicer):
    vm = new_vm_id()
    await attach(servicer, vm)
    assert await detach(servicer, vm, "one") is True
    port = await attach(servicer, vm)
    assert await detach(servicer, vm, "one") is True
    assert (await servicer.GetPort(pb.GetPortRequest(vm_id=vm), None)).port == port


async def test_a_request_id_means_one_request(servicer, kernel):
    await attach(servicer, new_vm_id(), "one")
    other = new_vm_id()
    for call in (attach(servicer, other, "one"), detach(servicer, other, "one")):
        with pytest.raises(AlreadyExists) as caught:
            await call
        assert caught.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(InvalidArgument):
        await attach(servicer, other, "x" * 65)
    assert len(kernel.present) == 1


async def test_a_request_that_failed_may_be_made_again(start, database):
    netd = await start("10.0.0.0/30")
    servicer = Servicer(netd, Once(database), NETWORK, Subnet.parse("10.0.0.0/30"))
    first, second = new_vm_id(), new_vm_id()
    await attach(servicer, first)
    with pytest.raises(ResourceExhausted):
        await attach(servicer, second, "one")
    await detach(servicer, first)
    assert (await attach(servicer, second, "one")).ipv4 == "10.0.0.2/30"
