"""The attacks are real: where netd is not, they succeed."""

import pytest

from tests.integration.netd.hostile.table import ATTACKS


@pytest.mark.asyncio(loop_scope="module")
async def test_attacks_succeed_on_a_plain_bridge_and_their_twins_pass(bare, record_property):
    refused = set()
    for attack in ATTACKS:
        await bare.clear()
        if not await attack.act(bare):
            refused.add(attack.name)
        await bare.clear()
        assert await attack.twin(bare), f"the twin of {attack.name!r} did not pass"
    succeeded = len(ATTACKS) - len(refused)
    record_property("attacks", len(ATTACKS))
    record_property("succeeded_on_a_plain_bridge", succeeded)
    print(f"{succeeded} of {len(ATTACKS)} attacks succeed on a plain bridge")
    # What Linux refuses differs a little between its versions.
    assert refused <= {attack.name for attack in ATTACKS if attack.kernel}
    assert succeeded >= 0.8 * len(ATTACKS)


def test_attacks_have_names_of_their_own():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 70
