"""All attacks."""

from tests.integration.netd.hostile.attacks import (
    arp,
    discovery,
    floods,
    fragments,
    groups,
    host,
    ipv6,
    link,
    names,
    policy,
    siblings,
    spoofing,
)

# Floods are last: what they fill stays full for a while.
PARTS = (
    arp,
    link,
    spoofing,
    fragments,
    groups,
    discovery,
    ipv6,
    siblings,
    host,
    policy,
    names,
    floods,
)
ATTACKS = tuple(attack for part in PARTS for attack in part.ATTACKS)
