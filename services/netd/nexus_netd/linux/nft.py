"""nftables over netlink: our tables in one transaction, and what the kernel holds of them.

The batch is BEGIN, messages, END: the kernel takes all of it or none (nfnetlink(7) subsystem 10).
It answers an error of any message; so only the last one asks for an answer.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError
from nexus_netd.linux import netlink
from nexus_netd.linux import tables as t
from nexus_netd.linux.listing import (
    denied,
    denied_of,
    foreign_drops,
    has_table,
    pins,
    present,
    present_chains,
    read,
)
from nexus_netd.linux.netlink import ACK, Request, text
from nexus_netd.rules import firewall
from nexus_netd.rules.ruleset import NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from nexus_netd.linux.netlink import Netlink
    from nexus_netd.rules.ruleset import Change, Contents, Element

__all__ = [
    "PROTOCOL",
    "change",
    "denied",
    "denied_of",
    "foreign_drops",
    "pins",
    "read",
    "remove",
    "replace",
]

PROTOCOL = netlink.NETFILTER

# linux/netfilter/nfnetlink.h
_BEGIN, _END = 0x10, 0x11


def replace(link: Netlink, want: Contents, pins: Collection[Element] = ()) -> None:
    """Put skeletons and `want` in the place of our tables; packets meet the old or the new ones."""
    requests = []
    for skeleton in firewall.skeletons():
        requests += [
            # Made first, so that there is one to remove.
            t.new_table(skeleton.family),
            t.request("remove table", t.DELTABLE, skeleton.family, text(t.TABLE_NAME, NAME)),
            t.new_table(skeleton.family, skeleton.comment),
            *(t.new_set(skeleton.family, n, one) for n, one in enumerate(skeleton.sets)),
            *(t.new_chain(skeleton.family, chain) for chain in skeleton.chains),
            *(t.new_rule(skeleton.family, rule) for rule in skeleton.rules),
            *t.new_elements(skeleton.elements),
        ]
    for policy in want.policies:
        requests += t.new_policy(policy)
    elements = [*want.elements, *pins]
    _commit(link, [*requests, *t.new_elements(elements)])


def change(link: Netlink, what: Change) -> None:
    """Change what is in our tables."""
    added = _add(what)
    removed = [*what.remove, *(policy.element for policy in what.remove_policies)]
    chains = [policy.chain.name for policy in what.remove_policies]
    try:
        _commit(link, [*_remove(removed, chains), *added])
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        # Something that is to go is gone, which refuses it all: so look, and leave it out. (There
        # is NFT_MSG_DESTROYSETELEM for this, but from Linux 6.3 only.)
        removed, chains = present(link, removed), present_chains(link, chains)
        _commit(link, [*_remove(removed, chains), *added])


def remove(link: Netlink) -> list[str]:
    """Remove our tables; return those there were: "bridge nexus", "inet nexus"."""
    families = [one.family for one in firewall.skeletons() if has_table(link, one.family)]
    if families:
        name = text(t.TABLE_NAME, NAME)
        _commit(link, [t.request("remove table", t.DELTABLE, family, name) for family in families])
    return [f"{t.FAMILIES[family]} {NAME}" for family in families]


def _commit(link: Netlink, requests: list[Request]) -> None:
    if not requests:
        return
    last = requests[-1]
    requests[-1] = Request(last.what, last.type, last.flags | ACK, last.body)
    begin, end = (
        Request(requests[0].what, kind, 0, bytes([socket.AF_UNSPEC, 0, 0, t.SUBSYSTEM]))
        for kind in (_BEGIN, _END)
    )
    link.run(begin, *requests, end)


def _add(what: Change) -> list[Request]:
    requests = []
    for policy in what.add_policies:
        requests += t.new_policy(policy)
    # Only from Linux 6.12 on does adding again set the timeout anew.
    expiring = [one for one in what.add if one.timeout]
    requests += t.new_elements(expiring)
    requests += t.old_elements(expiring)
    return [*requests, *t.new_elements(what.add)]


def _remove(elements: Iterable[Element], chains: Iterable[str]) -> list[Request]:
    return [*t.old_elements(elements), *(t.old_chain(name) for name in chains)]
