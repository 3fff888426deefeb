"""Bytes to values and back, without input or output: heads, bodies, targets, the PROXY protocol."""
