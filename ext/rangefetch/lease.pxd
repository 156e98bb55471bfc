"""One file on several loops: how its home lends blocks to other loops, and how they come back.

A file belongs to one loop, its home, which alone reports its state to Python. The home can create a guest on another
loop: a file of its own, with its own sources, lanes, growth and block map, in which all blocks start out as claimed. A
lease is a run of whole blocks that the home claims, as a lane would, and that becomes missing in the guest's map, where
lanes claim, steal and hedge as in any file. So no byte costs more locks or atomic operations than on a single loop, and
each block still has one writer: the lane that has claimed it in the map of the loop that has the lease.

    home                              guest's loop
      GUEST, LEND ------------------>   fetches what is lent
      <------------------------ WANTS   has little left to claim
      LEND ------------------------->
      RECALL (the home runs out) --->
      <----------------------- RETURN   gives back part of what is unclaimed
      LEAVE ------------------------>   ends its transfers; also does so by itself when one of them fails
      <---------------------- REFUSED   a server has asked for a pause; the home tells Python
      <------------------------- GONE   its memory, and all blocks it has not fetched, are the home's again

The home reads a guest's map in the same way as Python reads the home's: a mark is released after its bytes were
written. It copies the guest's progress into its own map a few times a second. The home's map, from which Python makes
the saved state, lags behind by that much, and is complete once the guest is gone. A file ends only after all of its
guests are gone.

A guest is created from what the home knows at that moment. When that changes (a new address, a ban, a rest), the guests
leave, and new ones start with the new knowledge. A guest also leaves after any failure: the home requests the same
bytes, and if that fails too, asks Python, as for a file without guests. Only a refusal (429, Retry-After) is passed on
to Python at once.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from rangefetch.blocks cimport (
    BLOCK_DONE,
    MOST_BLOCKS,
    MOST_FAILURES,
    block_end,
    blocks_advance_frontier,
    blocks_borrow,
    blocks_claim,
    blocks_claim_all,
    blocks_free,
    blocks_give_back,
    blocks_init,
    blocks_mirror,
)
from rangefetch.checks cimport calloc, free
from rangefetch.claims cimport lanes_allowed
from rangefetch.host cimport leave_hosts
from rangefetch.lane cimport dismiss_lanes
from rangefetch.libcurl cimport CURLcode
from rangefetch.mailbox cimport (
    COMMAND_GONE,
    COMMAND_GUEST,
    COMMAND_LEAVE,
    COMMAND_LEND,
    COMMAND_RECALL,
    COMMAND_REFUSED,
    COMMAND_RETURN,
    COMMAND_WANTS,
    Message,
    MessageType,
    mailbox_put_reserved,
    mailbox_reserve,
    mailbox_unreserve,
)
from rangefetch.peers cimport loop_tell
from rangefetch.platform cimport rf_bell_ring, rf_count, rf_load, rf_note, rf_peek, rf_store
from rangefetch.report cimport copy_text, describe
from rangefetch.transfer cimport WAIT_LOOP, FileCore, Guest, Lane, Loop, Source

cdef enum:
    LEASE_BYTES = 256 << 20      # lent at a time; less towards the end of the file
    LEAST_LEASE_SHARE = 16       # nothing smaller than one in this many parts of that is lent
    MOST_GUESTS = 63             # of one file: an engine has at most 64 loops
    UNHEARD = 128                # flag in `holder`: the guest's loop may not have received the lease yet


cdef inline bint is_guest(const FileCore *file) noexcept nogil:
    return file.home != file


cdef inline bint tell(
    Loop *loop, MessageType type, FileCore *file, Guest *guest, int64_t start, int64_t end
) noexcept nogil:
    """Send a loop a command about a file. False: no memory, or the loop has ended."""
    cdef Message command
    memset(&command, 0, sizeof(command))
    command.type = type
    command.file = file
    command.extra = guest
    command.offset = start
    command.number = end
    return loop_tell(loop, &command)


# ---- In the guest's loop -----------------------------------------------------------------------------------------

cdef inline void guest_borrows(FileCore *file, int64_t start, int64_t end) noexcept nogil:
    """Receive a lease: the bytes ``[start, end)`` are to be fetched here."""
    cdef Guest *guest = <Guest *>file
    blocks_borrow(&file.blocks, start, end)
    guest.low_bytes = (end - start) // 2
    guest.asks = False
    # What the home reads of these blocks from now on belongs to this lease.
    rf_store(&guest.heard, guest.heard + 1)


cdef inline void guest_asks(FileCore *file) noexcept nogil:
    """Ask the home for more before everything is claimed."""
    cdef Guest *guest = <Guest *>file
    if not guest.asks and not file.removing and file.blocks.unclaimed <= guest.low_bytes:
        guest.asks = tell(guest.home_loop, COMMAND_WANTS, file.home, guest, 0, 0)


cdef inline void guest_returns(FileCore *file) noexcept nogil:
    """Return half of what is unclaimed, or all of it if no lane is busy."""
    cdef Guest *guest = <Guest *>file
    cdef int64_t most = file.blocks.unclaimed // 2 if file.lanes_busy > 0 else file.blocks.unclaimed
    cdef int64_t start, end
    while most >= 0 and file.blocks.unclaimed > 0 and blocks_claim(
        &file.blocks, most, file.size, MOST_FAILURES + 1, True, &start, &end
    ):
        if not tell(guest.home_loop, COMMAND_RETURN, file.home, guest, start, end):
            blocks_give_back(&file.blocks, start, end)
            return
        most -= end - start


cdef inline void guest_leaves(Loop *loop, FileCore *file) noexcept nogil:
    """Drop the guest, which belongs to its home from here on. The slot for this message was reserved when the guest was
    created."""
    cdef FileCore **link = &loop.files
    cdef Loop *home_loop = (<Guest *>file).home_loop
    cdef Message command
    while link[0] != NULL and link[0] != file:
        link = &link[0].next
    if link[0] != NULL:
        link[0] = file.next
    if loop.files == NULL:
        rf_note(&loop.cpu_percent, 0)
    dismiss_lanes(loop, file)
    leave_hosts(file)
    memset(&command, 0, sizeof(command))
    command.type = COMMAND_GONE
    command.file = file.home
    command.extra = file
    mailbox_put_reserved(&home_loop.inbox, &command)
    rf_bell_ring(&home_loop.wake)


cdef inline void guest_was_refused(Lane *lane, CURLcode code, const char *text) noexcept nogil:
    """Have the home tell Python of a refusal. If memory runs out, the home finds out by its own request."""
    cdef Message command = describe(COMMAND_REFUSED, lane, code, text)
    # `fail_elsewhere` needs the end of the range.
    command.number = lane.claim_end
    if not loop_tell((<Guest *>lane.file).home_loop, &command):
        free(command.text)
        free(command.headers)
        free(command.address)


# ---- At home: lending --------------------------------------------------------------------------------------------

cdef inline int guest_count(const FileCore *file) noexcept nogil:
    cdef const Guest *guest = file.spread.guests
    cdef int count = 0
    while guest != NULL:
        count += 1
        guest = guest.next
    return count


cdef inline int64_t least_lease_bytes(const FileCore *file) noexcept nogil:
    return file.spread.lease_bytes // LEAST_LEASE_SHARE


cdef inline int64_t next_lease_bytes(const FileCore *file) noexcept nogil:
    """The size of the next lease: smaller near the end, so that all loops finish at about the same time."""
    return min(file.spread.lease_bytes, file.blocks.unclaimed // (2 * file.spread.parts))


cdef inline void lend(FileCore *file, Guest *guest) noexcept nogil:
    """Lend the guest runs of blocks, unless too little is left."""
    cdef int64_t most = next_lease_bytes(file)
    cdef int64_t start, end, i
    if most < least_lease_bytes(file):
        return
    # Not blocks that have failed: the home retries those, as Python decides.
    while most > 0 and blocks_claim(&file.blocks, most, file.size, 1, False, &start, &end):
        if not tell(guest.loop, COMMAND_LEND, &guest.file, guest, start, end):
            blocks_give_back(&file.blocks, start, end)
            return
        for i in range(start // file.blocks.block_size, (end - 1) // file.blocks.block_size + 1):
            file.spread.holder[i] = <uint8_t>(guest.number | UNHEARD)
        guest.lent += 1
        guest.wants = False
        guest.left_bytes += end - start
        rf_count(&file.spread.leases, 1)
        most -= end - start


cdef inline bint copy_sources(FileCore *guest, const FileCore *file) noexcept nogil:
    """Copy the sources; the guest only uses those whose first response the home has seen. False: out of memory."""
    cdef Source *source
    cdef Source *copy
    cdef int i
    for i in range(file.source_count):
        source = file.sources[i]
        copy = <Source *>calloc(1, sizeof(Source))
        if copy == NULL:
            return False
        copy[0] = source[0]
        copy.url = copy_text(source.url)
        copy.resolved_url = copy_text(source.resolved_url)
        copy.share = NULL
        copy.redirects = copy.lanes = copy.strikes = copy.lanes_served = 0
        copy.slot_us = 0
        copy.received_bytes = 0
        # The first response of any other source must be announced to Python, which only the home can do.
        copy.banned = source.banned or not source.met
        guest.sources[i] = copy
        guest.source_count = i + 1
        if copy.url == NULL or (copy.resolved_url == NULL) != (source.resolved_url == NULL):
            return False
    return True


cdef inline void guest_free(Guest *guest) noexcept nogil:
    cdef FileCore *file = &guest.file
    cdef int i
    for i in range(file.source_count):
        free(file.sources[i].url)
        free(file.sources[i].resolved_url)
        free(file.sources[i])
    blocks_free(&file.blocks)
    free(guest)


cdef inline Guest *guest_new(Loop *loop, FileCore *file, Loop *other) noexcept nogil:
    """Create a guest for another loop, without any lease yet. NULL: out of memory."""
    cdef Guest *guest = <Guest *>calloc(1, sizeof(Guest))
    cdef FileCore *core
    if guest == NULL:
        return NULL
    core = &guest.file
    guest.loop = other
    guest.home_loop = loop
    core.home = file
    core.bucket = file.bucket
    core.fd = file.fd
    core.name = file.name
    core.takes_codings = file.takes_codings
    core.size = file.size
    core.pinned_size = file.pinned_size
    core.most_bytes = file.most_bytes
    core.first_bytes = file.first_bytes
    core.part_bytes = file.part_bytes
    core.least_bytes = file.least_bytes
    core.reader_bytes = -1
    core.ranged = core.answered = core.splits = core.mapped = True
    core.traced = file.traced
    core.memory = file.memory
    core.growth.aim = core.growth.aim_before = file.growth.aim
    core.growth.changed_ms = loop.now_ms
    core.spread.parts = 1
    core.waits_for = WAIT_LOOP
    core.counters.began_us = file.counters.began_us
    if not copy_sources(core, file) or blocks_init(&core.blocks, file.blocks.size, file.blocks.block_size) != 0:
        guest_free(guest)
        return NULL
    blocks_claim_all(&core.blocks)
    return guest


cdef inline bint guest_begins(Loop *loop, FileCore *file, Loop *other) noexcept nogil:
    """Start a guest on another loop, and lend to it. False: out of memory, or that loop has ended."""
    cdef Guest *guest
    if file.spread.holder == NULL:
        file.spread.holder = <uint8_t *>calloc(<size_t>file.blocks.count + 1, sizeof(uint8_t))
        if file.spread.holder == NULL:
            return False
    guest = guest_new(loop, file, other)
    if guest == NULL:
        return False
    # Reserved for COMMAND_GONE, which must arrive even if memory runs out.
    if not mailbox_reserve(&loop.inbox):
        guest_free(guest)
        return False
    if not tell(other, COMMAND_GUEST, &guest.file, guest, 0, 0):
        mailbox_unreserve(&loop.inbox)
        guest_free(guest)
        return False
    guest.number = new_number(file)
    guest.next = file.spread.guests
    file.spread.guests = guest
    rf_count(&file.spread.guests_begun, 1)
    lend(file, guest)
    return True


cdef inline int32_t new_number(FileCore *file) noexcept nogil:
    """The lowest number that no guest of the file has."""
    cdef Guest *guest = file.spread.guests
    cdef int32_t number = 1
    while guest != NULL:
        if guest.number == number:
            number += 1
            guest = file.spread.guests
        else:
            guest = guest.next
    return number


# ---- At home: what comes back ------------------------------------------------------------------------------------

cdef inline Guest *guest_of(FileCore *file, const void *guest) noexcept nogil:
    """The file's guest at this address; NULL if there is none."""
    cdef Guest *each = file.spread.guests
    while each != NULL and each != guest:
        each = each.next
    return each


cdef inline int64_t counted(int64_t *here, int64_t *there, int64_t *before) noexcept nogil:
    """Add to a counter what the guest's has grown by since the last call."""
    cdef int64_t now = rf_peek(there)
    rf_count(here, now - before[0])
    before[0] = now
    return now


cdef inline void sum_up(FileCore *file, Guest *guest) noexcept nogil:
    cdef int i
    counted(&file.counters.requests, &guest.file.counters.requests, &guest.counted.requests)
    counted(&file.counters.responses, &guest.file.counters.responses, &guest.counted.responses)
    counted(&file.counters.connections, &guest.file.counters.connections, &guest.counted.connections)
    counted(&file.counters.received_bytes, &guest.file.counters.received_bytes, &guest.counted.received_bytes)
    counted(&file.counters.writes, &guest.file.counters.writes, &guest.counted.writes)
    counted(&file.counters.disk_us, &guest.file.counters.disk_us, &guest.counted.disk_us)
    counted(&file.counters.steals, &guest.file.counters.steals, &guest.counted.steals)
    counted(&file.counters.hedges, &guest.file.counters.hedges, &guest.counted.hedges)
    counted(&file.counters.replacements, &guest.file.counters.replacements, &guest.counted.replacements)
    for i in range(guest.file.source_count):
        counted(&file.sources[i].received_bytes, &guest.file.sources[i].received_bytes, &guest.counted_bytes[i])


cdef inline void look_at(FileCore *file, Guest *guest) noexcept nogil:
    """Copy what the guest has fetched and counted so far.

    Until the guest's loop has received a lease, its map may still describe an earlier lease of the same blocks. Leases
    that were sent since are therefore read only once all of them were received.
    """
    cdef int32_t unheard = guest.number | UNHEARD
    cdef bint heard = guest.mirrored < guest.lent and rf_load(&guest.heard) == guest.lent
    cdef int64_t left = 0
    cdef int64_t i
    if heard:
        guest.mirrored = guest.lent
    for i in range(file.blocks.count):
        if heard and file.spread.holder[i] == unheard:
            file.spread.holder[i] = <uint8_t>guest.number
        if file.spread.holder[i] == guest.number:
            left += blocks_mirror(&file.blocks, &guest.file.blocks, i)
        elif file.spread.holder[i] == unheard:
            left += block_end(&file.blocks, i) - i * file.blocks.block_size - file.blocks.partial[i]
    guest.left_bytes = left
    blocks_advance_frontier(&file.blocks)
    sum_up(file, guest)


cdef inline void take_back(FileCore *file, Guest *guest, int64_t start, int64_t end) noexcept nogil:
    """Make the bytes ``[start, end)`` missing here again. What the guest has fetched of their first block is kept."""
    cdef int64_t i
    for i in range(start // file.blocks.block_size, (end - 1) // file.blocks.block_size + 1):
        blocks_mirror(&file.blocks, &guest.file.blocks, i)
        file.spread.holder[i] = 0
    blocks_give_back(&file.blocks, start, end)


cdef inline void guest_is_gone(Loop *loop, FileCore *file, Guest *guest) noexcept nogil:
    """The guest's loop has dropped it: make everything missing again that it has not fetched, and free it."""
    cdef Guest **link = &file.spread.guests
    cdef int64_t i
    while link[0] != guest:
        link = &link[0].next
    link[0] = guest.next
    look_at(file, guest)
    for i in range(file.blocks.count):
        if file.spread.holder[i] & ~UNHEARD == guest.number:
            file.spread.holder[i] = 0
            if file.blocks.state[i] != BLOCK_DONE:
                blocks_give_back(
                    &file.blocks, i * file.blocks.block_size + file.blocks.partial[i], block_end(&file.blocks, i)
                )
    if not guest.leaving:
        # It left because of a failure: do not start another guest right away.
        file.spread.stopped_ms = loop.now_ms
        file.spread.goodput_before = 0
    guest_free(guest)
    rf_store(&file.spread.parts, 1 + guest_count(file))
    if file.spread.guests == NULL:
        free(file.spread.holder)
        file.spread.holder = NULL
        rf_note(&file.spread.lanes_elsewhere, 0)


cdef inline void send_home(Guest *guest) noexcept nogil:
    """Tell the guest to leave. If memory runs out, the next tick tells it again."""
    guest.leaving = True
    if not guest.told:
        guest.told = tell(guest.loop, COMMAND_LEAVE, &guest.file, guest, 0, 0)


cdef inline void send_all_home(FileCore *file) noexcept nogil:
    cdef Guest *guest = file.spread.guests
    while guest != NULL:
        send_home(guest)
        guest = guest.next


cdef inline void look_after_guests(FileCore *file) noexcept nogil:
    """Run a few times a second: copy the guests' progress, lend to those that have asked, and recall unclaimed blocks
    if the home has none left."""
    cdef Guest *guest = file.spread.guests
    cdef Guest *most = NULL
    cdef int32_t lanes = 0
    while guest != NULL:
        look_at(file, guest)
        lanes += <int32_t>rf_peek(&guest.file.lanes_busy)
        if guest.leaving:
            send_home(guest)
        elif guest.wants:
            lend(file, guest)
        if not guest.leaving and (most == NULL or guest.left_bytes > most.left_bytes):
            most = guest
        guest = guest.next
    rf_note(&file.spread.lanes_elsewhere, lanes)
    if most != NULL and file.blocks.unclaimed == 0 and lanes_allowed(file) > 0:
        tell(most.loop, COMMAND_RECALL, &most.file, most, 0, 0)


cdef inline bint may_have_guests(const FileCore *file) noexcept nogil:
    """Whether other loops may help with the file: its server supports ranges, and nobody reads it in order."""
    return (
        not is_guest(file) and file.answered and file.splits and file.mapped and file.ranged
        and not file.probing and not file.removing and file.window_bytes == 0
        and file.lanes_held == 0 and 0 < file.blocks.count <= MOST_BLOCKS
    )
