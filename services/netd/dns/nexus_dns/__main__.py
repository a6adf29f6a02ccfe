"""Runs the service: `nexus-dns [--config FILE]`."""

from __future__ import annotations

import sys

from nexus_dns.app import compose
from nexus_dns.settings import Settings
from nexus_rpc import program


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    return program.run("dns", Settings, compose)


if __name__ == "__main__":
    sys.exit(main())
