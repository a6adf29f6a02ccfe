"""CNI's bridge, host-local and firewall plugins, chained as libcni does: the measure of AttachPort.

libcni runs the plugins one after the other, gives each the result of the one before, and runs them
in reverse at the end (CNI specification 1.0, "Section 2: Execution Protocol").
"""

import json
import os
import subprocess
from pathlib import Path

PLUGINS = Path("/usr/lib/cni")
_NAME = "bench"
_SECONDS = 60


class Cni:
    """The chain, in the network namespace of the caller; `directory` is host-local's store."""

    def __init__(self, directory):
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": "10.254.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(directory),
        }
        bridge = {"type": "bridge", "bridge": "nxcni0", "isGateway": True, "ipMasq": True}
        self._chain = [bridge | {"ipam": ipam}, {"type": "firewall", "backend": "iptables"}]

    def add(self, container, namespace):
        """Plug the namespace, given by its path, in; return what `delete` is to be given."""
        result = {}
        for plugin in self._chain:
            out = self._run("ADD", plugin, container, namespace, result)
            result = {"prevResult": json.loads(out)}
        return result

    def delete(self, container, namespace, result):
        """Unplug it."""
        for plugin in reversed(self._chain):
            self._run("DEL", plugin, container, namespace, result)

    def _run(self, command, plugin, container, namespace, result):
        environment = os.environ | {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": namespace,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
        }
        done = subprocess.run(
            [PLUGINS / plugin["type"]],
            input=json.dumps({"cniVersion": "1.0.0", "name": _NAME} | plugin | result).encode(),
            env=environment,
            stdout=subprocess.PIPE,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{plugin['type']} {command}: {done.stdout.decode()}")
        return done.stdout
