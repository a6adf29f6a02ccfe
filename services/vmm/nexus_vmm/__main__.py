"""Runs vmm: `nexus-vmm [--config FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nexus_rpc import server
from nexus_rpc.settings import SettingsError, load
from nexus_vmm.app import composition
from nexus_vmm.settings import Settings


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="nexus-vmm", description="The life of microVMs")
    parser.add_argument("--config", type=Path, default=Path("/etc/nexus/vmm.toml"))
    arguments = parser.parse_args()
    try:
        settings = load(Settings, arguments.config)
    except SettingsError as error:
        parser.error(str(error))
    return server.main("vmm", settings.server, composition(settings))


if __name__ == "__main__":
    sys.exit(main())
