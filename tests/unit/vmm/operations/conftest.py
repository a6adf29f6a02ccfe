"""Times to live end in made-up time, which passes when there is nothing to do: no test is late."""

import asyncio

import pytest
from virtual_time import VirtualLoop

_TIMED = ("test_expiry.py",)


def _loop():
    return VirtualLoop(delay=lambda: 0.0001)  # seconds that a job of the database takes


def pytest_asyncio_loop_factories(config, item):
    return {"loop": _loop if item.path.name in _TIMED else asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _clocks(request):
    if request.path.name not in _TIMED:
        yield
        return
    with request.getfixturevalue("_function_scoped_runner").get_loop().clocks():
        yield
