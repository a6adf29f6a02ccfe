"""Rules and fixtures of the whole test suite."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest


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
