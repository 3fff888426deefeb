"""Turns: one thread serves everybody, so nobody keeps it for long."""

class Bringer:
    """Brings requests, which begin when it is its turn."""
