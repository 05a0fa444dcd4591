//! Options of a handle, and freezing.

use assert_matches::assert_matches;

use super::*;

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
