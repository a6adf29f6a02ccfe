"""What a restricted guest is told of a server's answer."""

import pytest
from dns_doubles import code, until_heard, values


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        *(("A", each) for each in ("10.1.2.3", "172.31.0.1", "192.168.0.1", "127.0.0.1")),
        *(("A", each) for each in ("169.254.169.254", "100.64.0.1", "100.100.100.200", "0.0.0.0")),
        *(("A", each) for each in ("168.63.129.16", "224.0.0.251", "255.255.255.255")),
        *(("AAAA", each) for each in ("::", "::1", "::ffff:8.8.8.8", "fe80::1", "fd00:ec2::254")),
        *(("AAAA", each) for each in ("ff02::fb", "64:ff9b::a00:1", "2002:7f00:1::")),
    ],
)
async def test_an_address_that_is_not_public_is_struck(names, netd, guest, kind, address):
    public = {"A": "151.101.0.223", "AAAA": "2a04:4e42::223"}[kind]
    names.answers[f"pypi.org {kind}"] = [
        f"pypi.org 300 {kind} {address}",
        f"pypi.org 300 {kind} {public}",
    ]
    assert values(await guest.ask("pypi.org", kind)) == [public]
    (pin,) = netd.made
    assert list(pin.addresses) == [public]
    denial = await netd.denial()
    assert (denial.vm_id, denial.domain, denial.rule) == ("guest", "pypi.org", "private answer")


async def test_an_answer_of_which_nothing_is_left_is_refused(names, netd, guest):
    names.answers["pypi.org A"] = ["pypi.org 300 CNAME x.pypi.org.", "x.pypi.org 9 A 10.0.0.1"]
    answer = await guest.ask("pypi.org")
    assert (code(answer), answer.answer) == ("REFUSED", [])
    assert (await netd.denial()).rule == "private answer"
    assert netd.made == []


async def test_a_private_address_that_a_rule_names(names, netd, guest):
    await netd.guest(
        "guest", guest.source, name="mirror", names=["pypi.org"], private_ok=["10.1.0.0/16"]
    )
    names.answers["pypi.org A"] = ["pypi.org 300 A 10.1.0.9", "pypi.org 300 A 10.2.0.9"]
    await until_heard(guest, "mirror.nexus")
    assert values(await guest.ask("pypi.org")) == ["10.1.0.9"]
    assert list(netd.made[0].addresses) == ["10.1.0.9"]


@pytest.mark.parametrize(
    ("ttl", "told"), [(0, 5), (5, 5), (77, 77), (3601, 3600), (2**31 - 1, 3600)]
)
async def test_the_ttl_that_is_told(names, netd, guest, ttl, told):
    names.answers["pypi.org A"] = [
        "pypi.org 2147483647 CNAME x.pypi.org.",
        f"x.pypi.org {ttl} A 151.101.0.223",
    ]
    answer = await guest.ask("pypi.org")
    assert {rrset.ttl for rrset in answer.answer} == {told}
    assert netd.made[0].ttl == told


async def test_at_most_32_addresses(names, netd, guest):
    names.answers["pypi.org A"] = [f"pypi.org 300 A 198.51.100.{n}" for n in range(1, 61)]
    answer = await guest.ask_by_tcp("pypi.org")
    assert len(values(answer)) == 32
    assert values(answer) == sorted(netd.made[0].addresses)


@pytest.mark.parametrize(
    ("length", "expected"), [(15, "NOERROR"), (17, "SERVFAIL"), (60, "SERVFAIL")]
)
async def test_a_chain_of_names(names, netd, guest, length, expected):
    chain = [f"n{n}.pypi.org 60 CNAME n{n + 1}.pypi.org." for n in range(length)]
    names.answers["n0.pypi.org A"] = [*chain, f"n{length}.pypi.org 60 A 151.101.0.223"]
    assert code(await guest.ask("n0.pypi.org", use_edns=0, payload=1232)) == expected


async def test_a_chain_that_leads_to_itself(names, netd, guest):
    names.answers["pypi.org A"] = ["pypi.org 60 CNAME a.pypi.org.", "a.pypi.org 60 CNAME pypi.org."]
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"


async def test_too_many_records(names, netd, guest):
    names.answers["pypi.org A"] = [f"pypi.org 300 A 198.18.{n}.1" for n in range(200)]
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"
