"""Runs the service: `nexus-vmm [--config FILE]`."""

from __future__ import annotations

import sys

from nexus_rpc import program
from nexus_vmm.app import compose
from nexus_vmm.settings import Settings


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    return program.run("vmm", Settings, compose)


if __name__ == "__main__":
    sys.exit(main())
