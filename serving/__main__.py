"""Entry point of `python -m serving`."""

from __future__ import annotations

import os
import sys

# Before numpy is imported: the parent must stay single-threaded, because it forks the children.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# gRPC's core calls it an error that its listener is closed before a process leaves.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def main() -> int:
    """Parse options and run the supervisor; the process's exit code."""
    from serving.options import OptionsError, parse_options
    from serving.supervisor import supervise

    try:
        options = parse_options(sys.argv[1:], os.environ)
    except OptionsError as error:
        print(f"serving: {error}", file=sys.stderr)
        return 2
    return supervise(options)


if __name__ == "__main__":
    sys.exit(main())
