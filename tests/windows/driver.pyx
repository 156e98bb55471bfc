"""The engine without ``_engine.pyx`` as a program, for Windows: it fetches one file and prints the events.

    driver LIBCURL URL FILE [NAME=NUMBER...] [cafile=PATH] [state=PATH] [mirror=URL]

Numbers: lanes (4), first, least, limit, tries (20; transfers that may fail), allocation (2; 0 to 2), timeout (30 s).
``state`` is the saved block map: read if it is there, and written after every round of events, as rangefetch does.
Each event is one line on stdout: its number, libcurl's code, the HTTP status, the fault, the errno and the offset. The
last lines are counters. Exit status 0: the file is complete; 1: it is not; 2: wrong arguments, or it could not start.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdio cimport FILE, fclose, fflush, fopen, fread, fwrite, printf, snprintf, stdout
from libc.stdlib cimport atoll
from libc.string cimport memset, strlen, strncmp

from rangefetch.blocks cimport blocks_free, blocks_init, blocks_recall
from rangefetch.bucket cimport bucket_limit
from rangefetch.checks cimport calloc, free
from rangefetch.core cimport EngineCore, core_let_go, core_new, core_stop
from rangefetch.host cimport hosts_open
from rangefetch.libcurl cimport *
from rangefetch.mailbox cimport *
from rangefetch.peers cimport loop_tell
from rangefetch.platform cimport rf_bell_quiet, rf_load, rf_now_us, rf_sleep_ms
from rangefetch.report cimport copy_text
from rangefetch.service cimport file_is_home
from rangefetch.transfer cimport *


cdef extern from *:
    """
    #include <fcntl.h>
    static PyObject *PyInit_driver(void); /* static and never called, so that the compiler drops it and all of Python */
    #include <sys/stat.h>
    #ifdef _WIN32
    #define RF_OPEN_AS (_O_RDWR | _O_CREAT | _O_BINARY)
    #define rf_replace(from, to) (MoveFileExA((from), (to), MOVEFILE_REPLACE_EXISTING) ? 0 : -1)
    #else
    #define RF_OPEN_AS (O_RDWR | O_CREAT)
    #define rf_replace rename
    #endif
    """
    CURLoption CURLOPT_CAINFO
    int RF_OPEN_AS
    int rf_replace(const char *old, const char *new) nogil
    int open(const char *path, int flags, int mode) nogil
    int close(int fd) nogil


cdef enum:
    LONGEST_US = 120 * 1000000
    MOST_SAVED = 1 << 16

cdef HostTable hosts
cdef int handles = 0


cdef inline const char *named(int argc, char **argv, const char *name) noexcept nogil:
    """The VALUE of an argument NAME=VALUE, or NULL."""
    cdef size_t size = strlen(name)
    cdef int i
    for i in range(4, argc):
        if strncmp(argv[i], name, size) == 0 and argv[i][size] == c'=':
            return argv[i] + size + 1
    return NULL


cdef inline int64_t number(int argc, char **argv, const char *name, int64_t otherwise) noexcept nogil:
    cdef const char *text = named(argc, argv, name)
    return atoll(text) if text != NULL else otherwise


# ---- what is saved -------------------------------------------------------------------------------------------------

cdef inline void save(FileCore *file, const char *path) noexcept nogil:
    """Save the file's size, the block size and the map. Writes a new file and renames it, so that a kill leaves the old
    state or the new one.
    """
    cdef char[600] beside
    cdef int64_t[2] head
    cdef FILE *out
    if not rf_load(&file.mapped) or strlen(path) > 590:
        return
    snprintf(beside, 600, "%s.new", path)
    out = fopen(beside, "wb")
    if out == NULL:
        return
    head[0] = file.blocks.size
    head[1] = file.blocks.block_size
    fwrite(head, sizeof(int64_t), 2, out)
    # Complete blocks first: a block that is completed between the two writes then counts as partial, which is safe.
    fwrite(file.blocks.state, 1, <size_t>file.blocks.count, out)
    fwrite(file.blocks.partial, 4, <size_t>file.blocks.count, out)
    fclose(out)
    rf_replace(beside, path)


cdef inline bint recall(FileCore *file, const char *path) noexcept nogil:
    """Load the saved state. True if there is none, or if it was valid."""
    cdef int64_t[2] head
    cdef size_t count
    cdef bint sound = False
    cdef uint8_t *done
    cdef uint32_t *partial
    cdef FILE *saved = fopen(path, "rb")
    if saved == NULL:
        return True
    if fread(head, sizeof(int64_t), 2, saved) == 2 and head[1] > 0 and head[0] // head[1] < MOST_SAVED:
        count = <size_t>((head[0] + head[1] - 1) // head[1])
        done = <uint8_t *>calloc(count + 1, 1)
        partial = <uint32_t *>calloc(count + 1, 4)
        sound = (
            done != NULL and partial != NULL
            and fread(done, 1, count, saved) == count and fread(partial, 4, count, saved) == count
            and blocks_init(&file.blocks, head[0], head[1]) == 0
        )
        if sound:
            blocks_recall(&file.blocks, done, partial)
            file.size = head[0]
            file.mapped = True
            printf("recalled %lld\n", <long long>file.blocks.bytes_done)
        free(done)
        free(partial)
    fclose(saved)
    return sound


# ---- one file ------------------------------------------------------------------------------------------------------

cdef inline Source *source_at(FileCore *file, const char *url, ProfileCore *profile) noexcept nogil:
    cdef Source *source = <Source *>calloc(1, sizeof(Source))
    if source == NULL:
        return NULL
    source.number = file.source_count
    source.url = copy_text(url)
    source.profile = profile
    file.sources[file.source_count] = source
    file.source_count += 1
    return source


cdef inline int tell(EngineCore *core, FileCore *file, MessageType type) noexcept nogil:
    cdef Message command
    memset(&command, 0, sizeof(command))
    command.type = type
    command.file = file
    command.source = -1
    return loop_tell(&core.loops[0], &command)


cdef inline bint follow(EngineCore *core, FileCore *file, const char *state, int64_t tries) noexcept nogil:
    """Print events until the loop has released the file. True if the file is complete."""
    cdef int64_t began_us = rf_now_us()
    cdef Message *items
    cdef size_t count, i
    cdef bint ended = False
    cdef bint complete = False
    while not ended:
        rf_sleep_ms(5)
        rf_bell_quiet(&core.bell)
        count = 0
        items = mailbox_take(&core.outbox, &count)
        for i in range(count if items != NULL else 0):
            printf(
                "event %d code %d status %d fault %d errno %d at %lld\n", <int>items[i].type, items[i].code,
                items[i].status, items[i].fault, items[i].sys_errno, <long long>items[i].offset,
            )
            if items[i].type == EVENT_DONE:
                complete = True
            if items[i].type == EVENT_DONE or items[i].type == EVENT_REMOVED:
                ended = True
            elif items[i].type == EVENT_FAILED:
                tries -= 1
                tell(core, file, COMMAND_RELEASE if tries > 0 else COMMAND_REMOVE)
        messages_free(items, count if items != NULL else 0)
        if state != NULL:
            save(file, state)
        fflush(stdout)
        if rf_now_us() - began_us > LONGEST_US:
            return False
    return complete


cdef inline int fetch(int argc, char **argv) noexcept nogil:
    cdef EngineCore *core
    cdef ProfileCore profile
    cdef Setting[1] settings
    cdef int failed = 0
    cdef int i
    cdef bint complete
    cdef const char *state = named(argc, argv, "state")
    cdef FileCore *file = <FileCore *>calloc(1, sizeof(FileCore))
    cdef int64_t began_us
    memset(&profile, 0, sizeof(profile))
    profile.serial = 1
    profile.settings = settings
    profile.connect_timeout_ms = 10000
    profile.read_timeout_ms = 1000 * number(argc, argv, "timeout", 30)
    settings[0].option = CURLOPT_CAINFO
    settings[0].text = <char *>named(argc, argv, "cafile")
    profile.setting_count = 1 if settings[0].text != NULL else 0
    hosts_open(&hosts)
    core = core_new(1, &handles, &hosts, 512 << 10, True, &failed)
    if core == NULL or file == NULL:
        printf("the engine does not start: errno %d\n", failed)
        return 2
    bucket_limit(&core.bucket, number(argc, argv, "limit", 0))
    file_is_home(file)
    file.fd = open(argv[3], RF_OPEN_AS, 0o600)
    if file.fd < 0:
        printf("the file does not open: errno %d\n", errno)
        return 2
    source_at(file, argv[2], &profile)
    if named(argc, argv, "mirror") != NULL:
        source_at(file, named(argc, argv, "mirror"), &profile)
    file.size = file.pinned_size = file.reader_bytes = -1
    file.ranged = True
    file.first_bytes = number(argc, argv, "first", 1 << 20)
    file.least_bytes = number(argc, argv, "least", 1 << 20)
    file.lanes_most = file.source_lanes_most = <int>number(argc, argv, "lanes", 4)
    file.host_lanes_most = MOST_LANES
    file.allocation = <Allocation>number(argc, argv, "allocation", ALLOCATE_SPACE)
    file.waits_for = WAIT_LOOP
    bucket_limit(file.bucket, 0)
    if state != NULL and not recall(file, state):
        printf("the saved state is not sound\n")
        return 2
    began_us = rf_now_us()
    if not mailbox_reserve(&core.outbox) or not tell(core, file, COMMAND_ADD):
        return 2
    complete = follow(core, file, state, number(argc, argv, "tries", 20))
    printf(
        "requests %lld connections %lld received %lld writes %lld steals %lld hedges %lld lasted_us %lld cpu_us %lld\n",
        <long long>file.counters.requests, <long long>file.counters.connections,
        <long long>file.counters.received_bytes, <long long>file.counters.writes, <long long>file.counters.steals,
        <long long>file.counters.hedges, <long long>(rf_now_us() - began_us), <long long>file.counters.cpu_us,
    )
    core.closed = True
    core_stop(core)
    core_let_go(core)
    close(file.fd)
    blocks_free(&file.blocks)
    for i in range(file.source_count):
        free(file.sources[i].url)
        free(file.sources[i].resolved_url)
        free(file.sources[i])
    free(file)
    printf("handles %d\n", handles)
    fflush(stdout)
    return 0 if complete else 1


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef const char *missing
    if argc < 4:
        return 2
    missing = rf_curl_open(argv[1])
    if missing != NULL:
        printf("libcurl: %s\n", missing)
        return 2
    if curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK:
        return 2
    printf("%s\n", curl_version())
    printf("from %s\n", rf_curl_path())
    return fetch(argc, argv)
