"""Threads that speak netlink: one with sockets of its own, and a pool that waits for removals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from nexus_netd.linux import bpf, rtnl
from nexus_netd.linux.netlink import HEADER, NETFILTER, ROUTE, Netlink, messages

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_P = ParamSpec("_P")

_GROUP_LINK = 1  # RTMGRP_LINK
_WAITING = 16
"""Threads that wait for links to be gone; each is held up by RCU for some 20 ms."""
_RECEIVE = 1 << 16
_MOST = 64

_log = logging.getLogger(__name__)


class Worker:
    """A thread with a socket for rtnetlink and one for nfnetlink; work is done in order."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def open(self) -> None:
        """Open the sockets. Raises OSError."""
        try:
            await self.run(self._open)
        except BaseException:
            self._thread.shutdown()
            raise

    async def close(self) -> None:
        """Finish what is under way and close the sockets."""
        await self.run(self._close)
        self._thread.shutdown()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do `work` on the thread, and to the end, whoever goes away meanwhile."""
        doing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        doing.add_done_callback(_seen)
        return await asyncio.shield(doing)

    async def on_route(
        self, work: Callable[Concatenate[Netlink, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Do `work` with the socket for rtnetlink."""
        return await self.run(lambda: work(self._route, *args, **kwargs))

    async def on_rules(
        self, work: Callable[Concatenate[Netlink, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Do `work` with the socket for nfnetlink."""
        return await self.run(lambda: work(self._rules, *args, **kwargs))

    @property
    def ports(self) -> tuple[int, int]:
        """What the kernel calls the sockets where it names an author."""
        return self._route.port, self._rules.port

    def _open(self) -> None:
        self._route = Netlink(ROUTE)
        self._rules = Netlink(NETFILTER)

    def _close(self) -> None:
        self._route.close()
        self._rules.close()


class Removals:
    """Removes links, and returns when they are gone from names, bridges and routes.

    That is after about 1 ms, when the kernel tells of it; the request itself returns after an
    rcu_barrier(9), some 20 ms later, for which only a thread of the pool waits.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=_WAITING, thread_name_prefix="removal")
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._under_way: set[asyncio.Future[Any]] = set()
        self._told = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            ROUTE,
        )

    def open(self) -> None:
        """Begin to listen."""
        # The bridge tells of its ports, too, and before they are gone.
        bpf.attach(self._told, bpf.only(rtnl.DELLINK, socket.AF_UNSPEC))
        self._told.bind((0, _GROUP_LINK))
        asyncio.get_running_loop().add_reader(self._told.fileno(), self._hear)

    async def close(self) -> None:
        """Wait for what is under way, and close."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        asyncio.get_running_loop().remove_reader(self._told.fileno())
        self._told.close()
        self._pool.shutdown()

    async def remove(self, index: int, name: str) -> None:
        """Remove a link; one that is not there is no failure. Raises KernelError."""
        gone = self._waiting[index] = asyncio.get_running_loop().create_future()
        deletion = self.run(lambda: _delete(index, name))
        deletion.add_done_callback(_report)
        try:
            await asyncio.wait({gone, deletion}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.pop(index, None)
        if not gone.done():
            await deletion

    def run(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Do something that removes a link on a thread of the pool."""
        doing = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._under_way.add(doing)
        doing.add_done_callback(self._under_way.discard)
        return doing

    def _hear(self) -> None:
        for _ in range(_MOST):
            try:
                data = self._told.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError:  # told too much at once: the removal itself says when it is done
                continue
            for _, _, _, _, message in messages(data):
                index = rtnl.LINK.unpack_from(message, HEADER)[2]
                gone = self._waiting.get(index)
                if gone is not None and not gone.done():
                    gone.set_result(None)


def _delete(index: int, name: str) -> None:
    with contextlib.closing(Netlink(ROUTE)) as netlink:
        netlink.run(rtnl.delete_link(index, name))


def _seen(doing: asyncio.Future[Any]) -> None:
    """Mark a failure as seen: whoever asked may have gone away."""
    if not doing.cancelled():
        doing.exception()


def _report(deletion: asyncio.Future[None]) -> None:
    """Mark a failure as seen: nobody waits for a removal that the kernel has told of."""
    if not deletion.cancelled() and deletion.exception() is not None:
        _log.debug("a link was not removed: %s", deletion.exception())
