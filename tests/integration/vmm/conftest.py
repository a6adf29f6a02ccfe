"""Fixtures of vmm's contract tests."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def short_path():
    """A directory with a short name: a unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vmm-"))
    yield path
    shutil.rmtree(path)
