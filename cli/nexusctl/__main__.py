"""The entry of nexusctl: parse, run the command, tell how it ended."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from nexusctl import failure
from nexusctl.arguments import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOBODY_READS = 128 + 13  # as a shell tells a death by SIGPIPE
_INTERRUPTED = 128 + 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        if options.leaf.module == "completion":
            # No service is asked, so nothing of gRPC is loaded either.
            from nexusctl.completion import script  # noqa: PLC0415

            print(script(options.shell), end="")
            code = failure.OK
        else:
            program = importlib.import_module("nexusctl.program")
            code = program.run(options)
        sys.stdout.flush()
    except failure.Failure as end:
        return failure.tell(end, sys.stderr)
    except BrokenPipeError:
        _drop_output()
        return _NOBODY_READS
    except KeyboardInterrupt:  # before the event loop has taken the signal over
        return _INTERRUPTED
    except OSError as error:
        _drop_output()
        what = error.filename or "standard input or output"
        exit_code = failure.OWN if options.leaf.takes_command else failure.GENERAL
        return failure.tell(failure.Failure(f"{what}: {error.strerror}", "", exit_code), sys.stderr)
    return int(code)


def _drop_output() -> None:
    """Give standard output a place to go: the interpreter flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
