"""nexus-netd: serves the network of this host's microVMs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nexus_netd.app import App
from nexus_netd.settings import Settings
from nexus_rpc import server, settings


def main() -> int:
    """Run until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="nexus-netd", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/nexus/netd.toml"))
    try:
        chosen = settings.load(Settings, parser.parse_args().config)
        app = App(chosen)
    except settings.SettingsError as error:
        sys.stderr.write(f"nexus-netd: {error}\n")
        return 2
    return server.main("netd", chosen.server, app.compose)


if __name__ == "__main__":
    sys.exit(main())
