//! The metrics of the service. `docs/metrics.md` is made from this list.

use super::{
    LabelValues::{OneOf, Words},
    Metric,
    MetricKind::{Counter, Gauge, Histogram},
    MetricLabel,
};

/// From a millisecond to a minute: answers of the homeserver, transactions.
const ANSWERS: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// From 10 milliseconds to 10 minutes: what people wait for.
const DELAYS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// From a tenth of a millisecond to 10 seconds: the disk.
const DISK: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

const fn label(name: &'static str, values: &'static [&'static str]) -> MetricLabel {
    MetricLabel {
        name,
        values: OneOf(values),
    }
}

const fn words(name: &'static str, what: &'static str) -> MetricLabel {
    MetricLabel {
        name,
        values: Words(what),
    }
}

/// A version that runs.
pub const BUILD: Metric = Metric {
    name: "stonechat_build_info",
    kind: Gauge,
    labels: &[words("version", "the version")],
    help: "Always 1; the label says which version runs.",
};
/// A part of readiness.
pub const PARTS: Metric = Metric {
    name: "stonechat_part_ready",
    kind: Gauge,
    labels: &[label(
        "part",
        &["start", "store", "homeserver", "transactions"],
    )],
    help: "1 if a part works, 0 if not: the parts of `/health/ready`.",
};

/// Transactions of the homeserver.
pub const TRANSACTIONS: Metric = Metric {
    name: "stonechat_transactions_total",
    kind: Counter,
    labels: &[label("outcome", &["accepted", "failed"])],
    help: "Transactions that the homeserver pushed, or parts of large ones. What failed comes again.",
};
/// How long a transaction takes.
pub const TRANSACTION_TIME: Metric = Metric {
    name: "stonechat_transaction_duration_seconds",
    kind: Histogram(ANSWERS),
    labels: &[],
    help: "How long a transaction, or a part of a large one, takes until it is durable.",
};
/// When the last transaction came.
pub const LAST_TRANSACTION: Metric = Metric {
    name: "stonechat_last_transaction_timestamp_seconds",
    kind: Gauge,
    labels: &[],
    help: "When the last transaction was accepted, in seconds since 1970; 0 before the first.",
};
/// What transactions bring.
pub const RECEIVED: Metric = Metric {
    name: "stonechat_received_total",
    kind: Counter,
    labels: &[label("kind", &["event", "to_device", "ephemeral"])],
    help: "What transactions have brought; `ephemeral` are receipts and typing.",
};
/// How old events are when they arrive.
pub const EVENT_AGE: Metric = Metric {
    name: "stonechat_event_age_seconds",
    kind: Histogram(DELAYS),
    labels: &[],
    help: "How old an event of a person of this server is when it arrives. If this grows, the \
           homeserver is behind with pushing.",
};

/// What waits in the inbox.
pub const INBOX: Metric = Metric {
    name: "stonechat_inbox_items",
    kind: Gauge,
    labels: &[],
    help: "Items that have arrived and are not decided yet, at most 100,000.",
};
/// How long the oldest item waits.
pub const INBOX_AGE: Metric = Metric {
    name: "stonechat_inbox_oldest_item_seconds",
    kind: Gauge,
    labels: &[],
    help: "How long the oldest of them has been waiting, at most since the start and at \
           most about an hour; 0 if none waits. It begins anew when an item is put back.",
};
/// What waits in the outbox.
pub const OUTBOX: Metric = Metric {
    name: "stonechat_outbox_items",
    kind: Gauge,
    labels: &[],
    help: "Effects that are decided and not carried out yet, at most 100,000.",
};
/// How long the oldest effect waits.
pub const OUTBOX_AGE: Metric = Metric {
    name: "stonechat_outbox_oldest_item_seconds",
    kind: Gauge,
    labels: &[],
    help: "How long the oldest of them has been waiting; 0 if none waits. `stonechat status` says \
           which rooms are stuck.",
};
/// Ghosts that are owed.
pub const OWED_GHOSTS: Metric = Metric {
    name: "stonechat_owed_ghosts",
    kind: Gauge,
    labels: &[],
    help: "Ghosts that are still to be made or removed, at most 1,000.",
};
/// Messages that are owed.
pub const OWED_NOTICES: Metric = Metric {
    name: "stonechat_owed_notices",
    kind: Gauge,
    labels: &[],
    help: "Messages that the bot could not send yet, at most 100,000.",
};

/// Effects that were tried.
pub const EFFECTS: Metric = Metric {
    name: "stonechat_effects_total",
    kind: Counter,
    labels: &[
        words("kind", "what was to be done, in the words of the log"),
        label("outcome", &["done", "retried", "given_up"]),
    ],
    help: "Attempts to carry out an effect: a message sent, a room left. `retried` has failed and is \
           tried again.",
};
/// Items given up.
pub const GIVEN_UP: Metric = Metric {
    name: "stonechat_items_given_up_total",
    kind: Counter,
    labels: &[],
    help: "Items in the inbox that could not be handled. The senders of encrypted messages were told.",
};
/// Messages that could not be read.
pub const UNDECRYPTABLE: Metric = Metric {
    name: "stonechat_undecryptable_events_total",
    kind: Counter,
    labels: &[label(
        "reason",
        &[
            "no_key",
            "key_begins_later",
            "sender_unknown",
            "unknown_device",
            "unsigned_device",
            "changed_identity",
            "too_many_devices",
            "replayed",
            "not_understood",
            "malformed",
        ],
    )],
    help: "Encrypted messages that a ghost or the bot could not read when it first tried. Their key \
           may still come.",
};

/// Introductions that ended.
pub const INTRODUCTIONS: Metric = Metric {
    name: "stonechat_introductions_total",
    kind: Counter,
    labels: &[
        label("way", &["open", "strict", "masked", "module", "none"]),
        label("outcome", &["introduced", "declined", "ended"]),
    ],
    help: "Invites of ghosts that were answered to the end. `introduced`: the owner was invited, or the \
           masked conversation has begun. `ended`: it ended before; the asker left, was led back to a \
           room that exists, or the request was not accepted. `declined` by the ghost, or withdrawn \
           before. `none`: nobody was to be introduced. `module`: the owners that the module was \
           given. Not counted are invites into rooms that a ghost has left, and what a restore ends.",
};
/// Requests.
pub const REQUESTS: Metric = Metric {
    name: "stonechat_requests_total",
    kind: Counter,
    labels: &[label("outcome", &["asked", "accepted", "ended"])],
    help: "Requests to owners who want to be asked first. `ended`: declined, not answered in time, \
           withdrawn, or the handle changed.",
};
/// Messages passed on.
pub const RELAYED: Metric = Metric {
    name: "stonechat_relayed_total",
    kind: Counter,
    labels: &[label("kind", &["message", "reaction", "other"])],
    help: "Copies of events that were sent in masked conversations. `other`: calls, polls and the like.",
};
/// How long passing on takes.
pub const RELAY_TIME: Metric = Metric {
    name: "stonechat_relay_delay_seconds",
    kind: Histogram(DELAYS),
    labels: &[],
    help: "How long a copy takes, from when it is decided until it is sent. It includes waiting for \
           keys and for what comes first.",
};
/// Dead letters.
pub const DEAD_LETTERS: Metric = Metric {
    name: "stonechat_dead_letters_total",
    kind: Counter,
    labels: &[words("reason", "the reasons that `stonechat status` lists")],
    help: "Items from the homeserver that were set aside, since the database was created.",
};

/// Machines in memory.
pub const MACHINES: Metric = Metric {
    name: "stonechat_machines_in_memory",
    kind: Gauge,
    labels: &[],
    help: "Ghosts whose keys are in memory, some 42 KB each.",
};
/// One-time keys.
pub const ONE_TIME_KEYS: Metric = Metric {
    name: "stonechat_one_time_keys_published_total",
    kind: Counter,
    labels: &[],
    help: "One-time keys that were published: the first of each ghost, and later those in place of \
           keys that somebody claimed.",
};
/// Fallback keys used.
pub const FALLBACK_KEYS: Metric = Metric {
    name: "stonechat_fallback_keys_used_total",
    kind: Counter,
    labels: &[],
    help: "Ghosts that were found to have had no one-time keys left, so that their fallback key was \
           used.",
};

/// Size of the database.
pub const STORE_SIZE: Metric = Metric {
    name: "stonechat_store_bytes",
    kind: Gauge,
    labels: &[],
    help: "Size of the database on disk.",
};
/// How long a flush takes.
pub const FLUSH_TIME: Metric = Metric {
    name: "stonechat_store_flush_duration_seconds",
    kind: Histogram(DISK),
    labels: &[],
    help: "How long a flush of the database takes. All that is acknowledged waits for one.",
};

/// Requests to the homeserver.
pub const HOMESERVER_REQUESTS: Metric = Metric {
    name: "stonechat_homeserver_requests_total",
    kind: Counter,
    labels: &[
        words(
            "endpoint",
            "the last words of the path, without ids: `send`, `sync`, `keys/query` and so on, or `other`",
        ),
        label(
            "status",
            &[
                "2xx",
                "3xx",
                "401",
                "403",
                "404",
                "429",
                "4xx",
                "502",
                "503",
                "504",
                "5xx",
                "timeout",
                "unreachable",
                "not_sent",
            ],
        ),
    ],
    help: "Requests to the homeserver.",
};
/// How long they take.
pub const HOMESERVER_TIME: Metric = Metric {
    name: "stonechat_homeserver_request_duration_seconds",
    kind: Histogram(ANSWERS),
    labels: &[words("endpoint", "as above")],
    help: "How long the homeserver takes to answer, or to begin an answer that is read as it comes.",
};

/// Reconciliation.
pub const RECONCILED: Metric = Metric {
    name: "stonechat_reconciled_timestamp_seconds",
    kind: Gauge,
    labels: &[],
    help: "When the last round began in which the ghosts asked the homeserver what they missed, of \
           those that have ended, in seconds since 1970; 0 before the first.",
};
/// How long a round takes.
pub const RECONCILIATION_TIME: Metric = Metric {
    name: "stonechat_reconciliation_duration_seconds",
    kind: Gauge,
    labels: &[],
    help: "How long that round took, in seconds.",
};

/// How many could not ask.
pub const RECONCILIATION_FAILURES: Metric = Metric {
    name: "stonechat_reconciliation_failures",
    kind: Gauge,
    labels: &[],
    help: "How many ghosts could not ask in the last round. One in which none could counts only here.",
};

/// A group of metrics, as the page of the documentation shows them.
pub struct MetricGroup {
    /// The heading.
    pub title: &'static str,
    /// The metrics.
    pub metrics: &'static [Metric],
}

/// All metrics.
pub const GROUPS: &[MetricGroup] = &[
    MetricGroup {
        title: "The service",
        metrics: &[BUILD, PARTS],
    },
    MetricGroup {
        title: "What the homeserver pushes",
        metrics: &[
            TRANSACTIONS,
            TRANSACTION_TIME,
            LAST_TRANSACTION,
            RECEIVED,
            EVENT_AGE,
            DEAD_LETTERS,
        ],
    },
    MetricGroup {
        title: "What waits",
        metrics: &[
            INBOX,
            INBOX_AGE,
            OUTBOX,
            OUTBOX_AGE,
            OWED_GHOSTS,
            OWED_NOTICES,
        ],
    },
    MetricGroup {
        title: "What is done",
        metrics: &[
            EFFECTS,
            GIVEN_UP,
            UNDECRYPTABLE,
            INTRODUCTIONS,
            REQUESTS,
            RELAYED,
            RELAY_TIME,
        ],
    },
    MetricGroup {
        title: "Keys",
        metrics: &[MACHINES, ONE_TIME_KEYS, FALLBACK_KEYS],
    },
    MetricGroup {
        title: "The database",
        metrics: &[STORE_SIZE, FLUSH_TIME],
    },
    MetricGroup {
        title: "The homeserver",
        metrics: &[
            HOMESERVER_REQUESTS,
            HOMESERVER_TIME,
            RECONCILED,
            RECONCILIATION_TIME,
            RECONCILIATION_FAILURES,
        ],
    },
];

/// Returns every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|group| group.metrics)
}
