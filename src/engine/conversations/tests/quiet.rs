//! What messages cost while nothing is lost.

use super::*;

fn syncs(fake: &FakeHomeserver) -> usize {
    let log = fake.log();
    log.iter()
        .filter(|request| request.ends_with("/sync"))
        .count()
}

#[tokio::test]
async fn messages_cost_no_sync_and_no_look_at_the_history() {
    let it = TwoPeople::begin(true).await;
    it.talk.engine.start().await.unwrap();
    // The two ghosts and the bot are synced once. The first message may follow a gap.
    it.talk.fake.until(|fake| syncs(fake) >= 3).await;
    it.alice_says("hello").await;
    it.talk.fake.until(|fake| fake.sent(&portal()) == 1).await;
    let before = it.talk.fake.log().len();
    for n in 2..=20 {
        it.alice_says("and on").await;
        it.talk.fake.until(|fake| fake.sent(&portal()) == n).await;
    }
    let log = it.talk.fake.log();
    let costly = |request: &&String| {
        let costly = ["/sync", "/context/", "/messages"];
        costly.iter().any(|part| request.contains(part))
    };
    let costly: Vec<&String> = log[before..].iter().filter(costly).collect();
    assert!(costly.is_empty(), "{costly:?}");
    it.talk.engine.stop().await.unwrap();
}

#[tokio::test]
async fn two_rounds_at_the_same_time_sync_each_ghost_once() {
    let it = TwoPeople::begin(true).await;
    let engine = &it.talk.engine;
    engine.note_possible_gap();
    engine.reconcile_all(Duration::ZERO).await.unwrap();
    engine.reconcile_those_at_work().await.unwrap();
    assert_eq!(syncs(&it.talk.fake), 2, "after the gap");
    engine.note_possible_gap();
    engine.reconcile_those_at_work().await.unwrap();
    assert_eq!(syncs(&it.talk.fake), 4, "after another gap");
    engine.reconcile_those_at_work().await.unwrap();
    assert_eq!(syncs(&it.talk.fake), 4, "nothing was lost since");
}
