"""What nexusctl relies on of the host's programs, real ones and played ones."""

import json

import pytest
from netns import fresh
from played_host import PlayedHost

from nexusctl.firewall.host import MISSING, ThisHost


@pytest.fixture(params=["real", "played"])
def host(request):
    if request.param == "played":
        played = PlayedHost(iptables=True)
        yield played.answer("iptables -S FORWARD", "-P FORWARD ACCEPT\n")
        return
    with fresh():
        yield ThisHost()


async def test_a_program_that_is_not_there(host):
    assert (await host.run("no-such-program", "--version")).code == MISSING


async def test_a_rule_that_is_not_there_and_a_chain_that_is(host):
    assert (await host.run("iptables", "-C", "FORWARD", "-i", "x+", "-j", "ACCEPT")).code
    assert (await host.run("iptables", "-S", "DOCKER-USER")).code
    listed = await host.run("iptables", "-S", "FORWARD")
    assert (listed.code, listed.out) == (0, "-P FORWARD ACCEPT\n")


async def test_the_rules_of_nftables_are_json(host):
    done = await host.run("nft", "--json", "list", "ruleset")
    assert done.code == 0
    assert isinstance(json.loads(done.out)["nftables"], list)
