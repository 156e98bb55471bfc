"""One file on several loops: what its home lends to others, and how it comes back.

A file belongs to one loop, its home, which alone speaks to Python. To another loop it may give a guest: a file in its
own right, with sources, lanes, growth and a map of its own, in which all blocks are claimed. What the home lends, a run
of whole blocks that it claims as a lane would, is missing there, and is claimed, stolen and hedged as in any file. So
there is no lock and no atomic step on the way of a byte that was not there before, and a block has one writer: the lane
that has claimed it in the map of the loop that has it.

    home                              guest's loop
      GUEST, LEND ------------------>   fetches what is lent
      <------------------------ WANTS   has little left to claim
      LEND ------------------------->
      RECALL (the home runs out) --->
      <----------------------- RETURN   gives back of what nobody has claimed
      LEAVE ------------------------>   ends its transfers, also by itself when one of them fails
      <---------------------- REFUSED   a server wants to be left alone, which Python hears from the home
      <------------------------- GONE   its memory, and all that it had not fetched, are the home's again

The home looks at a guest's map as Python looks at the home's: marks are released after their bytes were written. What
it finds there it takes over a few times a second, so that its own map, of which Python makes the saved state, lags
behind by that much, and has everything when the guest is gone. No file ends before all of its guests are.

A guest is made of what the home knows at that moment. Where that changes (another address, a ban, a rest) the guests
leave, and new ones begin with what is known then. A guest that meets any failure leaves, too: the home asks for the
same bytes, and if it fails as well it asks Python, as a file without guests would. Only where the server wants not to
be asked again (429, Retry-After), Python is asked at once.
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
    LEASE_BYTES = 256 << 20      # lent at once, and less towards the end
    LEAST_LEASE_SHARE = 16       # less than such a part of it is not worth lending
    MOST_GUESTS = 63             # of one file; there are no more loops
    UNHEARD = 128                # beside the number of a holder: its loop may not know of the lease yet


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
    """The bytes are lent to it."""
    cdef Guest *guest = <Guest *>file
    blocks_borrow(&file.blocks, start, end)
    guest.low_bytes = (end - start) // 2
    guest.asks = False
    # What the home reads of these blocks from now on is of this lease.
    rf_store(&guest.heard, guest.heard + 1)


cdef inline void guest_asks(FileCore *file) noexcept nogil:
    """Ask for more before there is nothing left to claim."""
    cdef Guest *guest = <Guest *>file
    if not guest.asks and not file.removing and file.blocks.unclaimed <= guest.low_bytes:
        guest.asks = tell(guest.home_loop, COMMAND_WANTS, file.home, guest, 0, 0)


cdef inline void guest_returns(FileCore *file) noexcept nogil:
    """Give back half of what is unclaimed, or all of it where nobody works."""
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
    """Let go of the guest, which is its home's from here on; room for saying so was kept when it was made."""
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
    """Have the home tell Python that a host wants to be left alone. Without memory for it, the home asks once more."""
    cdef Message command = describe(COMMAND_REFUSED, lane, code, text)
    # That is how far the range goes.
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
    """How much is lent next: less when the end is near, so that all come to it together."""
    return min(file.spread.lease_bytes, file.blocks.unclaimed // (2 * file.spread.parts))


cdef inline void lend(FileCore *file, Guest *guest) noexcept nogil:
    """Lend the guest runs of blocks, if there are enough left to be worth it."""
    cdef int64_t most = next_lease_bytes(file)
    cdef int64_t start, end, i
    if most < least_lease_bytes(file):
        return
    # Not what has failed: that is for the home to try, and for Python to decide about.
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
    """The guest asks the sources that have shown here what they are. False: no memory."""
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
        # The first answer of any other is news for Python.
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
    """A guest that another loop may have, and which has nothing yet. NULL: no memory."""
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
    """Give another loop a guest, and lend to it. False: it cannot be had."""
    cdef Guest *guest
    if file.spread.holder == NULL:
        file.spread.holder = <uint8_t *>calloc(<size_t>file.blocks.count + 1, sizeof(uint8_t))
        if file.spread.holder == NULL:
            return False
    guest = guest_new(loop, file, other)
    if guest == NULL:
        return False
    # It is heard of when the guest is gone, whatever memory there is then.
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
    """One that no guest of the file has."""
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
    """The file's guest at this address; NULL: there is none."""
    cdef Guest *each = file.spread.guests
    while each != NULL and each != guest:
        each = each.next
    return each


cdef inline int64_t counted(int64_t *here, int64_t *there, int64_t *before) noexcept nogil:
    """Add what a guest has counted since the last time."""
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
    """Take over what the guest has fetched and counted so far.

    Of a lease that its loop has not heard of yet, what its map says is of an earlier one; such leases are looked at
    together, once all of them were heard of.
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
    """The bytes are missing here again, but for what the guest has fetched of their first block."""
    cdef int64_t i
    for i in range(start // file.blocks.block_size, (end - 1) // file.blocks.block_size + 1):
        blocks_mirror(&file.blocks, &guest.file.blocks, i)
        file.spread.holder[i] = 0
    blocks_give_back(&file.blocks, start, end)


cdef inline void guest_is_gone(Loop *loop, FileCore *file, Guest *guest) noexcept nogil:
    """Its loop has let go of it: all that it has not fetched is missing here again."""
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
        # Something has failed there, which had better not be tried again and again.
        file.spread.stopped_ms = loop.now_ms
        file.spread.goodput_before = 0
    guest_free(guest)
    rf_store(&file.spread.parts, 1 + guest_count(file))
    if file.spread.guests == NULL:
        free(file.spread.holder)
        file.spread.holder = NULL
        rf_note(&file.spread.lanes_elsewhere, 0)


cdef inline void send_home(Guest *guest) noexcept nogil:
    """Have the guest leave. Without memory to say so, the next look says it again."""
    guest.leaving = True
    if not guest.told:
        guest.told = tell(guest.loop, COMMAND_LEAVE, &guest.file, guest, 0, 0)


cdef inline void send_all_home(FileCore *file) noexcept nogil:
    cdef Guest *guest = file.spread.guests
    while guest != NULL:
        send_home(guest)
        guest = guest.next


cdef inline void look_after_guests(FileCore *file) noexcept nogil:
    """A few times a second: take over what they have, lend to those that ask, and recall what they do not need."""
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
    """Whether the file is one that other loops may help with: its server answers ranges, and nobody reads in order."""
    return (
        not is_guest(file) and file.answered and file.splits and file.mapped and file.ranged
        and not file.probing and not file.removing and file.window_bytes == 0
        and file.lanes_held == 0 and 0 < file.blocks.count <= MOST_BLOCKS
    )
