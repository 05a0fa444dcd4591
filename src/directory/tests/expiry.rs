//! The deletion of expired records.

use ruma::room_id;

use super::*;

#[tokio::test]
async fn what_has_run_out_is_swept_away_and_nothing_else() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    for i in 0..20 {
        let person = person(&format!("@p{i}:elsewhere.org"));
        reach(&directory, person, "sam", NOW).await;
        write(&directory, |tx| {
            tx.remember_pair(person, &handle("sam"), 1, room_id!("!r:example.org"), NOW)
        })
        .await
        .unwrap();
    }
    // One of them is still at it a day later, and introduced again.
    let late = NOW + DAY + DAY / 2;
    let person = person("@p0:elsewhere.org");
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
