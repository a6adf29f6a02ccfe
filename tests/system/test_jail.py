"""What a compromised Firecracker reaches: a shell in its place, of the same user, jail and unit.

Each claim of docs/security.md about a VM's process is held by one of these tests, which the page
names.
"""

import pytest
from jailed import Jailed


@pytest.fixture(scope="module")
def prisoner(devhost, hello):
    devhost.nexusctl("vm", "create", "prisoner")
    jailed = Jailed(devhost, devhost.json("vm", "inspect", "prisoner"))
    jailed.prepare()
    yield jailed
    jailed.remove()
    devhost.nexusctl("vm", "delete", "prisoner", "--force", "--yes")


@pytest.fixture
def shell(prisoner):
    prisoner.start()
    return prisoner


@pytest.fixture
def other(devhost, hello):
    """Another VM, live."""
    return devhost.json("vm", "inspect", hello)


def test_it_has_no_capability_and_gets_none(devhost, shell):
    status = devhost.out(f"cat /proc/{shell.show('MainPID')}/status").splitlines()
    for line in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert f"{line}:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Groups:\t " in status
    assert f"Uid:\t{shell.uid}\t{shell.uid}\t{shell.uid}\t{shell.uid}" in status
    for call in ("os.setuid, 0", "os.setgid, 0", "os.setgroups, [0]", "os.chroot, '/'"):
        assert shell.tell(f"tried({call})") == "EPERM", call


def test_it_sees_nothing_but_its_own(shell):
    found = set(shell.tell("os.listdir('/')")) - {"usr", "lib", "lib64"}  # the shell's own
    assert found == {*("api", "dev", "disk", "firecracker", "firecracker.pid", "guest", "run")} | {
        "vsock"
    }
    assert set(shell.tell("os.listdir('/dev') + os.listdir('/dev/net')")) <= {
        *("kvm", "net", "tun", "urandom", "userfaultfd")
    }


def test_it_cannot_read_the_disk_of_another(shell, other):
    disk = f"/var/lib/nexus/vms/{other['id']}/overlay.img"
    assert shell.tell(f"tried(open, {disk!r})") == "ENOENT"
    # Not by the number of the file or of the device that it is on either.
    assert shell.tell("system('open_by_handle_at', -100, bytes(64), 0)") == "EPERM"
    assert shell.tell("tried(os.mknod, '/block', 0o60666, os.makedev(254, 16))") == "EPERM"
    assert b"Permission denied" in shell.as_its_user(f"cat {disk}").stderr


def test_it_cannot_read_the_memory_of_another(shell, other):
    code = f"[system('ptrace', 16, {other['pid']}, 0, 0), os.path.exists('/proc')]"  # PTRACE_ATTACH
    assert shell.tell(code) == ["EPERM", False]
    read = (
        "import ctypes\nvector = (ctypes.c_size_t * 2)(0, 8)\n"
        f"print(system('process_vm_readv', {other['pid']}, vector, 1, vector, 1, 0))"
    )
    assert shell.python(read) == "EPERM"
    assert b"Permission denied" in shell.as_its_user(f"cat /proc/{other['pid']}/mem").stderr


def test_it_cannot_open_the_tap_of_another(shell, other):
    attach = """
import fcntl, struct
def attach(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    try:
        # TUNSETIFF, with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR as Firecracker asks for them
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x5002))
    finally:
        os.close(tap)
"""
    names = (shell.vm["spec"]["network"]["tap"], other["spec"]["network"]["tap"], "fresh0")
    answers = [shell.python(f"{attach}\nprint(tried(attach, {name!r}))") for name in names]
    assert answers == ["done", "EPERM", "EPERM"]


def test_it_cannot_open_the_sockets_of_another(shell, other):
    for name in ("api/api.sock", "vsock/agent.sock"):
        path = f"/run/nexus/vms/{other['id']}/{name}"
        assert shell.devhost.out(f"test -S {path} && echo there") == "there"
        connect = f"tried(socket.socket(socket.AF_UNIX).connect, {path!r})"
        assert shell.tell(connect) == "ENOENT"
        code = f'import socket; socket.socket(socket.AF_UNIX).connect("{path}")'
        assert b"PermissionError" in shell.as_its_user(f"python3 -c '{code}'").stderr


def test_it_cannot_signal_another_or_its_own_log_writer(devhost, shell, other, main_pid):
    writer = devhost.out(f"cat {shell.cgroup}/log/cgroup.procs")
    for pid in (other["pid"], writer, main_pid("vmm"), main_pid("netd"), 1):
        assert shell.tell(f"tried(os.kill, {pid}, 0)") == "EPERM", pid


def test_it_reaches_no_socket_of_a_service(devhost, shell):
    listening = [line.split()[4] for line in devhost.out("ss -Hxl").splitlines()]
    assert "/run/nexus/vmm/vmm.sock" in listening
    reached = []
    for name in set(listening) - {"/api/shell.sock"}:  # its own, by the name in the jail
        path = "\0" + name[1:] if name.startswith("@") else name
        kinds = "(socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)"
        answers = shell.tell(
            f"[tried(socket.socket(socket.AF_UNIX, kind).connect, {path!r}) for kind in {kinds}]"
        )
        if "done" in answers:
            reached.append(name)
    assert reached == []


@pytest.mark.parametrize("family", ["INET", "INET6", "NETLINK", "PACKET", "VSOCK"])
def test_it_has_no_network_but_its_tap(shell, family):
    assert shell.tell(f"tried(socket.socket, socket.AF_{family}, socket.SOCK_DGRAM)") in {
        *("EAFNOSUPPORT", "EPERM")
    }


def test_it_forks_no_further_than_its_limit(devhost, shell):
    code = """
import time
children = []
while True:
    try:
        child = os.fork()
    except OSError as error:
        print(len(children), error.errno)
        break
    if not child:
        time.sleep(60)
        os._exit(0)
    children.append(child)
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""
    forks, number = map(int, shell.python(code).split())
    limit = int(devhost.out(f"cat {shell.cgroup}/vm/pids.max"))
    assert (forks, number) == (limit - 1, 11)  # EAGAIN


def test_more_memory_than_its_limit_ends_it_alone_and_systemd_knows_why(devhost, shell, other):
    shell.python("if not os.fork():\n    x = [bytes(os.urandom(1 << 20)) for n in range(4096)]")
    devhost.until("it was killed", lambda: shell.show("ActiveState") == "failed")
    assert (shell.show("Result"), shell.show("ExecMainStatus")) == ("oom-kill", "9")
    assert devhost.json("vm", "inspect", other["name"])["pid"] == other["pid"]


def test_it_can_neither_mount_nor_make_a_namespace_nor_a_device(shell):
    assert shell.tell("system('mount', b'none', b'/run', b'tmpfs', 0, None)") == "EPERM"
    assert shell.tell("system('umount2', b'/guest', 2)") == "EPERM"
    kinds = ("NEWUSER", 0x10000000), ("NEWNS", 0x20000), ("NEWNET", 0x40000000), ("NEWPID", 1 << 29)
    for name, flag in kinds:
        assert shell.tell(f"system('unshare', {flag})") == "EPERM", name
    assert shell.tell("tried(os.mknod, '/kmem', 0o20666, os.makedev(1, 2))") == "EPERM"


def test_its_disk_does_not_grow_and_the_images_do_not_change(shell):
    size = shell.tell("os.stat('/disk').st_size")
    assert shell.tell(f"tried(os.truncate, '/disk', {size + 1})") == "EFBIG"
    for name in ("images/debian.img", "mine"):
        answer = shell.tell(f"tried(os.open, '/guest/{name}', os.O_RDWR | os.O_CREAT)")
        assert answer in {"EROFS", "EACCES"}, name


@pytest.mark.parametrize("place", ["/fill", "/api/fill"])
def test_it_fills_neither_its_jail_nor_run(devhost, shell, place):
    free = "df --output=avail -k /run | tail -n 1"
    before = int(devhost.out(free))
    assert (
        shell.python(
            "def fill():\n"
            f"    with open('{place}', 'wb') as file:\n"
            "        for n in range(64):\n"
            "            file.write(bytes(1 << 20))\n"
            "print(tried(fill))"
        )
        == "ENOSPC"
    )
    assert int(devhost.out(free)) > before - 1024
    shell.python(f"os.unlink('{place}')")


def test_it_keeps_nothing_after_the_stop(devhost, shell):
    shell.python(
        "for place in ('/api/kept', '/vsock/kept', '/kept'):\n    os.makedirs(place + '/deep')\n"
        "if not os.fork():\n"
        "    os.closerange(3, 64)\n"
        "    os.setsid()\n"
        "    if not os.fork():\n"
        "        import _signal, time\n"
        "        _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)\n"
        "        time.sleep(600)\n"
        "    os._exit(0)"
    )
    assert devhost.out(f"pgrep -c -U {shell.uid}") != "0"
    shell.stop()
    assert devhost.run(f"pgrep -U {shell.uid}", check=False).returncode == 1
    assert devhost.run(f"ls {shell.run_directory}", check=False).returncode == 2
    assert devhost.out("ls -A /usr/lib/nexus/jail") == ""
    assert devhost.run(f"ls -d {shell.cgroup}", check=False).returncode == 2


def test_a_link_to_another_socket_does_not_fool_vmm(devhost, other, make_vm):
    """vmm asks who listens, so what it has to say to one VM's process reaches no other's."""
    name = make_vm("impostor")
    vm = devhost.json("vm", "inspect", name)
    api = "/run/nexus/vms/{}/api/api.sock".format
    devhost.run(f"ln -sf {api(other['id'])} {api(vm['id'])}")
    done = devhost.nexusctl("vm", "pause", name, check=False)
    assert b"leads to another's socket" in done.stderr
    assert devhost.json("vm", "inspect", other["name"])["state"] == "ready"


WRONG = {
    "a link to the disk of another": "ln -s {other} overlay.img",
    "a second name of its disk": "cp -a --sparse=always kept overlay.img; ln overlay.img second",
    "a disk that root owns": "touch overlay.img; chmod 660 overlay.img",
    "a limit beyond all": "cp -a --sparse=always kept overlay.img; echo 1 99999999 0 > machine",
    "a console elsewhere": "cp -a --sparse=always kept overlay.img; mv console away;"
    "ln -s /etc console",
}


@pytest.mark.parametrize("case", WRONG)
def test_the_launcher_refuses_what_is_not_the_vms_and_changes_nothing(
    devhost, prisoner, other, case
):
    disk = f"/var/lib/nexus/vms/{other['id']}/overlay.img"
    seen = f"stat -Lc '%u %g %a' {disk} /etc"
    before = devhost.out(seen)
    wrong = WRONG[case].format(other=disk)
    prisoner.stop()
    devhost.run(f"cd {prisoner.home}; mv overlay.img kept; cp -a machine machine.kept; {wrong}")
    try:
        devhost.run(f"systemctl start {prisoner.unit}", check=False)
        devhost.until("it has ended", lambda: prisoner.show("ActiveState") == "failed")
        assert prisoner.show("ExecMainStatus") == "77"
        said = devhost.out(f"journalctl -u {prisoner.unit} -n 20 -o cat")
        assert "nexus-vm-launch: VM" in said
        assert devhost.out(seen) == before
    finally:
        devhost.run(
            f"cd {prisoner.home}; rm -f overlay.img second; mv kept overlay.img;"
            "mv machine.kept machine; test -d away && rm console && mv away console;"
            f"systemctl reset-failed {prisoner.unit}"
        )
