"""The configuration language: declared options in, one checked configuration out."""
