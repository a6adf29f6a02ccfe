from ipaddress import IPv4Network

from nexus_netd import firewall

SUBNET = IPv4Network("172.16.0.0/12")


def test_the_comment_tells_any_difference():
    tables = [
        firewall.table("nexbr0", SUBNET),
        firewall.table("nexbr1", SUBNET),
        firewall.table("nexbr0", IPv4Network("172.16.0.0/13")),
    ]
    assert len({table.comment for table in tables}) == 3
    assert firewall.table("nexbr0", SUBNET) == tables[0]


def test_nothing_is_dropped_by_policy():
    assert {chain.policy for chain in firewall.table("nexbr0", SUBNET).chains} == {1}


def test_each_rule_names_the_bridge_or_the_subnet():
    for rule in firewall.table("nexbr0", SUBNET).rules:
        assert "nexbr0" in repr(rule.expressions), rule.comment


def test_rules_stand_chain_by_chain_with_their_own_comments():
    rules = firewall.table("nexbr0", SUBNET).rules
    assert [rule.chain for rule in rules] == sorted(rule.chain for rule in rules)
    assert len({(rule.chain, rule.comment) for rule in rules}) == len(rules)
