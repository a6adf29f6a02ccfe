"""nftables over netlink: our table in one transaction, and what the kernel holds of it.

The batch is BEGIN, messages, END: the kernel takes all of it or none (nfnetlink(7) subsystem 10).
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink import nftsocket as nft

from nexus_netd import firewall
from nexus_netd.netlink import ACK, APPEND, CREATE, DUMP, Netlink, Request, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyroute2.netlink import nlmsg

PROTOCOL = 12  # NETLINK_NETFILTER
_SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFPROTO_INET = 1

ANSWERS = {
    _SUBSYSTEM | nft.NFT_MSG_NEWTABLE: nft.nft_table_msg,
    _SUBSYSTEM | nft.NFT_MSG_NEWCHAIN: nft.nft_chain_msg,
    _SUBSYSTEM | nft.NFT_MSG_NEWRULE: nft.nft_rule_msg,
    _SUBSYSTEM | nft.NFT_MSG_NEWGEN: nft.nft_gen_msg,
}


def generation(netlink: Netlink) -> int:
    """Return the number that each change of any nftables rule counts up."""
    (answer,) = netlink.run(_request("read generation", nft.NFT_MSG_GETGEN, nft.nft_gen_msg()))[0]
    number: int = answer.get_attr("NFTA_GEN_ID")
    return number


def read(netlink: Netlink) -> firewall.Table | None:
    """Return our table as the kernel holds it; rules come without their expressions."""
    found = netlink.run(
        _request(
            "read table",
            nft.NFT_MSG_GETTABLE,
            nft.nft_table_msg(),
            tolerate=(errno.ENOENT,),
            attrs=[("NFTA_TABLE_NAME", firewall.NAME)],
        )
    )[0]
    if not found:
        return None
    chains = netlink.dump(_request("list chains", nft.NFT_MSG_GETCHAIN, nft.nft_chain_msg(), DUMP))
    rules = netlink.dump(
        _request(
            "list rules",
            nft.NFT_MSG_GETRULE,
            nft.nft_rule_msg(),
            DUMP,
            attrs=[("NFTA_RULE_TABLE", firewall.NAME)],
        )
    )
    return firewall.Table(
        found[0].get_attr("NFTA_TABLE_USERDATA") or "",
        frozenset(
            _chain(chain) for chain in chains if chain.get_attr("NFTA_CHAIN_TABLE") == firewall.NAME
        ),
        tuple(
            sorted(
                (
                    firewall.Rule(
                        rule.get_attr("NFTA_RULE_CHAIN"), rule.get_attr("NFTA_RULE_USERDATA") or ""
                    )
                    for rule in rules
                ),
                key=lambda rule: rule.chain,
            )
        ),
    )


def replace(netlink: Netlink, want: firewall.Table) -> None:
    """Put `want` in the place of our table; packets meet the old one or the new one."""
    name = ("NFTA_TABLE_NAME", firewall.NAME)
    _commit(
        netlink,
        # Made first, so that there is one to remove.
        _new("make table", nft.NFT_MSG_NEWTABLE, nft.nft_table_msg(), [name]),
        _request("remove table", nft.NFT_MSG_DELTABLE, nft.nft_table_msg(), attrs=[name]),
        _new(
            "make table",
            nft.NFT_MSG_NEWTABLE,
            nft.nft_table_msg(),
            [name, ("NFTA_TABLE_USERDATA", want.comment)],
        ),
        *(_new_chain(chain) for chain in sorted(want.chains, key=lambda chain: chain.name)),
        *(_new_rule(rule) for rule in want.rules),
    )


def remove(netlink: Netlink) -> bool:
    """Remove our table. Returns whether there was one."""
    if read(netlink) is None:
        return False
    attrs = [("NFTA_TABLE_NAME", firewall.NAME)]
    _commit(
        netlink,
        _request(
            "remove table",
            nft.NFT_MSG_DELTABLE,
            nft.nft_table_msg(),
            tolerate=(errno.ENOENT,),
            attrs=attrs,
        ),
    )
    return True


def _commit(netlink: Netlink, *requests: Request) -> None:
    begin, end = (
        request(
            "change nftables",
            kind,
            nfgen_msg(),
            flags=0,
            nfgen_family=socket.AF_UNSPEC,
            res_id=NFNL_SUBSYS_NFTABLES,
        )
        for kind in (_BATCH_BEGIN, _BATCH_END)
    )
    netlink.run(begin, *requests, end)


def _request(
    what: str,
    kind: int,
    message: nlmsg,
    flags: int = ACK,
    *,
    tolerate: tuple[int, ...] = (),
    attrs: Sequence[tuple[str, Any]] = (),
) -> Request:
    return request(
        f"nftables: {what} inet {firewall.NAME}",
        _SUBSYSTEM | kind,
        message,
        flags=flags,
        tolerate=tolerate,
        attrs=list(attrs),
        nfgen_family=_NFPROTO_INET,
    )


def _new(what: str, kind: int, message: nlmsg, attrs: Sequence[tuple[str, Any]]) -> Request:
    return _request(what, kind, message, ACK | CREATE | APPEND, attrs=attrs)


def _new_chain(chain: firewall.Chain) -> Request:
    hook = [("NFTA_HOOK_HOOKNUM", chain.hook), ("NFTA_HOOK_PRIORITY", chain.priority)]
    attrs = [
        ("NFTA_CHAIN_TABLE", firewall.NAME),
        ("NFTA_CHAIN_NAME", chain.name),
        ("NFTA_CHAIN_TYPE", chain.kind),
        ("NFTA_CHAIN_HOOK", {"attrs": hook}),
        ("NFTA_CHAIN_POLICY", chain.policy),
    ]
    return _new(f"make chain {chain.name}", nft.NFT_MSG_NEWCHAIN, nft.nft_chain_msg(), attrs)


def _new_rule(rule: firewall.Rule) -> Request:
    expressions = [
        {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": list(data)})]}
        for name, data in rule.expressions
    ]
    attrs = [
        ("NFTA_RULE_TABLE", firewall.NAME),
        ("NFTA_RULE_CHAIN", rule.chain),
        ("NFTA_RULE_EXPRESSIONS", expressions),
        ("NFTA_RULE_USERDATA", rule.comment),
    ]
    return _new(f"make rule {rule.comment!r}", nft.NFT_MSG_NEWRULE, nft.nft_rule_msg(), attrs)


def _chain(message: nlmsg) -> firewall.Chain:
    hook = message.get_attr("NFTA_CHAIN_HOOK")
    return firewall.Chain(
        message.get_attr("NFTA_CHAIN_NAME"),
        message.get_attr("NFTA_CHAIN_TYPE") or "",
        hook.get_attr("NFTA_HOOK_HOOKNUM") if hook else -1,
        hook.get_attr("NFTA_HOOK_PRIORITY") if hook else 0,
        message.get_attr("NFTA_CHAIN_POLICY"),
    )
