"""The structs of the engine: what a file, a source, a profile and a lane are made of."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from rangefetch.blocks cimport BlockMap
from rangefetch.bucket cimport Bucket
from rangefetch.libcurl cimport CURL, CURLM, CURLSH, CURLcode, CURLoption, curl_slist
from rangefetch.mailbox cimport Mailbox
from rangefetch.platform cimport pthread_mutex_t, pthread_t, rf_bell

cdef enum:
    VALIDATOR_BYTES = 1024   # including the terminating NUL; a longer ETag or Last-Modified is a fault
    RANGE_TEXT_BYTES = 48
    MOST_SOURCES = 64        # of one file
    MOST_LANES = 1 << 16     # of one file
    MOST_LOCKS = 16          # libcurl has fewer kinds of shared data
    ERROR_TEXT_BYTES = 256   # CURL_ERROR_SIZE
    ADDRESS_TEXT_BYTES = 64  # for an IP address; INET6_ADDRSTRLEN is 46
    BUFFER_BYTES = 64 << 10  # of a lane; measured: 64 KiB stays in the cache, 256 KiB does not
    HOST_BUCKETS = 256

# Why the engine itself refused or ended a transfer, for which libcurl only reports a write error.
cdef enum Fault:
    FAULT_NONE = 0
    FAULT_STATUS = 1             # an HTTP status without a usable body
    FAULT_RANGE_IGNORED = 2      # 200 with the whole file, although a range was requested
    FAULT_RANGE_WRONG = 3        # 206 with a range that was not requested, or without saying which range it is
    FAULT_SIZE_CHANGED = 4       # the size differs from that of the first response
    FAULT_VALIDATOR_CHANGED = 5  # the ETag or Last-Modified has changed, appeared or vanished
    FAULT_ENCODED = 6            # a content encoding, although identity was requested
    FAULT_OVERFLOW = 7           # more bytes than the response announced
    FAULT_DISK = 8               # a write or allocation failed; sys_errno says why
    FAULT_STALLED = 9            # nothing, or next to nothing, arrived within the read timeout
    FAULT_REDIRECT = 10          # a redirect that may not be followed; the event's text is its target
    FAULT_REDIRECTS = 11         # too many redirects
    FAULT_MEMORY = 12
    FAULT_PROBED = 13            # not an error: only the headers were wanted
    FAULT_VALIDATOR_TOO_LONG = 14
    FAULT_SIZE_UNSOUND = 15      # an impossible size, or two sizes that contradict each other
    FAULT_UNVOUCHED = 16         # 200 with another size or none, and the file's validators are missing: an error page?
    FAULT_HEADERS = 17           # more header lines, or larger headers, than any response needs
    FAULT_RANGE_SHORT = 18       # the body ended cleanly, but before the end of its range
    FAULT_TOO_LARGE = 19         # the file is larger than the user allows
    FAULT_ADDRESS = 20           # the host's address may not be connected to; the event's text is the address

cdef inline dict fault_names():
    """The names by which Python knows the faults."""
    return {
        <int>FAULT_NONE: "NONE", <int>FAULT_STATUS: "STATUS", <int>FAULT_RANGE_IGNORED: "RANGE_IGNORED",
        <int>FAULT_RANGE_WRONG: "RANGE_WRONG", <int>FAULT_SIZE_CHANGED: "SIZE_CHANGED",
        <int>FAULT_VALIDATOR_CHANGED: "VALIDATOR_CHANGED", <int>FAULT_ENCODED: "ENCODED",
        <int>FAULT_OVERFLOW: "OVERFLOW", <int>FAULT_DISK: "DISK", <int>FAULT_STALLED: "STALLED",
        <int>FAULT_REDIRECT: "REDIRECT", <int>FAULT_REDIRECTS: "REDIRECTS", <int>FAULT_MEMORY: "MEMORY",
        <int>FAULT_PROBED: "PROBED", <int>FAULT_VALIDATOR_TOO_LONG: "VALIDATOR_TOO_LONG",
        <int>FAULT_SIZE_UNSOUND: "SIZE_UNSOUND", <int>FAULT_UNVOUCHED: "UNVOUCHED", <int>FAULT_HEADERS: "HEADERS",
        <int>FAULT_RANGE_SHORT: "RANGE_SHORT",
        <int>FAULT_TOO_LARGE: "TOO_LARGE",
        <int>FAULT_ADDRESS: "ADDRESS",
    }

# The result of checking a response, before its first byte is written.
cdef enum Check:
    UNCHECKED = 0
    ACCEPTED = 1
    SWALLOWED = 2    # no usable body: read and dropped, so that the connection can be reused
    REFUSED = 3      # the transfer is aborted at once

cdef enum:
    STATUS_OK = 200
    STATUS_CREATED = 201
    STATUS_NON_AUTHORITATIVE = 203
    STATUS_NO_CONTENT = 204
    STATUS_PARTIAL_CONTENT = 206
    LAST_KNOWN_SUCCESS = 208        # above it only 226 is defined, and the engine never requests that
    STATUS_RANGE_NOT_SATISFIABLE = 416

# Where a profile's transfers may connect to (see reach.pxd).
cdef enum Reach:
    REACH_ALL = 0
    REACH_NAMED = 1      # to private addresses only if the user named the host
    REACH_PUBLIC = 2     # never to private addresses

# How the file is allocated once its size is known: aria2's ``file-allocation``.
cdef enum Allocation:
    ALLOCATE_NOTHING = 0
    ALLOCATE_LENGTH = 1
    ALLOCATE_SPACE = 2

cdef struct Setting:
    CURLoption option
    long number          # the value, if the option takes a long
    char *text           # owned by the profile: the value, if the option takes a string; else NULL

# The cookies that servers set, shared by the profiles that use the same Jar. libcurl stores them, and sends each only
# where it belongs.
cdef struct JarCore:
    CURLSH *share             # owned: freed with the Jar
    pthread_mutex_t locks[MOST_LOCKS]

# A user name and password, and the host that they are for.
cdef struct Credential:
    char *host                # owned: a host, or host:port; NULL: the origin that the user named
    char *user                # owned
    char *password            # owned
    long schemes              # CURLAUTH_ bits; if there are several, the server chooses

# How to make requests: libcurl options, headers and credentials, shared by many files. Immutable.
cdef struct ProfileCore:
    int64_t serial            # unique, unlike the address, which may be reused once a profile was freed
    Setting *settings         # owned: freed with the Profile
    int setting_count
    curl_slist *headers       # owned: sent to the origin that the user named
    curl_slist *bare_headers  # owned: sent to any other origin; without the user's headers
    char *cookie              # owned: the user's cookies, sent to the origin that the user named; NULL: none
    JarCore *jar              # borrowed: the Profile keeps the Jar alive; NULL: cookies are not stored
    Credential *credentials   # owned, with the strings
    int credential_count
    char **trusted            # owned, with the strings: other hosts that get what the user's origin gets
    int trusted_count
    Reach reach
    bint allow_downgrade      # whether a redirect from https to http is followed
    int64_t connect_timeout_ms
    int64_t read_timeout_ms   # 0: no limit
    int64_t http_via          # number of the proxy's host for http URLs; 0: no proxy
    int64_t https_via
    char **direct             # owned, with the strings: hosts and domains that are reached without a proxy
    int direct_count

# A host that connections go to (see host.pxd). Several loops change it, with atomic operations.
cdef struct Host:
    int64_t number            # the key in the table
    Host *next                # owned: the next host in the same bucket
    int64_t shares            # HostShares that refer to it; counted under the table's lock
    int64_t rested_ms         # no requests before this; in the past: one request must test the host first; 0: open
    int64_t trying_ms         # when that request was sent; 0: there is none
    int64_t full_ms           # until this time it serves no more than ...
    int64_t full_lanes        # ... this many transfers
    int64_t lanes             # transfers in progress
    int64_t taken             # connections granted: for transfers in progress and idle ones
    int64_t most              # the limit on `taken`: the highest that anyone has asked for since it was last 0
    int64_t waiting           # loops in which something waits for a connection
    int64_t outside_ms        # since when a user outside the engine has waited for a connection; 0: none does
    int64_t outside_asked_ms  # ... and when that user last asked
    int64_t answered          # whether it has answered this process: 1: in any way, 2: with part of a file
    int64_t slots_us          # the first free slot for a request (see pace.pxd)

# All hosts that the process knows.
cdef struct HostTable:
    pthread_mutex_t lock      # protects the lists, not the fields of a Host
    Host *buckets[HOST_BUCKETS]   # owned
    int count
    int forget_at             # above this count, unused hosts are forgotten
    Loop *loops               # borrowed: all running loops of the process
    int process_id            # the process that these connections belong to (for fork safety)

# How responses have arrived so far: those of one file, or those of all small files that a loop gets from one host.
cdef struct Memory:
    int64_t request_ms        # from sending a request to the first byte, averaged; 0: unknown
    int64_t moved_ms          # when bytes or a response last arrived; 0: never
    bint lingers              # responses do not end with their last byte, so their end is no longer waited for

# A loop's share of a host.
cdef struct HostShare:
    Host *host                # borrowed: counted in its `shares`
    HostShare *next           # owned: the loop's next share in the same bucket
    Loop *loop                # borrowed: it owns the share
    int32_t sources           # sources of files that use the host
    int32_t lanes             # lanes with a transfer in progress
    int32_t sockets           # open sockets, including idle ones
    int32_t granted           # connections granted to this loop; except briefly, at least as many as the two above
    bint waits                # counted in the host's `waiting`
    int64_t refused_ms        # since when it has been refused a connection; 0: it has not been
    int64_t asked_ms          # when the other loops were last asked to close idle connections
    Memory memory             # of its small files
    int32_t served            # how many transfers the host was seen to serve at a time; 0: no limit is known
    int64_t served_again_ms   # no more transfers than that before this time

# One URL that can serve the file, and what is known about it. Only the file's loop changes it.
cdef struct Source:
    char *url                            # owned: freed with the file
    char *resolved_url                   # owned: where redirects led; NULL: no redirect
    ProfileCore *profile                 # borrowed: the File holds the Profile
    HostShare *share                     # borrowed: of the host that it is requested from; NULL until it is
    int redirects                        # followed by a lane that then had to wait for a connection
    int number                           # its index in the file's sources
    bint known                           # the validators below are set, from a response of this or an earlier run
    char etag[VALIDATOR_BYTES]           # as sent, including W/ if it is weak; empty: none
    char last_modified[VALIDATOR_BYTES]
    int32_t epoch                        # how often its address was changed, as counted by the Python File
    bint met                             # Python was told of its first response
    bint banned                          # never requested again
    int64_t rested_ms                    # no requests before this time
    int64_t slot_us                      # its slot at the host, if requests are spaced; 0: none
    int32_t lanes                        # lanes with a transfer from it
    int64_t bytes_per_s                  # rate of one of its lanes, averaged; 0: unknown
    int64_t moved_ms                     # when it last sent anything
    int32_t strikes                      # consecutive new connections that it did not answer
    int32_t lanes_served                 # how many lanes it was seen to serve at a time; 0: no limit is known
    int64_t served_again_ms              # when one more than that may be tried
    int64_t pause_ms                     # the length of the pause before that; doubled each time
    int32_t refusals                     # consecutive failures of help (see tail.pxd)
    int64_t help_again_ms                # no help is requested before this time
    int64_t received_bytes

# What a file in the engine waits for. Except for WAIT_NOTHING, each wait ends by itself or through Python.
cdef enum Wait:
    WAIT_NOTHING = 0     # nothing is scheduled that would make progress
    WAIT_LOOP = 1        # its loop has not received it yet
    WAIT_TRANSFER = 2    # a transfer, which its timeouts bound
    WAIT_LIMIT = 3       # a speed limit, which has paused its transfers
    WAIT_READER = 4      # its reader to read further
    WAIT_REST = 5        # the end of the rest of a source or its host
    WAIT_PYTHON = 6      # Python's decision after a failure, or after the response to a probe
    WAIT_HOST = 7        # a connection to a host that has the maximum number
    WAIT_RATE = 8        # its slot for a request, if requests are spaced

cdef inline dict wait_names():
    """The names by which Python knows the waits."""
    return {
        <int>WAIT_NOTHING: "nothing", <int>WAIT_LOOP: "loop", <int>WAIT_TRANSFER: "transfer",
        <int>WAIT_LIMIT: "limit", <int>WAIT_READER: "reader", <int>WAIT_REST: "rest", <int>WAIT_PYTHON: "decision",
        <int>WAIT_HOST: "host", <int>WAIT_RATE: "rate",
    }

# How far a file that is treated as small has got (see small.pxd).
cdef enum Stage:
    PLACED = 0       # not or no longer small: it has a descriptor from Python
    SMALL = 1        # appears under its name as soon as all of its bytes are there
    HELD = 2         # not small, or not plain: it waits for COMMAND_PLACE

cdef struct Small:
    Stage stage
    int directory_fd          # borrowed: Python closes it after the file's last event
    char *name                # owned: freed with the file; the final name
    char *part_names[2]       # owned: names of the files that an earlier run may have left; NULL: none
    char *origin              # owned: where the file comes from, to be stored with it; NULL: nothing is stored
    bint overwrite
    bint compares             # an existing file of that name may be identical: compare
    int64_t there_bytes       # size of that file; -1: there is none
    bint was_there            # that file was identical; set by the loop
    bint named_by_url         # the name is a guess, and the response may state a better one
    int64_t largest_bytes     # the largest size that counts as small
    int64_t kept_bytes        # what an ended transfer has left in the unnamed file

# How many lanes a file should have, and the measurements since that last changed (see growth.pxd).
cdef struct Growth:
    int32_t aim
    int32_t aim_before        # the aim before it last grew
    int64_t goodput           # bytes per second over the last tick
    int64_t goodput_before    # goodput when the aim last grew
    int64_t bytes_done        # bytes done at the last tick
    int64_t changed_ms        # when the aim last changed
    int64_t stopped_ms        # when growth last did not help; 0: it always has

# Statistics of a file. The loop writes them (rf_count, rf_note) and Python reads them (rf_peek); there is no ordering
# between them.
cdef struct Counters:
    int64_t requests
    int64_t responses         # whose body was accepted
    int64_t connections
    int64_t received_bytes    # of bodies, whether used or not
    int64_t writes            # successful writes
    int64_t disk_us           # time spent writing
    int64_t paused_ms         # time in which a limit or a reader paused a lane
    int64_t steals            # ranges whose later part another lane took over
    int64_t hedges            # ends of ranges that a second lane was sent for
    int64_t replacements      # lanes given up for being slow
    int64_t began_us          # when the loop received the file, and the loop's processor time then
    int64_t began_cpu_us
    int64_t lasted_us         # the time from then to the end, and the processor time that the loop used in it
    int64_t cpu_us

# A file on several loops (see lease.pxd): what its home knows about the others. Only the home's loop changes it.
cdef struct Spread:
    Guest *guests             # owned: the guests on other loops, newest first
    int32_t parts             # the number of loops that the file's lanes are divided among; guests read it, too
    int32_t wanted            # number of loops to use even if they do not help; 0: as many as help
    int64_t lease_bytes       # how much is lent at a time
    uint8_t *holder           # owned: for each block, the number of the guest that it is lent to; 0: none
    int32_t lanes_elsewhere   # busy lanes of all guests, at the last tick
    int64_t guests_begun      # total number of guests, and of leases
    int64_t leases
    int64_t busy_ms           # since when the home is out of processor time, or the last guest has run; 0: neither
    int64_t busy_bytes        # bytes done at that time
    int64_t goodput_before    # bytes per second before the guest on trial; 0: no guest is on trial
    int64_t stopped_ms        # when a guest last failed or did not help; 0: never

# The part of a File that its loop uses. "Released" means stored with release order, after what it publishes.
cdef struct FileCore:
    FileCore *home            # borrowed: this file, or the one at home if this one is a guest
    void *owner               # borrowed: the Python File, kept alive from add() to its last event
    int fd                    # borrowed: Python closes it after EVENT_DONE or EVENT_REMOVED; a small file owns its own
    Small small
    Source *sources[MOST_SOURCES]   # owned: freed with the file
    int source_count
    int32_t source_lanes_most  # maximum number of lanes on one source
    int64_t host_lanes_most   # maximum number of connections to a host, whoever uses them; set by Python
    bint insists              # its first connection may exceed that maximum
    int32_t uncached          # data is not left in the page cache; set by Python
    int64_t request_every_us  # minimum time between two requests to a host; 0: none; set by Python
    BlockMap blocks
    FileCore *next            # borrowed: the loop's list of files
    int64_t size              # -1 until a response states it, or its stream ends
    int64_t pinned_size       # the size that it must have although nothing is resumed; -1: any
    int64_t most_bytes        # a larger file is refused; 0: any size is accepted
    int64_t first_bytes       # length of the first range
    int64_t part_bytes        # length of a 206 that did not say which range it is; 0: there was none
    int64_t least_bytes       # unclaimed bytes required for opening another lane
    int64_t window_bytes      # how far ahead of the frontier, or of the reader, ranges may begin; 0: no limit
    int64_t reader_bytes      # position of the reader, -1: none; set by Python
    int64_t notify_bytes      # contiguous bytes at which to post EVENT_REACHED, 0: never; set by Python
    Allocation allocation
    bint ranged               # whether to request ranges
    bint seems_empty          # a range was answered as for an empty file; a request without a range will confirm it
    bint takes_codings        # any content coding is accepted, and the bytes are stored as sent
    char *name                # owned by the home: the user's name for the file, or empty
    bint answered             # a response was accepted in this run; released
    bint splits               # the server supports ranges, so several lanes may run; released, after the size
    bint mapped               # `blocks` is set up; released, after it
    bint probing              # only the headers of one response are wanted
    bint removing
    bint finished             # a stream of unknown length has ended
    bint crawls               # no lane will be free soon, so what is unclaimed gets another one, however little it is
    int64_t whole_ms          # when it was first seen to be complete; 0: not yet
    Bucket own_bucket         # its own limit
    Bucket *bucket            # borrowed: the home's
    Spread spread
    Wait waits_for            # as of the last tick
    int64_t resting_host      # number of the resting host that it waits for, as of the last tick; 0: none
    Growth growth
    int32_t lanes_most        # set by Python
    int32_t lanes_busy
    int32_t lanes_held        # held after a failure, until Python decides
    int32_t retries           # retries that Python has allowed while other lanes are held, and no lane has started
    int32_t lanes_paused_seen  # lanes that were paused at the last tick
    int32_t lanes_still       # lanes that received nothing in the last tick
    Memory memory
    int64_t replaced_ms       # when a slow lane was last replaced
    int64_t replace_after_ms  # minimum time from then to the next replacement
    int64_t stream_bytes      # bytes in the file, for a stream without block map; released, after they were written
    bint traced               # an EVENT_TRACE is posted for each transfer
    Counters counters

# One thread with one CURLM, and the files that belong to it.
cdef struct Loop:
    pthread_t thread
    CURLM *multi          # owned: cleaned up by the engine after the thread has ended
    Loop *siblings        # borrowed: all loops of the engine
    int sibling_count
    Mailbox inbox
    rf_bell wake          # owned: rung when the inbox has messages
    Mailbox *outbox       # borrowed: the engine's
    rf_bell *bell         # borrowed: the engine's; rung when the outbox has messages
    Bucket *bucket        # borrowed: the engine's, shared by all loops
    int *handles          # borrowed: the process's count of live easy handles
    Lane *lanes           # owned: all lanes, freed when the loop ends
    Lane *idle            # borrowed: those without a transfer
    FileCore *files       # borrowed, each until EVENT_DONE or EVENT_REMOVED
    long buffer_bytes     # libcurl's receive buffer
    int64_t now_us
    int64_t now_ms
    int64_t ticked_ms
    int64_t newest_us     # when it last received a file that is not small, or gave one its place
    int64_t due_ms        # when the next grace period ends; 0: there is none
    int64_t busy_us       # processor time of this thread ...
    int64_t busy_at_us    # ... when `now_us` was this
    int64_t cpu_us        # of this thread at the last tick
    int cpu_percent       # processor use over the last tick; other loops read it
    int lane_count        # of `lanes`
    int lanes_paused
    int lanes_ended       # with a transfer whose end libcurl will not report
    Lane *turn            # the lane that gets tokens first next time
    bint posted           # an event was posted in this round
    bint quitting
    HostTable *hosts      # borrowed: the process's
    HostShare *shares[HOST_BUCKETS]  # owned: freed once the loop has ended and its connections are closed
    int share_count
    Loop *next_peer       # borrowed: the next loop in the table's list
    bint has_room         # a host that a file waits for may have room now
    bint tells_of_room    # ... and the other loops must be told
    int64_t starved_ms    # since when there has been no descriptor for a connection; 0: there was one
    int64_t starved_again_ms  # no further connection is opened before this time
    int64_t asked_for_room_ms  # when it last had idle connections closed for lanes that wait (help_in_line)
    int64_t next_slot_us  # the earliest slot that a file here waits for; 0: none does
    CURL *sweeper         # owned: the request that makes libcurl close idle connections, while it runs (see pool.pxd)

# A file on another loop than its home. In its block map all blocks are claimed, except those lent to it. Fields are the
# home's unless the comment says otherwise.
cdef struct Guest:
    FileCore file             # used by the other loop from COMMAND_GUEST to COMMAND_GONE
    Guest *next               # owned: the home's next guest
    Loop *loop                # borrowed: the other loop
    Loop *home_loop           # borrowed
    int32_t number            # marks its blocks in the home's `holder`
    int64_t low_bytes         # the other loop's: it asks for more once no more than this is unclaimed
    bint asks                 # the other loop's: it has asked and received nothing since
    int64_t heard             # the other loop's: how many leases its map contains
    int64_t lent              # how many leases it was sent, and how many of them the home reads in its map
    int64_t mirrored
    bint wants                # it has asked for more
    bint leaving              # it must leave; `told`: its loop was told so
    bint told
    int64_t left_bytes        # bytes lent to it and not fetched yet, at the last tick
    Counters counted          # what the home's counters already include of its counters
    int64_t counted_bytes[MOST_SOURCES]

# Data that libcurl has received and passes on in pieces, but that is written in one call (see disk.pxd).
cdef struct Span:
    bint usable               # whether this transfer may use spans
    const char *announced     # borrowed from libcurl: the data that it has just received
    int64_t announced_bytes
    const char *next          # borrowed: where the next piece of the written span must be
    int64_t left              # bytes of that span whose pieces have not arrived yet

# A pair of lanes that fetch the same bytes: the slow one, and the one that hedges, which collects them in memory.
cdef struct Hedge:
    Lane *rival               # borrowed: the other lane; NULL: none
    char *octets              # owned: freed when the transfer ends; NULL except in the lane that hedges
    int64_t size_bytes        # size of that memory
    int64_t filled_bytes      # bytes in it, which belong at the lane's `position`

# A reusable easy handle and its current transfer.
cdef struct Lane:
    CURL *easy                # owned: cleaned up in lane_free
    Lane *next                # borrowed: the loop's list of all lanes
    Lane *next_idle           # borrowed: the loop's list of idle ones
    FileCore *file            # borrowed: NULL while idle
    Source *source            # borrowed from the file
    int32_t epoch             # the source's epoch when the request was sent
    int64_t request           # number of this request among the file's, starting at 1
    Loop *loop                # borrowed: it owns the lane
    int64_t profile_serial    # serial of the profile that the handle is set up for; 0: none
    bint bare                 # the handle sends bare_headers
    int64_t introduced_to     # number of the origin whose user name and password the handle has; 0: none
    bint ranged               # the request has a Range header
    bint is_first             # the file's first request in this run, whose response tells what the file is
    Check check
    Fault fault
    int sys_errno
    int redirects
    int64_t start             # first byte requested
    int64_t position          # where the next bytes are written, those in the buffer first
    int64_t end               # one past the last byte that will be written; -1: unknown
    int64_t asked_end         # one past the last byte requested
    int64_t claim_end         # one past the last byte claimed for it
    bint helps                # it was sent to help another lane, not for unclaimed bytes
    bint cut                  # another lane took over the later part, so more than is wanted will arrive
    bint paused               # paused by a limit, a reader or a held file; libcurl keeps what it has received
    CURLcode ended            # the result, if libcurl will not report the end of the transfer; CURLE_OK: it will
    HostShare *share          # borrowed: of the host that its transfer uses; NULL while idle
    int opened                # sockets opened for this transfer
    int refused_socket        # errno, if it got no socket; EAGAIN: the host has the maximum number
    char refused_address[ADDRESS_TEXT_BYTES]  # an address that it may not connect to; empty: none was refused
    bint finds_out            # its request tests whether the host is back from its rest
    int64_t asked_host        # number of the host of its last transfer; 0: none
    bint slowed               # set up for small reads, because of a limit
    Hedge hedge
    int64_t swallowed_bytes
    int32_t header_lines      # of all responses, including informational ones and trailers
    bint headers_ended        # those of the last response: the empty line after them has come
    int64_t started_ms
    int64_t first_ms          # when its first byte was seen; 0: not yet
    int64_t moved_ms          # when bytes last arrived
    int64_t moved_received    # bytes received by the last tick
    int64_t lively_ms         # since when it has received fewer than LIVELY_BYTES more
    int64_t lively_received   # bytes received by then
    int64_t bytes_per_s       # recent rate; 0: unknown
    int64_t received_bytes    # of this transfer's body, used or not
    int64_t whole_ms          # when it was first seen to be complete, or to have no usable body; 0: not yet
    char *buffer              # owned: freed in lane_free; BUFFER_BYTES to collect small pieces in
    int64_t buffered          # bytes in it, which belong at `position`
    Span span
    char range_text[RANGE_TEXT_BYTES]
    char error_text[ERROR_TEXT_BYTES]   # libcurl writes here
