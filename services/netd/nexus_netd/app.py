"""The composition of netd: everything is opened and wired here, and closed in reverse."""

from __future__ import annotations

import asyncio
import errno
import sys
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2_grpc
from nexus_netd.driver import Driver
from nexus_netd.feed import Feed
from nexus_netd.follow import Follower
from nexus_netd.kernel import KernelError
from nexus_netd.linux import nflog
from nexus_netd.linux.port import Linux
from nexus_netd.metrics import Figures
from nexus_netd.netd import Netd
from nexus_netd.once import Once
from nexus_netd.operations.guard import Guard
from nexus_netd.operations.state import State
from nexus_netd.records.schema import MIGRATIONS
from nexus_netd.records.store import Store
from nexus_netd.reports.denials import Denials
from nexus_netd.servicer import NAME, Servicer
from nexus_rpc import vms
from nexus_rpc.database import Database
from nexus_rpc.server import Binding, ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from nexus_netd.settings import Settings

_GROUP = 111


async def _be_alone(stack: AsyncExitStack) -> None:
    """Be the only netd of this network namespace: to each, the other's TAPs would be orphans.

    An NFLOG group has one listener, which needs CAP_NET_ADMIN; a lock on a file that all may read
    could be held by anybody. No rule sends packets to this one.
    """
    try:
        group = await asyncio.to_thread(nflog.bind, _GROUP)
    except KernelError as error:
        if error.errno != errno.EPERM:
            return  # a kernel without NFLOG, which is told of with denials
        raise ServerError(
            "another netd, with other settings, serves this host's network, or CAP_NET_ADMIN is "
            "missing; stop the other, or start this one as its unit does"
        ) from error
    stack.callback(group.close)


async def compose(
    settings: Settings, stack: AsyncExitStack, tasks: asyncio.TaskGroup
) -> Sequence[Binding]:
    """Open store and kernel, reconcile them, follow vmm; see `nexus_rpc.server.main`."""
    # Threads that read much (TAPs, rules, connections) hold the interpreter: the default of 5 ms a
    # turn would be felt by each attach.
    sys.setswitchinterval(0.001)
    await _be_alone(stack)
    database = await Database.open(settings.state_dir / "netd.db", MIGRATIONS)
    stack.push_async_callback(database.close)
    store = await Store.open(database, settings.network())
    kernel = await Linux.open()
    stack.push_async_callback(kernel.close)
    feed = Feed()
    state = State(kernel, store, feed)
    netd = Netd(state)
    stack.push_async_callback(netd.turn.close)
    denials = Denials(kernel, state.view, netd.name_given)
    guard = Guard(state, netd.repair, netd.turn)
    # Before the kernel is compared, so that no change falls between.
    tasks.create_task(guard.run())
    await netd.start()
    stack.enter_context(Figures(kernel, state.view, state.pins.count).served())
    tasks.create_task(state.stale.run())
    tasks.create_task(denials.run())
    tasks.create_task(Driver(settings.resolver, state.view, feed, netd.pin, denials.report).run())
    tasks.create_task(Follower(netd).run(vms.follow(settings.vmm)))

    def stopping() -> None:
        feed.close()
        denials.close()

    servicer = Servicer(netd, Once(database), store, denials)
    add = netd_pb2_grpc.add_NetworkServiceServicer_to_server
    return [Binding(NAME, add, servicer, stopping)]
