"""The launcher in namespaces of its own, where jailer and Firecracker are scripts.

The log writer is the real one; systemd's part (mounts, directories, cgroup) is played.
"""

import shlex
import subprocess

import pytest

from deploy.devhost.layout import REPO
from nexus_rpc.ids import vm_uid

ID = "abcdefghijk27"
UID = vm_uid(ID)
VMM, CONSOLE, VM_GROUP, VSOCK_GROUP = 703, 707, 702, 701

PREPARE = f"""
set -e
mount -t tmpfs none /run; mkdir /run/unit /run/work
mkdir -p /usr/lib/nexus /var/lib/nexus
mount -t tmpfs none /usr/lib/nexus; mount -t tmpfs none /var/lib/nexus
mkdir -p /usr/lib/nexus/bin /usr/lib/nexus/launch
cp "$REPO/deploy/bin/nexus-vm-launch" /usr/lib/nexus/bin/
cp -r "$REPO/deploy/launch/nexus_launch" /usr/lib/nexus/launch/
printf '%s' "$JAILER" >/usr/lib/nexus/bin/jailer; chmod 755 /usr/lib/nexus/bin/jailer
HOME_OF_VM=/var/lib/nexus/vms/{ID}
mkdir -p $HOME_OF_VM/console; chmod 770 $HOME_OF_VM/console
truncate -s 16M $HOME_OF_VM/overlay.img; chmod 660 $HOME_OF_VM/overlay.img
echo 1 128 $SERIAL >$HOME_OF_VM/machine; chown -R {VMM}:{VMM} $HOME_OF_VM
RUN_OF_VM=/run/nexus/vms/{ID}; mkdir -p $RUN_OF_VM/api $RUN_OF_VM/vsock
ROOT=/usr/lib/nexus/jail/firecracker/{ID}/root; mkdir -p $ROOT/api $ROOT/vsock; touch $ROOT/disk
mount --bind $HOME_OF_VM/overlay.img $ROOT/disk
mount --bind $RUN_OF_VM/api $ROOT/api; mount --bind $RUN_OF_VM/vsock $ROOT/vsock
printf 'nexus-vmm:x:{VMM}:{VMM}::/:\\nnexus-console:x:{CONSOLE}:{CONSOLE}::/:\\n' >/run/passwd
printf 'nexus-vm:x:{VM_GROUP}:\\nnexus-vsock:x:{VSOCK_GROUP}:\\nnexus-console:x:{CONSOLE}:\\n' \\
  >/run/group
mount --bind /run/passwd /etc/passwd; mount --bind /run/group /etc/group
printf '0::/nexus-vm@{ID}.service\\n' >/run/said
UNIT=/sys/fs/cgroup/nexus-vm@{ID}.service
mount -t tmpfs none /sys/fs/cgroup; mkdir $UNIT
echo cpu io memory pids >$UNIT/cgroup.controllers; touch $UNIT/cgroup.subtree_control
cd /run/work
set +e
"""
# A leaf of a folder that is no cgroup has none of a cgroup's files.
PLAYED = """
import os, sys
sys.path.insert(0, "/usr/lib/nexus/launch")
from nexus_launch import cgroup, launch
mkdir = os.mkdir
def make(path, *mode, **options):
    mkdir(path, *mode, **options)
    if path.startswith("/sys/fs/cgroup"):
        for name in ("cgroup.procs", *cgroup.limits(1, 128)):
            open(f"{path}/{name}", "w").close()
os.mkdir = make
launch.CGROUP = "/run/said"
sys.exit(launch.main(sys.argv))
"""
# The log writer ends by itself once its input does.
SETTLE = "while pgrep rotatelogs >/dev/null; do sleep 0.05; done;"
LOGGED = "cat /var/lib/nexus/vms/*/console/log"


@pytest.fixture
def launch():
    """Run a shell script of launches; `jailer` is the script in the jailer's place."""

    played = shlex.quote(PLAYED)

    def run(jailer, script, serial=0):
        done = subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c"),
                f'{PREPARE}\nlaunch() {{ exec python3 -IS -c {played} "$@"; }}\n{script}',
            ],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "JAILER": f"#!/bin/bash\n{jailer}\n",
                "REPO": str(REPO),
                "SERIAL": str(serial),
            },
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == b""
        return done.stdout

    return run


def test_it_becomes_the_jailer_with_its_exit_code(launch):
    out = launch('echo "$@" >args; exit 7', f"(launch {ID}); echo $?; cat args")
    code, arguments = out.decode().splitlines()
    assert code == "7"
    assert arguments.startswith(f"--id {ID} --exec-file /usr/lib/nexus/bin/firecracker")
    assert f"--uid {UID} --gid {UID} --resource-limit fsize=16777216" in arguments


def test_what_is_the_vms_is_given_to_it(launch):
    out = launch(
        ":",
        f"(launch {ID}); cd /var/lib/nexus/vms/{ID};"
        "stat -c '%u %g %a' overlay.img console machine;"
        f"cd /run/nexus/vms/{ID}; stat -c '%u %g %a' api vsock; ls",
    )
    assert out.decode().splitlines() == [
        f"{UID} {VM_GROUP} 660",
        f"{VMM} {CONSOLE} 770",
        f"{VMM} {VMM} 644",
        f"{UID} {VM_GROUP} 770",
        f"{UID} {VSOCK_GROUP} 770",
        "api",
        "vsock",
    ]


def test_serial_input_is_a_pipe_that_the_group_writes_to(launch):
    out = launch(
        "until read -r line 2>/dev/null; do sleep 0.05; done; echo got $line >seen",
        f"launch {ID} & until [[ -p /run/nexus/vms/{ID}/serial ]]; do sleep 0.05; done;"
        f"stat -c '%g %a' /run/nexus/vms/{ID}/serial;"
        f"echo typed >/run/nexus/vms/{ID}/serial; wait $!; cat seen",
        serial=1,
    )
    assert out.decode().splitlines() == [f"{VM_GROUP} 620", "got typed"]


def test_raw_bytes_and_an_unfinished_line_arrive(launch):
    out = launch(r"printf 'a\000b\377\r\nlogin: '", f"(launch {ID}); {SETTLE} {LOGGED}")
    assert out == b"a\0b\xff\r\nlogin: "


def test_a_flood_is_bounded_and_its_end_is_kept(launch):
    flood = "for n in {1..300000}; do echo $n; done"
    script = (
        f"(launch {ID}); {SETTLE} cd /var/lib/nexus/vms/{ID}/console;"
        "du --bytes --apparent-size --summarize . | cut -f1; ls -tr | xargs cat | tail -n 1"
    )
    size, last = launch(flood, script).split()
    assert int(size) <= 5 * 128 * 1024 + 4096  # and the folder
    assert last == b"300000"


def test_a_dead_log_writer_does_not_stop_it(launch):
    survivor = (
        "trap '' PIPE; echo x; until [[ -e go ]]; do sleep 0.05; done; echo y 2>/dev/null; exit 3"
    )
    script = (
        f"launch {ID} & until pkill --signal KILL rotatelogs; do sleep 0.05; done;"
        "touch go; wait $!; echo $?"
    )
    assert launch(survivor, script) == b"3\n"


def test_the_stop_signal_is_for_firecracker_and_the_last_words_are_kept(launch):
    last_words = (
        "trap 'echo stopping; exit 0' TERM; echo up; touch ready; while :; do sleep 0.05; done"
    )
    script = (
        f"launch {ID} & until [[ -e ready ]] && {LOGGED} 2>/dev/null | grep -q up;"
        "do sleep 0.05; done; pkill --signal TERM rotatelogs; kill -TERM $!; wait $!;"
        f"{SETTLE} {LOGGED}"
    )
    assert launch(last_words, script) == b"up\nstopping\n"


def test_the_log_writer_has_a_user_of_its_own(launch):
    script = (
        f"launch {ID} & until pgrep rotatelogs >/dev/null; do sleep 0.05; done;"
        "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/$(pgrep rotatelogs)/status; touch go; wait $!"
    )
    out = launch("until [[ -e go ]]; do sleep 0.05; done", script).decode().splitlines()
    assert [line.split() for line in out] == [
        ["Uid:", *[str(CONSOLE)] * 4],
        ["Gid:", *[str(CONSOLE)] * 4],
        ["Groups:"],
        ["CapEff:", "0000000000000000"],
    ]


def test_a_refusal_has_its_exit_code_and_reason(launch):
    script = f"chmod 666 /var/lib/nexus/vms/{ID}/overlay.img; (launch {ID} 2>&1); echo $?; ls"
    out = launch("touch started", script).decode()
    assert "its mode is 100666" in out
    assert out.splitlines()[-1] == "77"
