"""Ethernet: MACs of others, VLAN tags, and protocols that are none of a guest's business."""

from functools import reduce

from packets import (
    ARP,
    BROADCAST,
    NOWHERE,
    QINQ,
    REQUEST,
    VLAN_OLD,
    arp,
    echo,
    ether,
    tag,
    udp,
)

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    anybody,
    host,
    own_arp,
    own_echo,
    own_udp,
    sport,
    stolen,
)

BRIDGE_GROUP = "01:80:c2:00:00:00"
NEAREST_BRIDGE = "01:80:c2:00:00:0e"
PORT_ACCESS = "01:80:c2:00:00:03"


def from_mac(source, shows=host):
    """Ping the gateway under one's own address from a MAC that is not one's own."""
    return Throw(
        lambda scene, me, mark: [
            me.up(
                echo(me.address, me.gateway, mark),
                source(scene, me) if callable(source) else source,
            )
        ],
        shows,
    )


def as_alice(scene, me, mark):
    victim = scene.guests["alice"]
    yield me.up(echo(victim.address, me.gateway, mark), victim.mac)


def alice_mac(scene, me):
    return scene.guests["alice"].mac


def many_macs(scene, me, mark):
    for number in range(200):
        source = f"02:00:00:00:01:{number:02x}"
        yield ether(
            BROADCAST, source, ARP, arp(REQUEST, source, me.address, NOWHERE, me.gateway) + mark
        )


def tagged(*tags):
    """Ping the gateway, and look for it, in tagged frames."""

    def frames(scene, me, mark):
        ask = arp(REQUEST, me.mac, me.address, NOWHERE, me.gateway)
        for frame in (
            me.up(echo(me.address, me.gateway, mark)),
            ether(BROADCAST, me.mac, ARP, ask + mark),
        ):
            yield reduce(lambda inner, one: tag(inner, *one), reversed(tags), frame)

    return Throw(frames, anybody)


def of_type(kind, to=BROADCAST, head=b""):
    """Send a frame of an EtherType, or of a length where it is below 1,536."""
    return Throw(
        lambda scene, me, mark: [
            ether(to or me.gateway_mac, me.mac, kind, (head + mark).ljust(46, b"\0"))
        ],
        anybody,
    )


def snap(scene, me, mark):
    """Hide IPv4 in IEEE 802.2 (RFC 1042)."""
    packet = b"\xaa\xaa\x03\0\0\0\x08\0" + udp(me.address, me.gateway, sport(mark), 9, mark)
    yield ether(BROADCAST, me.mac, len(packet), packet)


ATTACKS = (
    Attack("the sibling's mac and address", Throw(as_alice, host), own_echo()),
    Attack("the sibling's mac under one's own address", from_mac(alice_mac), own_echo()),
    Attack(
        "the sibling's mac, to be sent its frames", from_mac(alice_mac, stolen("alice")), own_echo()
    ),
    Attack("the gateway's mac", from_mac(lambda scene, me: me.gateway_mac), own_echo()),
    Attack("a mac that nobody has", from_mac("02:00:00:00:00:01"), own_echo()),
    Attack("broadcast as source mac", from_mac(BROADCAST), own_echo(), kernel=True),
    Attack("multicast as source mac", from_mac("01:00:5e:00:00:01"), own_echo(), kernel=True),
    Attack("zero as source mac", from_mac(NOWHERE), own_echo(), kernel=True),
    Attack("a flood of macs", Throw(many_macs, anybody), own_arp()),
    Attack("802.1q tag", tagged((5,)), own_echo()),
    Attack("802.1q tag of the default vlan", tagged((1,)), own_echo()),
    Attack("priority tag", tagged((0,)), own_echo()),
    Attack("802.1ad tag", tagged((5, QINQ)), own_echo()),
    Attack("two 802.1q tags", tagged((5,), (6,)), own_echo()),
    Attack("802.1q in 802.1ad", tagged((5, QINQ), (6,)), own_echo()),
    Attack("priority tags in each other", tagged((0,), (0,)), own_echo()),
    Attack("a tag of the old type", tagged((5, VLAN_OLD)), own_echo()),
    Attack(
        "spanning tree",
        of_type(38, BRIDGE_GROUP, b"\x42\x42\x03\0\0\0\0\0" + bytes(20)),
        own_udp(),
    ),
    Attack("lldp", of_type(0x88CC, NEAREST_BRIDGE, b"\x02\x07\x04"), own_udp()),
    Attack("eapol to the bridge's port", of_type(0x888E, PORT_ACCESS, b"\2\1\0\0"), own_udp()),
    Attack("eapol to the gateway", of_type(0x888E, None, b"\2\1\0\0"), own_udp()),
    Attack("pppoe discovery", of_type(0x8863, head=b"\x11\x09\0\0\0\x10"), own_udp()),
    Attack("mpls", of_type(0x8847, head=b"\0\x01\x01\x40"), own_udp()),
    Attack("wake on lan", of_type(0x0842, head=b"\xff" * 6), own_udp()),
    Attack("ethernet loopback", of_type(0x9000), own_udp()),
    Attack("macsec", of_type(0x88E5, head=b"\x0c\0\0\0\0\1"), own_udp()),
    Attack("batman", of_type(0x4305), own_udp()),
    Attack("fibre channel", of_type(0x8906), own_udp()),
    Attack("ethertype of an experiment", of_type(0x88B5), own_udp()),
    Attack("raw 802.3", of_type(46, head=b"\xff\xff"), own_udp()),
    Attack("ipv4 in 802.2 snap", Throw(snap, anybody), own_udp()),
)
