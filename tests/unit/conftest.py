"""The rule of unit tests: they start no process, unless marked `spawns`."""

import sys

import pytest

_STARTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
"""The audit events of a new process; asyncio's is among them (docs.python.org, audit events)."""

_rule = {"holds": False}
"""Asked by the hook, which cannot be taken away again."""


class SpawnedError(BaseException):
    """A unit test started a process. No Exception, so that the code under test cannot take it."""


def _refuse(event, arguments):
    if _rule["holds"] and event in _STARTS:
        raise SpawnedError(
            f"a unit test may start no process ({event}: {arguments[:2]}): make it an integration "
            "test, or mark it: pytest.mark.spawns"
        )


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _spawns_nothing(request):
    _rule["holds"] = request.node.get_closest_marker("spawns") is None
    yield
    _rule["holds"] = False
