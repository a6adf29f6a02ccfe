import asyncio
import subprocess
import sys

import pytest

TRUE = [sys.executable, "-c", ""]


def test_a_process_is_refused():
    with pytest.raises(BaseException, match="may start no process"):
        subprocess.run(TRUE, check=True)


async def test_a_process_of_asyncio_is_refused():
    with pytest.raises(BaseException, match="may start no process"):
        await asyncio.create_subprocess_exec(*TRUE)


@pytest.mark.spawns
def test_where_it_is_marked_a_process_may_start():
    subprocess.run(TRUE, check=True)
