"""One microVM through the whole path: network, commands, files."""

import hashlib
import os


def test_the_guest_is_what_it_should_be(devhost, hello):
    assert devhost.exec(hello, "hostname").stdout == b"hello\n"
    vm = devhost.json("vm", "inspect", hello)
    assert devhost.exec(hello, "uname", "-r").stdout.decode().strip() == vm["guest"]["kernel"]
    assert "Debian" in vm["guest"]["os"]
    assert vm["guest"].get("warnings", []) == []


def test_ping_beyond_the_bridge_through_nat(devhost, hello, outside):
    out = devhost.exec(hello, "ping", "-c", "3", "-W", "5", outside).stdout.decode()
    assert " 0% packet loss" in out


def test_tcp_beyond_the_bridge_through_nat(devhost, hello, outside):
    script = f"exec 3<>/dev/tcp/{outside}/7007; printf exchange >&3; cat <&3"
    answer = devhost.exec(hello, "bash", "-c", script).stdout.decode()
    # The other end saw the dev host's address, so NAT it was.
    assert answer == "198.51.100.1 exchange"


def test_a_5_mb_file_goes_in_and_comes_back_identical(devhost, hello, tmp_path):
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(5_000_000))
    sent.chmod(0o640)

    devhost.nexusctl("vm", "cp", str(sent), f"{hello}:/root/deep/er/file")
    inside = devhost.exec(hello, "sha256sum", "/root/deep/er/file").stdout.split()[0].decode()
    devhost.nexusctl("vm", "cp", f"{hello}:/root/deep/er/file", str(back))

    assert inside == hashlib.sha256(sent.read_bytes()).hexdigest()
    assert back.read_bytes() == sent.read_bytes()
    assert back.stat().st_mode & 0o777 == 0o640


def test_exec_keeps_streams_and_exit_code_apart(devhost, hello):
    done = devhost.exec(hello, "sh", "-c", "cat; echo err >&2; exit 7", check=False, stdin=b"in\0")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\0", b"err\n")


def test_run_makes_a_vm_for_one_command_and_leaves_nothing(devhost, snapshot):
    before = snapshot()
    done = devhost.nexusctl(
        "vm", "run", "debian", "--", "sh", "-c", "echo once; exit 3", check=False
    )
    assert (done.returncode, done.stdout) == (3, b"once\n")
    assert snapshot() == before


def test_the_console_is_kept(devhost, hello):
    assert devhost.nexusctl("vm", "logs", hello).stdout.strip()


def test_status_says_that_all_is_well(devhost, hello):
    assert {"vmm", "netd", "gateway"} <= devhost.json("status")["services"].keys()
    assert devhost.json("version")["nexusctl"] == "0.1.0"
