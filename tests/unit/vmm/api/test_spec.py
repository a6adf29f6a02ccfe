"""Checking specs: defaults, both ends of each range, and every bad field by name."""

import pytest
from vmm_guest import NETWORK

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import InvalidArgument
from nexus_vmm.api.policy import policy_to_proto
from nexus_vmm.api.spec import check_spec
from nexus_vmm.config.table import TABLE, Config
from nexus_vmm.vm import Condition, Delay, Network, RestartPolicy

GOOD = {
    "tap": "tap0",
    "mac": "02:fc:00:00:00:01",
    "ipv4": "172.16.0.2/12",
    "gateway": "172.16.0.1",
    "dns": ["1.1.1.1"],
}


SIX = {"ipv6": "fd6e:6578:7573::2/128", "ipv6_gateway": "fd6e:6578:7573::1"}


def network(**changes):
    return vmm_pb2.VmSpec(network=vmm_pb2.NetworkInterface(**GOOD | changes))


def test_defaults_are_those_of_the_proto():
    spec = check_spec(vmm_pb2.VmSpec())
    assert (spec.vcpu_count, spec.memory_mib, spec.disk_mib) == (1, 128, 2048)
    assert (spec.image, spec.kernel) == ("debian", "default")
    assert (spec.network, spec.balloon) == (None, False)


def test_defaults_may_be_set():
    config = Config(2, 256, 1024, "alpine", "other")
    spec = check_spec(vmm_pb2.VmSpec(), config)
    assert (spec.vcpu_count, spec.memory_mib, spec.disk_mib) == (2, 256, 1024)
    assert (spec.image, spec.kernel) == ("alpine", "other")
    assert check_spec(vmm_pb2.VmSpec(vcpu_count=1, image="debian"), config).vcpu_count == 1


def restart(*values):
    fields = dict(zip(("condition", "delay", "fixed_seconds"), values, strict=False))
    return vmm_pb2.VmSpec(restart=vmm_pb2.RestartPolicy(**fields))


def test_a_restart_policy_is_taken_as_it_is_and_told_again():
    assert check_spec(restart()).restart == RestartPolicy(Condition.NONE, Delay.BACKOFF)
    assert check_spec(restart(0, 0)).restart == RestartPolicy()
    for number, condition in enumerate(Condition, start=1):
        for wanted in ((number, 1), (number, 2), (number, 3, 1), (number, 3, 3600)):
            policy = check_spec(restart(*wanted)).restart
            assert policy.condition is condition
            assert policy_to_proto(policy) == restart(*wanted).restart


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ((9,), "condition"),
        ((3, 9), "delay"),
        ((3, 1, 5), "fixed_seconds"),
        ((3, 0, 5), "fixed_seconds"),
        ((3, 3), "fixed_seconds"),
        ((3, 3, 3601), "fixed_seconds"),
    ],
)
def test_a_bad_field_of_a_restart_policy_is_named(values, field):
    with pytest.raises(InvalidArgument) as caught:
        check_spec(restart(*values))
    assert caught.value.metadata == {"field": f"spec.restart.{field}"}


@pytest.mark.parametrize("field", ["vcpu_count", "memory_mib", "disk_mib"])
def test_both_ends_of_a_range(field):
    kind = TABLE[f"default.{field}"].kind
    least, most = kind.least, kind.most
    for value in (least, most):
        assert getattr(check_spec(vmm_pb2.VmSpec(**{field: value})), field) == value
    outside = [most + 1, 2**32 - 1] + ([least - 1] if least > 1 else [])
    for value in outside:
        words = f"spec.{field} is {value}: {least:,} to {most:,}"
        with pytest.raises(InvalidArgument, match=words):
            check_spec(vmm_pb2.VmSpec(**{field: value}))


@pytest.mark.parametrize("field", ["image", "kernel"])
@pytest.mark.parametrize(
    "name", ["..", "../x", "a/b", "/etc", ".hidden", "A", "a" * 64, "a\0", "ä"]
)
def test_names_of_assets_lead_nowhere_else(field, name):
    with pytest.raises(InvalidArgument) as caught:
        check_spec(vmm_pb2.VmSpec(**{field: name}))
    assert caught.value.metadata == {"field": f"spec.{field}"}


def test_a_network_is_taken_as_it_is():
    assert check_spec(network()).network == NETWORK
    assert check_spec(network(mac="02:FC:00:00:00:01")).network == NETWORK


def test_ipv6_search_domains_and_mtu_are_taken_as_they_are():
    more = {"search": ["corp.example", "nexus"], "dns": ["fd00::1"], "mtu": 9000}
    found = check_spec(network(**SIX, **more)).network
    assert found == Network(
        *("tap0", "02:fc:00:00:00:01", "172.16.0.2/12", "172.16.0.1", ("fd00::1",)),
        *("fd6e:6578:7573::2/128", "fd6e:6578:7573::1", ("corp.example", "nexus"), 9000),
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ipv6", "fd6e:6578:7573::2"),
        ("ipv6", "fe80::2/64"),
        ("ipv6", "fd00::2%eth0/64"),
        ("ipv6", "ff02::1/128"),
        ("ipv6", "172.16.0.2/12"),
        ("ipv6_gateway", ""),
        ("ipv6_gateway", "fd6e:6578:7573::2"),
        ("ipv6_gateway", "172.16.0.1"),
        ("search", ["a b"]),
        ("search", ["a\nnameserver 6.6.6.6"]),
        ("search", ["a..b"]),
        ("search", ["x" * 64]),
        ("search", ["example.org"] * 7),
        ("mtu", 1279),
        ("mtu", 65_522),
    ],
)
def test_a_bad_ipv6_search_domain_or_mtu_is_named(field, value):
    with pytest.raises(InvalidArgument) as caught:
        check_spec(network(**SIX | {field: value}))
    assert caught.value.metadata == {"field": f"spec.network.{field}"}


def test_a_gateway_without_an_address_is_refused():
    with pytest.raises(InvalidArgument, match="empty without ipv6"):
        check_spec(network(ipv6_gateway="fd6e:6578:7573::1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tap", ""),
        ("tap", "a" * 16),
        ("tap", "../tap"),
        ("mac", "02:fc:00:00:00"),
        ("mac", "03:fc:00:00:00:01"),
        ("mac", "02-fc-00-00-00-01"),
        ("ipv4", "172.16.0.2"),
        ("ipv4", "172.16.0.2/33"),
        ("ipv4", "172.16.0.0/12"),
        ("ipv4", "172.31.255.255/12"),
        ("ipv4", "fd00::1/64"),
        ("gateway", ""),
        ("gateway", "10.0.0.1"),
        ("gateway", "172.16.0.2"),
        ("dns", ["one"]),
        ("dns", ["1.1.1.1"] * 6),
    ],
)
def test_a_bad_network_field_is_named(field, value):
    with pytest.raises(InvalidArgument) as caught:
        check_spec(network(**{field: value}))
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.metadata == {"field": f"spec.network.{field}"}
