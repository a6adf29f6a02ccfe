import contextlib
import signal
import subprocess

import pytest
from guest_agent import PATIENCE_S, Agent, start


@pytest.fixture(scope="module")
def agent_process(tmp_path_factory):
    directory = tmp_path_factory.mktemp("agent")
    process = start(directory)
    yield directory, process.pid
    assert process.poll() is None, "the agent ended by itself"
    process.terminate()
    assert process.wait(PATIENCE_S) == -signal.SIGTERM


@pytest.fixture
def agent(agent_process):
    directory, pid = agent_process
    with contextlib.ExitStack() as hosts:
        yield Agent(directory, pid, hosts)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "small", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)
