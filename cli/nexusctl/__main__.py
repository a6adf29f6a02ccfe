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
        # The interpreter flushes standard output once more at its end; give it where to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
