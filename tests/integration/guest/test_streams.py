import contextlib
import os
import random
import stat
from pathlib import Path

import pytest
from guest_agent import wait_until_gone, wait_until_reaped

from nexus_guest import listener, wire
from nexus_guest.wire import Kind

OK = {"code": 0, "signal": 0}


class TestExec:
    def test_streams_are_apart_and_stdin_is_given(self, agent):
        out, err, end = agent.run("sh", "-c", "cat; echo oops >&2; exit 3", stdin=b"hello\0\xff")
        assert (out, err, end) == (b"hello\0\xff", b"oops\n", {"code": 3, "signal": 0})

    def test_a_pipelined_request_is_served(self, agent):
        host = agent.connect(wire.STREAM_PORT)
        host.socket.sendall(
            wire.encode_message(Kind.REQUEST, {"op": "exec", "argv": ["cat"]})
            + wire.encode(Kind.DATA, b"a")
            + wire.encode(Kind.DATA, b"b")
            + wire.encode(Kind.END)
        )
        host.message(Kind.REPLY)
        assert host.output() == (b"ab", b"", OK)

    def test_signal_is_told_as_a_shell_does(self, agent):
        _, _, end = agent.run("sh", "-c", "kill -TERM $$")
        assert end == {"code": 143, "signal": 15}

    def test_login_environment_and_nothing_of_the_agent(self, agent):
        out, _, _ = agent.run("env", env={"LANG": "de_DE.UTF-8", "EXTRA": "1"})
        env = dict(line.split("=", 1) for line in out.decode().splitlines())
        assert env["HOME"] == os.path.expanduser("~root")  # noqa: PTH111
        assert (env["USER"], env["LANG"], env["EXTRA"]) == ("root", "de_DE.UTF-8", "1")
        assert env["SHELL"].startswith("/")
        assert "PYTEST_CURRENT_TEST" not in env

    def test_working_directory(self, agent, tmp_path):
        assert agent.run("pwd", cwd=str(tmp_path))[0].decode().strip() == str(tmp_path)
        assert agent.run("pwd")[0].decode().strip() == os.path.expanduser("~root")  # noqa: PTH111

    def test_own_session_and_default_signals(self, agent):
        out, _, _ = agent.run(
            "sh", "-c", "echo $$; cut -d' ' -f5,6 /proc/$$/stat; grep SigIgn /proc/$$/status"
        )
        pid, ids, ignored = out.decode().splitlines()
        assert ids == f"{pid} {pid}"
        # But 32 and 33, which are the C library's own: nobody can set them, so they are inherited.
        assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0

    @pytest.mark.parametrize(
        ("argv", "fields", "reason"),
        [
            (["no-such-program"], {}, "COMMAND_NOT_FOUND"),
            (["/etc/passwd"], {}, "FILE_DENIED"),
            (["/etc/passwd/x"], {}, "COMMAND_NOT_FOUND"),
            ([], {}, "INVALID_FIELD"),
            ([""], {}, "INVALID_FIELD"),
            ("ls", {}, "INVALID_FIELD"),
            ([1], {}, "INVALID_FIELD"),
            (["ls", "a\0b"], {}, "INVALID_FIELD"),
            (["ls"] * 1025, {}, "INVALID_FIELD"),
            (["ls", "x" * 200_000], {}, "INVALID_FIELD"),
            (["ls"], {"cwd": "/no/such"}, "INVALID_FIELD"),
            (["ls"], {"cwd": "/etc/passwd"}, "INVALID_FIELD"),
            (["ls"], {"cwd": "etc"}, "INVALID_FIELD"),
            (["ls"], {"env": {"A=B": "x"}}, "INVALID_FIELD"),
            (["ls"], {"env": {"A": 1}}, "INVALID_FIELD"),
            (["ls"], {"env": []}, "INVALID_FIELD"),
        ],
    )
    def test_what_cannot_start_is_told(self, agent, argv, fields, reason):
        assert agent.stream("exec", argv=argv, **fields).error() == reason

    def test_script_without_interpreter_is_no_program(self, agent, tmp_path):
        script = tmp_path / "script"
        script.write_text("echo hi\n")
        script.chmod(0o755)
        assert agent.stream("exec", argv=[str(script)]).error() == "FILE_DENIED"

    def test_closing_kills_the_whole_group(self, agent, tmp_path):
        host = agent.stream(
            "exec", argv=["sh", "-c", "sleep 1000 & echo $!; sleep 1000; true"], cwd=str(tmp_path)
        )
        pid = host.message(Kind.REPLY)["pid"]
        grandchild = int(host.receive().payload)
        host.close()
        wait_until_gone(grandchild)
        wait_until_reaped(pid)

    def test_closing_kills_a_command_that_takes_no_input(self, agent):
        host = agent.stream("exec", argv=["sleep", "1000"])
        pid = host.message(Kind.REPLY)["pid"]
        host.send(Kind.DATA, bytes(300_000))
        host.close()
        wait_until_gone(pid)

    def test_grandchild_that_holds_the_pipes_does_not_hang_it(self, agent):
        out, err, end = agent.run("sh", "-c", "sleep 1000 & echo $!; echo done")
        grandchild = int(out.split()[0])
        assert (out.split()[1], err, end) == (b"done", b"", OK)
        os.kill(grandchild, 9)

    def test_output_before_the_end_is_complete(self, agent):
        out, err, end = agent.run("sh", "-c", "head -c 3000000 /dev/zero; head -c 99 /dev/zero >&2")
        assert (len(out), len(err), end) == (3_000_000, 99, OK)

    def test_large_input_and_output_at_one_time(self, agent):
        data = random.Random(1).randbytes(1 << 20)
        out, _, end = agent.run("cat", stdin=data)
        assert out == data
        assert end == OK

    def test_input_that_the_command_does_not_want_is_dropped(self, agent):
        out, _, end = agent.run("sh", "-c", "exec <&-; echo ok; sleep 0.1", stdin=bytes(1 << 20))
        assert (out, end) == (b"ok\n", OK)

    def test_a_slow_host_slows_the_command_and_memory_stays_bounded(self, agent, tmp_path):
        mark = tmp_path / "done"
        host = agent.stream("exec", argv=["sh", "-c", f"head -c 50000000 /dev/zero; touch {mark}"])
        host.message(Kind.REPLY)
        host.receive()
        assert not mark.exists()
        status = Path(f"/proc/{agent.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
        assert peak < 64_000, f"{peak} kB"
        assert host.output()[2] == OK
        assert mark.exists()

    def test_no_zombie_and_no_descriptor_stays(self, agent):
        def descriptors():
            return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))

        agent.run("true")
        for _ in range(20):
            agent.run("true")
            assert agent.stream("exec", argv=["no-such-program"]).error()
        agent.close()
        while descriptors() > 20:
            pass
        assert not agent.children()

    def test_a_protocol_error_kills_the_command(self, agent):
        host = agent.stream("exec", argv=["sleep", "1000"])
        pid = host.message(Kind.REPLY)["pid"]
        host.send(Kind.STDOUT, b"?")
        wait_until_gone(pid)
        assert host.receive() is None


class TestFiles:
    def read(self, agent, path):
        host = agent.stream("read", path=str(path))
        info = host.message(Kind.REPLY)
        data = bytearray()
        while (frame := host.receive()).kind is Kind.DATA:
            data += frame.payload
        assert frame.kind is Kind.END
        return info, bytes(data)

    def write(self, agent, path, data, **fields):
        host = agent.stream("write", path=str(path), **fields)
        for start in range(0, len(data), 1 << 20):
            host.send(Kind.DATA, data[start : start + (1 << 20)])
        host.send(Kind.END)
        return host

    def test_five_megabytes_come_back_identical(self, agent, tmp_path):
        data = random.Random(2).randbytes(5_000_001)
        path = tmp_path / "new" / "deep" / "file"
        host = self.write(agent, path, data, parents=True, mode=0o640)
        assert host.message(Kind.REPLY) == {"size": len(data)}
        info, back = self.read(agent, path)
        assert info == {"size": len(data), "mode": 0o640}
        assert back == data
        assert list(path.parent.iterdir()) == [path]

    def test_proc_files_say_zero_and_have_content(self, agent):
        info, data = self.read(agent, "/proc/version")
        assert info["size"] == 0
        assert data == Path("/proc/version").read_bytes()

    def test_closing_before_the_end_changes_nothing(self, agent, tmp_path):
        old = tmp_path / "old"
        old.write_text("old")
        for path in (old, tmp_path / "new" / "file"):
            host = agent.stream("write", path=str(path), parents=True)
            host.send(Kind.DATA, b"half")
            host.close()
        agent.run("true")
        while any(name.name.startswith(".nexus-") for name in tmp_path.iterdir()):
            agent.run("true")
        assert old.read_text() == "old"
        assert list(tmp_path.iterdir()) == [old]

    @pytest.mark.parametrize("op", ["read", "write", "delete"])
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("relative", "INVALID_FIELD"),
            ("", "INVALID_FIELD"),
            ("/a\0b", "INVALID_FIELD"),
            (7, "INVALID_FIELD"),
            (None, "INVALID_FIELD"),
            ("/" + "x" * 5000, "INVALID_FIELD"),
            ("/tmp/" + "x" * 300, "INVALID_FIELD"),
            ("/", "NOT_A_FILE"),
            ("/usr", "NOT_A_FILE"),
            ("/dev/null", "NOT_A_FILE"),
            ("/no/such/file", "FILE_NOT_FOUND"),
            ("/etc/passwd/x", "FILE_NOT_FOUND"),
        ],
    )
    def test_bad_paths(self, agent, op, path, reason):
        assert agent.stream(op, path=path).error() == reason

    def test_named_pipe_does_not_hang(self, agent, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for op in ("read", "write"):
            assert agent.stream(op, path=str(tmp_path / "pipe")).error() == "NOT_A_FILE"

    def test_unwritable_place(self, agent):
        assert agent.stream("write", path="/proc/nexus").error() in (
            "FILE_DENIED",
            "FILE_NOT_FOUND",
        )

    def test_full_disk_is_told_while_the_host_still_sends(self, agent, small_disk):
        host = self.write(agent, small_disk / "big", bytes(4 << 20))
        assert host.error() == "GUEST_DISK_FULL"
        host.close()
        while list(small_disk.iterdir()):
            agent.run("true")

    def test_delete(self, agent, tmp_path):
        path = tmp_path / "file"
        path.write_text("x")
        assert agent.stream("delete", path=str(path)).message(Kind.REPLY) == {}
        assert not path.exists()
        assert agent.stream("delete", path=str(path)).error() == "FILE_NOT_FOUND"

    def test_owner_and_mode_are_kept(self, agent, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")
        path.chmod(0o604)
        os.chown(path, 12, 34)
        self.write(agent, path, b"new").message(Kind.REPLY)
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o604)


class TestHostileHost:
    @pytest.mark.parametrize("noise", [bytes(4), b"\xff" * 8, b"GET / HTTP/1.1\r\n\r\n"])
    @pytest.mark.parametrize("port", [wire.CONTROL_PORT, wire.STREAM_PORT])
    def test_noise_closes_that_connection_only(self, agent, port, noise):
        host = agent.connect(port)
        host.socket.sendall(noise)
        with contextlib.suppress(ConnectionResetError):
            assert host.receive() is None
        assert agent.run("echo", "alive")[0] == b"alive\n"

    @pytest.mark.parametrize("op", [None, "", "format", 1, ["exec"]])
    def test_unknown_operation(self, agent, op):
        assert agent.stream(op).error() == "INVALID_FIELD"

    def test_too_many_connections_are_refused_and_room_comes_back(self, agent):
        hosts = [agent.connect(wire.STREAM_PORT) for _ in range(listener.MAX_CONNECTIONS)]
        assert agent.connect(wire.STREAM_PORT).error() == "GUEST_BUSY"
        for host in hosts:
            host.close()
        while True:
            host = agent.stream("exec", argv=["true"])
            if host.receive().kind is Kind.REPLY:
                break
