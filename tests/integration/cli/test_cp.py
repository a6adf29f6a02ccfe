"""vm cp: a file goes in and comes back, and neither side ever sees half of one."""

import asyncio
import os
import signal

import pytest

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import ResourceExhausted


@pytest.fixture(autouse=True)
def hello(fakes):
    return fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sent"
    path.write_bytes(os.urandom(5_000_000))
    path.chmod(0o750)
    return path


async def test_5_mb_go_in_and_come_back_with_their_mode(nexusctl, fakes, file, tmp_path):
    assert (await nexusctl("vm", "cp", str(file), "hello:/root/file")).code == 0
    assert fakes.files["/root/file"] == (0o750, file.read_bytes())
    back = tmp_path / "back"
    done = await nexusctl("vm", "cp", "hello:/root/file", str(back))
    assert (done.code, done.out, done.err) == (0, b"", "")
    assert back.read_bytes() == file.read_bytes()
    assert back.stat().st_mode & 0o7777 == 0o750


async def test_directories_take_the_name_of_the_source(nexusctl, fakes, file, tmp_path):
    await nexusctl("vm", "cp", str(file), "hello:/root/")
    assert "/root/sent" in fakes.files
    (tmp_path / "into").mkdir()
    await nexusctl("vm", "cp", "hello:/root/sent", str(tmp_path / "into"))
    assert (tmp_path / "into/sent").read_bytes() == file.read_bytes()


async def test_standard_input_and_output(nexusctl, fakes):
    data = os.urandom(3_000_000)
    assert (await nexusctl("vm", "cp", "-", "hello:/x", stdin=data)).code == 0
    assert fakes.files["/x"] == (0o644, data)
    assert (await nexusctl("vm", "cp", "hello:/x", "-")).out == data


async def test_an_empty_file(nexusctl, fakes, tmp_path):
    (tmp_path / "empty").touch(0o600)
    await nexusctl("vm", "cp", str(tmp_path / "empty"), "hello:/empty")
    assert fakes.files["/empty"] == (0o600, b"")
    await nexusctl("vm", "cp", "hello:/empty", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b""


async def test_a_guests_set_uid_bit_stays_there(nexusctl, fakes, tmp_path):
    fakes.files["/su"] = (0o6755, b"#!")
    await nexusctl("vm", "cp", "hello:/su", str(tmp_path / "su"))
    assert (tmp_path / "su").stat().st_mode & 0o7777 == 0o755


async def test_a_link_is_followed_and_stays(nexusctl, fakes, tmp_path):
    fakes.files["/x"] = (0o644, b"new")
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    await nexusctl("vm", "cp", "hello:/x", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


async def test_a_device_is_not_replaced(nexusctl, fakes):
    fakes.files["/x"] = (0o644, b"new")
    done = await nexusctl("vm", "cp", "hello:/x", "/dev/null")
    assert (done.code, "no regular file" in done.err) == (1, True)


def _before(tmp_path):
    (tmp_path / "back").write_bytes(b"old")
    (tmp_path / "back").chmod(0o600)


def _is_untouched(tmp_path):
    return (
        (tmp_path / "back").read_bytes() == b"old"
        and (tmp_path / "back").stat().st_mode & 0o777 == 0o600
        and not list(tmp_path.glob(".back.*"))
    )


async def test_a_broken_download_leaves_the_old_file(nexusctl, fakes, tmp_path):
    fakes.files["/x"] = (0o644, bytes(1_000_000))
    fakes.fail("ReadFile", "lost", after=True)
    _before(tmp_path)
    done = await nexusctl("vm", "cp", "hello:/x", str(tmp_path / "back"))
    assert done.code == 3
    assert _is_untouched(tmp_path)


async def test_an_interrupted_download_leaves_the_old_file(nexusctl, fakes, tmp_path):
    fakes.files["/x"] = (0o644, bytes(1_000_000))
    fakes.fail("ReadFile", "hang", after=True)
    _before(tmp_path)
    process = await nexusctl.start("vm", "cp", "hello:/x", str(tmp_path / "back"))
    async with asyncio.timeout(20):
        await fakes.sent["ReadFile"].wait()
    process.send_signal(signal.SIGINT)
    assert (await nexusctl.end(process)).code == 130
    assert _is_untouched(tmp_path)


async def test_a_file_that_shrank_is_no_success(nexusctl, fakes, tmp_path):
    fakes.files["/x"] = (0o644, b"short")
    fakes.announced = 10
    _before(tmp_path)
    done = await nexusctl("vm", "cp", "hello:/x", str(tmp_path / "back"))
    assert done.code == 1
    assert "only 5 of 10 bytes" in done.err
    assert _is_untouched(tmp_path)


async def test_a_full_guest_is_told_though_more_was_to_be_sent(nexusctl, fakes, file):
    fakes.fail("WriteFile", ResourceExhausted("GUEST_DISK_FULL", "no room"), after=True)
    done = await nexusctl("vm", "cp", str(file), "hello:/x")
    assert done.code == 1
    assert "no room" in done.err
    assert fakes.files == {}


@pytest.mark.parametrize(
    ("source", "target", "code", "says"),
    [
        ("a", "b", 2, "one of SRC and DST"),
        ("hello:/a", "hello:/b", 2, "one of SRC and DST"),
        ("hello:a", "b", 2, "absolute"),
        ("/nothing/here", "hello:/a", 1, "/nothing/here: No such file"),
        ("/etc", "hello:/a", 1, "tar"),
        ("-", "hello:/a/", 2, "is a directory"),
        ("hello:/nothing", "b", 4, "no file /nothing"),
        ("hello:/etc/hosts", "/nothing/here/b", 1, "/nothing/here"),
    ],
)
async def test_a_mistake_is_told(nexusctl, fakes, source, target, code, says):
    fakes.files["/etc/hosts"] = (0o644, b"")
    done = await nexusctl("vm", "cp", source, target)
    assert done.code == code
    assert says in done.err
