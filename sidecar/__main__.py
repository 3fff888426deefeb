"""The command. Commands that serve get a cooperative standard library before anything else is imported."""

from __future__ import annotations

import sys

_SERVING = ("run", "demo")


def main() -> int:
    """Run the command line; the exit status."""
    if sys.argv[1:2] and sys.argv[1] in _SERVING:
        # Here, because a module that was imported earlier keeps the blocking names it took.
        from gevent import monkey

        monkey.patch_all()
    from . import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
