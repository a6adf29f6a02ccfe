"""netd and its resolver, two processes in the network namespace of the test."""

from contextlib import asynccontextmanager

from dns_doubles import resolving
from netd_process import configure, running

RESOLVER_PORT = 7753
"""Where netd's rules lead guests' DNS to."""


@asynccontextmanager
async def running_with_resolver(directory, **settings):
    """Run both, with what they keep in `directory`, from when netd is ready to the block's end."""
    place = directory / "dns"
    place.mkdir()
    configure(directory, resolver=f"unix:{place}/dns.sock", **settings)
    async with resolving(place, RESOLVER_PORT), running(directory) as netd:
        yield netd
