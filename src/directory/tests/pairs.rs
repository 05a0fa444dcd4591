//! Rooms of two people who were introduced.

use std::time::Duration;

use ruma::room_id;

use super::*;

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
