import pytest

from nexus.vmm.v1.vmm_pb2 import StartVmRequest, StopVmRequest
from nexus_rpc import requests
from nexus_rpc.database import Database
from nexus_rpc.errors import AlreadyExists, InvalidArgument


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "x.db", [requests.SCHEMA])
    yield database
    await database.close()


async def _claim(database, message, method="StartVm", subject="s"):
    return await database.write(
        lambda c: requests.claim(c, message.request_id, method, message, subject)
    )


async def test_new_then_pending_then_done(database):
    message = StartVmRequest(vm="a", request_id="r")

    assert (await _claim(database, message)).state == "new"
    again = await _claim(database, message, subject="another")
    assert (again.state, again.subject) == ("pending", "s")
    await database.write(lambda c: requests.finish(c, "r"))
    assert (await _claim(database, message)).state == "done"


async def test_a_failed_request_may_be_made_again(database):
    message = StartVmRequest(vm="a", request_id="r")
    await _claim(database, message)
    await database.write(lambda c: requests.forget(c, "r"))
    assert (await _claim(database, message)).state == "new"


@pytest.mark.parametrize(
    ("message", "method"),
    [
        (StartVmRequest(vm="b", request_id="r"), "StartVm"),
        (StopVmRequest(vm="a", request_id="r"), "StopVm"),
    ],
)
async def test_an_id_belongs_to_one_request(database, message, method):
    await _claim(database, StartVmRequest(vm="a", request_id="r"))
    with pytest.raises(AlreadyExists) as caught:
        await _claim(database, message, method)
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_without_an_id_every_request_is_new(database):
    for _ in range(2):
        assert (await _claim(database, StartVmRequest(vm="a"))).state == "new"


@pytest.mark.parametrize("request_id", ["x" * 65, "a\n"])
async def test_bad_ids(database, request_id):
    with pytest.raises(InvalidArgument, match="request_id"):
        await _claim(database, StartVmRequest(vm="a", request_id=request_id))


async def test_ids_are_kept_for_a_day(database):
    await _claim(database, StartVmRequest(vm="a", request_id="old"))
    await database.write(lambda c: c.execute("UPDATE requests SET created = created - 86500"))
    assert (await _claim(database, StartVmRequest(vm="b", request_id="old"))).state == "new"
