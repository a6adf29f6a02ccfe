"""nftables over netlink: our tables in one transaction, and what the kernel holds of them.

The batch is BEGIN, messages, END: the kernel takes all of it or none (nfnetlink(7) subsystem 10).
It answers an error of any message; so only the last one asks for an answer.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from itertools import groupby
from typing import TYPE_CHECKING

from nexus_netd import attributes as a
from nexus_netd import firewall, netlink
from nexus_netd.kernel import ForeignDrop, KernelError
from nexus_netd.netlink import ACK, APPEND, CREATE, DUMP, HEADER, Request, nest, text
from nexus_netd.ruleset import (
    NAME,
    POLICY,
    TYPES,
    VERDICT,
    Chain,
    Contents,
    Element,
    Family,
    PolicyChain,
    Rule,
    Set,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from nexus_netd.model import Address
    from nexus_netd.netlink import Netlink
    from nexus_netd.ruleset import Change, Skeleton

PROTOCOL = netlink.NETFILTER
_SUBSYSTEM = 10
_BEGIN, _END = 0x10, 0x11
_BODY = HEADER + 4
"""Where attributes begin: after the headers of netlink and of nfnetlink."""

# linux/netfilter/nf_tables.h: messages
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = 3, 4, 5
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET, _GETSET = 9, 10
_NEWELEMENTS, _GETELEMENTS, _DELELEMENTS = 12, 13, 14
_GETGEN = 16

# The same: attributes
_TABLE_NAME, _TABLE_COMMENT = 1, 6
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_COMMENT = 1, 2, 4, 7
_SET_TABLE, _SET_NAME, _SET_FLAGS = 1, 2, 3
_SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_DATA_TYPE, _SET_DATA_LENGTH, _SET_ID = 4, 5, 6, 7, 10
_SET_USERDATA = 13
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_KEY, _DATA, _TIMEOUT, _EXPIRATION, _EXPRESSION, _EXPRESSIONS = 1, 2, 4, 5, 7, 11
_MAP, _WITH_TIMEOUT = 0x8, 0x10
_VERDICT_TYPE = 0xFFFFFF00
_BIG_ENDIAN, _BYTE_ORDERS = 2, {"ifname": 1, "number": 1}
"""How nft(8) prints keys (libnftnl, NFTNL_UDATA_SET_KEYBYTEORDER): numbers of the host's as such."""
_GOTO = -4
_DROP = 0

_CHUNK = 30_000
"""Bytes of elements in one message: an attribute's length has 16 bits."""

_FAMILIES = {1: "inet", 2: "ip", 7: "bridge", 10: "ip6"}
_HOOKS = {1: "input", 2: "forward"}


def read(link: Netlink) -> Contents | None:
    """Return what is in our tables, but for pins; None unless both are there."""
    intact, elements, policies = True, set(), set()
    for skeleton in firewall.skeletons():
        found = _table(link, skeleton.family)
        if found is None:
            return None
        chains, rules = _chains(link, skeleton.family), _rules(link, skeleton.family)
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


def replace(link: Netlink, want: Contents, pins: Collection[Element] = ()) -> None:
    """Put skeletons and `want` in the place of our tables; packets meet the old or the new ones."""
    requests = []
    for skeleton in firewall.skeletons():
        requests += [
            # Made first, so that there is one to remove.
            _new_table(skeleton.family),
            _request("remove table", _DELTABLE, skeleton.family, text(_TABLE_NAME, NAME)),
            _new_table(skeleton.family, skeleton.comment),
            *(_new_set(skeleton.family, n, one) for n, one in enumerate(skeleton.sets)),
            *(_new_chain(skeleton.family, chain) for chain in skeleton.chains),
            *(_new_rule(skeleton.family, rule) for rule in skeleton.rules),
            *_new_elements(skeleton.elements),
        ]
    for policy in want.policies:
        requests += _new_policy(policy)
    elements = [*want.elements, *pins]
    _commit(link, [*requests, *_new_elements(elements)])


def change(link: Netlink, what: Change) -> None:
    """Change what is in our tables."""
    added = _add(what)
    try:
        _commit(link, [*_remove(what), *added])
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        # Something that is to go is gone, which refuses it all: so it is made first. (There is
        # NFT_MSG_DESTROYSETELEM for this, but from Linux 6.3 only.)
        _commit(link, [*_make_removable(what), *_remove(what), *added])


def remove(link: Netlink) -> list[str]:
    """Remove our tables; return those there were: "bridge nexus", "inet nexus"."""
    families = [one.family for one in firewall.skeletons() if _table(link, one.family) is not None]
    if families:
        name = text(_TABLE_NAME, NAME)
        _commit(link, [_request("remove table", _DELTABLE, family, name) for family in families])
    return [f"{_FAMILIES[family]} {NAME}" for family in families]


def pins(link: Netlink, source: Address) -> dict[tuple[Address, int], float]:
    """Return the live pins of a guest's address: (address, slot), and the seconds that are left."""
    found: dict[tuple[Address, int], float] = {}
    own = source.packed
    length = len(own)
    for element in _dump_elements(link, Family.INET, f"pins{source.version}"):
        key = a.value(element[_KEY])
        if not isinstance(key, bytes) or not key.startswith(own):
            continue
        address, slot = key[length : 2 * length], int.from_bytes(key[2 * length :], "little")
        left = int.from_bytes(element.get(_EXPIRATION, element[_TIMEOUT]), "big")
        found[ip_address(address), slot] = left / 1_000
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
            of = element[_DATA if family is Family.BRIDGE else _KEY]
            address = ip_address(a.value(of))
            count = sum(a.counted(state) for state in _states(element))
            found[address] = found.get(address, 0) + count
    return found


def foreign_drops(link: Netlink) -> list[ForeignDrop]:
    """Return others' base chains at input and forward whose policy is to drop."""
    found = []
    for message in link.dump(_request("list chains", _GETCHAIN, 0, flags=DUMP)):
        chain = netlink.attributes(message, _BODY)
        family, table = _FAMILIES.get(message[HEADER]), _text(chain[_CHAIN_TABLE])
        if family is None or _CHAIN_HOOK not in chain or table == NAME:
            continue
        hook = _HOOKS.get(_number(netlink.attributes(chain[_CHAIN_HOOK])[_HOOK_NUMBER]))
        if hook and _number(chain[_CHAIN_POLICY]) == _DROP:
            found.append(ForeignDrop(f"{family} {table}", _text(chain[_CHAIN_NAME]), hook))
    return found


def _request(what: str, kind: int, family: int, body: bytes = b"", flags: int = 0) -> Request:
    name = _FAMILIES.get(family, "")
    return Request(
        f"nftables: {what} in {name} {NAME}" if name else f"nftables: {what}",
        _SUBSYSTEM << 8 | kind,
        flags,
        bytes([family, 0, 0, 0]) + body,
    )


def _commit(link: Netlink, requests: list[Request]) -> None:
    if not requests:
        return
    last = requests[-1]
    requests[-1] = Request(last.what, last.type, last.flags | ACK, last.body)
    begin, end = (
        Request(requests[0].what, kind, 0, bytes([socket.AF_UNSPEC, 0, 0, _SUBSYSTEM]))
        for kind in (_BEGIN, _END)
    )
    link.run(begin, *requests, end)


def _new_table(family: Family, comment: str = "") -> Request:
    body = text(_TABLE_NAME, NAME) + (a.comment(_TABLE_COMMENT, comment) if comment else b"")
    return _request("make table", _NEWTABLE, family, body, CREATE)


def _new_set(family: Family, number: int, one: Set) -> Request:
    flags = (_MAP if one.data else 0) | (_WITH_TIMEOUT if one.timeout else 0)
    kind, length = _typed(one.key)
    body = [
        text(_SET_TABLE, NAME),
        text(_SET_NAME, one.name),
        a.u32(_SET_FLAGS, flags),
        a.u32(_SET_KEY_TYPE, kind),
        a.u32(_SET_KEY_LENGTH, length),
        a.u32(_SET_ID, number + 1),
        a.attribute(
            _SET_USERDATA, bytes([0, 4, _BYTE_ORDERS.get(one.key[0], _BIG_ENDIAN), 0, 0, 0])
        ),
    ]
    if one.data:
        kind, length = _typed(one.data)
        body += [a.u32(_SET_DATA_TYPE, kind), a.u32(_SET_DATA_LENGTH, length)]
    return _request(f"make set {one.name}", _NEWSET, family, b"".join(body), CREATE)


def _typed(parts: tuple[str, ...]) -> tuple[int, int]:
    """Return the number that nft(8) has for a concatenation, and its length in bytes."""
    if parts == VERDICT:
        return _VERDICT_TYPE, 16
    kind, length = 0, 0
    for part in parts:
        number, size = TYPES[part]
        kind, length = kind << 6 | number, length + (size + 3 & ~3)
    return kind, length if len(parts) > 1 else TYPES[parts[0]][1]


def _new_chain(family: Family, chain: Chain) -> Request:
    body = text(_CHAIN_TABLE, NAME) + text(_CHAIN_NAME, chain.name)
    if chain.kind:
        body += text(_CHAIN_TYPE, chain.kind) + nest(
            _CHAIN_HOOK,
            a.u32(_HOOK_NUMBER, chain.hook),
            a.u32(_HOOK_PRIORITY, chain.priority & 0xFFFFFFFF),
        )
    return _request(f"make chain {chain.name}", _NEWCHAIN, family, body, CREATE)


def _new_rule(family: Family, rule: Rule) -> Request:
    body = (
        text(_RULE_TABLE, NAME)
        + text(_RULE_CHAIN, rule.chain)
        + nest(_RULE_EXPRESSIONS, *(a.expression(a.LIST_ELEMENT, one) for one in rule.expressions))
        + a.comment(_RULE_COMMENT, rule.comment)
    )
    return _request(
        f"make rule {rule.comment!r} of {rule.chain}", _NEWRULE, family, body, CREATE | APPEND
    )


def _new_policy(policy: PolicyChain) -> list[Request]:
    chain = text(_RULE_TABLE, NAME) + text(_RULE_CHAIN, policy.chain.name)
    return [
        _new_chain(Family.INET, policy.chain),
        # Whatever is in it, if it is there.
        _request(f"empty chain {policy.chain.name}", _DELRULE, Family.INET, chain),
        *(_new_rule(Family.INET, rule) for rule in policy.rules),
        *_new_elements([policy.element]),
    ]


def _add(what: Change) -> list[Request]:
    requests = []
    for policy in what.add_policies:
        requests += _new_policy(policy)
    # Only from Linux 6.12 on does adding again set the timeout anew.
    expiring = [one for one in what.add if one.timeout]
    requests += _new_elements(expiring)
    requests += _old_elements(expiring)
    return [*requests, *_new_elements(what.add)]


def _remove(what: Change) -> list[Request]:
    elements = [*what.remove, *(policy.element for policy in what.remove_policies)]
    chains = [
        _request(
            f"remove chain {policy.chain.name}",
            _DELCHAIN,
            Family.INET,
            text(_CHAIN_TABLE, NAME) + text(_CHAIN_NAME, policy.chain.name),
        )
        for policy in what.remove_policies
    ]
    return [*_old_elements(elements), *chains]


def _make_removable(what: Change) -> list[Request]:
    chains = [_new_chain(Family.INET, policy.chain) for policy in what.remove_policies]
    elements = [*what.remove, *(policy.element for policy in what.remove_policies)]
    return [*chains, *_new_elements(elements)]


def _new_elements(elements: Iterable[Element]) -> list[Request]:
    return [
        _request(f"add to {name}", _NEWELEMENTS, family, body, CREATE)
        for family, name, body in _lists(elements, whole=True)
    ]


def _old_elements(elements: Iterable[Element]) -> list[Request]:
    return [
        _request(f"remove from {name}", _DELELEMENTS, family, body)
        for family, name, body in _lists(elements, whole=False)
    ]


def _lists(elements: Iterable[Element], *, whole: bool) -> Iterator[tuple[Family, str, bytes]]:
    """Return lists of elements as messages hold them: family, set and body of each."""

    def place(element: Element) -> tuple[Family, str]:
        return element.family, element.set

    for (family, name), group in groupby(sorted(elements, key=place), place):
        head = text(_LIST_TABLE, NAME) + text(_LIST_SET, name)
        parts: list[bytes] = []
        size = 0
        for element in group:
            part = _element(element) if whole else nest(a.LIST_ELEMENT, a.data(_KEY, element.key))
            if size + len(part) > _CHUNK:
                yield family, name, head + nest(_LIST_ELEMENTS, *parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part)
        yield family, name, head + nest(_LIST_ELEMENTS, *parts)


def _element(element: Element) -> bytes:
    parts = [a.data(_KEY, element.key)]
    if isinstance(element.data, str):
        parts.append(a.data(_DATA, (_GOTO, element.data)))
    elif element.data is not None:
        parts.append(a.data(_DATA, element.data))
    if element.timeout:
        parts.append(a.u64(_TIMEOUT, element.timeout))
    parts.extend(a.expression(_EXPRESSION, state) for state in element.state)
    return nest(a.LIST_ELEMENT, *parts)


def _table(link: Netlink, family: Family) -> str | None:
    """Return our table's comment; None without a table."""
    asked = Request(
        "nftables: read table",
        _SUBSYSTEM << 8 | _GETTABLE,
        ACK,
        bytes([family, 0, 0, 0]) + text(_TABLE_NAME, NAME),
        frozenset((errno.ENOENT,)),
    )
    found = link.run(asked)[0]
    if not found:
        return None
    return a.commented(netlink.attributes(found[0], _BODY).get(_TABLE_COMMENT, b""))


def _chains(link: Netlink, family: Family) -> dict[str, Chain]:
    found = {}
    for message in link.dump(_request("list chains", _GETCHAIN, family, flags=DUMP)):
        chain = netlink.attributes(message, _BODY)
        if _text(chain[_CHAIN_TABLE]) != NAME:
            continue
        name, hook = _text(chain[_CHAIN_NAME]), netlink.attributes(chain.get(_CHAIN_HOOK, b""))
        found[name] = Chain(name)
        if hook:
            priority = int.from_bytes(hook[_HOOK_PRIORITY], "big", signed=True)
            # A policy to drop is not ours, nor is any chain that has it.
            kind = _text(chain[_CHAIN_TYPE]) if _number(chain[_CHAIN_POLICY]) != _DROP else "drop"
            found[name] = Chain(name, kind, _number(hook[_HOOK_NUMBER]), priority)
    return found


def _rules(link: Netlink, family: Family) -> dict[str, tuple[Rule, ...]]:
    asked = _request("list rules", _GETRULE, family, text(_RULE_TABLE, NAME), DUMP)
    found: dict[str, list[Rule]] = {}
    for message in link.dump(asked):
        rule = netlink.attributes(message, _BODY)
        chain = _text(rule[_RULE_CHAIN])
        comment = a.commented(rule.get(_RULE_COMMENT, b""))
        found.setdefault(chain, []).append(Rule(chain, comment))
    return {chain: tuple(rules) for chain, rules in found.items()}


def _sets(link: Netlink, family: Family) -> list[Set]:
    """Return the sets; those with a declaration that we never make have empty keys."""
    asked = _request("list sets", _GETSET, family, text(_SET_TABLE, NAME), DUMP)
    declared = {
        skeleton_set.name: skeleton_set
        for skeleton in firewall.skeletons()
        if skeleton.family is family
        for skeleton_set in skeleton.sets
    }
    found = []
    for message in link.dump(asked):
        one = netlink.attributes(message, _BODY)
        name, flags = _text(one[_SET_NAME]), _number(one.get(_SET_FLAGS, bytes(4)))
        want = declared.get(name, Set(name, ()))
        key, data = _number(one[_SET_KEY_TYPE]), _number(one.get(_SET_DATA_TYPE, bytes(4)))
        same = (
            bool(want.key)
            and key == _typed(want.key)[0]
            and data == (_typed(want.data)[0] if want.data else 0)
            and flags == (_MAP if want.data else 0) | (_WITH_TIMEOUT if want.timeout else 0)
        )
        found.append(want if same else Set(name, ()))
    return found


def _elements(link: Netlink, family: Family, sets: Iterable[Set]) -> set[Element]:
    found = set()
    for one in sets:
        if not one.key:
            continue
        for element in _dump_elements(link, family, one.name):
            key = a.value(element[_KEY])
            if not isinstance(key, bytes):
                continue
            found.add(
                Element(
                    family,
                    one.name,
                    key,
                    a.value(element[_DATA]) if _DATA in element else None,
                    tuple(a.state(state) for state in _states(element)),
                )
            )
    return found


def _dump_elements(link: Netlink, family: Family, name: str) -> Iterator[dict[int, bytes]]:
    body = text(_LIST_TABLE, NAME) + text(_LIST_SET, name)
    asked = _request(f"list {name}", _GETELEMENTS, family, body, DUMP)
    for message in link.dump(asked):
        held = netlink.attributes(message, _BODY).get(_LIST_ELEMENTS, b"")
        for element in a.listed(held):
            yield netlink.attributes(element)


def _states(element: dict[int, bytes]) -> tuple[bytes, ...]:
    if _EXPRESSION in element:
        return (element[_EXPRESSION],)
    return tuple(a.listed(element.get(_EXPRESSIONS, b"")))


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
