"""What every Nexus server and client needs to speak the contract in `nexus.*.v1`."""

import os

# gRPC's fork handlers can abort a child of a process that has channels; nothing here forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
