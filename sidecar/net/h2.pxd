# cython: language_level=3
"""C side of h2.pyx."""

from ..wire.h2_head cimport HeadBuilder
from ..wire.hpack cimport Block, Decoder, Encoder
from .channel cimport Channel, greenlet, iovec
from .turns cimport Beginnings, Bringer

cdef struct Bucket:         # of what a peer may do too often
    double left
    double at

cdef class Multiplex(Bringer):
    cdef readonly Channel channel
    cdef readonly bint is_client
    cdef readonly str refused       # the rule that the peer broke; "" while it broke none
    cdef readonly bint is_over      # nothing can be sent or received any more
    cdef readonly dict streams
    cdef readonly int max_streams   # that the peer may open
    cdef readonly long peer_streams # that we may open
    cdef double full_until
    cdef long slack                 # of those, how many we leave to a server that has refused some
    cdef readonly bint peer_connect
    cdef readonly bint is_leaving   # no new streams: one side has said GOAWAY
    cdef readonly long long handled # streams that ended well
    cdef object on_stream
    cdef object on_idle
    cdef object limits
    cdef const char *scheme
    cdef object hub
    cdef object run_callback
    cdef object flush_soon
    cdef Beginnings beginnings
    cdef list starting              # streams that have not begun
    cdef Decoder decoder
    cdef Encoder encoder
    cdef HeadBuilder builder
    cdef Block scratch
    # frames that wait to be sent
    cdef unsigned char *out
    cdef Py_ssize_t out_start, out_stop, out_size
    cdef Py_ssize_t last_frame      # where the last DATA or HEADERS frame begins, -1: it has left
    cdef unsigned int last_owner
    cdef bint scheduled
    cdef object blocked             # streams that wait for the connection
    cdef bint unblocking
    cdef double stuck_since
    # flow control
    cdef long long send_window
    cdef long long unacknowledged   # bytes of DATA since the connection's last WINDOW_UPDATE
    cdef long peer_window
    cdef long window                # of a stream, ours
    # input
    cdef bint has_preface
    cdef bint has_settings
    cdef unsigned int last_stream   # the highest that the peer opened
    cdef unsigned int next_stream   # the next that we open
    cdef unsigned int data_left     # of the DATA frame that is being read
    cdef unsigned int pad_left
    cdef unsigned int data_flags
    cdef Stream data_stream
    cdef unsigned int block_stream  # whose field block is being read; 0: none
    cdef unsigned int block_flags
    cdef int block_parts
    cdef double block_since
    cdef Block block
    cdef Bucket resets
    cdef Bucket control
    cdef double heard               # the moment of the last frame
    cdef double idle_since          # … and of the end of the last stream
    cdef double farewell_at         # … and of the first GOAWAY, 0: not said
    cdef unsigned int highest       # the number of the last stream that the peer opened, taken or not
    cdef long long late_bytes       # of DATA that may be on their way for streams that we ended
    cdef int wide                   # streams with the large window
    cdef long late_blocks           # trailers likewise
    cdef double header_timeout, write_timeout, idle_timeout
    cdef bint is_last_call

    cdef int _loop(self) except -1
    cdef bint _process(self, double slice_end) except -1
    cdef int _frame(self, int kind, int flags, unsigned int id, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _data_header(self, int flags, unsigned int id, Py_ssize_t size, const unsigned char *data) except -1
    cdef Py_ssize_t _data(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _headers(self, int flags, unsigned int id, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _fragment(self, const unsigned char *data, Py_ssize_t size, int flags) except -1
    cdef int _decode(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef object _data_end(self)
    cdef object _mismatch(self, Stream stream)
    cdef int _slim(self) except -1
    cdef object _make_room(self)
    cdef double _patience(self) except -2
    cdef double _deadline(self, int what) noexcept
    cdef bint _is_late(self) except -1
    cdef object _serve(self, Stream stream)
    cdef int _await_rest(self, long long window, bint has_ended) except -1
    cdef bint _is_known(self, unsigned int id) noexcept
    cdef int _request(self, unsigned int id, bint ends) except -1
    cdef int _response(self, Stream stream, bint ends) except -1
    cdef int _trailers(self, Stream stream, bint ends) except -1
    cdef int _settings(self, int flags, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _move_windows(self, long window) except -1
    cdef int _window_update(self, unsigned int id, unsigned int increment) except -1
    cdef int _reset(self, unsigned int id, unsigned int code) except -1
    cdef int _goaway(self, unsigned int last, unsigned int code) except -1
    cdef int _refuse(self, str rule) except -1
    cdef int _charge(self, Bucket *bucket, double most, double rate, str rule, double cost=*) except -1
    cdef unsigned char *_room(self, Py_ssize_t size) except NULL
    cdef int _put_frame(self, int kind, int flags, unsigned int id, const void *data, Py_ssize_t size) except -1
    cdef int _put_block(self, unsigned int id, bint ends) except -1
    cdef int _put_number(self, int kind, unsigned int id, unsigned int number) except -1
    cdef int _schedule(self) except -1
    cdef int _flush(self) except -1
    cdef int _unblock(self) except -1
    cdef bint _has_room(self) noexcept
    cdef int _fail(self, unsigned int code, str rule) except -1
    cdef int _forget(self, Stream stream) except -1
    cdef int _poke(self) except -1

cdef class Stream(Channel):
    cdef readonly unsigned int id
    cdef readonly bint is_connect       # a WebSocket inside of HTTP/2
    cdef readonly bint is_refused       # the peer did not act on it: it may be sent again
    cdef readonly bint is_open          # in the connection's table
    cdef Multiplex mux
    cdef unsigned char *queue
    cdef Py_ssize_t queue_start, queue_stop, queue_size
    cdef Py_ssize_t head_left           # bytes of heads at the front of the queue
    cdef long long send_window
    cdef long long receive_window
    cdef long long consumed
    cdef long long expected             # bytes of the body still to come; -1: unknown
    cdef bint in_ended
    cdef bint out_ended
    cdef bint was_reset                 # by either side
    cdef bint has_head                  # the final head was received
    cdef bint sent_head                 # the final head was sent
    cdef bint is_blocked
    cdef bint is_wide                   # has the large window
    cdef bint waking
    cdef bytes fields                   # trailer lines
    cdef str malformed
    cdef int refusal
    cdef bint is_head_request
    cdef bytes accept               # that the server of a WebSocket would prove itself by
    cdef greenlet worker
    cdef int _push(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _end_input(self) except -1
    cdef int _break(self, unsigned int code) except -1
    cdef int _broken(self) except -1
    cdef int _ready(self, int bits) except -1
    cdef int _credit(self, Py_ssize_t count) except -1
    cdef Py_ssize_t _take(self, iovec *pieces, int count) except -99
    cdef Py_ssize_t _send_head(self, const unsigned char *data, Py_ssize_t size) except -99
