"""QEMU's monitor, as far as it is needed here (QEMU: qmp-spec)."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 10.0


def execute(path: Path, command: str) -> bool:
    """Have the QEMU that listens at `path` carry out a command. False: no QEMU is there."""
    # A socket's address holds 107 bytes, see unix(7); by way of its folder any path is short.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_TIMEOUT)
            client.connect(f"/proc/self/fd/{folder}/{path.name}")
            with client.makefile("rw", encoding="utf-8") as stream:
                stream.readline()  # the greeting
                for name in ("qmp_capabilities", command):
                    stream.write(json.dumps({"execute": name}) + "\n")
                    stream.flush()
                    while "return" not in json.loads(stream.readline() or '{"return": {}}'):
                        pass  # an event
    except (FileNotFoundError, ConnectionError):
        return False
    finally:
        os.close(folder)
    return True
