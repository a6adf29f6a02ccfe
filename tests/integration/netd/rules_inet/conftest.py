"""A host with the tables, with and without br_netfilter, and what is outside of it."""

import pytest
from rules_bench import (
    bench,
)


@pytest.fixture(params=[False, True], ids=["", "br_netfilter"])
def host(namespace, request):
    with bench(namespace, request.param) as made:
        yield made


@pytest.fixture
def outside(host):
    return host.outside()
