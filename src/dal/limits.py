"""Every bound of the library, by name and unit. Each has a test that reaches it.

What an operator may want to change is a setting (config.py); what is a property of the design is a number here.
"""

from __future__ import annotations

from typing import Final

# Text and documents, at the boundary, on every backend.
MAX_KEY_CHARS: Final = 255
MAX_TEXT_BYTES: Final = 16 * 1024 * 1024  # one message's content, UTF-8
MAX_JSON_BYTES: Final = 16 * 1024 * 1024  # one JSON document, encoded
MAX_JSON_DEPTH: Final = 100  # nesting; jsonb, orjson and SQLite's JSON functions all take it
MAX_INT32: Final = 2**31 - 1
MAX_INT64: Final = 2**63 - 1
MIN_INT64: Final = -(2**63)

# Pages and batches.
MAX_PAGE_ROWS: Final = 1000
MAX_HISTORY_MESSAGES: Final = 1000
MAX_HISTORY_OFFSET: Final = 1_000_000
MAX_BATCH_MESSAGES: Final = 10_000  # one add_many
MAX_BATCH_OPS: Final = 20_000  # one commit
MAX_PURGE_ROWS: Final = 10_000
MAX_SEARCH_CHARS: Final = 1_000

# Search terms.
MAX_TERM_CHARS: Final = 64  # a longer word is indexed by its beginning; the match itself is exact
MAX_TERMS_PER_MESSAGE: Final = 20_000  # a message with more carries the overflow term and is verified at every search

# Group commit.
MAX_GROUP_COMMITS: Final = 256  # commits merged into one batch
MAX_GROUP_OPS: Final = 4096
MAX_GROUP_CHARS: Final = 4 * 1024 * 1024  # text in a merged batch; one larger commit goes alone
MAX_WAITING_COMMITS: Final = 10_000  # behind that, a commit is refused as UnavailableError (retryable)

# Retries and waits.
RETRY_ATTEMPTS: Final = 4
RETRY_FIRST_WAIT_S: Final = 0.02
RETRY_MAX_WAIT_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0
LOCK_TIMEOUT_S: Final = 10.0  # waiting for another writer or a transaction before DalTimeoutError
POOL_WAIT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 10.0
CANCEL_AGAIN_S: Final = 1.0  # a task that was told to end, and goes on, is told again
HEALTH_TIMEOUT_S: Final = 2.0

# Migrations.
MIGRATION_LOCK_TIMEOUT_S: Final = 2.0  # above deadlock_timeout (1 s), at which autovacuum gives way to a waiting ALTER
SCRATCH_LIFETIME_S: Final = 3600.0  # a scratch database older than that, which nobody uses, is of a run that was killed

# Health.
DEGRADED_LATENCY_MS: Final = 1000.0
DEGRADED_DISK_FREE_BYTES: Final = 100 * 1024 * 1024

# D1, as documented; what is larger is refused before it is sent.
D1_MAX_VALUE_BYTES: Final = 2_000_000  # one text value, and all values of one row
D1_MAX_SQL_BYTES: Final = 100_000
D1_MAX_PARAMS: Final = 100
D1_MAX_COMPOUND_TERMS: Final = 5
D1_MAX_REQUEST_BYTES: Final = 30 * 1024 * 1024  # what goes between two of Cloudflare's workers is 32 MiB at most
# D1's public API allows 1,200 requests in five minutes.
D1_API_REQUESTS: Final = 1_150
D1_API_WINDOW_S: Final = 300.0
D1_API_BURST_REQUESTS: Final = 250  # at once; the rest of the window's requests come one after another
D1_MAX_PAUSE_S: Final = 300.0  # a Retry-After beyond it is not believed
D1_RETRY_FIRST_WAIT_S: Final = 0.05
D1_RETRY_MAX_WAIT_S: Final = 4.0
D1_CONNECTIONS: Final = 20
# Rows of one statement travel in parts of this size; a text longer than D1_LONG_TEXT_CHARS as a parameter of its own.
D1_PART_BYTES: Final = 500_000
D1_LONG_TEXT_CHARS: Final = 20_000
D1_COMMITS_KEPT_S: Final = 3_600  # how long a commit is known by its id; retries end long before
D1_PRUNE_EVERY_S: Final = 300.0
D1_MAX_CLOCK_OFF_S: Final = 60.0  # of this machine against D1, before the self-check fails

# Schema changes.
SCHEMA_LEASE_S: Final = (
    15.0  # a runner that died keeps others waiting for so long, where the engine has no lock of its own
)
SCHEMA_LOCK_WAIT_S: Final = 600.0  # waiting for another runner to end, before DalTimeoutError
SCHEMA_BUSY_WAIT_S: Final = 120.0  # trying again what met a lock of the application's, before DalTimeoutError
SCHEMA_RETRY_FIRST_S: Final = 0.1
SCHEMA_RETRY_MAX_S: Final = 5.0
SCHEMA_RESUMPTIONS: Final = 5  # in one run, after a lost answer or lease; each reads the ledger again

# Live moves.
MOVE_BATCH_ROWS: Final = 1_000  # of one copy; MIGRATION_BATCH_SIZE sets another
MOVE_COPIES: Final = 4  # copies whose rows are read at a time, as one page; a backfill has two such pages under way
MOVE_BATCH_BYTES: Final = 1024 * 1024  # of one copy, text and documents
MOVE_BACKFILL_S: Final = 0.5  # of one go at the backfill: what is dirty waits for so long
MOVE_READ_BYTES: Final = 8 * 1024 * 1024  # rows that were read at a time and are larger make the next ones fewer
MOVE_BATCH_S: Final = 0.5  # a copy that takes longer makes the next one smaller
MOVE_MIN_BATCH_ROWS: Final = 10
MOVE_SLOW_S: Final = 0.02  # a source that answers faster is left no pause
MOVE_SLOWDOWN: Final = 4.0  # a source that answers so many times slower than it can is given one
MOVE_MAX_PAUSE_S: Final = 5.0
MOVE_IDLE_S: Final = 0.05  # between two looks at an empty backlog
MOVE_NAMED_ROWS: Final = 5  # rows that cannot be copied, of those that are named
MOVE_TAIL_EVERY_S: Final = 1.0
MOVE_VERIFY_AGAIN_S: Final = 5.0  # after a check that found differences
MOVE_RESCAN_EVERY_S: Final = 0.5  # between two looks for what others wrote into files
FOREIGN_HOLD_S: Final = 0.05  # for so long a look at what others wrote into a file store holds up its writers at a time
LEGACY_SURE_S: Final = 2.0  # a legacy file that changed so lately is read again: its times may hide another change
LEGACY_FENCE_S: Final = 0.8  # for programs to close the files of a fenced legacy directory; within MOVE_FENCE_S
MOVE_LEASE_S: Final = 5.0  # a mover that died keeps others waiting for so long
MOVE_FENCE_S: Final = 2.0  # whoever has seen a fence for so long takes it back
MOVE_FENCE_TRIES: Final = 10
MOVE_DRAIN_S: Final = 0.05  # the backlog drains in that time, or the unit is not fenced
MOVE_CATCH_UP_S: Final = 30.0  # for the backlog to get there, before a cutover gives up
MOVE_OLD_TRANSACTION_S: Final = 1.0  # with an older one open, the unit is not fenced
MOVE_TAIL_ROWS: Final = 10_000  # registry entries compared at a time
FENCE_LOCK_TIMEOUT_S: Final = 0.3  # for writers under way to end; longer would hold up everybody behind the fence
GATE_MAX_AGE_S: Final = 1.0  # an application's instance believes what it knows of a gate for so long
GATE_IDLE_AGE_S: Final = 5.0  # the same where it knew of no move: a cutover keeps that distance from the move's start
FENCED_WAIT_S: Final = 10.0  # a fenced write waits for the new primary, before FencedError
PUSH_QUEUE_KEYS: Final = 10_000  # changed rows an instance pushes itself; behind that the mover does
APPLY_TRIES: Final = 8  # of one copy, against other appliers and writers in the way, before ConflictError

# Checking two stores against each other.
CHECK_PAGE_ROWS: Final = 2_000  # read from each side at a time
CHECK_PAUSE_S: Final = 0.5  # between two looks at a row that seems to differ
CHECK_LOOKS: Final = 10  # at one row, until it is called pending
CHECK_WATCHED_ROWS: Final = 20_000  # rows under suspicion at a time; with more, the check waits for them first
CHECK_KNOWN_PARENTS: Final = 200_000  # ids of parents remembered a side, so as not to ask for them again
CHECK_SAMPLES: Final = 20  # differences of each kind and table that a report shows
PUSH_PAUSE_S: Final = 0.02  # between two pushes at least: what is written meanwhile shares the next
PUSH_REST: Final = 4.0  # so many times as long as a push took, nothing is pushed: a fifth of the time is all it gets
PUSH_MAX_PAUSE_S: Final = 0.5  # but no longer than that
PUSH_WAIT_S: Final = 1.0  # for rows on the other side that a delete takes with it; behind that the mover does it
SHADOW_READS: Final = 4  # compared at once by one instance; reads beyond that are not compared
SHADOW_TRIES: Final = 20  # a difference is looked at so often, before it is called unsettled
SHADOW_SETTLE_S: Final = 0.1  # between two looks
SHADOW_REPORT_EVERY_S: Final = 2.0

# The operator's commands of a move.
MOVE_PACE_S: Final = 10.0  # what a rate of copying is told from
MOVE_SWITCH_TRIES: Final = 3  # of one unit by one command, where the reason against it may pass
PLAN_PAGE_ROWS: Final = 1_000
PLAN_SAMPLE_ROWS: Final = 1_000  # of each table, by a quick plan
PLAN_SAMPLES: Final = 5  # rows that stand for an obstacle
PLAN_LOOKS: Final = 9  # reads that a latency is told from
PLAN_PAUSE_S: Final = 0.1  # until a row that seems to be an orphan is looked at again
PLAN_REGISTRY_BYTES: Final = 150  # of one row, in the registry of either store
REHEARSAL_CLEANING_TRIES: Final = 20  # to take a rehearsal out of its source
MOVE_ENDING_S: Final = 2.0  # between the two stores' ends of a move
MOVE_STOP_S: Final = 3.0  # for a mover that is told to stop to end its round

# Blobs: the contents of files.
MAX_BLOB_KEY_BYTES: Final = 1024
MAX_BLOB_URL_LIFE_S: Final = 604_800  # a week, which is what S3 allows
BLOB_PIECE_BYTES: Final = 256 * 1024  # of what is read, at most
MAX_BLOB_PARTS: Final = 10_000  # S3 and R2
MAX_BLOB_PART_BYTES: Final = 5 * 1024**3
MAX_BLOB_BYTES: Final = 5 * 1024**4

# Moving files' contents between blob stores.
CONTENTS_PAGE_ROWS: Final = 1_000  # rows read at a time beside the listings
CONTENTS_RANGE_KEYS: Final = 1_000  # copied, then listed again for what changed meanwhile
CONTENTS_RANGES: Final = 4  # under way at a time: one large blob does not hold up the others
CONTENTS_TRANSFERS: Final = 16  # blobs copied at a time; `--jobs` sets another
CONTENTS_WHOLE_BYTES: Final = 1024 * 1024  # a blob of so many bytes travels in one piece
CONTENTS_PARTS_BYTES: Final = 64 * 1024 * 1024  # a larger one travels in parts, and goes on where a move was killed
CONTENTS_PARTS_AT_ONCE: Final = 8  # of all blobs together, each in memory
CONTENTS_NOTE_S: Final = 1.0  # between two notes on one blob: R2 takes one write of a key a second
CONTENTS_TRIES: Final = 6  # of one blob, against a store that does not answer
CONTENTS_FIRST_WAIT_S: Final = 0.5
CONTENTS_MAX_WAIT_S: Final = 20.0
CONTENTS_LOOKS: Final = 5  # at a range whose blobs keep changing in the source
CONTENTS_PACE_S: Final = 10.0  # what a rate is told from
CONTENTS_EFFORT_S: Final = 60.0  # what was seen so long ago counts half for the time that is left
CONTENTS_BYTES_S: Final = 64 * 1024 * 1024  # so fast bytes are expected to pass, until some have shown it
CONTENTS_LEASE_S: Final = 15.0  # a mover that died on another machine keeps others waiting for so long
CONTENTS_SAMPLES: Final = 20  # problems of each kind that a report shows
CONTENTS_DISTINCT: Final = 2_000_000  # checksums remembered while duplicates are counted
CONTENTS_TRIAL_FILES: Final = 256  # blobs of a trial transfer, that a time is told from
CONTENTS_TRIAL_BYTES: Final = 64 * 1024 * 1024

# Files' contents.
MAX_FILENAME_CHARS: Final = 255
MAX_FILENAME_BYTES: Final = 255  # what file systems take, should a client save it under that name
MAX_GIVEN_FILENAME_CHARS: Final = 4_096  # a longer one is refused, not shortened
FILE_SMALL_BYTES: Final = 1024 * 1024  # up to that a file is stored first and its quota taken in the commit of its row
FILE_HEAD_BYTES: Final = 64 * 1024  # looked at to tell a type, and whether compression pays
FILE_TAIL_BYTES: Final = 256 * 1024  # kept to read the directory of an archive
FILE_FRAME_BYTES: Final = 1024 * 1024  # of content in one frame of zstd: what a range reads in vain, at most
FILE_MIN_COMPRESSED_BYTES: Final = 4 * 1024  # a smaller file is stored as it is
FILE_MIN_GAIN: Final = 0.9  # compressed, the first block must have at most that part of its size
FILE_HASH_BYTES: Final = 1024 * 1024  # a piece so large is hashed in a thread; below, the hop costs more
FILE_MAX_EXPANSION: Final = 1_000  # an archive that unpacks to so many times its size, and
FILE_MAX_EXPANDED_BYTES: Final = 1024**3  # to so much, is refused as a bomb
FILE_RESERVE_BYTES: Final = 16 * 1024 * 1024  # reserved first for content of unknown size; then as much again each time
FILE_UPLOAD_LIFE_S: Final = 86_400.0  # an upload not completed by then has expired
FILE_GRACE_S: Final = 3_600.0  # bytes without a row are left alone for so long: theirs may be on its way
FILE_COMMIT_TRIES: Final = 100  # of one commit, against others in the way
FILE_SWEEP_ROWS: Final = 500  # looked at in one statement by the sweeper
FILE_SWEEP_SAMPLES: Final = 100  # files whose bytes are gone, and problems, that a report names
FILE_MAX_PERMISSIONS: Final = 1_000  # of one file
FILE_PART_BYTES: Final = 16 * 1024 * 1024  # of an upload in parts, where nobody says how large they are
FILE_TASK_RETRY_S: Final = 30.0  # until a task that failed is tried again; twice as long after each attempt, up to
FILE_TASK_RETRY_MAX_S: Final = 3_600.0
FILE_TASK_MAX_LEASE_S: Final = 86_400.0
FILE_TASK_MAX_TAKEN: Final = 100  # tasks taken at once
FILE_LOG_ROWS: Final = 10_000  # of the access log that wait to be written; beyond that the newest are dropped
FILE_LOG_BATCH_ROWS: Final = 500
FILE_LOG_PAUSE_S: Final = 0.1  # rows gather for so long; a process that is killed loses those of that time
FILE_LOG_WAIT_S: Final = 5.0  # for waiting rows to be written, before a listing of the log, and at closing
FILE_LOG_RETRY_S: Final = 1.0  # after the log could not be written
FILE_MAX_ERROR_CHARS: Final = 1_000  # of a message in the log
BLOB_BLOCK_BYTES: Final = 1024 * 1024  # written to and read from a disk at a time
BLOB_UNPAUSED_BYTES: Final = 4 * 1024**2  # read from memory before other tasks have their turn
BLOB_LEFTOVER_S: Final = 86_400.0  # unfinished files older than that are of a process that died
BLOB_LIST_RUN_KEYS: Final = 50_000  # sorted in memory at a time, where a directory is listed
BLOB_LIST_PAGE_KEYS: Final = 500
BLOB_THREADS: Final = 16  # that wait for a disk, of one store
# S3 and R2.
S3_MIN_PART_BYTES: Final = 5 * 1024**2  # every part but the last
S3_MAX_COPY_BYTES: Final = 5 * 1024**3  # in one request
S3_PART_BYTES: Final = 8 * 1024**2  # what `put` sends at a time; larger where 10,000 of them are too few
S3_UNKNOWN_PART_BYTES: Final = 16 * 1024**2  # where the size is not known before: then 160 GiB at most
S3_PARTS_AT_ONCE: Final = 4  # of one `put`, each in memory
S3_RESENT_PART_BYTES: Final = 16 * 1024**2  # a streamed part up to that is held, to be sent again after a failure
S3_DELETED_KEYS: Final = 1_000  # in one request
S3_CONNECTIONS: Final = 32
S3_TIMEOUT_S: Final = 30.0  # without a byte, either way
S3_ATTEMPTS: Final = 5
S3_FIRST_WAIT_S: Final = 0.1
S3_MAX_WAIT_S: Final = 5.0
S3_BUSY_WAIT_S: Final = 1.0  # after a 429 that names no time: R2 takes one write of a key a second
S3_MAX_PAUSE_S: Final = 60.0  # a Retry-After beyond it is not waited for
BLOB_LIST_KEYS: Final = 1_000  # of one request that lists, as S3 and R2 answer it
USAGE_FLUSH_S: Final = 60.0  # counted requests are recorded so often; a process that is killed loses those since
# A local cache of blobs.
BLOB_CACHE_SHARE: Final = 4  # a blob larger than the cache divided by that is never kept
BLOB_CACHE_TRUST_S: Final = 60.0  # then the store is asked again whether a blob is the same
BLOB_CACHE_WHOLE_BYTES: Final = 8 * 1024**2  # a smaller blob is kept whole, though a range was asked for
BLOB_CACHE_KNOWN: Final = 100_000  # blobs of which a process remembers that
