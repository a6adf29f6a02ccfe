"""SettingsService over a real gRPC server in this process."""

import asyncio

import grpc
import pytest

from nexus.vmm.v1 import settings_pb2 as pb
from nexus.vmm.v1 import settings_pb2_grpc
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.interceptors import AroundCalls, errors
from nexus_vmm.api.setting_servicer import SettingsServicer
from nexus_vmm.config import versions
from nexus_vmm.config.store import SettingStore
from nexus_vmm.config.table import TABLE, Config

MEMORY = "default.memory_mib"


class Client:
    """The calls of the service."""

    def __init__(self, stub, store):
        self.stub = stub
        self.store = store

    async def set(self, values, expected=0, request_id=""):
        return await self.stub.UpdateSettings(
            pb.UpdateSettingsRequest(
                request_id=request_id, values=values, expected_version=expected
            )
        )

    async def back(self, version, request_id=""):
        request = pb.RollbackSettingsRequest(request_id=request_id, version=version)
        return await self.stub.RollbackSettings(request)

    async def all(self):
        return await self.stub.ListSettings(pb.ListSettingsRequest())

    async def versions(self):
        answer = await self.stub.ListSettingVersions(pb.ListSettingVersionsRequest())
        return list(answer.versions)


@pytest.fixture
async def settings(short_path, host):
    store = SettingStore(host.database)
    server = grpc.aio.server(interceptors=[AroundCalls(errors)])
    settings_pb2_grpc.add_SettingsServiceServicer_to_server(SettingsServicer(store), server)
    server.add_insecure_port(f"unix:{short_path}/vmm.sock")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{short_path}/vmm.sock") as channel:
        yield Client(settings_pb2_grpc.SettingsServiceStub(channel), store)
    await server.stop(None)


def values(answer):
    return {setting.name: setting.value for setting in answer.settings}


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_all_are_listed_with_what_is_to_be_known_of_them(settings):
    answer = await settings.all()
    assert answer.version == 0
    assert [one.name for one in answer.settings] == sorted(TABLE)
    memory = next(one for one in answer.settings if one.name == MEMORY)
    assert memory == pb.Setting(
        name=MEMORY,
        value="128",
        default_value="128",
        unit="MiB",
        range="80 to 65,536",
        description="Memory of a VM that asks for none",
    )


async def test_a_change_is_a_version_and_holds_at_once(settings):
    answer = await settings.set({MEMORY: "256", "default.vcpu_count": "2"})
    assert (answer.version, values(answer)[MEMORY]) == (1, "256")
    assert await settings.store.current() == Config(default_memory_mib=256, default_vcpu_count=2)
    answer = await settings.set({MEMORY: ""})
    assert (answer.version, values(answer)[MEMORY]) == (2, "128")
    assert await settings.all() == pb.ListSettingsResponse(
        settings=answer.settings, version=answer.version
    )
    second, first = await settings.versions()
    assert (first.version, len(first.changes)) == (1, 2)
    assert list(second.changes) == [pb.SettingChange(name=MEMORY, old_value="256", new_value="128")]
    assert not second.HasField("rolled_back_to")
    assert 0 < first.time.ToNanoseconds() <= second.time.ToNanoseconds()


async def test_what_is_so_already_is_no_version(settings):
    await settings.set({MEMORY: "256"})
    for same in ({MEMORY: "256"}, {MEMORY: " 0256"}, {"stop.grace_seconds": "10"}):
        assert (await settings.set(same)).version == 1
    assert (await settings.back(1)).version == 1
    assert len(await settings.versions()) == 1


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "values"),
        ({"nonsense": "1"}, "values"),
        ({MEMORY: "79"}, f"values.{MEMORY}"),
        ({"default.vcpu_count": "2", MEMORY: "x" * 100_000}, f"values.{MEMORY}"),
        ({"quota.tags": "team=blue"}, "values.quota.tags"),
    ],
)
async def test_all_or_none(settings, wanted, field):
    error = await refusal(settings.set(wanted))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.metadata == {"field": field}
    assert len(error.message) < 1000
    assert await settings.versions() == []


async def test_another_version_than_was_read_is_refused(settings):
    await settings.set({MEMORY: "256"}, expected=0)
    error = await refusal(settings.set({MEMORY: "300"}, expected=2))
    assert (error.code, error.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "VERSION_MISMATCH",
    )
    assert error.metadata == {"version": "1"}
    assert (await settings.set({MEMORY: "300"}, expected=1)).version == 2


async def test_of_many_at_once_one_wins(settings):
    await settings.set({MEMORY: "256"})
    answers = await asyncio.gather(
        *(settings.set({MEMORY: str(300 + n)}, expected=1) for n in range(16)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, pb.UpdateSettingsResponse) for one in answers) == 1
    assert len(await settings.versions()) == 2


async def test_a_repeat_does_nothing_more(settings):
    await settings.set({MEMORY: "256"}, request_id="r")
    await settings.set({MEMORY: "300"})
    assert values(await settings.set({MEMORY: "256"}, request_id="r"))[MEMORY] == "300"
    error = await refusal(settings.set({MEMORY: "257"}, request_id="r"))
    assert error.reason == "REQUEST_ID_REUSED"
    await settings.back(1, request_id="s")
    await settings.set({MEMORY: "400"})
    assert (await settings.back(1, request_id="s")).version == 4
    # What was refused has left its id free.
    await refusal(settings.set({MEMORY: "1"}, request_id="t"))
    assert (await settings.set({MEMORY: "500"}, request_id="t")).version == 5


async def test_rollback_brings_all_values_of_a_version_back_as_a_new_one(settings):
    await settings.set({MEMORY: "256", "default.image": "alpine"})
    await settings.set({MEMORY: "", "capacity.vms": "7"})
    answer = await settings.back(1)
    assert (answer.version, values(answer)[MEMORY]) == (3, "256")
    assert await settings.store.current() == Config(default_memory_mib=256, default_image="alpine")
    assert (await settings.back(0)).version == 4
    assert await settings.store.current() == Config()
    fourth, third, *_ = await settings.versions()
    assert (third.rolled_back_to, len(third.changes)) == (1, 2)
    assert (fourth.HasField("rolled_back_to"), fourth.rolled_back_to) == (True, 0)


@pytest.mark.parametrize("number", [2, 2**63, 2**64 - 1])
async def test_a_version_that_never_was(settings, number):
    error = await refusal(settings.back(number))
    assert "there is none yet" in error.message
    await settings.set({MEMORY: "256"})
    error = await refusal(settings.back(number))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")
    assert "1 to 1 are kept" in error.message


async def test_the_last_versions_are_kept(settings):
    for number in range(versions.KEPT + 5):
        await settings.set({MEMORY: str(200 + number)})
    kept = await settings.versions()
    assert (len(kept), kept[0].version, kept[-1].version) == (versions.KEPT, 105, 6)
    error = await refusal(settings.back(5))
    assert "6 to 105 are kept" in error.message
    assert values(await settings.back(6))[MEMORY] == "205"


DAMAGES = [
    "{",
    "[]",
    '{"values": {"default.memory_mib": 1}, "changes": [], "back_to": null}',
    '{"values": {}, "changes": [["a", "b"]], "back_to": null}',
    '{"values": {}, "changes": [], "back_to": -1}',
    "[" * 5_000,
]


@pytest.mark.parametrize("body", DAMAGES)
async def test_of_a_version_that_cannot_be_read_that_before_holds(settings, host, caplog, body):
    await settings.set({MEMORY: "256"})
    await settings.set({MEMORY: "512"})
    await host.database.write(
        lambda db: db.execute("UPDATE setting_versions SET body = ? WHERE version = 2", (body,))
    )
    await settings.store.check()
    assert [record.args for record in caplog.records] == [(2,)]
    assert values(await settings.all())[MEMORY] == "256"
    assert [version.version for version in await settings.versions()] == [1]
    assert (await refusal(settings.back(2))).reason == "VERSION_NOT_FOUND"
    assert (await settings.set({MEMORY: "300"}, expected=1)).version == 3


async def test_values_of_another_release(settings, host, caplog):
    body = (
        '{"values": {"default.memory_mib": "1", "old.name": "x"}, "changes": [], "back_to": null}'
    )

    def work(db):
        db.execute("INSERT INTO setting_versions (time, body) VALUES (1, ?)", (body,))

    await host.database.write(work)
    await settings.store.check()
    assert [record.args for record in caplog.records] == [(MEMORY,), ("old.name",)]
    assert await settings.store.current() == Config()
    assert values(await settings.all())[MEMORY] == "128"
    await settings.set({"default.vcpu_count": "2"})
    error = await refusal(settings.back(1))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_UNFIT")
    assert "default.memory_mib, old.name" in error.message
    assert (await settings.set({MEMORY: "256"})).version == 3
    assert await settings.store.current() == Config(default_memory_mib=256, default_vcpu_count=2)
    # What does not hold is not carried along, so that later versions can be had again.
    await settings.set({MEMORY: "300"})
    assert values(await settings.back(3))[MEMORY] == "256"
