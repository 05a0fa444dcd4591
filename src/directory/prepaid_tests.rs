//! Queries of the module, and invites of the ghosts that stay.

use ruma::server_name;

use super::*;
use crate::{
    clock::Timestamp,
    directory::{
        BlockScope, ClaimedBy, DirectorySettings, Policy, Reach, record::Others, tables::Usages,
    },
    handle::{HandleRules, Typed},
    store::Store,
    testing::person,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn handle(text: &str) -> Handle {
    Handle::parse(text, &HandleRules::default()).unwrap()
}

fn alice() -> &'static Person {
    person("@alice:example.org")
}

/// `@sam` and `@samuel` belong to one person, `@kim` to another, `@far` to somebody elsewhere.
async fn directory(limit: u32) -> Directory {
    let settings = DirectorySettings {
        new_conversations_per_sender: limit,
        ..DirectorySettings::new(server_name!("example.org").to_owned())
    };
    let directory = Directory::new(Store::in_memory(), settings);
    let mut tx = directory.begin().await;
    for (owner, name) in [
        (person("@s:example.org"), "sam"),
        (person("@s:example.org"), "samuel"),
        (person("@kim:example.org"), "kim"),
        (person("@far:elsewhere.org"), "far"),
        (alice(), "alice"),
    ] {
        tx.claim(owner, &handle(name), ClaimedBy::Admin, NOW)
            .unwrap();
    }
    tx.commit().await.unwrap();
    directory
}

async fn introduce(directory: &Directory, names: &[&str]) -> Vec<Option<String>> {
    let handles: Vec<_> = names.iter().map(|name| handle(name)).collect();
    let owners = directory.introduce(alice(), &handles, NOW).await.unwrap();
    let text = |owner: Option<Person>| owner.map(|owner| owner.to_string());
    owners.into_iter().map(text).collect()
}

async fn ghost_invited(directory: &Directory, name: &str, now: Timestamp) -> Verdict {
    let handle = handle(name);
    let mut tx = directory.begin().await;
    let verdict = tx.decide_reach(&ReachQuery {
        asker: alice(),
        handle: &handle,
        now,
    });
    tx.commit().await.unwrap();
    verdict.unwrap()
}

/// Returns how many of `most` queries are left.
async fn left(directory: &Directory, most: u32) -> u32 {
    let mut left = 0;
    while left < most && ghost_invited(directory, "kim", NOW).await.is_introduce() {
        left += 1;
    }
    left
}

#[tokio::test]
async fn owners_are_named_where_they_can_be_reached_now() {
    let directory = directory(30).await;
    let s = Some("@s:example.org".to_owned());
    let found = introduce(&directory, &["sam", "nobody", "samuel", "far", "alice"]).await;
    assert_eq!(found, [s.clone(), None, s, None, None]);
}

#[tokio::test]
async fn blocked_refused_limited_and_frozen_are_one_answer() {
    let directory = directory(3).await;
    let mut tx = directory.begin().await;
    let scope = BlockScope::Handle(handle("sam"));
    let her = Typed::Person(alice().clone().into());
    let s = person("@s:example.org");
    tx.block(s, &her, &scope, NOW).unwrap();
    let nobody = Policy {
        direct: Reach::Nobody,
        others: Others::Refuse,
    };
    tx.set_policy(person("@kim:example.org"), &handle("kim"), nobody)
        .unwrap();
    tx.commit().await.unwrap();
    let found = introduce(&directory, &["sam", "kim", "samuel", "samuel"]).await;
    // The fourth is over the limit.
    assert_eq!(found, [None, None, Some("@s:example.org".into()), None]);
}

#[tokio::test]
async fn a_ghost_that_was_left_is_asked_for_once_and_counted_once() {
    let directory = directory(3).await;
    assert_eq!(introduce(&directory, &["far"]).await, [None]);
    // Its invite follows, and brings them together.
    assert!(ghost_invited(&directory, "far", NOW).await.is_introduce());
    assert_eq!(left(&directory, 9).await, 2);
}

#[tokio::test]
async fn what_was_counted_is_good_for_one_invite_of_the_same_handle_and_not_for_long() {
    let directory = directory(9).await;
    for _ in 0..2 {
        introduce(&directory, &["far"]).await;
    }
    for _ in 0..3 {
        ghost_invited(&directory, "far", NOW).await;
    }
    introduce(&directory, &["far"]).await;
    ghost_invited(&directory, "far", NOW + PREPAID_FOR).await;
    // 2 + 1 + 2 were counted.
    assert_eq!(left(&directory, 9).await, 4);
}

#[tokio::test]
async fn an_introduction_by_the_module_costs_one_and_leaves_nothing_to_use() {
    let directory = directory(3).await;
    assert!(introduce(&directory, &["sam"]).await[0].is_some());
    assert!(ghost_invited(&directory, "sam", NOW).await.is_introduce());
    assert_eq!(left(&directory, 9).await, 1);
}

#[tokio::test]
async fn a_ghost_that_was_left_over_the_limit_declines_although_nothing_more_was_counted() {
    let directory = directory(1).await;
    let found = introduce(&directory, &["far", "sam"]).await;
    assert_eq!(found, [None, None]);
    let verdict = ghost_invited(&directory, "sam", NOW).await;
    assert!(matches!(verdict, Verdict::NotNow(_)), "{verdict:?}");
    // The one that was within the limit still is, when its invite comes.
    assert!(ghost_invited(&directory, "far", NOW).await.is_introduce());
    assert_eq!(left(&directory, 9).await, 0);
}

#[tokio::test]
async fn ones_own_handle_costs_nothing() {
    let directory = directory(2).await;
    assert_eq!(introduce(&directory, &["alice"]).await, [None]);
    let verdict = ghost_invited(&directory, "alice", NOW).await;
    assert!(matches!(verdict, Verdict::OwnHandle { .. }), "{verdict:?}");
    assert_eq!(left(&directory, 9).await, 2);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let directory = directory(100_000).await;
    for _ in 0..=PREPAID_QUERIES_MAX {
        introduce(&directory, &["far"]).await;
    }
    assert_eq!(
        directory.inner.prepaid.0.lock().unwrap().len(),
        PREPAID_QUERIES_MAX
    );
}

/// Returns whether the store has counted a query of this person.
fn written(directory: &Directory, asker: &Person) -> bool {
    let key = ("requests_of_sender".to_owned(), asker.to_string());
    let usage = directory.store().get::<Usages>(&key);
    usage.unwrap().is_some()
}

#[tokio::test]
async fn questions_are_counted_at_once_and_written_with_the_next_change_or_after_a_moment() {
    let directory = directory(5).await;
    for _ in 0..2 {
        introduce(&directory, &["sam", "samuel"]).await;
    }
    assert!(!written(&directory, alice()));
    // Also by a transaction that writes nothing of its own.
    drop(directory.begin().await);
    assert!(written(&directory, alice()));
    assert_eq!(introduce(&directory, &["kim", "sam"]).await[1], None);

    let kim = person("@kim:example.org");
    let sam = [handle("sam")];
    directory.introduce(kim, &sam, NOW).await.unwrap();
    assert!(!written(&directory, kim));
    directory.flush_deferred().await.unwrap();
    assert!(written(&directory, kim));
    assert_eq!(left(&directory, 9).await, 0);
}

#[tokio::test]
async fn deferred_writes_are_bounded() {
    let directory = directory(5).await;
    let asker = |n: usize| person(&format!("@asker{n}:example.org"));
    let sam = [handle("sam")];
    for n in 0..1000 {
        directory.introduce(asker(n), &sam, NOW).await.unwrap();
    }
    assert!(written(&directory, asker(0)));
}
