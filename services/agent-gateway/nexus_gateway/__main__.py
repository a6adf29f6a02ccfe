"""Runs the service: `nexus-gateway [--config FILE]`."""

from __future__ import annotations

import sys

from nexus_gateway.app import compose
from nexus_gateway.settings import Settings
from nexus_rpc import program


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    return program.run("gateway", Settings, compose)


if __name__ == "__main__":
    sys.exit(main())
