//! Limits on people and servers.

use super::*;

#[tokio::test]
async fn every_query_counts_whatever_the_verdict() {
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
        let person = person(&format!("@p{i}:example.org"));
        assert_eq!(
            label(&reach(&directory, person, "sam", NOW).await),
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
        let person = person(&format!("@p{i}:elsewhere.org"));
        allowed += usize::from(reach(&directory, person, "sam", NOW).await.is_introduce());
    }
    assert_eq!(allowed, 4);
    assert_eq!(records::<tables::Usages>(&directory) - before, 5);
    let other = person("@p:third.org");
    assert!(reach(&directory, other, "sam", NOW).await.is_introduce());
}

#[tokio::test]
async fn a_server_is_limited_as_one_under_all_its_ports() {
    let directory = directory_with(|settings| settings.new_conversations_per_server = 10);
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let mut allowed = 0;
    for port in 1..=50 {
        let asker = person(&format!("@a:elsewhere.org:{port}"));
        allowed += usize::from(reach(&directory, asker, "sam", NOW).await.is_introduce());
    }
    assert_eq!(allowed, 10);
}

#[tokio::test]
async fn chats_with_the_bot_are_limited_for_a_person_and_for_a_server() {
    let directory = directory_with(|settings| {
        settings.bot_invites_per_sender = 3;
        settings.new_conversations_per_server = 5;
    });
    let start = async |person: &Person| {
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
        let stranger = person(&format!("@p{port}:elsewhere.org:{port}"));
        allowed += usize::from(start(stranger).await);
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
        let person = person(&format!("@p{i}:example.org"));
        labels.push(label(&reach(&directory, person, "nobody1", NOW).await));
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
async fn what_one_person_is_refused_is_not_counted_for_their_server() {
    let directory = directory_with(|settings| {
        settings.new_conversations_per_sender = 3;
        settings.new_conversations_per_server = 10;
        settings.bot_invites_per_sender = 3;
    });
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let eve = person("@eve:evil.org");
    for _ in 0..50 {
        reach(&directory, eve, "sam", NOW).await;
        let mut tx = directory.begin().await;
        tx.count_bot_invite(eve, NOW).unwrap();
        tx.commit().await.unwrap();
    }
    let bob = person("@bob:evil.org");
    assert_eq!(
        label(&reach(&directory, bob, "sam", NOW).await),
        "introduce"
    );
    let mut tx = directory.begin().await;
    assert!(tx.count_bot_invite(bob, NOW).unwrap());
    assert!(!tx.count_bot_invite(eve, NOW).unwrap());
}
