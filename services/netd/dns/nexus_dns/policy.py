"""What is to be done with a query: a plain function of what netd said and what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from nexus_dns.metrics import Outcome
from nexus_dns.names import NEXUS, is_below, reverse
from nexus_rpc.addresses import is_private

if TYPE_CHECKING:
    from nexus_dns.names import Labels
    from nexus_dns.query import Query
    from nexus_dns.view import Guest, View
    from nexus_rpc.addresses import Network

LOCAL_TTL = 5
"""Seconds that a VM's address may be remembered: it may get another at any time."""

ADDRESSES = frozenset({dns.rdatatype.A, dns.rdatatype.AAAA})

PLAIN = frozenset(
    {
        *(dns.rdatatype.CNAME, dns.rdatatype.MX, dns.rdatatype.TXT, dns.rdatatype.SRV),
        *(dns.rdatatype.NS, dns.rdatatype.SOA, dns.rdatatype.PTR, dns.rdatatype.CAA),
    }
)
"""Types that carry no address, and so need no pin. HTTPS and SVCB do (RFC 9460, ipv4hint)."""


@dataclass(frozen=True)
class Local:
    """An answer that is known here. `outcome` NAME is a denial that netd is told of."""

    code: dns.rcode.Rcode
    outcome: Outcome
    records: tuple[dns.rrset.RRset, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A question for servers. Unless `any_name`, addresses of the answer are checked and pinned."""

    servers: tuple[str, ...]
    any_name: bool
    slots: tuple[int, ...] = ()
    private_ok: tuple[Network, ...] = ()


_NO_DATA = Local(dns.rcode.NOERROR, Outcome.LOCAL)
_NO_NAME = Local(dns.rcode.NXDOMAIN, Outcome.LOCAL)
_REFUSED = Local(dns.rcode.REFUSED, Outcome.NAME)
_NO_KIND = Local(dns.rcode.REFUSED, Outcome.KIND)


def decide_for_guest(view: View, guest: Guest, query: Query) -> Local | Ask:
    """Return what a guest's query leads to."""
    if not _is_answerable(query):
        return _NO_KIND
    name = query.labels
    if is_below(name, NEXUS):
        vm = _vm(view, name)
        return _addresses(vm, query) if vm and _knows(guest, vm) else _REFUSED
    found = _reverse(view, guest, query)
    return found or _by_rules(view, guest, query)


def _by_rules(view: View, guest: Guest, query: Query) -> Local | Ask:
    slots = guest.names.slots(query.labels)
    if not slots:
        return Ask(view.upstream(guest), any_name=True) if guest.any_name else _REFUSED
    if query.kind not in ADDRESSES | PLAIN:
        return Local(dns.rcode.NOERROR, Outcome.KIND)
    return Ask(view.upstream(guest), any_name=False, slots=slots, private_ok=guest.private_ok)


def decide_for_host(view: View, query: Query) -> Local:
    """Return what the host's own query leads to: it may know every VM, and asks us nothing else."""
    if not _is_answerable(query):
        return _NO_KIND
    if query.labels == NEXUS:
        return _NO_DATA
    if is_below(query.labels, NEXUS):
        vm = _vm(view, query.labels)
        return _addresses(vm, query) if vm else _NO_NAME
    return _reverse(view, None, query) or Local(dns.rcode.REFUSED, Outcome.LOCAL)


def _is_answerable(query: Query) -> bool:
    # 128 to 255 are no types of records: AXFR, ANY and the like (RFC 6895, section 3.1).
    kind = query.kind
    return query.is_internet and kind not in (0, dns.rdatatype.OPT) and not 128 <= kind <= 255


def _knows(guest: Guest, vm: Guest) -> bool:
    return vm.vm_id == guest.vm_id or vm.vm_id in guest.linked


def _vm(view: View, name: Labels) -> Guest | None:
    return view.guest_named(name[0]) if len(name) == len(NEXUS) + 1 else None


def _addresses(vm: Guest, query: Query) -> Local:
    version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(query.kind)
    found = sorted(str(address) for address in vm.addresses if address.version == version)
    return _records(query, found)


def _reverse(view: View, guest: Guest | None, query: Query) -> Local | None:
    """Answer for addresses that are not public: nobody else is asked about them.

    `guest` None is the host.
    """
    network = reverse(query.labels)
    if network is None:
        return None
    vm = view.guest_at(network[0]) if network.prefixlen == network.max_prefixlen else None
    if vm and vm.name and (guest is None or _knows(guest, vm)):
        is_pointer = query.kind == dns.rdatatype.PTR
        return _records(query, [f"{vm.name}.nexus."] if is_pointer else [])
    return _NO_NAME if is_private(network) else None


def _records(query: Query, values: list[str]) -> Local:
    if not values:
        return _NO_DATA
    found = dns.rrset.from_text_list(query.name, LOCAL_TTL, "IN", query.kind, values)
    return Local(dns.rcode.NOERROR, Outcome.LOCAL, (found,))
