"""The servers of the host."""

import os

import pytest

from nexus_dns import servers
from nexus_dns.servers import FROM_HOST, HostServers


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "_LOOK_AGAIN", 0.0)
    return tmp_path / "resolved", tmp_path / "etc"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 9.9.9.9\n", ("9.9.9.9",)),
        (
            "# x\nsearch a b\nnameserver\t2620:fe::fe  # y\nnameserver 1.1.1.1",
            ("2620:fe::fe", "1.1.1.1"),
        ),
        ("nameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9", ("9.9.9.9",)),
        ("nameserver 127.0.0.53\nnameserver ::1\n", ("127.0.0.53", "::1")),
        ("nameserver fe80::1%eth0", ("fe80::1%eth0",)),
        ("nameserver\nnameserver nine\nnameserver 9.9.9\noptions edns0", ()),
        (
            "".join(f"nameserver 9.9.9.{n}\n" for n in range(9)),
            tuple(f"9.9.9.{n}" for n in range(5)),
        ),
        ("\xff\0", ()),
        ("", ()),
    ],
)
async def test_what_is_in_a_file(files, text, expected):
    files[1].write_text(text, encoding="latin-1")
    assert await HostServers(files).expand([FROM_HOST]) == expected


async def test_servers_that_are_named(files):
    assert await HostServers(files).expand(["1.1.1.1", "9.9.9.9"]) == ("1.1.1.1", "9.9.9.9")


async def test_a_file_that_changes_comes_and_goes(files):
    first, second = files
    host = HostServers(files)
    assert await host.expand([FROM_HOST]) == ()
    second.write_text("nameserver 1.1.1.1")
    assert await host.expand([FROM_HOST]) == ("1.1.1.1",)
    first.write_text("nameserver 9.9.9.9")
    assert await host.expand([FROM_HOST]) == ("9.9.9.9",)
    fresh = first.with_name("fresh")
    fresh.write_text("nameserver 8.8.8.8")
    os.utime(fresh, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
    fresh.rename(first)
    assert await host.expand([FROM_HOST]) == ("8.8.8.8",)
    first.unlink()
    assert await host.expand([FROM_HOST]) == ("1.1.1.1",)


async def test_it_is_looked_at_once_a_second(files, monkeypatch):
    monkeypatch.setattr(servers, "_LOOK_AGAIN", 3600.0)
    host = HostServers(files)
    assert await host.expand([FROM_HOST]) == ()
    files[0].write_text("nameserver 9.9.9.9")
    assert await host.expand([FROM_HOST]) == ()
