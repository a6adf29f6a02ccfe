#!/usr/bin/python3 -IS
# A compromised Firecracker: started in its place, it runs what Python it is sent on
# /api/shell.sock, and answers with what that printed. `tried` and `system` are there for it.
import contextlib
import ctypes
import errno
import io
import os
import socket
import traceback

libc = ctypes.CDLL(None, use_errno=True)


def tried(function, *arguments):
    """Return what came of a call: done, or the name of its error."""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def system(name, *arguments):
    """Return what came of a call of the C library's function `name`."""
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) != -1:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


def serve():
    server = socket.socket(socket.AF_UNIX)
    server.bind("/api/shell.sock")
    server.listen()
    while True:
        client, _ = server.accept()
        with client:
            code = client.makefile("rb").read()
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                try:
                    exec(code, {"os": os, "socket": socket, "tried": tried, "system": system})
                except Exception:  # noqa: BLE001  # the test sees what it was
                    traceback.print_exc(file=said)
            with contextlib.suppress(BrokenPipeError):
                client.sendall(said.getvalue().encode())


serve()
