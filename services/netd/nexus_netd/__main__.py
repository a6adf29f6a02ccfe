"""Runs the service: `nexus-netd [--config FILE]`."""

from __future__ import annotations

import sys

from nexus_netd.app import compose
from nexus_netd.settings import Settings
from nexus_rpc import program


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    return program.run("netd", Settings, compose)


if __name__ == "__main__":
    sys.exit(main())
