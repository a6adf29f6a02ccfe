"""Rules and fixtures of the whole test suite."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from netns import unshare

# How long an example takes says how busy the machine is; how long a test may take is pytest's.
# In CI the examples are the same in each run: what fails there is the change under test.
settings.register_profile(
    "nexus",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("nexus")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist ports, addresses and abstract sockets of its own."""
    if hasattr(config, "workerinput"):
        unshare()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skipped anything: a skip there hides a missing tool."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("a test was skipped; in CI that is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def short_path():
    """A directory with a short name: a unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="nexus-"))
    yield path
    shutil.rmtree(path)
