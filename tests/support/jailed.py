"""A VM of the dev host with a shell in place of Firecracker: same unit, user, jail, limits."""

import json
from pathlib import Path

from nexus_rpc.ids import vm_uid

SHELL = Path(__file__).with_name("jail_shell.py")
PROGRAM = "/usr/lib/nexus/bin/firecracker"
HOST_SHELL = "/run/jail-shell"
DROP_IN = """[Service]
BindReadOnlyPaths={shell}:{program}
BindReadOnlyPaths=/usr:{root}/usr /usr/lib:{root}/lib /usr/lib64:{root}/lib64
"""
CLIENT = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
for data in iter(lambda: s.recv(65536), b""):
    sys.stdout.buffer.write(data)
"""


class Jailed:
    """A VM that was created and never started, whose unit runs the shell."""

    def __init__(self, devhost, vm):
        self.devhost = devhost
        self.vm = vm
        self.id = vm["id"]
        self.uid = vm_uid(self.id)
        self.unit = f"nexus-vm@{self.id}.service"
        self.run_directory = f"/run/nexus/vms/{self.id}"
        self.home = f"/var/lib/nexus/vms/{self.id}"
        self.cgroup = f"/sys/fs/cgroup/nexus.slice/nexus-vms.slice/{self.unit}"
        self._drop_in = f"/run/systemd/system/{self.unit}.d"

    def prepare(self):
        root = f"/usr/lib/nexus/jail/firecracker/{self.id}/root"
        text = DROP_IN.format(shell=HOST_SHELL, program=PROGRAM, root=root)
        self.devhost.run(
            f"cat > {HOST_SHELL}; chmod 755 {HOST_SHELL}; mkdir -p {self._drop_in};"
            f"printf '%s' '{text}' > {self._drop_in}/shell.conf; systemctl daemon-reload;"
            f"echo 1 128 0 > {self.home}/machine; chown nexus-vmm: {self.home}/machine",
            stdin=SHELL.read_bytes(),
        )

    def start(self):
        """Start the unit, unless it runs, and wait for the shell."""
        self.devhost.run(f"systemctl reset-failed {self.unit} 2>&1; systemctl start {self.unit}")
        self.devhost.until(
            "the shell listens",
            lambda: (
                self.devhost.run(
                    f"test -S {self.run_directory}/api/shell.sock", check=False
                ).returncode
                == 0
            ),
        )

    def stop(self):
        self.devhost.run(f"systemctl stop {self.unit}")

    def remove(self):
        self.devhost.run(
            f"systemctl stop {self.unit}; systemctl reset-failed {self.unit} 2>/dev/null;"
            f"rm -r {self._drop_in} {HOST_SHELL}; systemctl daemon-reload"
        )

    def show(self, name):
        """Return a property of the unit."""
        return self.devhost.out(f"systemctl show -P {name} {self.unit}")

    def python(self, code):
        """Run Python code in the jail and return what it printed."""
        command = f"python3 -c '{CLIENT}' {self.run_directory}/api/shell.sock"
        return self.devhost.out(command, stdin=code.encode())

    def tell(self, expression):
        """Return the value of an expression in the jail."""
        answer = self.python(f"import json; print(json.dumps({expression}))")
        assert not answer.startswith("Traceback"), answer
        return json.loads(answer)

    def as_its_user(self, command):
        """Run a shell command on the host as the VM's user."""
        user = f"setpriv --reuid {self.uid} --regid {self.uid} --clear-groups"
        return self.devhost.run(f"{user} {command}", check=False)
