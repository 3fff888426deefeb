# cython: language_level=3
"""C side of connect.py: what exists per connection."""

from ..message cimport Attempt
from ..net.channel cimport Channel
from .exchange cimport Terms
from .server cimport Server

cdef class Link:
    cdef Attempt _attempt
    cdef Channel _channel
    cdef Server _server
    cdef double _started
    cdef Terms _terms
