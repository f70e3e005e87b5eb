"""Bounds on everything that comes from outside: one place, each with its unit and its reason."""

# --- transactions
MAX_ENVELOPE_BYTES = 64 * 1024  # the largest, a publication of 256 columns with codelists, fits four times
MAX_OPERATIONS = 64  # per transaction: one request to every member of a large consortium
NONCE_BYTES = 16  # never repeats by chance
MAX_EXPIRY_MS = 10 * 60 * 1000  # how far ahead a transaction may expire: bounds the window of seen ids
DEFAULT_EXPIRY_MS = 2 * 60 * 1000
MAX_SUBMIT_ENVELOPES = 1_000  # per Submit call

# --- blocks and consensus
MAX_BLOCK_BYTES = 2 * 1024 * 1024  # one gRPC message, sent within a proposal timeout on 100 Mbit/s
MAX_BLOCK_TRANSACTIONS = 5_000  # keeps execution of one block well under a second
MAX_BLOCK_OPERATIONS = 5_000  # the same, for transactions of many operations: of the dearest, about a second
MAX_COMMIT_BYTES = 32 * 1024  # a certificate of MAX_VALIDATORS signatures takes a third of it
MAX_BLOCK_EVIDENCE = 16
MAX_EVIDENCE_AGE_BLOCKS = 100_000  # about six days of heartbeats: old offences do not return for ever
MAX_PENDING_EVIDENCE = 256  # pieces waiting for a block at one node
MAX_VALIDATORS = 100  # all-to-all votes
MAX_INSTITUTIONS = 500  # observers, suspended and removed ones included: every node links with all that may
LIVE_HEARTBEATS = 60  # intervals within which a validator must have been seen to count as live: 5 minutes by default
MIN_NOTICE_BLOCKS = 10  # before a member leaves: others see it coming, and a member whose operator went astray, too
MAX_NOTICE_BLOCKS = 10_000_000  # more than a year
CERTIFICATE_BLOCKS = 100  # a certificate stays so long: with every new one all nodes close their ports for a moment
MAX_NEW_VALIDATOR_KEYS = 4  # of one member within so many blocks: a key that was named by mistake is exchanged at once
NEW_VALIDATOR_KEYS_BLOCKS = 100_000  # and no more: each change makes a set of validators that every node keeps
KEPT_BLOCKS = 100  # longer, where the others could not decide without it: then it is tried again
MAX_JOIN_LAG_BLOCKS = 1_000  # a node this near has caught up: what it lacks takes it a second
MAX_TOTAL_POWER = 10_000  # proposer rotation is tabulated over the total power
MAX_ROUNDS_AHEAD = 2  # votes kept for rounds after the current one, per sender (Tendermint keeps two)
MAX_ROUNDS_PASSED = 100  # of one sender's later rounds given up for still later ones while we stay: each is logged
MAX_ROUNDS_BEHIND = 16  # rounds before the current one whose messages are kept: a stall of hours fits in memory
MAX_EARLY_MESSAGES = 16  # kept per peer until their height begins here; a height takes three from each validator
MAX_VOTES_PER_MESSAGE = 4 * MAX_VALIDATORS  # both types of two rounds: all that one answer needs
MAX_CLOCK_DRIFT_MS = 60_000  # how far a vote's time may run ahead of the receiver's clock, and of the last block

# --- pool
MAX_POOL_TRANSACTIONS = 50_000
MAX_POOL_PER_INSTITUTION = 20_000  # by all its people and its node: one member cannot fill it alone
MAX_POOL_BYTES = 256 * 1024 * 1024  # of all envelopes together
MAX_POOL_BACKLOG = 20_000  # envelopes heard from peers and not yet verified; more are forgotten
MAX_POOL_BACKLOG_BYTES = 32 * 1024 * 1024  # of these together: as many of usual size, but few of the largest
MAX_REFUSALS_REMEMBERED = 10_000  # of the pool, for whoever asks what became of a transaction
MAX_GOSSIP_BYTES = 256 * 1024  # of one batch of envelopes: a vote behind it waits a few milliseconds at most
GOSSIP_DELAY_MS = 2  # envelopes that arrive together travel together

# --- messages between nodes
MAX_PEER_MESSAGE_BYTES = MAX_BLOCK_BYTES + 1024 * 1024  # a proposal with its block, or a chunk of a snapshot
MAX_SYNC_BLOCKS = 256  # per BlockResponse, which ends at MAX_BLOCK_BYTES: reading them takes milliseconds
SNAPSHOT_CHUNK_BYTES = 1024 * 1024  # of state; the entry that passes it ends the chunk, which fits into one message
SNAPSHOT_AUDIT_RECORDS = 128  # per chunk, a subtree of the log; the largest, of 22 KB, fit into one message
MAX_SNAPSHOT_CHUNKS = 50_000  # their digests fit into one message: 50 GB of state, or 6 million records
PROTOCOL_VERSION = 1  # of messages between nodes; others are refused in the Hello
MAX_PEER_QUEUE = 1_000  # messages waiting for one slow peer, of consensus and of gossip each
MAX_PEER_BLOCKS = 8  # of those, messages with blocks: a peer that asks and does not read must not fill our memory
PEER_HELLO_MS = 5_000  # a new stream must introduce itself within this
PEER_RETRY_MIN_MS = 100  # first pause before dialling again
PEER_RETRY_MAX_MS = 2_000  # the pause grows no further: a peer that returns is found soon

# --- names and text (characters)
MAX_INSTITUTION_ID = 32
MAX_NAME_PART = 63  # collection, table, column
MAX_TITLE = 200
MAX_TEXT = 2_000  # descriptions, purposes, reasons
MAX_KEYWORDS = 16
MAX_KEYWORD = 64
MAX_UNIT = 64  # UCUM codes are far shorter
MAX_RULE = 64
MAX_REFUSAL = 500  # of a refusal's message and of its hint: results are kept for ever
MAX_SQL = 10_000

# --- files of a client
MAX_KEY_FILE_BYTES = 4 * 1024  # takes about 400 bytes
MAX_KEY_MEMORY_BYTES = 1024 * 1024 * 1024  # what a key file may ask for to derive its key
MAX_KEY_PASSES = 16
MAX_GENESIS_BYTES = 4 * 1024 * 1024  # MAX_VALIDATORS institutions with their people
MAX_RECEIPT_BYTES = 16 * 1024 * 1024  # headers of a few hundred changes of validators
MAX_PROFILE_BYTES = 64 * 1024  # a profile with its certificate takes about 1 KiB
MAX_DESCRIPTOR_BYTES = 1024 * 1024  # texts of MAX_COLUMNS columns

# --- catalog
MAX_COLUMNS = 256
MAX_CODES = 64  # per published codelist
MAX_CODE = 64  # characters of one code
MAX_OPEN_REQUESTS_PER_DATASET = 1_000  # withdrawing a dataset answers them all in one operation
MAX_ACTIVE_TOKENS_PER_DATASET = 1_000  # and revokes these
MAX_OF_ONE_INSTITUTION = 250  # open requests for a dataset, tokens for it, demands: others need room, too
MAX_PURPOSES = 8  # of one request, MAX_TEXT characters together: who has more to do asks again
MAX_OFFERS_PER_REQUEST = 16  # counter-offers of both sides: who has not agreed by then asks anew
MAX_THEMES = 8  # per dataset and per demand
MAX_TAXONOMY_THEMES = 500
MAX_THEME_CODE = 32
MAX_URI = 300
MAX_OPEN_DEMANDS_PER_PERSON = 20
MAX_DEMAND_MS = 366 * 24 * 60 * 60 * 1000
MAX_DEMANDS_PER_TERM = 1_000  # open ones that are found by one column or theme: a publication reads them all
MAX_MATCHES_PER_DEMAND = 100  # datasets; who finds none of a hundred right asks more exactly
MAX_MATCHES_PER_PUBLICATION = 100  # demands that one publication answers: the longest waiting first
MAX_DEMANDS_COMPARED = 5_000  # with what one institution publishes in one block: a third of a second; the rest waits
MAX_EVIDENCE_DIGESTS = 16  # of each side of a dispute
MAX_OPEN_DISPUTES_PER_INSTITUTION = 50  # as claimant: quarrelling costs others time
MAX_ESCROWS_PER_DISPUTE = 100  # that one over a token freezes, the longest held; others by disputes over their tasks
MAX_DUE_PER_BLOCK = 1_000  # of each kind (tokens, tasks, escrows, requests …) that one block ends: the rest in the next
MAX_CHUNK_BYTES = 256 * 1024  # of a staged file
MAX_STAGED_BYTES = 4 * 1024**3
MAX_UPLOADS = 4  # files that operators are sending to their node at a time
UPLOAD_IDLE_S = 30  # between two chunks: who is silent for longer gives its place to others
MAX_UPLOAD_S = 3_600  # from the first chunk to the last, of MAX_STAGED_BYTES
MAX_ROWS = 100_000_000  # per dataset: their squares, 10^30 each, still add up in 128 bits

# --- tasks
MAX_SOURCES = 64
MAX_COMMITTEE = 15
MAX_GROUPS = 256  # product of the codelists grouped by
MAX_OUTPUTS = 32  # items of a SELECT list
MAX_EXPRESSION_NODES = 1_000  # of a parsed query: no stack is exhausted, no owner reads for an hour
MAX_EXPRESSION_DEPTH = 20  # parentheses and CASEs inside one another: parsers recurse
MAX_LITERAL = 200  # characters of one literal in a query
FRACTION_DIGITS = 6  # values enter a joint computation as integers of 10^-6
MAX_VALUE = 10**9  # absolute; 10^15 after scaling: exact in a double, squares exact in 128 bits
MAX_CERTIFICATE_BYTES = 1_024  # a self-signed P-256 certificate takes about 350
MAX_SEALED_OUTPUT_BYTES = 1024 * 1024
MAX_SESSION_FRAME_BYTES = 4 * 1024 * 1024
MAX_SESSION_HELLO_BYTES = 256
SESSION_SILENCE_S = 20  # within one round, whose work takes milliseconds
MAX_JOB_BYTES = 16 * 1024 * 1024  # what a node tells its worker: a plan of MAX_SOURCES sources fits many times
WORKER_BASE_MB = 2_048  # address space of a worker beside what its local engine may use: mostly mapped libraries
WORKER_START_S = 60  # until a worker process is ready, on a machine that does much else
MAX_OUTCOME_BYTES = 2 * MAX_SEALED_OUTPUT_BYTES  # what a worker hands to its node, as base64
MAX_TASK_STRANGERS = 64  # connections of one task at a time that have not proved whose they are: MAX_COMMITTEE do soon
MAX_PENDING_CONNECTIONS = 64  # at the MPC port at a time, before their preamble
PREAMBLE_TIMEOUT_S = 5
MAX_STORED_OUTPUTS = 1_000  # sealed outputs a node keeps for their askers, the newest
MAX_OPEN_TASKS_PER_ASKER = 100
MAX_OPEN_TASKS_PER_INSTITUTION = 500  # of all its people: every node goes through all open tasks after every block

# --- points
MAX_POINTS = 2**62  # ever minted: every balance and every sum of balances fits 63 bits
MAX_PRICE = 10**15  # points that one dataset costs a task, at most: MAX_SOURCES of them stay below MAX_POINTS
MAX_FEE = 10**6  # points for one task, dataset or request: a fee keeps the common work going, and is no wall
MAX_PERIOD_MS = 36_600 * 24 * 60 * 60 * 1000  # of a subscription: a hundred years, as tokens
BASIS_POINTS = 10_000  # a whole
MAX_UNION_MEMBERS = 1_000_000  # a payment to a union costs the same for one member and for all of these
MAX_UNION_WEIGHT = 2**32 - 1  # of all members together: the fraction of a point that waits stays below one point
MAX_UNION_CHANGES = 200  # members set in one operation
MAX_UNIONS_PER_INSTITUTION = 1_000

# --- governance
MAX_ACTIONS = 16  # per proposal: what people can weigh as one
MAX_OPEN_PROPOSALS = 16  # per proposing institution: people read them all
MAX_OPEN_APPLICATIONS = 16  # per sponsoring institution
MAX_BALLOT_WEIGHT = 10_000
MAX_DENOMINATOR = 10_000  # of the fractions in a constitution
MIN_VOTING_PERIOD_MS = 60 * 1000  # people and clocks need as much
MAX_VOTING_PERIOD_MS = 366 * 24 * 60 * 60 * 1000
MAX_DELAY_MS = 366 * 24 * 60 * 60 * 1000  # between acceptance and execution
MAX_FEATURES = 16  # flags of one upgrade
MIN_UPGRADE_BLOCKS = 2  # the block that schedules an upgrade and the one that proves it are of the old version
MAX_PROPOSAL_BYTES = 256 * 1024  # of a proposal's file: more than an envelope holds

# --- calls
MAX_TICKET_MS = 10 * 60 * 1000
MAX_PAGE_SIZE = 500
DEFAULT_PAGE_SIZE = 50
MAX_SEARCH_TERMS = 16  # words of one catalog search
MAX_WAIT_MS = 30_000
RPC_KEEPALIVE_MS = 20_000  # a client asks so often whether its node is there: a cut line is no silent stream
RPC_KEEPALIVE_ANSWER_MS = 10_000
MAX_RPC_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_SUBSCRIPTIONS = 256
MAX_SUBSCRIPTIONS_PER_PERSON = 64  # of these: whoever opens as many as there are keeps nobody else from following
RECEIPT_WAIT_MS = 10_000  # the block that proves a record follows within a heartbeat
MAX_CALLS = 1_000  # being served at once by one node, long polls included
MAX_UNREAD = 10 * MAX_CALLS  # and those whose answers their clients have not read: each answer is kept as long
MAX_CALLS_PER_PERSON = 250  # of these: programs of one person wait for many transactions, and leave room for others
MAX_VISITS = 32  # calls at a time of those who need no ticket (health, reflection); the oldest makes room
VISIT_S = 10  # and each no longer: who wants to know how a node does asks again
REQUEST_S = 30  # from a call's beginning until its request is there: the largest takes as long on 2 Mbit/s
HANDSHAKE_MS = 10_000  # for TLS with a node: who connects and says nothing holds a descriptor for no longer
IDLE_MS = 10_000  # nor who says hello and calls nothing: a client that calls again connects again
MAX_STREAMS = 100  # calls under way on one connection: gRPC drops anybody's calls once a thousand wait to be looked at
MAX_CONNECTIONS = 1_000  # to one of a node's ports: the ledger needs descriptors, too
MAX_TICKETS_REMEMBERED = 1_000  # verified tickets, so that a burst of calls costs one verification
MAX_ERROR_TEXT = 1_000  # characters of a message or hint in gRPC's trailing metadata (8 KiB in all)

# --- the audit trail
MAX_FILTER_DIMENSIONS = 8  # that must all fit
MAX_FILTER_VALUES = 32  # of one dimension, of which one must fit
MAX_FILTER_TEXT = 4_000  # bytes of all values: where a regulator reads they are in a record, twice
MAX_FILTER_MATCHES = 1_000  # values that a beginning may stand for, in one filter
MAX_GROUPS_COUNTED = 10_000  # of one answer: people of a large consortium, days of a decade
MAX_PROVED_RECORDS = 500  # per ProveRecords: a page of records, each with its path, stays below a megabyte
MAX_CASE_RECORDS = 50_000  # of one case file: what a browser still opens
MAX_CASE_BYTES = 256 * 1024 * 1024  # the same with receipts
