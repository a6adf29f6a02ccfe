"""Configuring and ending the machine, for real, in namespaces of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import socket, sys
from nexus_guest.machine import Guest
from nexus_guest.network import Network

network = Network.of(
    {
        "mac": "02:fc:00:00:00:01",
        "ipv4": "10.0.0.1/8",
        "gateway": "10.0.0.2",
        "dns": ["9.9.9.9"],
        "search": ["corp.example", "nexus"],
    }
)
for _ in range(2):
    warnings = Guest().configure("hello", network)
print(socket.gethostname())
print(warnings)
"""


def test_steps_are_taken_though_one_fails(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "resolv.conf").symlink_to("/run/nowhere/stub.conf")
    (etc / "hosts").write_text("127.0.0.1 localhost\n10.1.1.1 other\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    shell = f"mount --bind {etc} /etc && exec {sys.executable} {tmp_path}/script.py"
    done = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "sh", "-c", shell],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    hostname, warnings = done.stdout.splitlines()
    assert hostname == "hello"
    assert warnings.startswith("['network: no interface with hardware address")
    assert warnings.count("', '") == 0
    assert (etc / "hostname").read_text() == "hello\n"
    assert (etc / "hosts").read_text().splitlines() == [
        "127.0.0.1 localhost",
        "10.1.1.1 other",
        "127.0.1.1\thello\t# set by nexus",
    ]
    resolv = Path(etc / "resolv.conf")
    assert not resolv.is_symlink()
    assert resolv.read_text() == "search corp.example nexus\nnameserver 9.9.9.9\n"


INIT = """
import os, signal, sys
from nexus_guest.machine import Guest

assert os.getpid() == 1, "another machine's init would be asked"
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.argv[1] == "catches":
    signal.signal(signal.SIGINT, lambda *_: os._exit(7))
elif sys.argv[1] == "waits":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
if os.fork() == 0:
    Guest().shut_down()
    os._exit(0)
if sys.argv[1] == "waits":
    signal.sigwait({signal.SIGINT})
    os._exit(7)
os.wait()
signal.pause() if sys.argv[1] == "catches" else os._exit(8)
"""


@pytest.mark.parametrize(("init", "end"), [("catches", 7), ("waits", 7), ("is deaf", 8)])
def test_init_is_asked_to_end_the_machine(tmp_path, init, end):
    (tmp_path / "init.py").write_text(INIT)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, tmp_path / "init.py", init],
        check=False,
        timeout=60,
    )
    assert done.returncode == end
