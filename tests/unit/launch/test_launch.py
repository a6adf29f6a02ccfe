"""How the launcher ends when it does not launch, and what it asks of the jailer."""

import pytest

from nexus_launch import Refused, console, identity, launch

ID = "abcdefghijk27"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["../../etc"],
        ["ABCDEFGHIJK27"],
        ["abcdefghijk2"],
        ["abcdefghijk277"],
        [ID, "x"],
    ],
)
def test_what_is_no_id_starts_nothing(argv, monkeypatch, capfd):
    monkeypatch.setattr(launch, "launch", None)
    assert launch.main(["nexus-vm-launch", *argv]) == 64
    assert "is no VM id" in capfd.readouterr().err


@pytest.mark.parametrize("error", [Refused("no"), PermissionError("no"), ValueError("no")])
def test_a_refusal_is_told_with_its_reason(error, monkeypatch, capfd):
    def refuse(vm_id):
        raise error

    monkeypatch.setattr(launch, "launch", refuse)
    assert launch.main(["nexus-vm-launch", ID]) == 77
    assert capfd.readouterr().err == f"nexus-vm-launch: VM {ID} is not started: no\n"


def test_the_jailer_is_told_of_user_and_bounds():
    said = " ".join(launch.arguments(ID, 0x70000001, 1 << 31))
    assert f"--id {ID} --exec-file /usr/lib/nexus/bin/firecracker" in said
    assert "--uid 1879048193 --gid 1879048193" in said
    assert "--resource-limit fsize=2147483648 --resource-limit no-file=1024" in said
    assert said.endswith("-- --api-sock /api/api.sock --level Warn")


def test_users_are_found_by_name(tmp_path):
    path = tmp_path / "passwd"
    path.write_text("nexus-vmm2:x:1:1::/:\nnexus-vmm:x:703:703:Nexus vmm:/:/usr/sbin/nologin\n")
    assert identity.number_of("nexus-vmm", str(path)) == 703
    with pytest.raises(Refused, match="systemd-sysusers"):
        identity.number_of("nexus", str(path))


def test_a_console_directory_of_another_is_refused(tmp_path):
    home = launch.handover.open_home(str(tmp_path), tmp_path.stat().st_uid)
    directory = tmp_path / "console"
    directory.mkdir()
    me, group = directory.stat().st_uid, directory.stat().st_gid
    directory.chmod(0o700)
    with pytest.raises(Refused, match="may not write"):
        console.open_directory(home, me, group)
    directory.chmod(0o770)
    console.os.close(console.open_directory(home, me, group))
    with pytest.raises(Refused, match="not vmm's"):
        console.open_directory(home, me + 1, group)
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(OSError, match="Not a directory"):
        console.open_directory(home, me, group)
    console.os.close(home)
