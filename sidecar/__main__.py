"""The command. Commands that serve get a cooperative standard library before anything else is imported."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from . import packed

_SERVING = ("run", "demo")
#: What a process that serves is told by; held until it can listen.
_WORDS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def _leave(number: int, _: FrameType | None) -> None:
    """Nothing is served yet, or by this command: end, and let the directory of the binary be removed."""
    raise SystemExit(0 if sys.argv[1:2] == ["run"] else 128 + number)


def main() -> int:
    """Run the command line; the exit status."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    if sys.argv[1:2] == ["run"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, _WORDS)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WORDS)
    packed.settle()
    # The launcher of the binary holds these too, for the time in which nobody would hear them; and until its
    # directory is known they would leave it behind.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    if sys.argv[1:2] and sys.argv[1] in _SERVING:
        # Here, because a module that was imported earlier keeps the blocking names it took.
        from gevent import events, monkey

        # Without this every package that is installed is looked through for plugins, of which there are none:
        # a fifth of the time that a start takes.
        events.notify_and_call_entry_points = events.notify
        monkey.patch_all()
    from . import cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
