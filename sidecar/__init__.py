"""A reverse proxy in one file: compiled bytes, Python decisions, INI drop-ins."""

__version__ = "0.1.0"
