"""Starting must be quick: what is not needed is not loaded."""

import subprocess
import sys

import pytest

HEAVY = {"grpc", "asyncio", "google.protobuf", "opentelemetry", "tomllib", "json"}


@pytest.mark.spawns
@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["vm", "--help"],
        ["net", "policy", "--help"],
        ["vm", "create"],
        ["completion", "bash"],
    ],
)
def test_without_a_service_nothing_heavy_is_loaded(argv):
    code = f"""
import sys
from nexusctl.__main__ import main
try:
    main({argv!r})
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())
