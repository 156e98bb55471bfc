"""The structs of the engine: what a file, a source, a profile and a lane are made of."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from rangefetch.blocks cimport BlockMap
from rangefetch.bucket cimport Bucket
from rangefetch.libcurl cimport CURL, CURLM, CURLSH, CURLcode, CURLoption, curl_slist
from rangefetch.mailbox cimport Mailbox
from rangefetch.platform cimport pthread_mutex_t, pthread_t, rf_bell

cdef enum:
    VALIDATOR_BYTES = 1024   # with the zero at its end; a longer ETag or date is a fault
    RANGE_TEXT_BYTES = 48
    MOST_SOURCES = 64        # of one file
    MOST_LANES = 1 << 16     # of one file
    MOST_LOCKS = 16          # libcurl has fewer kinds of what is shared
    ERROR_TEXT_BYTES = 256   # CURL_ERROR_SIZE
    ADDRESS_TEXT_BYTES = 64  # of an address; INET6_ADDRSTRLEN is 46
    BUFFER_BYTES = 64 << 10  # of a lane; measured: 64 KiB stays in the cache, 256 KiB does not
    HOST_BUCKETS = 256

# Why the engine itself refused or ended a transfer; libcurl would only say "write error".
cdef enum Fault:
    FAULT_NONE = 0
    FAULT_STATUS = 1             # an HTTP status that carries no data for us
    FAULT_RANGE_IGNORED = 2      # 200 with the whole file, where a part was asked for
    FAULT_RANGE_WRONG = 3        # 206 with another range than was asked for, or without saying which
    FAULT_SIZE_CHANGED = 4       # the file has another size than at the first answer
    FAULT_VALIDATOR_CHANGED = 5  # it has another ETag or Last-Modified, or one that it did not have, or has lost one
    FAULT_ENCODED = 6            # a content encoding, though identity was asked for
    FAULT_OVERFLOW = 7           # more bytes than the answer announced
    FAULT_DISK = 8               # pwrite or fallocate failed; sys_errno says why
    FAULT_STALLED = 9            # no byte for the read timeout
    FAULT_REDIRECT = 10          # a redirect that is not followed: to where says the event's text
    FAULT_REDIRECTS = 11         # too many of them
    FAULT_MEMORY = 12
    FAULT_PROBED = 13            # none: the answer was all that was wanted
    FAULT_VALIDATOR_TOO_LONG = 14
    FAULT_SIZE_UNSOUND = 15      # a size that no file can have, or two that differ
    FAULT_UNVOUCHED = 16         # 200 of another or no size, no validator where the file had one: an error page?
    FAULT_HEADERS = 17           # more header lines than any answer needs
    FAULT_RANGE_SHORT = 18       # the body of a part ended in good order before the part did
    FAULT_TOO_LARGE = 19         # a larger file than the user allows
    FAULT_ADDRESS = 20           # it leads to an address where it may not go: which, says the event's text

cdef inline dict fault_names():
    """The faults by number, as Python knows them."""
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

# What the check of an answer said, before its first byte is written.
cdef enum Check:
    UNCHECKED = 0
    ACCEPTED = 1
    SWALLOWED = 2    # no data for us: read and dropped, so that the connection lives on
    REFUSED = 3      # broken off at once

cdef enum:
    STATUS_OK = 200
    STATUS_CREATED = 201
    STATUS_NON_AUTHORITATIVE = 203
    STATUS_NO_CONTENT = 204
    STATUS_PARTIAL_CONTENT = 206
    LAST_KNOWN_SUCCESS = 208        # of those beyond, only 226 means something, which nobody asked for
    STATUS_RANGE_NOT_SATISFIABLE = 416

# Where a profile's transfers may connect to (see reach.pxd).
cdef enum Reach:
    REACH_ALL = 0
    REACH_NAMED = 1      # to private addresses only where the user has named the host
    REACH_PUBLIC = 2     # to no private address

# What the file gets when its size is known: aria2's ``file-allocation``.
cdef enum Allocation:
    ALLOCATE_NOTHING = 0
    ALLOCATE_LENGTH = 1
    ALLOCATE_SPACE = 2

cdef struct Setting:
    CURLoption option
    long number          # the value where the option takes a long
    char *text           # owned by the profile: the value where it takes a string, else NULL

# The cookies that servers set, for all transfers with the same credentials; libcurl keeps them, and gives each to whom
# it is for.
cdef struct JarCore:
    CURLSH *share             # owned: freed with the Jar
    pthread_mutex_t locks[MOST_LOCKS]

# A user name and password, and for whom they are.
cdef struct Credential:
    char *host                # owned: a host, with its port where that is meant; NULL: the origin that the user named
    char *user                # owned
    char *password            # owned
    long schemes              # CURLAUTH_: of several, the server chooses

# How to ask: libcurl options and headers that many files share. Never changed once made.
cdef struct ProfileCore:
    int64_t serial            # tells profiles apart after one was freed
    Setting *settings         # owned: freed in profile_free
    int setting_count
    curl_slist *headers       # owned: for the origin that the user named
    curl_slist *bare_headers  # owned: for any other origin, without what the user added
    char *cookie              # owned: the user's cookies, for the origin that the user named; NULL: none
    JarCore *jar              # borrowed: the Profile holds the Jar; NULL: cookies are not kept
    Credential *credentials   # owned, with the strings
    int credential_count
    char **trusted            # owned, with the strings: other hosts that get what is for the user's origin
    int trusted_count
    Reach reach
    bint allow_downgrade      # may a redirect lead from https to http
    int64_t connect_timeout_ms
    int64_t read_timeout_ms   # 0: no limit
    int64_t http_via          # the host of the proxy for such URLs; 0: there is none
    int64_t https_via
    char **direct             # owned, with the strings: hosts and domains that are asked without a proxy
    int direct_count

# Where connections go (see host.pxd). What several loops change are atomic steps.
cdef struct Host:
    int64_t number            # by which it is found
    Host *next                # owned: the table's next one with the same hash
    int64_t shares            # loops that have to do with it; counted under the table's lock
    int64_t rested_ms         # nobody asks it before; past: it has not been found out whether it is back; 0: it is open
    int64_t trying_ms         # when the request was sent that is finding out; 0: there is none
    int64_t full_ms           # until then it bears no more than
    int64_t full_lanes        # ... so many transfers
    int64_t lanes             # transfers under way
    int64_t taken             # connections: idle ones, and one for each transfer under way
    int64_t most              # of them that there may be, by the most generous of those who have asked lately
    int64_t waiting           # loops in which something waits for one of them
    int64_t outside_ms        # since when somebody without the engine has waited for one; 0: nobody does
    int64_t outside_asked_ms  # ... and when that was last asked for
    int64_t answered          # in this process; 1: somehow, 2: with a file, or a part of one
    int64_t slots_us          # the first time at which nobody has leave for a request yet (see pace.pxd)

# All hosts that the process knows of.
cdef struct HostTable:
    pthread_mutex_t lock      # guards the lists, not what is in a Host
    Host *buckets[HOST_BUCKETS]   # owned
    int count
    int forget_at             # how many there must be before some are forgotten
    Loop *loops               # borrowed: those that run
    int process_id            # whose hosts these are (for fork safety)

# How answers have come so far: to the requests of a file, or of small ones to one host.
cdef struct Memory:
    int64_t request_ms        # from sending a request to its first byte, averaged; 0: not known yet
    int64_t moved_ms          # when bytes or an answer last came; 0: never
    bint lingers              # answers do not end with their last byte: nobody waits for their ends any more

# What of a host is one loop's.
cdef struct HostShare:
    Host *host                # borrowed: counted in `shares`
    HostShare *next           # owned: the loop's next one with the same hash
    Loop *loop                # borrowed: it owns the share
    int32_t sources           # that are asked there
    int32_t lanes             # with a transfer under way
    int32_t sockets           # open, idle ones included
    int32_t granted           # connections; not below the two above, but for a moment
    bint waits                # counted in the host's `waiting`
    int64_t refused_ms        # since when it has asked for a connection in vain; 0: it has not
    int64_t asked_ms          # when the other loops were last asked to close idle connections
    Memory memory             # of its small files
    int32_t served            # transfers that it was found to answer at a time
    int64_t served_again_ms   # until then no more of them begin

# One URL that can serve the file, and what is known of it. Changed by the file's loop alone.
cdef struct Source:
    char *url                            # owned: freed with the file
    char *resolved_url                   # owned: where redirects led, NULL until they did
    ProfileCore *profile                 # borrowed: the File holds the Profile
    HostShare *share                     # borrowed: where it is asked; NULL until it is
    int redirects                        # that a lane followed which had to wait before the next
    int number                           # its place among the file's sources
    bint known                           # the validators are those of an answer, in this run or an earlier one
    char etag[VALIDATOR_BYTES]           # as it was sent, with W/ if it is weak; empty: none
    char last_modified[VALIDATOR_BYTES]
    int32_t epoch                        # how often it got another address, by the count of its File
    bint met                             # Python has heard of its first answer
    bint banned                          # never asked again
    int64_t rested_ms                    # not asked before
    int64_t slot_us                      # when its host may be asked, where requests are spaced; 0: it has no slot
    int32_t lanes                        # that work on it
    int64_t bytes_per_s                  # of one of its lanes, averaged; 0: not known yet
    int64_t moved_ms                     # when it last sent something
    int32_t strikes                      # new connections in a row that it did not answer
    int32_t lanes_served                 # how many it was found to answer at a time; 0: no bound is known
    int64_t served_again_ms              # when one more may be tried
    int64_t pause_ms                     # how long that was put off
    int32_t refusals                     # of help, in a row
    int64_t help_again_ms                # when it may be asked for help again
    int64_t received_bytes

# What a file in the engine waits for. Each of them ends by itself, or by something that Python can name.
cdef enum Wait:
    WAIT_NOTHING = 0     # nothing will move it any more
    WAIT_LOOP = 1        # its loop to take it on
    WAIT_TRANSFER = 2    # a transfer: ended by its timeouts at the latest
    WAIT_LIMIT = 3       # a limit, which holds transfers back
    WAIT_READER = 4      # its reader to come nearer
    WAIT_REST = 5        # the rest of the sources that may still be asked
    WAIT_PYTHON = 6      # what Python decides after a failure, or after the answer to a probe
    WAIT_HOST = 7        # a connection to a host that has as many as it may have
    WAIT_RATE = 8        # its slot at a host whose requests are spaced

cdef inline dict wait_names():
    """The same by number, as Python knows them."""
    return {
        <int>WAIT_NOTHING: "nothing", <int>WAIT_LOOP: "loop", <int>WAIT_TRANSFER: "transfer",
        <int>WAIT_LIMIT: "limit", <int>WAIT_READER: "reader", <int>WAIT_REST: "rest", <int>WAIT_PYTHON: "decision",
        <int>WAIT_HOST: "host", <int>WAIT_RATE: "rate",
    }

# What becomes of a file that is taken for a small one (see small.pxd).
cdef enum Stage:
    PLACED = 0       # it has a place of its own, from the beginning or by now
    SMALL = 1        # it gets its name as soon as all of its bytes are there
    HELD = 2         # it is not small, or not plain: it waits for its place

cdef struct Small:
    Stage stage
    int directory_fd          # borrowed: Python closes it after the file's last event
    char *name                # owned: freed with the file; the final one
    char *part_names[2]       # owned: what an earlier run would have left has one of these names; NULL: none
    char *origin              # owned: what is kept with the file of where it came from; NULL: nothing is
    bint overwrite
    bint compares             # where a file has the name, it may be the same one
    int64_t there_bytes       # of that file; -1: there is none
    bint was_there            # it was the same; written by the loop
    bint named_by_url         # the name is a guess that the answer may correct
    int64_t largest_bytes     # of a file that is small
    int64_t kept_bytes        # of a transfer that has ended: what is in the file without a name

# How many lanes a file should have, and what was seen since that last changed (see growth.pxd).
cdef struct Growth:
    int32_t aim
    int32_t aim_before        # what it was before it last grew
    int64_t goodput           # bytes per second over the last tick
    int64_t goodput_before    # when the aim last grew
    int64_t bytes_done        # at the last tick
    int64_t changed_ms        # when the aim last changed
    int64_t stopped_ms        # when growing last did not pay; 0: it has paid so far

# What a file has cost so far: written by the loop (rf_count, rf_note) and read by Python (rf_peek), each a number by
# itself.
cdef struct Counters:
    int64_t requests
    int64_t responses         # whose bytes were taken
    int64_t connections
    int64_t received_bytes    # of bodies, whatever became of them
    int64_t writes            # calls of pwrite
    int64_t disk_us           # spent in pwrite
    int64_t paused_ms         # with a lane held back by a limit or a reader
    int64_t steals            # ranges of which another lane took the later part
    int64_t hedges            # ends of ranges that were fetched twice at once
    int64_t replacements      # lanes that were given up for being slow
    int64_t began_us          # when the loop took the file on, and the loop's processor time then
    int64_t began_cpu_us
    int64_t lasted_us         # from then to the end, and the loop's processor time meanwhile
    int64_t cpu_us

# A file on several loops (see lease.pxd): what its home knows of the others. Changed by the file's home loop alone.
cdef struct Spread:
    Guest *guests             # owned: those on other loops, the newest first
    int32_t parts             # among which the file's lanes are divided: its home and its guests; read by all of them
    int32_t wanted            # on so many loops, without asking whether that pays; 0: on as many as pay
    int64_t lease_bytes       # how much is lent at once
    uint8_t *holder           # owned: for each block the number of the guest to which it is lent, 0: none
    int32_t lanes_elsewhere   # of all guests, at the last look
    int64_t guests_begun      # counts: guests that there were, and leases
    int64_t leases
    int64_t busy_ms           # since when its home is out of processor time, or its last guest has begun; 0: it is not
    int64_t busy_bytes        # how much was there then
    int64_t goodput_before    # bytes per second before its last guest; 0: no guest is on trial
    int64_t stopped_ms        # when a further guest last did not pay; 0: it has paid so far

# The part of a File that its loop works with.
cdef struct FileCore:
    FileCore *home            # borrowed: the file of which this one is a guest, or itself
    void *owner               # borrowed: the Python File, which is kept from add() to its last event
    int fd                    # borrowed: Python closes it after EVENT_DONE or EVENT_REMOVED; of a small file owned
    Small small
    Source *sources[MOST_SOURCES]   # owned: freed with the file
    int source_count
    int32_t source_lanes_most  # lanes that may work on one source
    int64_t host_lanes_most   # connections that there may be to its host, whoever uses them; written by Python
    bint insists              # it gets its first connection even beyond that
    int32_t uncached          # what comes is not left in the page cache; written by Python
    int64_t request_every_us  # from one request to a host to the next, at least; 0: any time; written by Python
    BlockMap blocks
    FileCore *next            # borrowed: the loop's list of files
    int64_t size              # -1 until an answer tells, or for ever where none does
    int64_t pinned_size       # of a file that is begun again in the middle of its use; no other will do. -1: any
    int64_t most_bytes        # a larger file is refused; 0: any will do
    int64_t first_bytes       # how much the first request asks for
    int64_t part_bytes        # of a part that came for a range without saying which it is; 0: none did
    int64_t least_bytes       # a further lane wants at least so many unclaimed bytes
    int64_t window_bytes      # how far ahead of the frontier, or of a reader, ranges may begin; 0: no limit
    int64_t reader_bytes      # how far a reader has come; written by Python, -1: there is none
    int64_t notify_bytes      # Python wants to hear when so much is there without a gap; 0: no
    Allocation allocation
    bint ranged               # ask for ranges at all
    bint seems_empty          # a range of it was answered as one of an empty file is; a plain request will tell
    bint takes_codings        # whatever content coding the file comes in, its bytes are taken as they are
    char *name                # owned: freed with the file; the one that the user gave it, NULL: none
    bint answered             # a good answer was seen in this run; released
    bint splits               # the server answers ranges: several lanes may run; released, after the size
    bint mapped               # `blocks` is there; released, after it
    bint probing              # only one answer is wanted, and nothing of its body
    bint removing
    bint finished             # a stream without announced length came to its end
    bint crawls               # no lane will be free soon for what is unclaimed, however little that is
    int64_t whole_ms          # when its last byte was there; 0: not yet
    Bucket own_bucket         # its own limit
    Bucket *bucket            # borrowed: that of its home
    Spread spread
    Wait waits_for            # at the last tick
    int64_t resting_host      # that it waits for then, by number; 0: none
    Growth growth
    int32_t lanes_most        # written by Python, read by the loop
    int32_t lanes_busy
    int32_t lanes_held        # waiting for Python's word after a failure
    int32_t retries           # that Python has allowed while others are held, and nobody has begun
    int32_t lanes_paused_seen  # at the last tick
    int32_t lanes_still       # that have brought nothing in the last tick
    Memory memory
    int64_t replaced_ms       # when a slow lane was last replaced
    int64_t replace_after_ms  # how long after that the next one may be
    int64_t stream_bytes      # of a stream without block map; released: so many are in the file
    bint traced               # Python wants to hear how each transfer went
    Counters counters

# One thread, one CURLM, and the files that belong to it.
cdef struct Loop:
    pthread_t thread
    CURLM *multi          # owned: cleaned up by the engine after the thread has ended
    Loop *siblings        # borrowed: all loops of the engine
    int sibling_count
    Mailbox inbox
    rf_bell wake          # owned: rung when the inbox has something
    Mailbox *outbox       # borrowed: the engine's
    rf_bell *bell         # borrowed: the engine's; rung when the outbox has something
    Bucket *bucket        # borrowed: the engine's, shared by all loops
    int *handles          # borrowed: the engine's count of live easy handles
    Lane *lanes           # owned: all lanes, freed when the loop ends
    Lane *idle            # those without a transfer
    FileCore *files       # borrowed, each until EVENT_DONE or EVENT_REMOVED
    long buffer_bytes     # libcurl's receive buffer
    int64_t now_us
    int64_t now_ms
    int64_t ticked_ms
    int64_t newest_us     # when a file was taken on last
    int64_t due_ms        # when the grace of a transfer or of a file is over; 0: there is none
    int64_t busy_us       # processor time of this thread ...
    int64_t busy_at_us    # ... when `now_us` was this
    int64_t cpu_us        # of this thread at the last tick
    int cpu_percent       # of a processor over the last tick; other loops look at it
    int lane_count        # of `lanes`
    int lanes_paused
    int lanes_ended       # of whose transfers' ends libcurl will not tell
    Lane *turn            # the lane that is first to get tokens next time
    bint posted           # something was put into the outbox in this round
    bint quitting
    HostTable *hosts      # borrowed: the process's
    HostShare *shares[HOST_BUCKETS]  # owned: freed when the loop has ended, after its connections
    int share_count
    Loop *next_peer       # borrowed: the table's list of loops
    bint has_room         # a host that something waited for may have room for it
    bint tells_of_room    # ... and the other loops are to hear of that
    int64_t starved_ms    # since when there is no descriptor for a connection; 0: there was one
    int64_t starved_again_ms  # no further one is tried before
    int64_t asked_for_room_ms  # when it last had other loops close idle connections
    int64_t next_slot_us  # the first slot that something here waits for; 0: nothing does
    CURL *sweeper         # owned: the request that has libcurl do so, while it is under way

# A file as another loop has it: all of its blocks are claimed there but those that are lent to it.
cdef struct Guest:
    FileCore file             # the other loop's, from COMMAND_GUEST to COMMAND_GONE; the rest is the home's
    Guest *next               # owned: the home's next one
    Loop *loop                # borrowed: the one that has it
    Loop *home_loop           # borrowed
    int32_t number            # by which the home knows its blocks
    int64_t low_bytes         # the other loop's: with less to claim it asks for more
    bint asks                 # the other loop's: it has asked, and nothing was lent since
    int64_t heard             # the other loop's: of how many leases its map knows
    int64_t lent              # the home's: of how many it was told, and of how many of these its map is read
    int64_t mirrored
    bint wants                # the home's: it has asked
    bint leaving              # it is to go, and its loop was told
    bint told
    int64_t left_bytes        # of what is lent to it, at the last look
    Counters counted          # what of its counters is in the home's
    int64_t counted_bytes[MOST_SOURCES]

# What libcurl has received and will hand over piece by piece, written whole (see disk.pxd).
cdef struct Span:
    bint usable               # this transfer's may be written so
    const char *announced     # borrowed from libcurl: what it has just received
    int64_t announced_bytes
    const char *next          # borrowed: where the next piece of what was written must be
    int64_t left              # bytes of it whose pieces have not come yet

# Two lanes that fetch the same bytes: the one that is late, and the one that hedges, whose bytes go into memory.
cdef struct Hedge:
    Lane *rival               # borrowed: the other lane; NULL: there is none
    char *octets              # owned: freed when the transfer ends; NULL but in the lane that hedges
    int64_t size_bytes        # how much fits there
    int64_t filled_bytes      # what is there, which belongs at the lane's `position`

# A reusable easy handle, and the transfer that it is running.
cdef struct Lane:
    CURL *easy                # owned: cleaned up in lane_free
    Lane *next                # borrowed: the loop's list of all lanes
    Lane *next_idle           # borrowed: the loop's list of idle ones
    FileCore *file            # borrowed: NULL while idle
    Source *source            # borrowed from the file
    int32_t epoch             # of the source, when it was asked
    int64_t request           # how many requests the file had made with this one
    Loop *loop                # borrowed: it owns the lane
    int64_t profile_serial    # the profile that the handle is set up for; 0: none
    bint bare                 # the handle sends bare_headers
    int64_t introduced_to     # the origin for which the handle has a name and a password; 0: it has none
    bint ranged               # the request has a Range header
    bint is_first             # the file's first request: its answer tells what the file is
    Check check
    Fault fault
    int sys_errno
    int redirects
    int64_t start             # first byte asked for
    int64_t position          # where the next byte goes, after those in the buffer
    int64_t end               # one past the last byte that will be written; -1: unknown
    int64_t asked_end         # one past the last byte asked for
    int64_t claim_end         # one past the last byte that is claimed for it
    bint helps                # it was sent to help another, and not for unclaimed bytes
    bint cut                  # another lane has taken the later part: more will come than is wanted
    bint paused               # held back by a limit or a reader; libcurl keeps what has come
    CURLcode ended            # why libcurl will not tell of the transfer's end; CURLE_OK: it will
    HostShare *share          # borrowed: of the host that its transfer goes to; NULL while idle
    int opened                # sockets for this transfer
    int refused_socket        # why it got none: an errno; EAGAIN: the host has as many as it may have
    char refused_address[ADDRESS_TEXT_BYTES]  # where its transfer may not go; empty: nowhere
    bint finds_out            # whether the host is back from its rest
    int64_t asked_host        # the host that it asked last, as a number; 0: none
    bint slowed               # asked for under a limit, with small reads
    Hedge hedge
    int64_t swallowed_bytes
    int32_t header_lines      # of all its answers, informational ones and trailers too
    int64_t started_ms
    int64_t first_ms          # when its first byte was seen; 0: not yet
    int64_t moved_ms          # when bytes were last seen to arrive
    int64_t moved_received    # how many there were at the last tick
    int64_t lively_ms         # when it last had brought LIVELY_BYTES since the time before
    int64_t lively_received   # how many there were then
    int64_t bytes_per_s       # lately; 0: not known yet
    int64_t received_bytes    # of this transfer's body
    int64_t whole_ms          # when all of its bytes were there; 0: not yet
    char *buffer              # owned: freed in lane_free; BUFFER_BYTES for what comes in small pieces
    int64_t buffered          # bytes in it, which belong at `position`
    Span span
    char range_text[RANGE_TEXT_BYTES]
    char error_text[ERROR_TEXT_BYTES]   # libcurl writes here
