"""One module a command: `run(args, services)` returns the exit code."""
