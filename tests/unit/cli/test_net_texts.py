"""What the net commands read: forwarded ports, flows, links, and policies in files."""

import json

import pytest

from nexus.netd.v1 import netd_pb2 as pb
from nexusctl import linking, net_views, policies, publications
from nexusctl.arguments import parse
from nexusctl.commands import net_explain
from nexusctl.commands.net_create import defaults
from nexusctl.failure import USAGE, Failure

TCP, UDP, ICMP = pb.PROTOCOL_TCP, pb.PROTOCOL_UDP, pb.PROTOCOL_ICMP


@pytest.mark.parametrize(
    ("text", "host_ip", "host_port", "guest_port", "protocol"),
    [
        ("8080", "", 8080, 8080, TCP),
        ("8080:80", "", 8080, 80, TCP),
        ("8080:80/udp", "", 8080, 80, UDP),
        ("127.0.0.1:8080", "127.0.0.1", 8080, 8080, TCP),
        ("0.0.0.0:53:5353/udp", "0.0.0.0", 53, 5353, UDP),
        ("[::]:8080", "::", 8080, 8080, TCP),
        ("[fd00::1]:8080:80/tcp", "fd00::1", 8080, 80, TCP),
    ],
)
def test_forwarded_ports(text, host_ip, host_port, guest_port, protocol):
    found = publications.parse("PORTS", text)
    assert (found.host_ip, found.host_port, found.guest_port) == (host_ip, host_port, guest_port)
    assert found.protocol == protocol


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a port is 1 to 65535"),
        ("0", "a port is 1 to 65535"),
        ("8080:", "a port is 1 to 65535"),
        ("1:2:3", "[HOST_IP:]HOST_PORT"),
        ("8080/icmp", "[HOST_IP:]HOST_PORT"),
        ("1.2.3:80", "'1.2.3' is no address"),
        ("127.0.0.1", "[HOST_IP:]HOST_PORT"),
        ("localhost:80", "a port is 1 to 65535"),
        ("::1:80", "[HOST_IP:]HOST_PORT"),
        ("[fd00::x]:80", "'fd00::x' is no address"),
    ],
)
def test_bad_forwarded_ports(text, why):
    with pytest.raises(Failure) as caught:
        publications.parse("PORTS", text)
    assert caught.value.exit_code == USAGE
    assert why in caught.value.message


@pytest.mark.parametrize("text", ["8080/tcp", "0.0.0.0:53/udp", "[::]:8080/tcp"])
def test_what_is_listed_can_be_taken_back(text):
    request = publications.parse_host("PORT", text)
    fields = ("host_ip", "host_port", "protocol")
    publication = pb.Publication(**{field: getattr(request, field) for field in fields})
    assert publications.text(publication).removeprefix(":") == text


def test_the_guests_port_is_not_named_to_end_a_forwarding():
    with pytest.raises(Failure, match="such as 8080"):
        publications.parse_host("PORT", "8080:80")


@pytest.mark.parametrize(
    ("text", "destination", "port", "protocol"),
    [
        ("pypi.org:443", "pypi.org", 443, TCP),
        ("1.1.1.1:53/udp", "1.1.1.1", 53, UDP),
        ("[2001:db8::1]:80", "2001:db8::1", 80, TCP),
        ("1.1.1.1/icmp", "1.1.1.1", 0, ICMP),
        ("2001:db8::1/icmp", "2001:db8::1", 0, ICMP),
    ],
)
def test_flows(text, destination, port, protocol):
    found = net_explain.parse(text)
    assert (found.destination, found.port, found.protocol) == (destination, port, protocol)


@pytest.mark.parametrize(
    "text", ["", "pypi.org", ":443", "pypi.org:0", "pypi.org:80/icmp", "pypi.org:80/any", "a/b"]
)
def test_bad_flows(text):
    with pytest.raises(Failure) as caught:
        net_explain.parse(text)
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize(
    ("texts", "ways"),
    [
        ([], {"any": []}),
        (["80"], {"tcp": [80]}),
        (["80", "53/udp", "443/tcp", "80"], {"tcp": [80, 443], "udp": [53]}),
        (["80", "tcp", "443"], {"tcp": []}),
        (["icmp", "53/udp"], {"icmp": [], "udp": [53]}),
    ],
)
def test_links_are_one_for_each_protocol(texts, ways):
    assert linking.parse(texts) == ways


@pytest.mark.parametrize("text", ["0", "80/icmp", "http", "80-90"])
def test_bad_ports_of_links(text):
    with pytest.raises(Failure):
        linking.parse([text])


@pytest.mark.parametrize(
    "policy",
    [
        pb.EgressPolicy(),
        pb.EgressPolicy(mode=pb.EGRESS_MODE_OPEN),
        pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE),
        policies.of_options(None, [("allow", "pypi.org:443/tcp"), ("deny", "[fd00::/8]:1-9")]),
    ],
)
def test_a_policy_comes_back_from_what_json_prints(policy):
    printed = json.dumps(net_views.policy(policy) | {"own": True, "cut": 3})
    assert policies.of_text("FILE", printed) == policy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "FILE is no JSON"),
        ("[]", "mode is not one of inherit, open, none, rules"),
        ('{"mode": "closed"}', "mode is not one of"),
        ('{"mode": "rules"}', "rules is empty"),
        ('{"mode": "rules", "rules": {}}', "rules is empty"),
        ('{"mode": "rules", "rules": "any"}', "rules is no list"),
        ('{"mode": "rules", "rules": ["any"]}', "rule 0 is neither"),
        ('{"mode": "rules", "rules": [{"allow": "any"}, {"permit": "any"}]}', "rule 1 is neither"),
        ('{"mode": "rules", "rules": [{"allow": 1}]}', "rule 0 is neither"),
        ('{"mode": "rules", "rules": [{"allow": "any:0"}]}', "a port is 1 to 65535"),
        ('{"mode": "open", "rules": [{"allow": "any"}]}', "open and rules exclude each other"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text, why):
    with pytest.raises(Failure) as caught:
        policies.of_text("FILE", text)
    assert caught.value.exit_code == USAGE
    assert caught.value.message.startswith("FILE")
    assert why in caught.value.message


def test_rules_keep_the_order_of_the_command_line():
    options = parse(
        ["net", "policy", "x", "--allow", "a.b", "--deny", "10.0.0.0/8", "--allow", "any"]
    )
    policy = policies.of_options(options.mode, options.rules)
    assert net_views.policy_lines(net_views.policy(policy)) == [
        "allow a.b",
        "deny 10.0.0.0/8",
        "allow any",
    ]


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("500", 500), ("20K", 20_000), ("10m", 10**7), ("1G", 10**9)]
)
def test_rates(text, number):
    options = parse(["net", "limits", "x", "--up", text])
    assert policies.limits_of_options(options) == pb.Limits(egress_bytes=number)


def test_no_option_asks_for_no_limits():
    assert policies.limits_of_options(parse(["net", "limits", "x"])) is None


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "10Mbit", "٣"])
def test_bad_rates(text, capsys):
    with pytest.raises(SystemExit) as end:
        parse(["net", "limits", "x", f"--up={text}"])
    assert end.value.code == USAGE
    assert "is not a rate" in capsys.readouterr().err


def test_the_defaults_of_a_network():
    argv = ["--dns", "from-host", "--search", "corp.example", "--policy", "none", "--down", "1M"]
    options = parse(["net", "update", "lab", *argv, "--host-port", "5432", "--host-port", "53/udp"])
    assert defaults(options) == pb.Network(
        name="lab",
        dns=["from-host"],
        search=["corp.example"],
        default_policy=pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE),
        default_limits=pb.Limits(ingress_bytes=10**6),
        host_ports=[pb.HostPort(protocol=TCP, port=5432), pb.HostPort(protocol=UDP, port=53)],
    )
