use std::time::Duration;

use super::*;
use crate::{directory::record::FreezeReason, handle::HandleRules, testing::person};

const NOW: Timestamp = Timestamp(1_000_000);

fn handle(text: &str) -> Handle {
    Handle::parse(text, &HandleRules::default()).unwrap()
}

fn sam() -> &'static Person {
    person("@sam:example.org")
}

fn kim() -> &'static Person {
    person("@kim:example.org")
}

fn record(name: &str, owner: &Person, state: HandleState) -> HandleRecord {
    HandleRecord {
        state,
        ..HandleRecord::new(handle(name), owner.to_owned(), 4, Timestamp(5))
    }
}

fn quarantined(name: &str, owner: &Person) -> HandleRecord {
    record(
        name,
        owner,
        HandleState::Quarantined {
            until: NOW + Duration::from_millis(1),
            revoked: false,
        },
    )
}

fn free(name: &str, owner: &Person) -> HandleRecord {
    let state = HandleState::Quarantined {
        until: NOW,
        revoked: false,
    };
    record(name, owner, state)
}

fn frozen(name: &str, owner: &Person) -> HandleRecord {
    let reason = FreezeReason::GhostNotOurs;
    record(name, owner, HandleState::Frozen { reason, since: NOW })
}

/// Sam claims `modern`, which nobody ever had.
fn fresh(handle: &Handle) -> ClaimFacts<'_> {
    ClaimFacts {
        handle,
        claimer: sam(),
        by: ClaimedBy::Person,
        now: NOW,
        reserved: false,
        is_permitted: true,
        record: None,
        lookalike: None,
        last_generation: None,
        held: 0,
        may_hold: 5,
        within_limit: true,
        server_within_limit: true,
        servers_within_limit: true,
    }
}

#[test]
fn a_claim_goes_through_or_is_refused_for_its_reason() {
    let wanted = handle("Modern");
    let claimed = |generation| {
        Ok(Claim {
            generation,
            ends: None,
        })
    };
    let ended = |generation, name| {
        Ok(Claim {
            generation,
            ends: Some(handle(name)),
        })
    };
    let said = |words: &str| Err(words.to_owned());
    let look = "@Modern looks too much like @rnodern, which is taken";

    for (case, facts, expected) in [
        ("nobody had it", fresh(&wanted), claimed(1)),
        (
            "it is theirs",
            ClaimFacts {
                record: Some(record("modern", sam(), HandleState::Active)),
                within_limit: false,
                reserved: true,
                ..fresh(&wanted)
            },
            said("@modern is yours already"),
        ),
        (
            "it is theirs, and frozen",
            ClaimFacts {
                record: Some(frozen("modern", sam())),
                ..fresh(&wanted)
            },
            said("@modern is yours already"),
        ),
        (
            "somebody has it",
            ClaimFacts {
                record: Some(record("modern", kim(), HandleState::Active)),
                ..fresh(&wanted)
            },
            said("@Modern is taken"),
        ),
        (
            "somebody has it, and it is frozen",
            ClaimFacts {
                record: Some(frozen("modern", kim())),
                ..fresh(&wanted)
            },
            said("@Modern is taken"),
        ),
        (
            "somebody gave it up",
            ClaimFacts {
                record: Some(quarantined("modern", kim())),
                last_generation: Some(4),
                ..fresh(&wanted)
            },
            said("@Modern was given up not long ago, so nobody else can have it yet"),
        ),
        (
            "they gave it up themselves",
            ClaimFacts {
                record: Some(quarantined("modern", sam())),
                last_generation: Some(4),
                ..fresh(&wanted)
            },
            claimed(4),
        ),
        (
            "its quarantine is over",
            ClaimFacts {
                record: Some(free("modern", kim())),
                last_generation: Some(4),
                ..fresh(&wanted)
            },
            claimed(5),
        ),
        (
            "its quarantine is over, and they had it last",
            ClaimFacts {
                record: Some(free("modern", sam())),
                last_generation: Some(4),
                ..fresh(&wanted)
            },
            claimed(4),
        ),
        (
            "its record was ended by a look-alike, its generation remains",
            ClaimFacts {
                last_generation: Some(4),
                ..fresh(&wanted)
            },
            claimed(5),
        ),
        (
            "the admin does not let them have handles",
            ClaimFacts {
                is_permitted: false,
                ..fresh(&wanted)
            },
            said("you can't have a handle here; ask the admin of this server for one"),
        ),
        (
            "the admin gives it to somebody who may not claim",
            ClaimFacts {
                is_permitted: false,
                by: ClaimedBy::Admin,
                ..fresh(&wanted)
            },
            claimed(1),
        ),
        (
            "it is reserved",
            ClaimFacts {
                reserved: true,
                ..fresh(&wanted)
            },
            said("@Modern is reserved, so nobody can claim it"),
        ),
        (
            "it is reserved, and the admin gives it",
            ClaimFacts {
                reserved: true,
                held: 5,
                within_limit: false,
                by: ClaimedBy::Admin,
                ..fresh(&wanted)
            },
            claimed(1),
        ),
        (
            "the admin gives what somebody has",
            ClaimFacts {
                record: Some(record("modern", kim(), HandleState::Active)),
                by: ClaimedBy::Admin,
                ..fresh(&wanted)
            },
            said("@Modern is taken"),
        ),
        (
            "somebody has one that looks like it",
            ClaimFacts {
                lookalike: Some(record("rnodern", kim(), HandleState::Active)),
                ..fresh(&wanted)
            },
            said(look),
        ),
        (
            "somebody has a frozen one that looks like it",
            ClaimFacts {
                lookalike: Some(frozen("rnodern", kim())),
                ..fresh(&wanted)
            },
            said(look),
        ),
        (
            "somebody gave up one that looks like it",
            ClaimFacts {
                lookalike: Some(quarantined("rnodern", kim())),
                ..fresh(&wanted)
            },
            said(look),
        ),
        (
            "somebody has one that looks like it and is not to be found",
            ClaimFacts {
                lookalike: Some(HandleRecord {
                    discoverable: Discoverable::Link,
                    ..record("rnodern", kim(), HandleState::Active)
                }),
                ..fresh(&wanted)
            },
            said("@Modern looks too much like another handle, which is taken"),
        ),
        (
            "they have one that looks like it",
            ClaimFacts {
                lookalike: Some(record("rnodern", sam(), HandleState::Active)),
                ..fresh(&wanted)
            },
            said("@Modern looks too much like your own @rnodern: you can have only one of the two"),
        ),
        (
            "they gave up one that looks like it",
            ClaimFacts {
                lookalike: Some(quarantined("rnodern", sam())),
                ..fresh(&wanted)
            },
            ended(1, "rnodern"),
        ),
        (
            "one that looks like it is out of quarantine",
            ClaimFacts {
                lookalike: Some(free("rnodern", kim())),
                ..fresh(&wanted)
            },
            ended(1, "rnodern"),
        ),
        (
            "they have as many as they may",
            ClaimFacts {
                held: 5,
                ..fresh(&wanted)
            },
            said("you have 5 handles, and more are not allowed here; release one first"),
        ),
        (
            "they claimed many today",
            ClaimFacts {
                within_limit: false,
                ..fresh(&wanted)
            },
            said("you claimed many handles today; try again tomorrow"),
        ),
    ] {
        let decided = decide(facts).map_err(|error| error.to_string());
        assert_eq!(decided, expected, "{case}");
    }
}
