"""The command line of Nexus: it composes the three services for the person or script at hand."""

import os

# gRPC's C core would write its own log lines between ours; what they say, the errors say too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
