"""Why something is let through or refused: the names, what they say, and the way out.

The names are those of `ExplainFlowResponse.rule` and `Denial.rule` in netd.proto; NFLOG's prefix of
a refused packet is "nexus " and the name.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "nexus "
NFLOG_GROUP = 110


@dataclass(frozen=True)
class Reason:
    """What a name says, and what to do about it; `way_out` is empty for what is let through."""

    says: str
    way_out: str = ""


OPEN, NONE, RULE, NO_RULE = "open", "policy none", "rule", "no rule"
METADATA, LINK, OTHER_GUEST = "metadata", "link", "other guest"
HOST_PORT, HOST, DNS, PING = "host port", "host", "dns", "ping"
NO_ADDRESS, FOREIGN_NETWORK, CONNECTIONS = "no address", "foreign network", "connections"
SPOOFED, PROTOCOL, NAME, PRIVATE_ANSWER = "spoofed", "protocol", "name", "private answer"

REASONS = {
    OPEN: Reason("the policy is open"),
    NONE: Reason("the policy allows nothing", "set a policy with rules, or an open one"),
    RULE: Reason("this rule of the policy decides", "change the rule, or put one before it"),
    NO_RULE: Reason("no rule of the policy matches", "add a rule that allows it"),
    METADATA: Reason(
        "it is a cloud metadata address, which no policy allows by the way",
        "add a rule whose cidr lies within the metadata addresses",
    ),
    LINK: Reason("a link to that VM allows it"),
    OTHER_GUEST: Reason("it is another VM's address, and no link leads there", "create a link"),
    HOST_PORT: Reason("it is one of the network's host ports"),
    HOST: Reason(
        "it is an address of the host, and the port is none of the network's host ports",
        "add the port to the network's host ports",
    ),
    DNS: Reason("the resolver on the gateway answers"),
    PING: Reason("the gateway answers pings"),
    NO_ADDRESS: Reason(
        "the VM has no address of that IP version, or nobody can have the destination",
        "give the network an IPv6 subnet, or choose another destination",
    ),
    FOREIGN_NETWORK: Reason(
        "the address lies in a network's subnet, and no VM has it",
        "attach a VM, or ask for another",
    ),
    CONNECTIONS: Reason(
        "the VM has as many connections as it may", "close some, or raise its limit"
    ),
    SPOOFED: Reason(
        "the frame's MAC or address is not the VM's own", "use the addresses of the VM's port"
    ),
    PROTOCOL: Reason(
        "the frame is neither IPv4 without options, nor ARP for it, nor IPv6 where that is on, or "
        "is not for the gateway",
        "send plain IP through the gateway",
    ),
    NAME: Reason("the policy has no rule for that name", "add a rule with the domain"),
    PRIVATE_ANSWER: Reason(
        "the name stands for private addresses that no rule allows",
        "add a rule with the cidr of the addresses",
    ),
}


def of(rule: str) -> Reason:
    """Return the reason of that name; "rule 7" is found under "rule". Raises KeyError."""
    return REASONS[RULE if rule.startswith("rule ") else rule]
