//! Verdicts.

use std::collections::BTreeSet;

use super::*;
use crate::handle::Typed;

/// Every policy against everybody who may ask.
#[test]
fn the_verdict_follows_the_policy() {
    use verdict::{ReachFacts, decide};

    let record = |direct, others| {
        let mut record = HandleRecord::new(handle("sam"), sam().to_owned(), 3, NOW);
        record.policy = Policy { direct, others };
        record
    };
    let stranger = ReachFacts {
        within_limits: true,
        ..ReachFacts::default()
    };
    let neighbour = ReachFacts {
        has_handle: true,
        ..stranger.clone()
    };
    let verified = ReachFacts {
        has_verified_handle: true,
        ..neighbour.clone()
    };
    let contact = ReachFacts {
        is_contact: true,
        ..stranger.clone()
    };
    for (direct, may) in [
        (Reach::Everyone, [true, true, true, true]),
        (Reach::Handles, [false, true, true, false]),
        (Reach::Verified, [false, false, true, false]),
        (Reach::Contacts, [false, false, false, true]),
        (Reach::Nobody, [false, false, false, false]),
    ] {
        for (facts, may) in [&stranger, &neighbour, &verified, &contact]
            .into_iter()
            .zip(may)
        {
            for (others, refusal) in [(Others::Refuse, "policy"), (Others::Request, "request")] {
                let facts = ReachFacts {
                    record: Some(record(direct, others)),
                    may_request: true,
                    ..facts.clone()
                };
                let expected = if may { "introduce" } else { refusal };
                assert_eq!(label(&decide(alice(), &facts)), expected, "{facts:?}");

                let blocked = ReachFacts {
                    blocked: true,
                    ..facts.clone()
                };
                assert_eq!(label(&decide(alice(), &blocked)), "blocked");
                let barred = ReachFacts {
                    is_barred: true,
                    ..facts.clone()
                };
                assert_eq!(label(&decide(alice(), &barred)), "barred");
                let limited = ReachFacts {
                    within_limits: false,
                    ..facts.clone()
                };
                assert_eq!(label(&decide(alice(), &limited)), "limited");
                assert_eq!(label(&decide(sam(), &limited)), "own");
                let full = ReachFacts {
                    may_request: false,
                    ..facts.clone()
                };
                let refused = if others == Others::Request {
                    "limited"
                } else {
                    "policy"
                };
                let expected = if may { "introduce" } else { refused };
                assert_eq!(label(&decide(alice(), &full)), expected, "{full:?}");
            }
        }
    }
    for mode in [Mode::Masked, Mode::Sealed] {
        let mut masked = record(Reach::Everyone, Others::Refuse);
        masked.mode = mode;
        let facts = ReachFacts {
            record: Some(masked),
            ..stranger.clone()
        };
        // Its owner gets the same answer as everybody: a difference would give the owner away.
        assert_eq!(decide(sam(), &facts), decide(alice(), &facts));
        let expected = match mode {
            Mode::Masked => "relay",
            _ => "not_offered",
        };
        assert_eq!(label(&decide(sam(), &facts)), expected);
    }
}

#[tokio::test]
async fn not_now_does_not_tell_its_reason() {
    let directory = directory_with(|settings| settings.new_conversations_per_sender = 1);
    for (owner, name) in [
        (person("@a:example.org"), "blocks"),
        (person("@b:example.org"), "refuses"),
        (person("@c:example.org"), "frozen"),
        (person("@d:example.org"), "opens"),
    ] {
        claim(&directory, owner, name, NOW).await.unwrap();
    }
    let mut tx = directory.begin().await;
    let on = BlockScope::Handle(handle("blocks"));
    let target = Typed::Person(alice().clone().into());
    tx.block(person("@a:example.org"), &target, &on, NOW)
        .unwrap();
    let policy = Policy {
        direct: Reach::Nobody,
        others: Others::Refuse,
    };
    tx.set_policy(person("@b:example.org"), &handle("refuses"), policy)
        .unwrap();
    tx.freeze(&handle("frozen"), FreezeReason::GhostNotOurs, NOW)
        .unwrap();
    tx.commit().await.unwrap();

    let mut seen = Vec::new();
    let mut labels = BTreeSet::new();
    for (asker, name) in [
        (alice(), "blocks"),
        (person("@e:example.org"), "refuses"),
        (person("@f:example.org"), "frozen"),
        (alice(), "opens"),
    ] {
        let verdict = reach(&directory, asker, name, NOW).await;
        labels.insert(label(&verdict));
        seen.push(verdict);
    }
    assert_eq!(
        labels,
        BTreeSet::from(["blocked", "policy", "frozen", "limited"])
    );
    for verdict in &seen {
        assert_eq!(verdict, &seen[0]);
        assert_eq!(format!("{verdict:?}"), "NotNow(_)");
    }
}

#[tokio::test]
async fn asking_for_a_link_costs_as_much_but_there_is_nothing_to_decline() {
    let directory = directory_with(|settings| {
        settings.unclaimed_per_day = 1;
        settings.new_conversations_per_sender = 3;
    });
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let mut tx = directory.begin().await;
    let (free, sam_handle) = (handle("nobody1"), handle("sam"));
    for _ in 0..2 {
        let query = ReachQuery {
            asker: alice(),
            handle: &free,
            now: NOW,
        };
        tx.decide_reach_by_link(&query).unwrap();
    }
    let query = ReachQuery {
        asker: alice(),
        handle: &sam_handle,
        now: NOW,
    };
    assert_eq!(
        label(&tx.decide_reach_by_link(&query).unwrap()),
        "introduce"
    );
    assert_eq!(label(&tx.decide_reach_by_link(&query).unwrap()), "limited");
    let query = ReachQuery {
        asker: kim(),
        handle: &free,
        now: NOW,
    };
    assert_eq!(label(&tx.decide_reach(&query).unwrap()), "unclaimed");
}
