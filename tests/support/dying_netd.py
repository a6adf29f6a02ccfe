"""netd, forked from a process that has imported it, and killed at a point that was chosen before.

    dying_netd.py SOCKET

serves the requests that `netd_template` sends on the inherited SOCKET. Importing netd takes most of
its start; here that is done once. The template has no threads and has not started gRPC, so a fork
is safe. In the child each netlink message, ioctl and commit of a write is a point: a fuse in shared
memory counts them down, and the process kills itself before or after the last.
"""

import fcntl
import gc
import json
import os
import signal
import socket
import sqlite3
import sys
import threading

from kill_fuse import Fuse
from netns import enter

from nexus_netd import __main__ as program

_MOST = 65_536


def _blow():
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # a thread other than the main one may run on for a moment


class _Points:
    """Counts the points of this process at the fuse."""

    def __init__(self, fuse):
        self._fuse = fuse
        self._lock = threading.Lock()

    def at(self, what, call, *arguments, **keywords):
        """Make the call; die before or after it if it is the one."""
        with self._lock:
            side = self._fuse.count(what)
            if side == "before":
                _blow()
        try:
            return call(*arguments, **keywords)
        finally:  # a call that was refused has an after, too
            if side == "after":
                _blow()

    def watch_netlink(self):
        for name in ("send", "sendall", "sendto", "sendmsg"):
            self._watch_send(name)

    def _watch_send(self, name):
        real = getattr(socket.socket, name)

        def send(one, *arguments):
            if one.family != socket.AF_NETLINK:
                return real(one, *arguments)
            return self.at("netlink", real, one, *arguments)

        setattr(socket.socket, name, send)

    def watch_ioctl(self):
        real = fcntl.ioctl

        def ioctl(*arguments):
            return self.at("ioctl", real, *arguments)

        fcntl.ioctl = ioctl

    def watch_commits(self):
        points, real = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            writes = False

            def execute(self, sql, *values):
                if sql.startswith("BEGIN"):
                    self.writes = sql == "BEGIN IMMEDIATE"
                if sql == "COMMIT" and self.writes:
                    return points.at("commit", super().execute, sql, *values)
                return super().execute(sql, *values)

            def executescript(self, script):
                return points.at("commit", super().executescript, script)

        def connect(*arguments, **keywords):
            return real(*arguments, **keywords, factory=Connection)

        sqlite3.connect = connect


def _live(request, namespace, shared):
    enter(namespace)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.environ["NOTIFY_SOCKET"] = request["notify"]
    points = _Points(Fuse(shared))
    points.watch_netlink()
    points.watch_ioctl()
    points.watch_commits()
    sys.argv = ["nexus-netd", "--config", request["config"]]
    return program.main()


def _serve(control):
    gc.freeze()  # the collector would touch, and so copy, every page of the parent's
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MOST, 2)
        if not data:
            return
        pid = os.fork()
        if not pid:
            control.close()
            code = 70
            try:
                code = _live(json.loads(data), *descriptors)
            finally:
                os._exit(code)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps({"pid": pid}).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        control.send(json.dumps({"ended": status}).encode())


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
