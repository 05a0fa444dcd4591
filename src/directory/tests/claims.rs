//! Claiming, releasing and look-alikes.

use std::time::Duration;

use assert_matches::assert_matches;

use super::*;
use crate::testing::let_everybody_claim;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_claim_one_name_at_once_one_wins_and_the_others_are_told() {
    let directory = directory();
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let directory = directory.clone();
            tokio::spawn(async move {
                let person = person(&format!("@p{i}:example.org"));
                // Half of them spell it so that it only looks the same.
                let name = if i % 2 == 0 { "modern" } else { "rnodern" };
                claim(&directory, person, name, NOW)
                    .await
                    .map(|record| record.owner == *person)
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
            assert_eq!(owner, *sam());
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
async fn the_people_of_another_server_claim_a_limited_number_of_handles_a_day() {
    let directory = directory_with(|settings| {
        settings.claims_per_server = 3;
        let_everybody_claim(settings);
    });
    let claim_as = async |person: &str, name: &str, now| {
        let person = crate::testing::person(person);
        claim(&directory, person, name, now).await
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

/// One wildcard record makes any number of servers.
#[tokio::test]
async fn the_people_of_all_other_servers_claim_a_limited_number_together() {
    let directory = directory_with(|settings| {
        settings.claims_per_server = 2;
        let_everybody_claim(settings);
    });
    let claim_as = async |person: &str, name: &str, now| {
        let person = crate::testing::person(person);
        claim(&directory, person, name, now).await
    };
    for n in 0..20 {
        let person = format!("@p:s{n}.evil.org");
        claim_as(&person, &format!("grab{n}x"), NOW).await.unwrap();
    }
    let refused = claim_as("@p:s20.evil.org", "more", NOW).await.unwrap_err();
    assert_matches!(refused, DirectoryError::TooManyClaimsFromElsewhere);
    // Our own people have no part in it, and the next day it is over.
    claim_as("@p:example.org", "more", NOW).await.unwrap();
    let later = NOW + DAY * 2;
    claim_as("@p:s20.evil.org", "later", later).await.unwrap();
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
