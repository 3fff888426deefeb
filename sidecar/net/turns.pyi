"""Turns: one thread serves everybody, so nobody keeps it for long."""

class Bringer:
    """Brings requests, which begin when it is its turn."""

def slices_last(seconds: float) -> float:
    """Let slices last that long, for tests; how long they did."""

def take_turns() -> int:
    """Let all others have their turn, also those whose bytes have come meanwhile."""
