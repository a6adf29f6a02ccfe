"""What QEMU is started with, and its monitor."""

import json
import socket
import threading

import pytest

from deploy.devhost import qmp
from deploy.devhost.machine import processors


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [
        ("fpu svm sse", True, "kvm"),
        ("fpu vmx sse", True, "kvm"),
        ("fpu vmx sse", False, "tcg"),
        ("fpu sse", True, "tcg"),  # KVM in software: the file is there all the same
        ("fpu svm_lock sse", True, "tcg"),
    ],
)
def test_the_cpu_decides_about_kvm(tmp_path, flags, device, expected):
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    if device:
        (tmp_path / "kvm").touch()
    assert processors(tmp_path / "cpuinfo", tmp_path / "kvm")[1] == expected


def test_a_command_reaches_the_monitor_past_events_and_by_a_long_path(tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    got = []

    def serve(server):
        client, _ = server.accept()
        with client, client.makefile("rw") as stream:
            stream.write('{"QMP": {}}\n')
            stream.flush()
            for line in stream:
                got.append(json.loads(line)["execute"])
                stream.write('{"event": "RESUME"}\n{"return": {}}\n')
                stream.flush()

    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as server:
        patch.chdir(folder)
        server.bind("qmp.sock")
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        assert qmp.execute(folder / "qmp.sock", "system_powerdown")
        thread.join(10)
    assert got == ["qmp_capabilities", "system_powerdown"]


def test_nobody_at_the_monitor(tmp_path):
    assert not qmp.execute(tmp_path / "qmp.sock", "quit")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp.sock"))
    assert not qmp.execute(tmp_path / "qmp.sock", "quit")
