//! Contacts.

use std::time::Duration;

use super::*;

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
    for person in [alice(), kim(), person("@third:example.org")] {
        tx.add_contact(&sam_handle, 1, person, NOW).unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(
        label(&reach(&directory, alice(), "sam", NOW).await),
        "introduce"
    );
    // Beyond what is kept.
    let third = person("@third:example.org");
    assert_eq!(label(&reach(&directory, third, "sam", NOW).await), "policy");

    write(&directory, |tx| tx.release(sam(), &sam_handle, NOW))
        .await
        .unwrap();
    let record = claim(&directory, kim(), "sam", NOW).await.unwrap();
    assert_eq!((record.generation, record.policy), (2, Policy::default()));
    assert_eq!(records::<tables::Contacts>(&directory), 0);
}
