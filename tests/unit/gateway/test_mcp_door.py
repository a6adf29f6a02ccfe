import subprocess
import sys

import pytest


@pytest.mark.spawns
def test_the_gateway_starts_without_the_mcp_sdk():
    code = "import sys, nexus_gateway.app; print({'mcp', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
