//! What admins do to handles, and what the audit log keeps of it.

use std::time::Duration;

use assert_matches::assert_matches;
use ruma::{OwnedUserId, owned_room_id, owned_user_id};

use super::*;
use crate::directory::tables::{AuditLog, Requests};

fn login() -> ActingAdmin {
    ActingAdmin::Login("root".to_owned())
}

async fn act_at(
    directory: &Directory,
    name: &str,
    act: HandleAct,
    now: Timestamp,
) -> Result<HandleChange, ActError> {
    let (handle, by) = (handle(name), login());
    let order = HandleOrder {
        handle: &handle,
        act: &act,
        reason: "an impostor",
        by: &by,
    };
    let mut tx = directory.begin().await;
    let done = tx.act_on_handle(&order, now)?;
    tx.commit().await.unwrap();
    Ok(done)
}

async fn act(directory: &Directory, name: &str, act: HandleAct) -> Result<HandleChange, ActError> {
    act_at(directory, name, act, NOW).await
}

async fn refusal(directory: &Directory, name: &str, it: HandleAct) -> String {
    let before = (all_handles(directory), records::<AuditLog>(directory));
    let error = act(directory, name, it).await.unwrap_err();
    assert!(error.is_refusal());
    assert_eq!(
        (all_handles(directory), records::<AuditLog>(directory)),
        before
    );
    error.to_string()
}

fn all_handles(directory: &Directory) -> Vec<HandleRecord> {
    directory.page(None, 100).unwrap()
}

fn kims() -> OwnedUserId {
    kim().clone().into()
}

#[tokio::test]
async fn an_impostor_loses_a_handle_and_cannot_take_it_back() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let change = act(&directory, "SAM", HandleAct::Release).await.unwrap();
    assert!(change.before.unwrap().is_held_by(sam()));
    assert_matches!(
        change.after.unwrap().state,
        HandleState::Quarantined { revoked: true, .. }
    );
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let soon = NOW + (year - Duration::from_secs(1));
    for claimer in [sam(), alice()] {
        let refused = claim(&directory, claimer, "sam", soon).await;
        assert_matches!(refused, Err(DirectoryError::Quarantined { .. }));
    }
    let later = claim(&directory, alice(), "sam", NOW + year).await.unwrap();
    assert_eq!(later.generation, 2);
    let again = refusal(&directory, "nobody1", HandleAct::Release).await;
    assert_eq!(again, "nobody holds @nobody1");
}

#[tokio::test]
async fn an_admin_gives_a_name_to_somebody_whatever_its_quarantine_and_reservation() {
    let directory = directory_with(|settings| settings.handles_per_person = 1);
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    claim(&directory, kim(), "kim", NOW).await.unwrap();
    act(&directory, "sam", HandleAct::Release).await.unwrap();
    act(&directory, "sam", HandleAct::Reserve).await.unwrap();
    let given = act(&directory, "sam", HandleAct::Claim { owner: kims() });
    let given = given.await.unwrap();
    let record = given.after.unwrap();
    assert!(record.is_held_by(kim()) && record.is_active() && given.replace_identity);
    assert_eq!(record.generation, 2);

    let first = act(&directory, "free1", HandleAct::Claim { owner: kims() });
    let first = first.await.unwrap();
    assert!(!first.replace_identity && first.before.is_none());

    let owner = kims();
    for (name, owner, words) in [
        (
            "sam",
            owner.clone(),
            "@sam belongs to @kim:example.org already",
        ),
        (
            "sam",
            owned_user_id!("@bob:example.org"),
            "@sam belongs to @kim:example.org; `transfer` gives it to somebody else",
        ),
        (
            "new1",
            owned_user_id!("@_dm_kim:example.org"),
            "@_dm_kim:example.org is one of Stonechat's own users, and no person",
        ),
    ] {
        let refused = refusal(&directory, name, HandleAct::Claim { owner }).await;
        assert_eq!(refused, words);
    }
    // It looks like @free1, which a person would not be told who holds.
    let refused = refusal(&directory, "freel", HandleAct::Claim { owner }).await;
    assert_eq!(
        refused,
        "@freel looks too much like @free1, which belongs to @kim:example.org"
    );
}

#[tokio::test]
async fn a_transfer_leaves_nothing_of_the_former_owner() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let sam_handle = handle("sam");
    write(&directory, |tx| {
        tx.set_verified(&sam_handle, Some(NOW))?;
        tx.add_contact(&sam_handle, 1, alice(), NOW)
    })
    .await
    .unwrap();
    act(&directory, "sam", HandleAct::Freeze).await.unwrap();
    let change = act(&directory, "sam", HandleAct::Transfer { owner: kims() });
    let change = change.await.unwrap();
    let record = change.after.unwrap();
    assert!(record.is_held_by(kim()) && record.is_active());
    assert_eq!((record.verified_at, record.generation), (None, 2));
    assert!(change.replace_identity);
    assert!(directory.handles_of(sam()).unwrap().is_empty());
    assert_eq!(directory.handles_of(kim()).unwrap(), [record]);
    assert_eq!(records::<tables::Contacts>(&directory), 0);
    let again = refusal(&directory, "sam", HandleAct::Transfer { owner: kims() }).await;
    assert_eq!(again, "@sam belongs to @kim:example.org already");
    let absent = refusal(&directory, "nobody1", HandleAct::Transfer { owner: kims() }).await;
    assert_eq!(absent, "nobody holds @nobody1");
}

#[tokio::test]
async fn a_freeze_closes_the_requests_and_is_taken_back_whatever_its_reason() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let sam_handle = handle("sam");
    let request = Request {
        handle: sam_handle.clone(),
        generation: 1,
        asker: alice().clone(),
        room: owned_room_id!("!room:example.org"),
        ghost: Ghost::new(owned_user_id!("@_dm_sam:example.org")),
        since: NOW,
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    };
    write(&directory, |tx| tx.open_request(sam(), &request))
        .await
        .unwrap();
    let change = act(&directory, "sam", HandleAct::Freeze).await.unwrap();
    assert_eq!(change.closed, [request]);
    assert_eq!(records::<Requests>(&directory), 0);
    let verdict = reach(&directory, alice(), "sam", NOW).await;
    assert_eq!(label(&verdict), "frozen");
    let again = refusal(&directory, "sam", HandleAct::Freeze).await;
    assert_eq!(again, "@sam is frozen already");
    let change = act(&directory, "sam", HandleAct::Unfreeze).await.unwrap();
    assert!(!change.replace_identity);
    let again = refusal(&directory, "sam", HandleAct::Unfreeze).await;
    assert_eq!(again, "@sam is not frozen");

    for reason in [FreezeReason::GhostNotOurs, FreezeReason::ChangedSinceBackup] {
        write(&directory, |tx| tx.freeze(&sam_handle, reason.clone(), NOW))
            .await
            .unwrap();
        let change = act(&directory, "sam", HandleAct::Unfreeze).await.unwrap();
        assert!(change.replace_identity && change.after.unwrap().is_active());
    }
    // Somebody held it when the backup did not know it yet.
    let ghost = Ghost::new(owned_user_id!("@_dm_lost:example.org"));
    write(&directory, |tx| {
        tx.freeze_changed(&handle("lost"), &ghost, NOW)
    })
    .await
    .unwrap();
    let unknown = refusal(&directory, "lost", HandleAct::Unfreeze).await;
    assert!(
        unknown.starts_with("who owns @lost is not known"),
        "{unknown}"
    );
    let change = act(&directory, "lost", HandleAct::Transfer { owner: kims() });
    assert!(change.await.unwrap().after.unwrap().is_held_by(kim()));
}

#[tokio::test]
async fn marks_and_reservations_are_set_and_taken_back_once() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    for (it, words) in [
        (HandleAct::Unverify, "@sam is not verified"),
        (HandleAct::Unreserve, "@sam is not reserved"),
    ] {
        assert_eq!(refusal(&directory, "sam", it).await, words);
    }
    for (it, words) in [
        (HandleAct::Verify, "@sam is verified already"),
        (HandleAct::Reserve, "@sam is reserved already"),
    ] {
        act(&directory, "sam", it.clone()).await.unwrap();
        assert_eq!(refusal(&directory, "sam", it).await, words);
    }
    assert!(
        directory
            .lookup(&handle("sam"))
            .unwrap()
            .unwrap()
            .verified_at
            .is_some()
    );
    // An owner keeps a reserved name; nobody gets it after them.
    write(&directory, |tx| tx.release(sam(), &handle("sam"), NOW))
        .await
        .unwrap();
    let refused = claim(&directory, sam(), "sam", NOW).await;
    assert_matches!(refused, Err(DirectoryError::Reserved(_)));
    act(&directory, "sam", HandleAct::Unreserve).await.unwrap();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    // What looks like a reserved name is reserved with it.
    act(&directory, "help1", HandleAct::Reserve).await.unwrap();
    let refused = claim(&directory, kim(), "helpl", NOW).await;
    assert_matches!(refused, Err(DirectoryError::Reserved(_)));
    let shipped = refusal(&directory, "admin", HandleAct::Unreserve).await;
    assert!(shipped.contains("handles.reserved"), "{shipped}");
}

#[tokio::test]
async fn the_log_keeps_every_act_for_a_year_and_no_refusal() {
    let directory = directory();
    claim(&directory, sam(), "Sam", NOW).await.unwrap();
    for it in [
        HandleAct::Freeze,
        HandleAct::Unfreeze,
        HandleAct::Transfer { owner: kims() },
    ] {
        act(&directory, "sam", it).await.unwrap();
    }
    refusal(&directory, "sam", HandleAct::Unfreeze).await;
    let later = NOW + DAY;
    act_at(&directory, "sam", HandleAct::Release, later)
        .await
        .unwrap();
    let shown = |after| {
        let page = audit_log(directory.store(), Some(after)).unwrap();
        assert_eq!(page.next, None);
        page.acts
    };
    let acts = shown((Timestamp(0), 0));
    let words = acts.iter().map(|entry| entry.record.act.as_str());
    let words: Vec<_> = words.collect();
    assert_eq!(words, ["freeze", "unfreeze", "transfer", "release"]);
    assert_eq!(
        acts[2],
        AuditEntry {
            at: NOW,
            record: AuditRecord {
                by: login(),
                act: "transfer".to_owned(),
                subject: "@Sam".to_owned(),
                to: Some(kim().clone()),
                reason: "an impostor".to_owned(),
            }
        }
    );
    assert_eq!(shown((NOW, 1)).len(), 2);

    let year = DAY * 365;
    for (now, left) in [(NOW + year - Duration::from_millis(1), 4), (NOW + year, 1)] {
        write(&directory, |tx| tx.sweep(now, 100)).await.unwrap();
        assert_eq!(records::<AuditLog>(&directory), left);
    }
}

#[tokio::test]
async fn a_reason_has_a_length_that_a_message_can_show() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    let (handle, by) = (handle("sam"), login());
    for (length, is_done) in [(REASON_CHARS_MAX + 1, false), (REASON_CHARS_MAX, true)] {
        let reason = "ä".repeat(length);
        let order = HandleOrder {
            handle: &handle,
            act: &HandleAct::Freeze,
            reason: &reason,
            by: &by,
        };
        let mut tx = directory.begin().await;
        assert_eq!(tx.act_on_handle(&order, NOW).is_ok(), is_done);
    }
}

#[tokio::test]
async fn a_taken_handle_does_not_come_back_by_a_name_that_looks_like_it() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    act(&directory, "sam", HandleAct::Release).await.unwrap();
    let refused = claim(&directory, sam(), "sa_m", NOW).await;
    assert_matches!(refused, Err(DirectoryError::LooksLike { .. }));
    // What its owner gives up just before is kept for nobody either.
    claim(&directory, kim(), "kim", NOW).await.unwrap();
    write(&directory, |tx| tx.release(kim(), &handle("kim"), NOW))
        .await
        .unwrap();
    let change = act(&directory, "kim", HandleAct::Release).await.unwrap();
    assert!(change.before.is_none() && change.after.unwrap().is_revoked());
    for name in ["kim", "k_im"] {
        let refused = claim(&directory, kim(), name, NOW).await;
        assert!(refused.is_err(), "{name}");
    }
    let again = refusal(&directory, "kim", HandleAct::Release).await;
    assert_eq!(again, "nobody holds @kim");
    // An admin gives it to the same person: what they had with it has ended.
    let given = act(&directory, "kim", HandleAct::Claim { owner: kims() });
    let given = given.await.unwrap();
    assert!(given.replace_identity);
    assert_eq!(given.after.unwrap().generation, 1);
}

#[tokio::test]
async fn what_is_the_matter_with_a_ghost_is_known_after_an_admins_freeze_too() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    act(&directory, "sam", HandleAct::Freeze).await.unwrap();
    let reason = FreezeReason::ChangedSinceBackup;
    let later = NOW + DAY;
    write(&directory, |tx| {
        tx.freeze(&handle("sam"), reason.clone(), later)
    })
    .await
    .unwrap();
    let record = directory.lookup(&handle("sam")).unwrap().unwrap();
    assert!(record.is_in_doubt());
    assert_eq!(record.state, HandleState::Frozen { reason, since: NOW });
    let change = act(&directory, "sam", HandleAct::Unfreeze).await.unwrap();
    assert!(change.replace_identity);
}
