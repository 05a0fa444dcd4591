use std::{collections::BTreeSet, time::Duration};

use assert_matches::assert_matches;
use proptest::prelude::*;
use ruma::{room_id, server_name, user_id};
use serde_json::json;

use super::*;
use crate::{
    handle::{HandleRules, Typed},
    store::{Batch, Table},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn handle(text: &str) -> Handle {
    Handle::parse(text, &HandleRules::default()).unwrap()
}

fn directory_with(change: impl FnOnce(&mut DirectorySettings)) -> Directory {
    let mut settings = DirectorySettings::new(server_name!("example.org").to_owned());
    change(&mut settings);
    Directory::new(Store::in_memory(), settings)
}

fn directory() -> Directory {
    directory_with(|_| {})
}

fn sam() -> &'static UserId {
    user_id!("@samuel:example.org")
}

fn kim() -> &'static UserId {
    user_id!("@kim:example.org")
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

/// Runs one transaction and commits it whatever the result is.
async fn write<T>(
    directory: &Directory,
    work: impl FnOnce(&mut DirectoryTransaction<'_>) -> Result<T, DirectoryError>,
) -> Result<T, DirectoryError> {
    let mut tx = directory.begin().await;
    let result = work(&mut tx);
    tx.commit().await.unwrap();
    result
}

async fn claim(
    directory: &Directory,
    owner: &UserId,
    name: &str,
    now: Timestamp,
) -> Result<HandleRecord, DirectoryError> {
    write(directory, |tx| {
        tx.claim(owner, &handle(name), ClaimedBy::Person, now)
    })
    .await
}

async fn reach(directory: &Directory, asker: &UserId, name: &str, now: Timestamp) -> Verdict {
    let handle = handle(name);
    write(directory, |tx| {
        tx.decide_reach(&ReachQuery {
            asker,
            handle: &handle,
            now,
        })
    })
    .await
    .unwrap()
}

fn label(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Introduce { .. } => "introduce",
        Verdict::Relay { .. } => "relay",
        Verdict::Request { .. } => "request",
        Verdict::NotNow(why) => why.metric_label(),
        Verdict::Unclaimed { decline: true } => "unclaimed",
        Verdict::Unclaimed { decline: false } => "unclaimed, left alone",
        Verdict::OwnHandle { .. } => "own",
    }
}

fn records<T: Table>(directory: &Directory) -> usize {
    directory
        .store()
        .scan::<T>(&[], None, 10_000)
        .unwrap()
        .len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_claim_one_name_at_once_one_wins_and_the_others_are_told() {
    let directory = directory();
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let directory = directory.clone();
            tokio::spawn(async move {
                let person = UserId::parse(format!("@p{i}:example.org")).unwrap();
                // Half of them spell it so that it only looks the same.
                let name = if i % 2 == 0 { "modern" } else { "rnodern" };
                claim(&directory, &person, name, NOW)
                    .await
                    .map(|record| record.owner == person)
            })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(theirs) => {
                assert!(theirs);
                winners += 1;
            }
            Err(error) => assert_matches!(
                error,
                DirectoryError::Taken(_) | DirectoryError::LooksLike { .. }
            ),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_change_that_is_dropped_changes_nothing_and_frees_the_lock() {
    let directory = directory();
    let mut tx = directory.begin().await;
    tx.claim(sam(), &handle("sam"), ClaimedBy::Person, NOW)
        .unwrap();
    assert!(tx.lookup(&handle("SAM")).unwrap().is_some());
    assert_eq!(tx.handles_of(sam()).unwrap().len(), 1);
    assert_eq!(directory.lookup(&handle("sam")).unwrap(), None);
    drop(tx);
    assert_eq!(directory.lookup(&handle("sam")).unwrap(), None);
    claim(&directory, kim(), "sam", NOW).await.unwrap();
}

#[tokio::test]
async fn the_caller_can_write_a_change_with_records_of_their_own() {
    let directory = directory();
    let mut tx = directory.begin().await;
    tx.claim(sam(), &handle("sam"), ClaimedBy::Person, NOW)
        .unwrap();
    let (batch, lock) = tx.into_parts();
    let mut all = Batch::new();
    all.merge(batch);
    directory.store().apply(all).unwrap();
    drop(lock);
    let record = directory.lookup(&handle("sam")).unwrap().unwrap();
    assert_eq!((record.owner.as_ref(), record.generation), (sam(), 1));
    let ghost = user_id!("@_dm_sam:example.org");
    assert_eq!(directory.by_ghost(ghost).unwrap(), Some(record));
    for other in [
        "@_dm_sam:elsewhere.org",
        "@_dm_.bot:example.org",
        "@sam:example.org",
    ] {
        let other = UserId::parse(other).unwrap();
        assert_eq!(directory.by_ghost(&other).unwrap(), None, "{other}");
    }
}

#[tokio::test]
async fn a_released_handle_waits_for_its_last_owner_and_then_for_anybody() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    write(&directory, |tx| tx.set_verified(&handle("sam"), Some(NOW)))
        .await
        .unwrap();
    let later = NOW + DAY;
    assert_matches!(
        write(&directory, |tx| tx.release(kim(), &handle("sam"), later)).await,
        Err(DirectoryError::NotYours(_))
    );
    let released = write(&directory, |tx| tx.release(sam(), &handle("sam"), later))
        .await
        .unwrap();
    assert_eq!(released.holder(), None);
    assert_eq!(released.verified_at, None);
    assert!(directory.handles_of(sam()).unwrap().is_empty());
    assert_eq!(directory.discover(&handle("sam")).unwrap(), None);
    assert_eq!(
        label(&reach(&directory, alice(), "sam", later).await),
        "unclaimed"
    );
    assert_matches!(
        claim(&directory, kim(), "sam", later).await,
        Err(DirectoryError::Quarantined { .. })
    );
    assert_matches!(
        claim(&directory, kim(), "5am", later)
            .await
            .map(|record| record.generation),
        Ok(1)
    );

    let back = claim(&directory, sam(), "Sam", later + DAY).await.unwrap();
    assert_eq!(back.generation, 1);
    write(&directory, |tx| {
        tx.release(sam(), &handle("sam"), later + DAY)
    })
    .await
    .unwrap();
    let year = later + DAY + Duration::from_secs(365 * 24 * 60 * 60);
    assert_eq!(
        claim(&directory, kim(), "sam", year)
            .await
            .unwrap()
            .generation,
        2
    );
    assert_matches!(
        claim(&directory, sam(), "sam", year).await,
        Err(DirectoryError::Taken(_))
    );
}

#[tokio::test]
async fn the_owner_is_told_of_look_alikes_but_not_without_end() {
    let directory = directory();
    claim(&directory, sam(), "modern", NOW).await.unwrap();
    let mut told = 0;
    for i in 0..10 {
        let mut tx = directory.begin().await;
        tx.claim(kim(), &handle("rnodern"), ClaimedBy::Person, NOW)
            .unwrap_err();
        for notice in tx.take_notices() {
            let OwnerNotice::LookalikeAttempt {
                owner,
                handle: theirs,
                attempt,
            } = notice;
            assert_eq!(owner, sam());
            assert_eq!(
                (theirs.as_shown(), attempt.as_shown()),
                ("modern", "rnodern")
            );
            told += 1;
            assert_eq!(told, i + 1);
        }
        tx.commit().await.unwrap();
    }
    assert_eq!(told, 3);
}

#[tokio::test]
async fn the_people_of_another_server_claim_so_many_handles_a_day() {
    let directory = directory_with(|settings| settings.claims_per_server = 3);
    let claim_as = async |person: &str, name: &str, now| {
        let person = UserId::parse(person).unwrap();
        claim(&directory, &person, name, now).await
    };
    for n in 0..3 {
        // One machine, whatever its port.
        let person = format!("@p{n}:elsewhere.org:{}", 8448 + n);
        let claimed = claim_as(&person, &format!("grab{n}x"), NOW).await;
        claimed.unwrap();
    }
    let refused = claim_as("@p9:elsewhere.org", "more", NOW)
        .await
        .unwrap_err();
    assert_matches!(refused, DirectoryError::TooManyClaimsOfServer(_));
    assert_eq!(
        refused.to_string(),
        "the people of elsewhere.org have claimed as many handles here today as one other server \
         may; please try again tomorrow, or ask the admin of this server"
    );
    // What was refused is not taken, and another server's people and our own can have it.
    claim_as("@p:third.org", "more", NOW).await.unwrap();
    for n in 0..10 {
        let person = format!("@p{n}:example.org");
        claim_as(&person, &format!("home{n}x"), NOW).await.unwrap();
    }
    claim_as("@p9:elsewhere.org", "later", NOW + DAY * 2)
        .await
        .unwrap();
}

#[tokio::test]
async fn names_cannot_be_used_up_by_claiming_and_releasing() {
    let directory = directory();
    for i in 0..5 {
        let name = format!("name{i}x");
        claim(&directory, sam(), &name, NOW).await.unwrap();
        write(&directory, |tx| tx.release(sam(), &handle(&name), NOW))
            .await
            .unwrap();
    }
    assert_matches!(
        claim(&directory, sam(), "more", NOW).await,
        Err(DirectoryError::TooManyClaims)
    );
    claim(&directory, sam(), "more", NOW + DAY * 2)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_frozen_handle_stays_with_its_owner_who_cannot_change_it() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let reason = FreezeReason::Admin {
        note: "complaints".to_owned(),
    };
    assert!(
        write(&directory, |tx| tx.freeze(&handle("sam"), reason, NOW))
            .await
            .unwrap()
    );
    let sam_handle = handle("sam");
    for result in [
        write(&directory, |tx| tx.release(sam(), &sam_handle, NOW))
            .await
            .map(drop),
        write(&directory, |tx| {
            tx.set_mode(sam(), &sam_handle, Mode::Open, true)
        })
        .await
        .map(drop),
        write(&directory, |tx| {
            tx.set_policy(sam(), &sam_handle, Policy::default())
        })
        .await
        .map(drop),
    ] {
        assert_matches!(result, Err(DirectoryError::Frozen(_)));
    }
    assert_eq!(directory.handles_of(sam()).unwrap().len(), 1);
    assert!(directory.discover(&sam_handle).unwrap().is_some());
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "frozen"
    );
    assert!(
        write(&directory, |tx| tx.unfreeze(&sam_handle))
            .await
            .unwrap()
    );
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "introduce"
    );
    assert!(
        !write(&directory, |tx| tx.unfreeze(&handle("nobody1")))
            .await
            .unwrap()
    );

    let reason = FreezeReason::GhostNotOurs;
    write(&directory, |tx| tx.freeze(&sam_handle, reason, NOW))
        .await
        .unwrap();
    let revoked = write(&directory, |tx| tx.revoke(&sam_handle, NOW))
        .await
        .unwrap();
    assert_eq!(revoked.unwrap().holder(), None);
    assert!(directory.handles_of(sam()).unwrap().is_empty());
}

#[tokio::test]
async fn going_strict_or_back_replaces_the_identity_and_what_is_not_offered_is_refused() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let sam_handle = handle("sam");
    for (mode, strict, expected) in [
        (Mode::Open, false, Ok(false)),
        (Mode::Open, true, Ok(true)),
        (Mode::Open, true, Ok(false)),
        (Mode::Open, false, Ok(true)),
        (
            Mode::Masked,
            false,
            Err("mode `masked` is not offered here yet"),
        ),
        (
            Mode::Sealed,
            false,
            Err("mode `sealed` is not offered here yet"),
        ),
    ] {
        let set = write(&directory, |tx| {
            tx.set_mode(sam(), &sam_handle, mode, strict)
        })
        .await
        .map(|set| set.replace_identity)
        .map_err(|error| error.to_string());
        assert_eq!(set, expected.map_err(str::to_owned), "{mode} {strict}");
    }
    let link = write(&directory, |tx| {
        tx.set_discoverable(sam(), &sam_handle, Discoverable::Link)
    });
    assert_matches!(link.await, Err(DirectoryError::NotYet(_)));
    let able = directory_with(|settings| {
        settings.capabilities = Capabilities {
            masked: true,
            contact_keys: true,
            ..Capabilities::default()
        };
    });
    claim(&able, sam(), "sam", NOW).await.unwrap();
    assert_matches!(
        write(&able, |tx| tx.set_mode(
            sam(),
            &sam_handle,
            Mode::Masked,
            true
        ))
        .await,
        Err(DirectoryError::StrictNeedsOpen)
    );
    let link = Discoverable::Link;
    write(&able, |tx| tx.set_discoverable(sam(), &sam_handle, link))
        .await
        .unwrap();
    assert_eq!(able.discover(&sam_handle).unwrap(), None);
}

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
        // Its owner is answered as everybody is: whoever saw a difference would know the owner.
        assert_eq!(decide(sam(), &facts), decide(alice(), &facts));
        let expected = match mode {
            Mode::Masked => "relay",
            _ => "not_offered",
        };
        assert_eq!(label(&decide(sam(), &facts)), expected);
    }
}

#[tokio::test]
async fn whoever_is_told_not_now_cannot_tell_why() {
    let directory = directory_with(|settings| settings.new_conversations_per_sender = 1);
    for (owner, name) in [
        (user_id!("@a:example.org"), "blocks"),
        (user_id!("@b:example.org"), "refuses"),
        (user_id!("@c:example.org"), "frozen"),
        (user_id!("@d:example.org"), "opens"),
    ] {
        claim(&directory, owner, name, NOW).await.unwrap();
    }
    let mut tx = directory.begin().await;
    let on = BlockScope::Handle(handle("blocks"));
    let target = Typed::Person(alice().to_owned());
    tx.block(user_id!("@a:example.org"), &target, &on, NOW)
        .unwrap();
    let policy = Policy {
        direct: Reach::Nobody,
        others: Others::Refuse,
    };
    tx.set_policy(user_id!("@b:example.org"), &handle("refuses"), policy)
        .unwrap();
    tx.freeze(&handle("frozen"), FreezeReason::GhostNotOurs, NOW)
        .unwrap();
    tx.commit().await.unwrap();

    let mut seen = Vec::new();
    let mut labels = BTreeSet::new();
    for (asker, name) in [
        (alice(), "blocks"),
        (user_id!("@e:example.org"), "refuses"),
        (user_id!("@f:example.org"), "frozen"),
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
async fn every_ask_counts_whatever_came_of_it() {
    let directory = directory_with(|settings| {
        settings.new_conversations_per_sender = 3;
        settings.new_conversations_per_server = 4;
    });
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let policy = Policy {
        direct: Reach::Nobody,
        others: Others::Refuse,
    };
    claim(&directory, kim(), "kim", NOW).await.unwrap();
    write(&directory, |tx| {
        tx.set_policy(kim(), &handle("kim"), policy)
    })
    .await
    .unwrap();

    assert_eq!(
        label(&reach(&directory, alice(), "kim", NOW).await),
        "policy"
    );
    assert_eq!(
        label(&reach(&directory, alice(), "nobody1", NOW).await),
        "unclaimed"
    );
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "introduce"
    );
    let sam_handle = handle("sam");
    let peek = ReachQuery {
        asker: alice(),
        handle: &sam_handle,
        now: NOW,
    };
    assert_eq!(label(&directory.verdict(&peek).unwrap()), "limited");
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "limited"
    );
    // Somebody else of our own server is not held back by her.
    for i in 0..10 {
        let person = UserId::parse(format!("@p{i}:example.org")).unwrap();
        assert_eq!(
            label(&reach(&directory, &person, "sam", NOW).await),
            "introduce"
        );
    }
    // Two days later all is forgotten.
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW + DAY * 2).await),
        "introduce"
    );
    // The owner's own queries do not count.
    for _ in 0..5 {
        assert_eq!(label(&reach(&directory, sam(), "sam", NOW).await), "own");
    }
}

#[tokio::test]
async fn a_server_that_makes_up_people_is_limited_and_leaves_no_heap_behind() {
    let directory = directory_with(|settings| settings.new_conversations_per_server = 4);
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let before = records::<tables::Usages>(&directory);
    let mut allowed = 0;
    for i in 0..100 {
        let person = UserId::parse(format!("@p{i}:elsewhere.org")).unwrap();
        allowed += usize::from(reach(&directory, &person, "sam", NOW).await.is_introduce());
    }
    assert_eq!(allowed, 4);
    assert_eq!(records::<tables::Usages>(&directory) - before, 5);
    let other = user_id!("@p:third.org");
    assert!(reach(&directory, other, "sam", NOW).await.is_introduce());
}

#[tokio::test]
async fn a_server_is_limited_as_one_under_all_its_ports() {
    let directory = directory_with(|settings| settings.new_conversations_per_server = 10);
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let mut allowed = 0;
    for port in 1..=50 {
        let asker = UserId::parse(format!("@a:elsewhere.org:{port}")).unwrap();
        allowed += usize::from(reach(&directory, &asker, "sam", NOW).await.is_introduce());
    }
    assert_eq!(allowed, 10);
}

#[tokio::test]
async fn chats_with_the_bot_are_limited_for_a_person_and_for_a_server() {
    let directory = directory_with(|settings| {
        settings.bot_invites_per_sender = 3;
        settings.new_conversations_per_server = 5;
    });
    let start = async |person: &UserId| {
        write(&directory, |tx| tx.count_bot_invite(person, NOW))
            .await
            .unwrap()
    };
    for _ in 0..3 {
        assert!(start(alice()).await);
    }
    assert!(!start(alice()).await);
    let mut allowed = 0;
    for port in 1..=20 {
        let stranger = UserId::parse(format!("@p{port}:elsewhere.org:{port}")).unwrap();
        allowed += usize::from(start(&stranger).await);
    }
    assert_eq!(allowed, 5);
    // New conversations are another matter.
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    assert!(reach(&directory, alice(), "sam", NOW).await.is_introduce());
}

#[tokio::test]
async fn invites_to_nobody_are_declined_within_a_limit_over_all() {
    let directory = directory_with(|settings| settings.unclaimed_per_day = 2);
    let mut labels = Vec::new();
    for i in 0..4 {
        let person = UserId::parse(format!("@p{i}:example.org")).unwrap();
        labels.push(label(&reach(&directory, &person, "nobody1", NOW).await));
    }
    assert_eq!(
        labels,
        [
            "unclaimed",
            "unclaimed",
            "unclaimed, left alone",
            "unclaimed, left alone"
        ]
    );
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

#[tokio::test]
async fn one_room_names_ten_handles_at_most_and_each_counts_once() {
    let directory = directory_with(|settings| {
        settings.handles_per_person = 20;
        settings.claims_per_day = 20;
        settings.new_conversations_per_sender = 10;
    });
    let mut handles = Vec::new();
    for letter in "abcdefghjknp".chars() {
        let name = format!("h{letter}x");
        claim(&directory, sam(), &name, NOW).await.unwrap();
        handles.push(handle(&name));
        handles.push(handle(&name.to_uppercase()));
    }
    let verdicts = write(&directory, |tx| {
        tx.decide_reach_in_room(alice(), &handles, NOW)
    })
    .await
    .unwrap();
    let labels: Vec<_> = verdicts.iter().map(|(_, verdict)| label(verdict)).collect();
    assert_eq!(labels[..10], ["introduce"; 10]);
    assert_eq!(labels[10..], ["too_many_handles"; 2]);
    assert_eq!(verdicts[10].1, verdicts[11].1);
    // They were ten conversations.
    assert_eq!(
        label(&reach(&directory, alice(), "hax", NOW).await),
        "limited"
    );
}

#[tokio::test]
async fn a_block_is_of_the_person_and_on_one_handle() {
    let directory = directory();
    for (owner, name) in [
        (sam(), "sam"),
        (sam(), "other"),
        (kim(), "kim"),
        (kim(), "quin"),
    ] {
        claim(&directory, owner, name, NOW).await.unwrap();
    }
    let typed = |text: &str| Typed::parse(text, &HandleRules::default()).unwrap();
    let on = BlockScope::Handle(handle("sam"));
    write(&directory, |tx| tx.block(sam(), &typed("@kim"), &on, NOW))
        .await
        .unwrap();
    // Twice is no error and no second block.
    write(&directory, |tx| tx.block(sam(), &typed("@KIM"), &on, NOW))
        .await
        .unwrap();
    assert_eq!(records::<tables::Blocks>(&directory), 1);

    // Kim asks as Kim, whichever handles she has; on Sam's other handle nothing is to be seen.
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "blocked"
    );
    assert_eq!(
        label(&reach(&directory, kim(), "other", NOW).await),
        "introduce"
    );
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "introduce"
    );
    assert!(directory.is_invite_blocked(kim(), sam()).unwrap());
    assert!(!directory.is_invite_blocked(alice(), sam()).unwrap());
    assert!(!directory.is_invite_blocked(sam(), kim()).unwrap());

    // Unblocking by another name of the same person tells nothing and does nothing.
    for other in ["@kim:example.org", "@quin"] {
        assert_matches!(
            write(&directory, |tx| tx.unblock(sam(), &typed(other), None)).await,
            Err(DirectoryError::NotBlocked(_))
        );
    }
    write(&directory, |tx| tx.unblock(sam(), &typed("@kim"), None))
        .await
        .unwrap();
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "introduce"
    );

    write(&directory, |tx| {
        tx.block(sam(), &typed("@kim:example.org"), &BlockScope::All, NOW)
    })
    .await
    .unwrap();
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "blocked"
    );
    assert_eq!(
        label(&reach(&directory, kim(), "other", NOW).await),
        "blocked"
    );
    assert!(directory.is_invite_blocked(kim(), sam()).unwrap());
    let tx = directory.begin().await;
    assert_eq!(
        tx.blocks_of(sam()).unwrap(),
        [("@kim:example.org".to_owned(), None)]
    );
}

#[tokio::test]
async fn a_block_on_a_masked_handle_does_not_show_at_the_matrix_id() {
    let directory = directory_with(|settings| settings.capabilities.masked = true);
    claim(&directory, sam(), "mask", NOW).await.unwrap();
    let mask = handle("mask");
    let mut tx = directory.begin().await;
    tx.set_mode(sam(), &mask, Mode::Masked, false).unwrap();
    let target = Typed::Person(kim().to_owned());
    tx.block(sam(), &target, &BlockScope::Handle(mask.clone()), NOW)
        .unwrap();
    tx.commit().await.unwrap();
    assert!(!directory.is_invite_blocked(kim(), sam()).unwrap());
}

#[tokio::test]
async fn what_cannot_be_blocked_is_refused_with_words() {
    let directory = directory_with(|settings| settings.blocks_per_person = 2);
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    claim(&directory, kim(), "kim", NOW).await.unwrap();
    let on = BlockScope::Handle(handle("sam"));
    for (target, scope, expected) in [
        ("@samuel:example.org", &on, "that is you"),
        ("@sam", &on, "that is you"),
        (
            "@nobody1",
            &on,
            "nobody holds @nobody1 now, so there is nobody to block",
        ),
        (
            "@kim@elsewhere.org",
            &on,
            "@kim belongs to another server; give the Matrix ID instead, like `@name:server`",
        ),
        (
            "@alice:example.org",
            &BlockScope::Handle(handle("kim")),
            "@kim is not yours",
        ),
        (
            "@alice:example.org",
            &BlockScope::Handle(handle("free")),
            "@free is not yours",
        ),
    ] {
        let typed = Typed::parse(target, &HandleRules::default()).unwrap();
        let result = write(&directory, |tx| tx.block(sam(), &typed, scope, NOW)).await;
        assert_eq!(result.unwrap_err().to_string(), expected, "{target}");
    }
    for i in 0..3 {
        let person = Typed::Person(UserId::parse(format!("@p{i}:example.org")).unwrap());
        let result = write(&directory, |tx| tx.block(sam(), &person, &on, NOW)).await;
        assert_eq!(result.is_ok(), i < 2);
    }
}

#[tokio::test]
async fn two_who_have_a_room_are_led_back_to_it_and_introduced_again_if_they_insist() {
    let directory = directory();
    let (sam, room) = (handle("sam"), room_id!("!room:example.org"));
    let minutes = |n: u64| NOW + Duration::from_secs(n * 60);
    let mut tx = directory.begin().await;
    let advice = |tx: &mut DirectoryTransaction<'_>, generation, now| {
        tx.pair_advice(alice(), &sam, generation, now).unwrap()
    };
    let back = PairAdvice::LeadBack {
        room: room.to_owned(),
    };

    assert_eq!(advice(&mut tx, 1, NOW), PairAdvice::Introduce);
    tx.remember_pair(alice(), &sam, 1, room, NOW).unwrap();
    assert_eq!(advice(&mut tx, 1, minutes(20)), back);
    assert_eq!(advice(&mut tx, 1, minutes(29)), PairAdvice::Introduce);
    assert_eq!(advice(&mut tx, 1, minutes(31)), back);
    // Another owner of the name, another asker: another pair.
    assert_eq!(advice(&mut tx, 2, minutes(31)), PairAdvice::Introduce);
    assert_eq!(tx.room_of(kim(), &sam, 1, NOW).unwrap(), None);
    assert_eq!(
        tx.room_of(alice(), &sam, 1, NOW).unwrap().as_deref(),
        Some(room)
    );
    assert_eq!(advice(&mut tx, 1, NOW + PAIR_MEMORY), PairAdvice::Introduce);
    tx.forget_pair(alice(), &sam, 1);
    assert_eq!(advice(&mut tx, 1, minutes(60)), PairAdvice::Introduce);
}

#[tokio::test]
async fn contacts_go_with_the_owner() {
    let directory = directory_with(|settings| {
        settings.quarantine = Duration::ZERO;
        settings.contacts_per_handle = 2;
    });
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let sam_handle = handle("sam");
    let policy = Policy {
        direct: Reach::Contacts,
        others: Others::Refuse,
    };
    let mut tx = directory.begin().await;
    tx.set_policy(sam(), &sam_handle, policy).unwrap();
    for person in [alice(), kim(), user_id!("@third:example.org")] {
        tx.add_contact(&sam_handle, 1, person, NOW).unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "introduce"
    );
    // Beyond what is kept.
    let third = user_id!("@third:example.org");
    assert_eq!(label(&reach(&directory, third, "sam", NOW).await), "policy");

    write(&directory, |tx| tx.release(sam(), &sam_handle, NOW))
        .await
        .unwrap();
    let record = claim(&directory, kim(), "sam", NOW).await.unwrap();
    assert_eq!((record.generation, record.policy), (2, Policy::default()));
    assert_eq!(records::<tables::Contacts>(&directory), 0);
}

#[tokio::test]
async fn what_has_run_out_is_swept_away_and_nothing_else() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    for i in 0..20 {
        let person = UserId::parse(format!("@p{i}:elsewhere.org")).unwrap();
        reach(&directory, &person, "sam", NOW).await;
        write(&directory, |tx| {
            tx.remember_pair(&person, &handle("sam"), 1, room_id!("!r:example.org"), NOW)
        })
        .await
        .unwrap();
    }
    // One of them is still at it a day later, and introduced again.
    let late = NOW + DAY + DAY / 2;
    let person = user_id!("@p0:elsewhere.org");
    reach(&directory, person, "sam", late).await;
    write(&directory, |tx| {
        tx.remember_pair(person, &handle("sam"), 1, room_id!("!r:example.org"), late)
    })
    .await
    .unwrap();

    let sweep = async |now| {
        loop {
            if write(&directory, |tx| tx.sweep(now, 7)).await.unwrap() < 7 {
                break;
            }
        }
    };
    sweep(NOW + DAY).await;
    assert_eq!(records::<tables::Usages>(&directory), 22);
    sweep(NOW + DAY * 2).await;
    // Hers and her server's.
    assert_eq!(records::<tables::Usages>(&directory), 2);
    sweep(NOW + PAIR_MEMORY).await;
    assert_eq!(records::<tables::Usages>(&directory), 0);
    assert_eq!(records::<tables::Pairs>(&directory), 1);
    sweep(late + PAIR_MEMORY).await;
    assert_eq!(records::<tables::Pairs>(&directory), 0);
    assert_eq!(records::<tables::Expiries>(&directory), 0);
    assert!(directory.lookup(&handle("sam")).unwrap().is_some());
}

#[test]
fn what_is_written_to_disk_keeps_its_form() {
    let mut record = HandleRecord::new(handle("Sam"), sam().to_owned(), 2, Timestamp(7));
    assert_eq!(
        serde_json::to_value(&record).unwrap(),
        json!({
            "handle": "Sam", "owner": "@samuel:example.org", "generation": 2, "mode": "open",
            "hide_addresses": true, "strict": false, "policy": { "direct": "everyone", "others": "refuse" },
            "discoverable": "exact", "claimed_at": 7, "verified_at": null, "state": "active",
        })
    );
    record.state = HandleState::Frozen {
        reason: FreezeReason::GhostNotOurs,
        since: Timestamp(8),
    };
    assert_eq!(
        serde_json::to_value(&record.state).unwrap(),
        json!({ "frozen": { "reason": "ghost_not_ours", "since": 8 } })
    );
    record.state = HandleState::Quarantined {
        until: Timestamp(9),
    };
    assert_eq!(
        serde_json::to_value(&record.state).unwrap(),
        json!({ "quarantined": { "until": 9 } })
    );
    let pair = tables::Pair {
        room: room_id!("!r:example.org").to_owned(),
        introduced_at: Timestamp(1),
        led_back_at: None,
    };
    assert_eq!(
        serde_json::to_value(pair).unwrap(),
        json!({ "room": "!r:example.org", "introduced_at": 1, "led_back_at": null })
    );
    let (usage, _) = Usage::default().attempt(
        Limit {
            most: 3,
            window: DAY,
        },
        Timestamp(5),
    );
    assert_eq!(
        serde_json::to_value(tables::StoredUsage {
            usage,
            expires: Timestamp(6)
        })
        .unwrap(),
        json!({ "usage": { "started": 0, "count": 1, "before": 0 }, "expires": 6 })
    );
    let expiring = tables::Expiring::Pair {
        asker: alice().to_owned(),
        handle: "sam".to_owned(),
        generation: 1,
    };
    assert_eq!(
        serde_json::to_value(expiring).unwrap(),
        json!({ "pair": { "asker": "@alice:example.org", "handle": "sam", "generation": 1 } })
    );
}

proptest! {
    /// A transaction reads the same records before its commit as the store does after it.
    #[test]
    fn a_change_reads_what_it_will_have_written(
        stored in prop::collection::vec(("[ab]{0,2}", 0u32..9), 0..8),
        pending in prop::collection::vec(("[ab]{0,2}", prop::option::of(0u32..9)), 0..8),
        limit in 0usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = directory();
            write(&directory, |tx| {
                for (key, value) in &stored {
                    tx.put::<tables::Generations>(key, value)?;
                }
                Ok(())
            })
            .await
            .unwrap();
            let mut tx = directory.begin().await;
            for (key, value) in &pending {
                match value {
                    Some(value) => tx.put::<tables::Generations>(key, value).unwrap(),
                    None => tx.delete::<tables::Generations>(key),
                }
            }
            let all = tx.scan::<tables::Generations>(&[], limit).unwrap();
            let some = tx.scan::<tables::Generations>(b"a", limit).unwrap();
            let each: Vec<_> = ["", "a", "ab", "bb"]
                .map(|key| tx.get::<tables::Generations>(&key.to_owned()).unwrap())
                .into();
            tx.commit().await.unwrap();
            let store = directory.store();
            assert_eq!(all, store.scan::<tables::Generations>(&[], None, limit).unwrap());
            assert_eq!(some, store.scan::<tables::Generations>(b"a", None, limit).unwrap());
            let written: Vec<_> = ["", "a", "ab", "bb"]
                .map(|key| store.get::<tables::Generations>(&key.to_owned()).unwrap())
                .into();
            assert_eq!(each, written);
        });
    }
}

fn request(name: &str, asker: &UserId, room: &str) -> Request {
    Request {
        handle: handle(name),
        generation: 1,
        asker: asker.to_owned(),
        room: ruma::RoomId::parse(room).unwrap(),
        ghost: ruma::UserId::parse(format!("@_dm_{name}:example.org")).unwrap(),
        since: NOW,
        shown: None,
        masked_as: None,
    }
}

async fn open(directory: &Directory, request: &Request) -> Option<u32> {
    write(directory, |tx| tx.open_request(sam(), request))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_keeps_its_number_and_the_asker_asks_once() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let policy = Policy {
        direct: Reach::Contacts,
        others: Others::Request,
    };
    write(&directory, |tx| {
        tx.set_policy(sam(), &handle("sam"), policy)
    })
    .await
    .unwrap();
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "request"
    );
    let first = request("sam", alice(), "!one:example.org");
    assert_eq!(open(&directory, &first).await, Some(1));
    assert_eq!(open(&directory, &first).await, Some(1), "the same again");
    // A second one of the same person is refused, in the words of every refusal.
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "limited"
    );
    assert_eq!(
        label(&reach(&directory, kim(), "sam", NOW).await),
        "request"
    );
    let second = request("sam", kim(), "!two:example.org");
    assert_eq!(open(&directory, &second).await, Some(2));
    let closed = write(&directory, |tx| tx.close_request(sam(), 1)).await;
    assert_eq!(closed.unwrap(), Some(first.clone()));
    // A number that was answered is not given to somebody else while others wait.
    assert_eq!(open(&directory, &first).await, Some(3));
    write(&directory, |tx| {
        tx.withdraw_request(sam(), &second.room, &second.ghost)
    })
    .await
    .unwrap();
    let open_now = directory.requests_of(sam()).unwrap();
    assert_eq!(open_now, [(3, first)]);
    // With the handle its requests go.
    write(&directory, |tx| tx.release(sam(), &handle("sam"), NOW))
        .await
        .unwrap();
    assert_eq!(directory.requests_of(sam()).unwrap(), []);
}

#[tokio::test]
async fn an_owner_has_so_many_requests_at_most() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let policy = Policy {
        direct: Reach::Nobody,
        others: Others::Request,
    };
    write(&directory, |tx| {
        tx.set_policy(sam(), &handle("sam"), policy)
    })
    .await
    .unwrap();
    for n in 0..REQUESTS_PER_HANDLE_MAX {
        let asker = ruma::UserId::parse(format!("@p{n}:example.org")).unwrap();
        let request = request("sam", &asker, &format!("!r{n}:example.org"));
        assert!(open(&directory, &request).await.is_some());
    }
    let one_more = request("sam", alice(), "!more:example.org");
    assert_eq!(open(&directory, &one_more).await, None);
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "limited"
    );
}

#[tokio::test]
async fn what_one_person_is_refused_is_not_counted_for_their_server() {
    let directory = directory_with(|settings| {
        settings.new_conversations_per_sender = 3;
        settings.new_conversations_per_server = 10;
        settings.bot_invites_per_sender = 3;
    });
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let eve = UserId::parse("@eve:evil.org").unwrap();
    for _ in 0..50 {
        reach(&directory, &eve, "sam", NOW).await;
        let mut tx = directory.begin().await;
        tx.count_bot_invite(&eve, NOW).unwrap();
        tx.commit().await.unwrap();
    }
    let bob = UserId::parse("@bob:evil.org").unwrap();
    assert_eq!(
        label(&reach(&directory, &bob, "sam", NOW).await),
        "introduce"
    );
    let mut tx = directory.begin().await;
    assert!(tx.count_bot_invite(&bob, NOW).unwrap());
    assert!(!tx.count_bot_invite(&eve, NOW).unwrap());
}
