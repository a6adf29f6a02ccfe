"""Messages about nftables: what is made, added and removed (linux/netfilter/nf_tables.h)."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from nexus_netd.linux import attributes as a
from nexus_netd.linux.netlink import APPEND, CREATE, Request, attribute, nest, text
from nexus_netd.rules.ruleset import NAME, TYPES, VERDICT, Chain, Element, Family, Rule, Set

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nexus_netd.rules.ruleset import PolicyChain

SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES (linux/netfilter/nfnetlink.h)."""

# Messages
NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, GETRULE, DELRULE = 6, 7, 8
NEWSET, GETSET = 9, 10
NEWELEMENTS, GETELEMENTS, DELELEMENTS = 12, 13, 14

# Attributes
TABLE_NAME, TABLE_FLAGS, TABLE_COMMENT = 1, 2, 6
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS, RULE_COMMENT = 1, 2, 4, 7
SET_TABLE, SET_NAME, SET_FLAGS = 1, 2, 3
SET_KEY_TYPE, SET_KEY_LENGTH, SET_DATA_TYPE, SET_DATA_LENGTH, SET_ID = 4, 5, 6, 7, 10
SET_USERDATA = 13
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
KEY, DATA, TIMEOUT, EXPIRATION, EXPRESSION, EXPRESSIONS = 1, 2, 4, 5, 7, 11
DROP = 0

FAMILIES = {1: "inet", 2: "ip", 7: "bridge", 10: "ip6"}

_MAP, _WITH_TIMEOUT = 0x8, 0x10
_VERDICT_TYPE = 0xFFFFFF00
_BIG_ENDIAN, _BYTE_ORDERS = 2, {"ifname": 1, "number": 1}
"""How nft(8) prints keys (libnftnl, NFTNL_UDATA_SET_KEYBYTEORDER)."""
_GOTO = -4

_CHUNK = 30_000
"""Bytes of elements in one message: an attribute's length has 16 bits."""


def request(what: str, kind: int, family: int, body: bytes = b"", flags: int = 0) -> Request:
    """Return a message about our table of a family; `kind` is the message's number."""
    name = FAMILIES.get(family, "")
    return Request(
        f"nftables: {what} in {name} {NAME}" if name else f"nftables: {what}",
        SUBSYSTEM << 8 | kind,
        flags,
        bytes([family, 0, 0, 0]) + body,
    )


def new_table(family: Family, comment: str = "") -> Request:
    """Make our table."""
    body = text(TABLE_NAME, NAME) + (a.comment(TABLE_COMMENT, comment) if comment else b"")
    return request("make table", NEWTABLE, family, body, CREATE)


def new_set(family: Family, number: int, one: Set) -> Request:
    """Make a set; `number` is for nobody but the kernel to know it by meanwhile."""
    kind, length = typed(one.key)
    body = [
        text(SET_TABLE, NAME),
        text(SET_NAME, one.name),
        a.u32(SET_FLAGS, flags(one)),
        a.u32(SET_KEY_TYPE, kind),
        a.u32(SET_KEY_LENGTH, length),
        a.u32(SET_ID, number + 1),
        attribute(SET_USERDATA, bytes([0, 4, _BYTE_ORDERS.get(one.key[0], _BIG_ENDIAN), 0, 0, 0])),
    ]
    if one.data:
        kind, length = typed(one.data)
        body += [a.u32(SET_DATA_TYPE, kind), a.u32(SET_DATA_LENGTH, length)]
    return request(f"make set {one.name}", NEWSET, family, b"".join(body), CREATE)


def flags(one: Set) -> int:
    """Return a set's flags."""
    return (_MAP if one.data else 0) | (_WITH_TIMEOUT if one.timeout else 0)


def typed(parts: tuple[str, ...]) -> tuple[int, int]:
    """Return the number that nft(8) has for a concatenation, and its length in bytes."""
    if parts == VERDICT:
        return _VERDICT_TYPE, 16
    kind, length = 0, 0
    for part in parts:
        number, size = TYPES[part]
        kind, length = kind << 6 | number, length + (size + 3 & ~3)
    return kind, length if len(parts) > 1 else TYPES[parts[0]][1]


def new_chain(family: Family, chain: Chain) -> Request:
    """Make a chain, unless it is there."""
    body = text(CHAIN_TABLE, NAME) + text(CHAIN_NAME, chain.name)
    if chain.kind:
        body += text(CHAIN_TYPE, chain.kind) + nest(
            CHAIN_HOOK,
            a.u32(HOOK_NUMBER, chain.hook),
            a.u32(HOOK_PRIORITY, chain.priority & 0xFFFFFFFF),
        )
    return request(f"make chain {chain.name}", NEWCHAIN, family, body, CREATE)


def old_chain(name: str) -> Request:
    """Remove a policy's chain with its rules; one that is not there refuses the transaction."""
    body = text(CHAIN_TABLE, NAME) + text(CHAIN_NAME, name)
    return request(f"remove chain {name}", DELCHAIN, Family.INET, body)


def new_rule(family: Family, rule: Rule) -> Request:
    """Add a rule at the end of its chain."""
    body = (
        text(RULE_TABLE, NAME)
        + text(RULE_CHAIN, rule.chain)
        + nest(RULE_EXPRESSIONS, *(a.expression(a.LIST_ELEMENT, one) for one in rule.expressions))
        + a.comment(RULE_COMMENT, rule.comment)
    )
    return request(
        f"make rule {rule.comment!r} of {rule.chain}", NEWRULE, family, body, CREATE | APPEND
    )


def new_policy(policy: PolicyChain) -> list[Request]:
    """Make a policy's chain, whatever is in it if it is there, and what leads to it."""
    chain = text(RULE_TABLE, NAME) + text(RULE_CHAIN, policy.chain.name)
    return [
        new_chain(Family.INET, policy.chain),
        # Whatever is in it, if it is there.
        request(f"empty chain {policy.chain.name}", DELRULE, Family.INET, chain),
        *(new_rule(Family.INET, rule) for rule in policy.rules),
        *new_elements([policy.element]),
    ]


def new_elements(elements: Iterable[Element]) -> list[Request]:
    """Add elements; those that are there stay as they are."""
    return [
        request(f"add to {name}", NEWELEMENTS, family, body, CREATE)
        for family, name, body in _lists(elements, whole=True)
    ]


def old_elements(elements: Iterable[Element]) -> list[Request]:
    """Remove elements; one that is not there refuses the transaction."""
    return [
        request(f"remove from {name}", DELELEMENTS, family, body)
        for family, name, body in _lists(elements, whole=False)
    ]


def _lists(elements: Iterable[Element], *, whole: bool) -> Iterator[tuple[Family, str, bytes]]:
    """Return lists of elements as messages hold them: family, set and body of each."""

    def place(element: Element) -> tuple[Family, str]:
        return element.family, element.set

    for (family, name), group in groupby(sorted(elements, key=place), place):
        head = text(LIST_TABLE, NAME) + text(LIST_SET, name)
        parts: list[bytes] = []
        size = 0
        for element in group:
            part = _element(element) if whole else nest(a.LIST_ELEMENT, a.data(KEY, element.key))
            if size + len(part) > _CHUNK:
                yield family, name, head + nest(LIST_ELEMENTS, *parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part)
        yield family, name, head + nest(LIST_ELEMENTS, *parts)


def _element(element: Element) -> bytes:
    parts = [a.data(KEY, element.key)]
    if isinstance(element.data, str):
        parts.append(a.data(DATA, (_GOTO, element.data)))
    elif element.data is not None:
        parts.append(a.data(DATA, element.data))
    if element.timeout:
        parts.append(a.u64(TIMEOUT, element.timeout))
    parts.extend(a.expression(EXPRESSION, state) for state in element.state)
    return nest(a.LIST_ELEMENT, *parts)
