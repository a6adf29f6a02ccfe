"""nexus-gateway: runs the service."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from nexus_gateway.app import compose
from nexus_gateway.settings import Settings
from nexus_rpc import server
from nexus_rpc.settings import SettingsError, load


def main() -> int:
    """Serve until SIGTERM. Returns the exit code: 2 for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="nexus-gateway", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/nexus/gateway.toml"))
    try:
        settings = load(Settings, parser.parse_args().config)
    except SettingsError as error:
        sys.stderr.write(f"nexus-gateway: {error}\n")
        return 2
    return server.main("gateway", settings.server, functools.partial(compose, settings))


if __name__ == "__main__":
    sys.exit(main())
