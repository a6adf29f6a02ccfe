"""nexus-vm-launch with the real log writer, in a mount namespace where Firecracker is a script."""

import subprocess
from itertools import pairwise

import pytest

from deploy.devhost.layout import REPO

ID = "abcdefghijk27"
PREPARE = """
set -e
mkdir -p /usr/lib/nexus /var/lib/nexus
mount -t tmpfs none /usr/lib/nexus; mount -t tmpfs none /var/lib/nexus
mkdir -p /usr/lib/nexus/bin /var/lib/nexus/vms/{id}
printf '%s' "$FIRECRACKER" >/usr/lib/nexus/bin/firecracker
chmod +x /usr/lib/nexus/bin/firecracker
cd "$RUN"
set +e
"""


@pytest.fixture
def launch(tmp_path):
    """Run a script of launches; `firecracker` is the script in its place."""

    def run(firecracker, script):
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--mount-proc",
                "bash",
                "-c",
                PREPARE.format(id=ID) + script,
            ],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "FIRECRACKER": f"#!/bin/bash\n{firecracker}\n",
                "RUN": str(tmp_path),
                "LAUNCH": str(REPO / "deploy/bin/nexus-vm-launch"),
                "ID": ID,
                "CONSOLE": f"/var/lib/nexus/vms/{ID}/console",
            },
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == b""
        return done.stdout

    return run


# The log writer ends by itself. It is alone in its PID namespace with its like.
SETTLE = "while pgrep --parent $$ >/dev/null || pgrep rotatelogs >/dev/null; do sleep 0.05; done;"
OLDEST_FIRST = "cd $CONSOLE; ls -tr | xargs cat"


def test_it_becomes_firecracker_with_its_exit_code(launch):
    out = launch(
        'echo "$@" >args; echo $$ >pid; exit 7', "$LAUNCH $ID & wait $!; echo $? $!; cat pid args"
    )
    code, started, pid, *arguments = out.decode().split()
    assert (code, started) == ("7", pid)
    assert arguments == ["--api-sock", "api.sock", "--id", ID, "--level", "Warn"]


@pytest.mark.parametrize(
    "name", ["", "../../etc", "ABCDEFGHIJK27", "abcdefghijk2", "abcdefghijk277"]
)
def test_a_name_that_is_no_id_starts_nothing(launch, name):
    out = launch("touch started", f"$LAUNCH '{name}' 2>&1; echo $?; ls")
    assert out.decode().splitlines()[-1] == "64"
    assert b"is no VM id" in out


def test_raw_bytes_and_an_unfinished_line_arrive(launch):
    out = launch(r"printf 'a\000b\377\r\nlogin: '", f"$LAUNCH $ID; {SETTLE} {OLDEST_FIRST}")
    assert out == b"a\0b\xff\r\nlogin: "


def test_a_flood_is_bounded_over_restarts_and_its_end_is_kept(launch):
    flood = "for n in {1..300000}; do echo $n; done"
    script = (
        f"$LAUNCH $ID; {SETTLE} $LAUNCH $ID; {SETTLE}"
        f"du --bytes --apparent-size --summarize $CONSOLE | cut -f1; {OLDEST_FIRST}"
    )
    size, _, text = launch(flood, script).partition(b"\n")
    assert int(size) <= 1024 * 1024 + 4096  # and the folder
    lines = text.decode().splitlines()[1:]  # the first is cut
    assert lines[-1] == "300000"
    # In order, with one step back at most: where the second run begins.
    steps = [int(b) - int(a) for a, b in pairwise(lines)]
    assert len(steps) - steps.count(1) <= 2
    assert len(lines) > 50_000


def test_a_dead_log_writer_does_not_stop_it(launch):
    survivor = (
        "trap '' PIPE; echo x; until [[ -e go ]]; do sleep 0.05; done; echo y 2>/dev/null; exit 3"
    )
    script = (
        "$LAUNCH $ID & until pkill --signal KILL rotatelogs; do sleep 0.05; done;"
        "touch go; wait $!; echo $?"
    )
    assert launch(survivor, script) == b"3\n"


def test_the_stop_signal_is_for_firecracker_and_the_last_words_are_kept(launch):
    last_words = (
        "trap 'echo stopping; exit 0' TERM; echo up; touch ready; while :; do sleep 0.05; done"
    )
    script = (
        "$LAUNCH $ID & until [[ -e ready && -s $CONSOLE/log ]]; do sleep 0.05; done;"
        f"pkill --signal TERM rotatelogs; kill -TERM $!; wait $!; {SETTLE} cat $CONSOLE/log"
    )
    assert launch(last_words, script) == b"up\nstopping\n"


def test_sockets_that_a_kill_left_are_removed(launch):
    out = launch(
        "ls; ls vsock",
        f"mkdir vsock; touch api.sock vsock/agent.sock; $LAUNCH $ID;{SETTLE} cat $CONSOLE/log",
    )
    assert out == b"vsock\n"
