"""Which names are answered, by the real service over real sockets."""

import dns.edns
import pytest
from dns_doubles import code, until_heard, values


async def test_an_allowed_name(names, netd, guest):
    names.answers["pypi.org A"] = ["pypi.org 300 A 151.101.0.223", "pypi.org 300 A 151.101.64.223"]
    answer = await guest.ask("pypi.org")
    assert code(answer) == "NOERROR"
    assert values(answer) == ["151.101.0.223", "151.101.64.223"]
    (pin,) = netd.made
    assert (pin.vm_id, pin.domain, list(pin.slots), pin.ttl) == ("guest", "pypi.org", [0], 300)
    assert sorted(pin.addresses) == ["151.101.0.223", "151.101.64.223"]


async def test_a_name_below_a_wildcard_whatever_its_case(names, netd, guest):
    names.answers["files.pypi.org AAAA"] = ["files.pypi.org 60 AAAA 2a04:4e42::223"]
    answer = await guest.ask("FILES.PyPI.org", "AAAA")
    assert values(answer) == ["2a04:4e42::223"]
    (pin,) = netd.made
    assert (pin.domain, list(pin.slots)) == ("files.pypi.org", [1, 2])


@pytest.mark.parametrize("name", ["evil.net", "org", "pypi.org.evil.net", "xpypi.org", "."])
async def test_another_name_is_refused_at_once_and_told(names, netd, guest, name):
    answer = await guest.ask(name, use_edns=0)
    assert code(answer) == "REFUSED"
    assert not answer.answer
    (reason,) = answer.options
    assert (reason.otype, reason.code) == (dns.edns.OptionType.EDE, dns.edns.EDECode.PROHIBITED)
    denial = await netd.denial()
    assert (denial.vm_id, denial.domain, denial.rule) == ("guest", name, "name")
    assert names.asked == []


async def test_a_chain_to_another_name_counts_for_the_name_that_was_asked(names, netd, guest):
    names.answers["pypi.org A"] = [
        "pypi.org 300 CNAME pypi.map.fastly.net.",
        "pypi.map.fastly.net 30 A 151.101.0.223",
        "victim.example 300 A 203.0.113.7",
    ]
    answer = await guest.ask("pypi.org")
    assert values(answer, "CNAME") == ["pypi.map.fastly.net."]
    assert values(answer, "A") == ["151.101.0.223"]
    assert {rrset.ttl for rrset in answer.answer} == {30}
    (pin,) = netd.made
    assert (pin.domain, list(pin.addresses), pin.ttl) == ("pypi.org", ["151.101.0.223"], 30)
    # The name at its end is allowed by no rule of its own.
    assert code(await guest.ask("pypi.map.fastly.net")) == "REFUSED"


async def test_records_without_addresses_need_no_pin(names, netd, guest):
    names.answers["pypi.org TXT"] = ['pypi.org 100 TXT "v=spf1"']
    names.answers["pypi.org MX"] = ["pypi.org 100 MX 10 mx.evil.net."]
    assert values(await guest.ask("pypi.org", "TXT")) == ['"v=spf1"']
    assert values(await guest.ask("pypi.org", "MX")) == ["10 mx.evil.net."]
    assert netd.made == []


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB", "NULL", "LOC", "TYPE65280", "APL"])
async def test_records_that_could_carry_addresses_are_not_there(names, netd, guest, kind):
    answer = await guest.ask("pypi.org", kind)
    assert code(answer) == "NOERROR"
    assert not answer.answer
    assert names.asked == []


async def test_an_open_guest_gets_every_name_and_type_as_it_is(names, netd, opened):
    names.answers["x.example HTTPS"] = ["x.example 9 HTTPS 1 . ipv4hint=10.0.0.1"]
    names.answers["x.example A"] = ["x.example 1 A 10.0.0.1", "y.example 2 A 127.0.0.1"]
    assert values(await opened.ask("x.example", "HTTPS")) == ['1 . ipv4hint="10.0.0.1"']
    answer = await opened.ask("x.example")
    assert values(answer) == ["10.0.0.1", "127.0.0.1"]
    assert [rrset.ttl for rrset in answer.answer] == [1, 2]
    assert netd.made == []


async def test_what_does_not_exist(names, netd, guest, opened):
    assert code(await guest.ask("no.pypi.org")) == "NXDOMAIN"
    assert code(await opened.ask("no.pypi.org")) == "NXDOMAIN"
    names.answers["pypi.org AAAA"] = []
    answer = await guest.ask("pypi.org", "AAAA")
    assert (code(answer), answer.answer) == ("NOERROR", [])


@pytest.mark.parametrize("kind", ["ANY", "AXFR", "IXFR", "TSIG", "TKEY", "OPT", "MAILB"])
async def test_questions_that_are_about_no_records(names, netd, opened, kind):
    assert code(await opened.ask("pypi.org", kind, use_edns=False)) == "REFUSED"
    assert names.asked == []


async def test_another_class(names, netd, opened):
    assert code(await opened.ask("version.bind", "TXT", rdclass="CH")) == "REFUSED"
    assert names.asked == []


class TestVms:
    async def test_itself_and_whom_it_is_linked_to(self, netd, guest, opened):
        answer = await guest.ask("Worker.Nexus")
        assert (values(answer), answer.answer[0].ttl) == (["127.53.0.2"], 5)
        assert values(await opened.ask("database.nexus")) == ["127.53.0.3"]

    async def test_others_are_refused_as_if_they_were_not_there(self, netd, guest, opened):
        for client, name in [
            (guest, "database.nexus"),
            (guest, "nobody.nexus"),
            (guest, "nexus"),
            (guest, "a.worker.nexus"),
            (opened, "worker.nexus"),
            (opened, "nobody.nexus"),
        ]:
            assert code(await client.ask(name)) == "REFUSED", name

    async def test_a_vm_without_ipv6(self, netd, guest):
        answer = await guest.ask("worker.nexus", "AAAA")
        assert (code(answer), answer.answer) == ("NOERROR", [])

    async def test_a_link_that_comes_and_goes(self, netd, client, guest):
        for linked, expected in (["other"], "NOERROR"), ([], "REFUSED"):
            await netd.guest("guest", guest.source, name="worker", linked=linked)
            await until_heard(guest, "database.nexus", expected)

    async def test_a_vm_that_is_renamed_or_gone(self, netd, opened):
        await netd.guest("other", "127.53.0.3", name="store")
        await until_heard(opened, "store.nexus")
        assert code(await opened.ask("database.nexus")) == "REFUSED"
        await netd.say(guest_gone="other")
        await until_heard(opened, "store.nexus", "REFUSED")


class TestReverse:
    async def test_addresses_of_vms(self, names, netd, guest, opened):
        assert values(await guest.ask("2.0.53.127.in-addr.arpa", "PTR")) == ["worker.nexus."]
        assert values(await opened.ask("3.0.53.127.in-addr.arpa", "PTR")) == ["database.nexus."]
        assert code(await opened.ask("2.0.53.127.in-addr.arpa", "PTR")) == "NXDOMAIN"
        assert names.asked == []

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "1.0.0.10.in-addr.arpa",
                "10.in-addr.arpa",
                "b._dns-sd._udp.0.0.168.192.in-addr.arpa",
            ),
            f"{'0.' * 30}d.f.ip6.arpa",
        ],
    )
    async def test_private_addresses_are_nobodys(self, names, netd, guest, opened, name):
        for client in guest, opened:
            assert code(await client.ask(name, "PTR")) == "NXDOMAIN"
        assert names.asked == []

    async def test_public_addresses_are_names_like_others(self, names, netd, guest, opened):
        names.answers["8.8.8.8.in-addr.arpa PTR"] = ["8.8.8.8.in-addr.arpa 60 PTR dns.google."]
        assert values(await opened.ask("8.8.8.8.in-addr.arpa", "PTR")) == ["dns.google."]
        assert code(await guest.ask("8.8.8.8.in-addr.arpa", "PTR")) == "REFUSED"


class TestHost:
    @pytest.fixture
    def host(self, client):
        return client("127.0.0.1", "127.0.0.1")

    async def test_every_vm(self, netd, host):
        assert values(await host.ask("worker.nexus")) == ["127.53.0.2"]
        assert values(await host.ask_by_tcp("database.nexus")) == ["127.53.0.3"]
        assert values(await host.ask("3.0.53.127.in-addr.arpa", "PTR")) == ["database.nexus."]
        assert code(await host.ask("nobody.nexus")) == "NXDOMAIN"
        assert code(await host.ask("nexus", "SOA")) == "NOERROR"

    async def test_nothing_else(self, names, netd, host):
        assert code(await host.ask("pypi.org")) == "REFUSED"
        assert code(await host.ask("8.8.8.8.in-addr.arpa", "PTR")) == "REFUSED"
        assert names.asked == []
