"""What the kernel holds of our tables, and of others' that stand in the way."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from nexus_netd.kernel import ForeignDrop
from nexus_netd.linux import attributes as a
from nexus_netd.linux import netlink
from nexus_netd.linux import tables as t
from nexus_netd.linux.netlink import ACK, DUMP, HEADER, Request, nest, text
from nexus_netd.rules import firewall
from nexus_netd.rules.elements import of_guest
from nexus_netd.rules.ruleset import (
    NAME,
    POLICY,
    Chain,
    Contents,
    Element,
    Family,
    PolicyChain,
    Rule,
    Set,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from nexus_netd.linux.netlink import Netlink
    from nexus_netd.model import Address, Guest
    from nexus_netd.rules.ruleset import Skeleton

_BODY = HEADER + 4
"""Where attributes begin: after the headers of netlink and of nfnetlink."""

_PASSES = 5
_HOOKS = {1: "input", 2: "forward"}


def read(link: Netlink) -> Contents | None:
    """Return what is in our tables, but for pins; None unless both are there."""
    intact, elements, policies = True, set(), set()
    for skeleton in firewall.skeletons():
        found = _table(link, skeleton.family)
        if found is None:
            return None
        chains = _chains(link, skeleton.family)
        rules = _rules(link, skeleton.family, chains)
        sets = _sets(link, skeleton.family)
        held = _elements(link, skeleton.family, [one for one in sets if not one.timeout])
        own = {chain.name for chain in skeleton.chains}
        missing = set(skeleton.elements) - held
        held -= set(skeleton.elements)
        made = _policies({name: chains[name] for name in chains.keys() - own}, rules, held)
        intact = intact and (
            found == skeleton.comment
            and not missing
            and made is not None
            and [chains.get(chain.name) for chain in skeleton.chains] == list(skeleton.chains)
            and all(rules.get(name, ()) == want for name, want in _by_chain(skeleton).items())
            and set(sets) == set(skeleton.sets)
        )
        elements |= held
        policies |= made or set()
    return Contents(
        frozenset(elements - {policy.element for policy in policies}), frozenset(policies), intact
    )


def has_table(link: Netlink, family: Family) -> bool:
    """Whether our table of that family is there, whoever made it."""
    return _table(link, family) is not None


def present(link: Netlink, elements: Collection[Element]) -> list[Element]:
    """Return those elements whose places are taken, whatever their values."""
    asked = link.run(*map(_element, elements))
    return [one for one, found in zip(elements, asked, strict=True) if found]


def present_chains(link: Netlink, names: Collection[str]) -> list[str]:
    """Return those chains of "inet nexus" that are there."""
    asked = [
        _read(
            f"chain {name}",
            t.GETCHAIN,
            Family.INET,
            text(t.CHAIN_TABLE, NAME) + text(t.CHAIN_NAME, name),
        )
        for name in names
    ]
    return [name for name, found in zip(names, link.run(*asked), strict=True) if found]


def pins(link: Netlink) -> dict[Address, dict[tuple[Address, int], float]]:
    """Return the live pins of all guests: (address, slot), and the seconds that are left.

    They are in one list, so that one look finds all: 100,000 take 0.8 s.
    """
    found: dict[Address, dict[tuple[Address, int], float]] = {}
    for version, length in ((4, 4), (6, 16)):
        for element in _dump_elements(link, Family.INET, f"pins{version}"):
            key = a.value(element[t.KEY])
            if not isinstance(key, bytes):
                continue
            guest, address = ip_address(key[:length]), ip_address(key[length : 2 * length])
            slot = int.from_bytes(key[2 * length :], sys.byteorder)
            left = int.from_bytes(element.get(t.EXPIRATION, element[t.TIMEOUT]), "big")
            found.setdefault(guest, {})[address, slot] = left / 1_000
    return found


def denied(link: Netlink) -> dict[Address, int]:
    """Return how many packets each guest was refused; on the bridge, by its IPv4 address."""
    found: dict[Address, int] = {}
    for family, name in (
        (Family.INET, "denials4"),
        (Family.INET, "denials6"),
        (Family.BRIDGE, "denials"),
    ):
        for element in _dump_elements(link, family, name):
            of = element[t.DATA if family is Family.BRIDGE else t.KEY]
            address = ip_address(a.value(of))
            count = sum(a.counted(state) for state in _states(element))
            found[address] = found.get(address, 0) + count
    return found


def denied_of(link: Netlink, guest: Guest) -> int:
    """Return how many packets one guest was refused; 0 while our tables are not there."""
    counters = [one for one in of_guest(guest) if one.set.startswith("denials")]
    return sum(
        a.counted(state)
        for found in link.run(*map(_element, counters))
        for message in found
        for element in _listed(message)
        for state in _states(netlink.attributes(element))
    )


def foreign_drops(link: Netlink) -> list[ForeignDrop]:
    """Return others' base chains at input and forward whose policy is to drop."""
    found = []
    for message in link.dump(t.request("list chains", t.GETCHAIN, 0, flags=DUMP)):
        chain = netlink.attributes(message, _BODY)
        family, table = t.FAMILIES.get(message[HEADER]), _text(chain[t.CHAIN_TABLE])
        if family is None or t.CHAIN_HOOK not in chain or table == NAME:
            continue
        hook = _HOOKS.get(_number(netlink.attributes(chain[t.CHAIN_HOOK])[t.HOOK_NUMBER]))
        if hook and _number(chain[t.CHAIN_POLICY]) == t.DROP:
            found.append(ForeignDrop(f"{family} {table}", _text(chain[t.CHAIN_NAME]), hook))
    return found


def _element(one: Element) -> Request:
    """Ask for one element of a set, by its key."""
    return _read(
        f"element of {one.set}",
        t.GETELEMENTS,
        one.family,
        text(t.LIST_TABLE, NAME)
        + text(t.LIST_SET, one.set)
        + nest(t.LIST_ELEMENTS, nest(a.LIST_ELEMENT, a.data(t.KEY, one.key))),
    )


def _listed(message: bytes) -> Iterable[bytes]:
    """Return the elements that an answer lists."""
    return a.listed(netlink.attributes(message, _BODY).get(t.LIST_ELEMENTS, b""))


def _read(what: str, kind: int, family: Family, body: bytes) -> Request:
    """Ask for one thing; that it is not there is no failure."""
    asked = t.request(f"read {what}", kind, family, body, ACK)
    return replace(asked, tolerate=frozenset((errno.ENOENT,)))


def _table(link: Netlink, family: Family) -> str | None:
    """Return our table's comment; None without a table."""
    found = link.run(_read("table", t.GETTABLE, family, text(t.TABLE_NAME, NAME)))[0]
    if not found:
        return None
    table = netlink.attributes(found[0], _BODY)
    if _number(table.get(t.TABLE_FLAGS, b"")):
        return "dormant"  # or somebody's own: no table of ours has flags
    return a.commented(table.get(t.TABLE_COMMENT, b""))


def _chains(link: Netlink, family: Family) -> dict[str, Chain]:
    found = {}
    for message in link.dump(t.request("list chains", t.GETCHAIN, family, flags=DUMP)):
        chain = netlink.attributes(message, _BODY)
        if _text(chain[t.CHAIN_TABLE]) != NAME:
            continue
        name, hook = _text(chain[t.CHAIN_NAME]), netlink.attributes(chain.get(t.CHAIN_HOOK, b""))
        found[name] = Chain(name)
        if hook:
            priority = int.from_bytes(hook[t.HOOK_PRIORITY], "big", signed=True)
            # A policy to drop is not ours, nor is any chain that has it.
            drops = _number(chain[t.CHAIN_POLICY]) == t.DROP
            kind = "drop" if drops else _text(chain[t.CHAIN_TYPE])
            found[name] = Chain(name, kind, _number(hook[t.HOOK_NUMBER]), priority)
    return found


def _rules(link: Netlink, family: Family, chains: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """Return the chains' rules. Chain by chain: the kernel counts anew for each piece of a list."""
    table = text(t.RULE_TABLE, NAME)
    found = {}
    for chain in chains:
        body = table + text(t.RULE_CHAIN, chain)
        listed = link.dump(t.request(f"list rules of {chain}", t.GETRULE, family, body, DUMP))
        found[chain] = tuple(
            Rule(chain, a.commented(netlink.attributes(message, _BODY).get(t.RULE_COMMENT, b"")))
            for message in listed
        )
    return found


def _sets(link: Netlink, family: Family) -> list[Set]:
    """Return the sets; those with a declaration that we never make have empty keys."""
    asked = t.request("list sets", t.GETSET, family, text(t.SET_TABLE, NAME), DUMP)
    declared = {
        skeleton_set.name: skeleton_set
        for skeleton in firewall.skeletons()
        if skeleton.family is family
        for skeleton_set in skeleton.sets
    }
    found = []
    for message in link.dump(asked):
        one = netlink.attributes(message, _BODY)
        name, flags = _text(one[t.SET_NAME]), _number(one.get(t.SET_FLAGS, bytes(4)))
        want = declared.get(name, Set(name, ()))
        key, data = _number(one[t.SET_KEY_TYPE]), _number(one.get(t.SET_DATA_TYPE, bytes(4)))
        same = (
            bool(want.key)
            and key == t.typed(want.key)[0]
            and data == (t.typed(want.data)[0] if want.data else 0)
            and flags == t.flags(want)
        )
        found.append(want if same else Set(name, ()))
    return found


def _elements(link: Netlink, family: Family, sets: Iterable[Set]) -> set[Element]:
    found = set()
    for one in sets:
        if not one.key:
            continue
        for element in _dump_elements(link, family, one.name):
            key = a.value(element[t.KEY])
            if not isinstance(key, bytes):
                continue
            found.add(
                Element(
                    family,
                    one.name,
                    key,
                    a.value(element[t.DATA]) if t.DATA in element else None,
                    tuple(a.state(state) for state in _states(element)),
                )
            )
    return found


def _dump_elements(link: Netlink, family: Family, name: str) -> Collection[dict[int, bytes]]:
    """Return a set's elements, by their attributes.

    While the kernel gives a hash table that has grown more room, in the background, a list of
    several pieces leaves elements out (nft_set_hash.c: nft_rhash_walk). So it is asked for again,
    until there is nothing new.
    """
    body = text(t.LIST_TABLE, NAME) + text(t.LIST_SET, name)
    asked = t.request(f"list {name}", t.GETELEMENTS, family, body, DUMP)
    listed: dict[bytes, None] = {}
    for _ in range(_PASSES):
        before, pieces = len(listed), link.dump(asked)
        for piece in pieces:
            listed.update(dict.fromkeys(_listed(piece)))
        if len(pieces) < 2 or len(listed) == before:
            break
    elements = map(netlink.attributes, listed)
    # The last of a key: its counter has gone on meanwhile.
    return {element[t.KEY]: element for element in elements}.values()


def _states(element: dict[int, bytes]) -> tuple[bytes, ...]:
    if t.EXPRESSION in element:
        return (element[t.EXPRESSION],)
    return tuple(a.listed(element.get(t.EXPRESSIONS, b"")))


def _policies(
    chains: Mapping[str, Chain], rules: Mapping[str, tuple[Rule, ...]], held: Collection[Element]
) -> set[PolicyChain] | None:
    """Return the policies' chains; None if a chain is none of them, or nothing leads to it."""
    leading = {element.data: element for element in held if element.set == "policies"}
    found = set()
    for name, chain in chains.items():
        if not name.startswith(POLICY) or name not in leading:
            return None
        found.add(PolicyChain(chain, rules.get(name, ()), leading[name]))
    return found


def _by_chain(skeleton: Skeleton) -> dict[str, tuple[Rule, ...]]:
    found: dict[str, list[Rule]] = {chain.name: [] for chain in skeleton.chains}
    for rule in skeleton.rules:
        found[rule.chain].append(rule)
    return {chain: tuple(rules) for chain, rules in found.items()}


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")
