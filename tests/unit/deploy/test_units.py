"""The units keep their promises: what a slip of the pen would take away unseen."""

import re
from pathlib import Path

import pytest

from deploy.devhost.layout import REPO
from nexus_launch import launch
from nexus_rpc.server import TlsListener
from nexus_vmm.places import JAIL_DISK, JAIL_GUEST, Places
from nexus_vmm.settings import Settings

FOLDER = REPO / "deploy/systemd"
SERVICES = ("nexus-vmm", "nexus-netd", "nexus-gateway", "nexus-dns")
VM = "nexus-vm@.service"
UNITS = [*(f"{service}.service" for service in SERVICES), "nexus-drain.service", VM]


def settings(name):
    """Return the settings of a unit as lists by key: systemd's lists grow line by line."""
    found = {}
    for line in (FOLDER / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_is_confined(name):
    unit = settings(name)
    for key in (
        *("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateMounts", "LockPersonality"),
        *("ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups"),
        *("MemoryDenyWriteExecute", "RestrictSUIDSGID"),
    ):
        assert unit[key] == ["yes"], key
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["SystemCallArchitectures"] == ["native"]
    assert unit.get("PrivateDevices") == ["yes"] or unit["DevicePolicy"] == ["closed"]


@pytest.mark.parametrize("name", UNITS)
def test_only_netd_and_the_launcher_have_capabilities(name):
    unit = settings(name)
    if name == VM:
        assert "User" not in unit
        assert unit["RestrictNamespaces"] == ["mnt"]
        return
    assert unit["User"] == unit["Group"] != ["root"]
    assert unit["RestrictNamespaces"] == ["yes"]
    assert unit["SystemCallFilter"][:2] == ["@system-service", "~@privileged @resources"]
    allowed = ["CAP_NET_ADMIN"] if "netd" in name else [""]
    assert unit["CapabilityBoundingSet"] == allowed
    assert unit.get("AmbientCapabilities", [""]) == allowed


def test_how_a_vm_ended_is_known_until_vmm_has_written_it_down():
    unit = settings(VM)
    assert (unit["CollectMode"], unit["RemainAfterExit"]) == (["inactive"], ["yes"])
    # Else it would count as ended before its log writer has written the last lines.
    assert unit["ExitType"] == ["cgroup"]


def test_paths_of_the_launcher_are_those_of_its_unit_and_of_vmm():
    unit = settings(VM)
    root = f"{launch.JAIL}/{Path(launch.PROGRAM).name}/%i/root"
    assert unit["TemporaryFileSystem"][0].startswith(f"{launch.JAIL}:")
    assert unit["BindPaths"] == [
        f"{launch.VMS}/%i/overlay.img:{root}{JAIL_DISK}",
        *(f"{launch.RUN}/%i/{name}:{root}/{name}" for name in ("api", "vsock")),
    ]
    vmm = Settings()
    assert unit["BindReadOnlyPaths"] == [f"{vmm.guest_dir}:{root}{JAIL_GUEST}"]
    assert (str(vmm.vms_dir), str(vmm.run_dir)) == (launch.VMS, launch.RUN)
    places = Places(Path(launch.VMS), Path(launch.RUN))
    assert unit["RuntimeDirectory"][0].split() == [
        f"nexus/vms/%i{part}" for part in ("", "/api", "/vsock")
    ]
    assert f"{places.machine('x')}" == f"{launch.VMS}/x/machine"
    assert f"{places.serial('x')}" == f"{launch.RUN}/x/serial"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_comes_back_for_ever(service):
    unit = settings(f"{service}.service")
    assert (unit["Type"], unit["Restart"], unit["StartLimitIntervalSec"]) == (
        ["notify"],
        ["always"],
        ["0"],
    )
    assert int(unit["WatchdogSec"][0]) > 0
    short = service.removeprefix("nexus-")
    assert unit["RuntimeDirectory"] == [f"nexus/{short}"]
    assert unit["RuntimeDirectoryMode"] == ["0750"]


def test_a_vm_depends_on_no_service():
    text = (FOLDER / VM).read_text()
    order = r"(?m)^(Requires|Wants|BindsTo|PartOf|After)=.*nexus-"
    assert not re.search(order, text)
    assert settings(VM)["Restart"] == ["no"]
    assert settings(VM)["Before"] == ["nexus-drain.service"]


def test_polkit_lets_vmm_at_well_formed_vms_and_nothing_else():
    rule = (REPO / "deploy/polkit/50-nexus.rules").read_text()
    pattern = re.compile(re.search(r"/(\^nexus-vm.*\$)/", rule)[1])
    assert pattern.search("nexus-vm@abcdefghijk27.service")
    for unit in (
        *("nexus-vm@abcdefghijk2.service", "nexus-vm@abcdefghijk277.service", "undefined"),
        *("nexus-vm@abcdefghijk27.socket", "nexus-vm@ABCDEFGHIJK27.service", "ssh.service"),
        *(
            "xnexus-vm@abcdefghijk27.service",
            "nexus-vm@abcdefghijk27.service.d",
            "nexus-vm@.service",
        ),
    ):
        assert not pattern.search(unit), unit


def test_credentials_for_tls_have_the_names_that_a_listener_looks_for():
    loaded = settings("tls.conf")["LoadCredential"]
    given = {name: path for name, _, path in (line.partition(":") for line in loaded)}
    listener = TlsListener("127.0.0.1:7700")
    assert list(given) == [str(path) for path in (listener.ca, listener.cert, listener.key)]
    assert list(given.values()) == [f"/etc/nexus/tls/{name}" for name in given]


def test_a_vm_may_add_nothing_among_the_directories_of_vms():
    lines = (REPO / "deploy/tmpfiles.d/nexus.conf").read_text().splitlines()
    modes = {path: int(mode, 8) for _, path, mode, *_ in map(str.split, lines)}
    for path in ("/run/nexus/vms", "/var/lib/nexus/vms"):
        assert modes[path] & 0o022 == 0, path
