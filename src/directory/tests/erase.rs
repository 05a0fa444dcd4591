//! Erasing a person.

use std::collections::BTreeSet;

use ruma::room_id;

use super::*;
use crate::{
    directory::tables::{AuditLog, Bans, Blocks, Expiries, Pauses, Usages},
    handle::{HandleRules, Typed},
    permissions::Grantee,
};

fn admin() -> ActingAdmin {
    ActingAdmin::Login("root".to_owned())
}

fn asks(name: &str, asker: &Person, room: &str) -> Request {
    Request {
        handle: handle(name),
        generation: 1,
        asker: asker.clone(),
        room: ruma::RoomId::parse(room).unwrap(),
        ghost: Ghost::new(ruma::UserId::parse(format!("@_dm_{name}:example.org")).unwrap()),
        since: NOW,
        mode: Mode::Open,
        shown: None,
        line_shown: None,
        asker_alias: None,
    }
}

/// Kim is in every table of the directory, as what a person can be there.
async fn kim_is_everywhere() -> Directory {
    let directory = directory();
    for (owner, name) in [
        (sam(), "sam"),
        (kim(), "kim"),
        (kim(), "old"),
        (alice(), "alice"),
    ] {
        claim(&directory, owner, name, NOW).await.unwrap();
    }
    let typed = |text: &str| Typed::parse(text, &HandleRules::default()).unwrap();
    reach(&directory, kim(), "sam", NOW).await;
    write(&directory, |tx| {
        tx.open_request(sam(), &asks("sam", kim(), "!kims:example.org"))?;
        tx.open_request(sam(), &asks("sam", alice(), "!alices:example.org"))?;
        tx.open_request(kim(), &asks("kim", alice(), "!for-kim:example.org"))?;
        tx.add_contact(&handle("sam"), 1, kim(), NOW)?;
        tx.add_contact(&handle("kim"), 1, alice(), NOW)?;
        tx.remember_pair(kim(), &handle("sam"), 1, room_id!("!met:example.org"), NOW)?;
        tx.remember_pair(
            alice(),
            &handle("kim"),
            1,
            room_id!("!alice:example.org"),
            NOW,
        )?;
        tx.block(kim(), &typed("@alice"), &BlockScope::All, NOW)?;
        tx.block(sam(), &typed("@kim"), &BlockScope::All, NOW)?;
        tx.set_appearance(kim(), Some("K".to_owned()))?;
        tx.release(kim(), &handle("old"), NOW)?;
        let limit = Limit {
            most: 0,
            window: DAY,
        };
        tx.count_command(kim(), limit, NOW).map(drop)
    })
    .await
    .unwrap();
    let grantee: Grantee = kim().as_str().parse().unwrap();
    let by = admin();
    let order = GranteeOrder {
        grantee: &grantee,
        act: GranteeAct::Ban,
        reason: "",
        by: &by,
    };
    let mut tx = directory.begin().await;
    tx.act_on_grantee(&order, NOW).unwrap();
    tx.commit().await.unwrap();
    directory
}

#[tokio::test]
async fn nothing_names_an_erased_person_but_what_protects_others() {
    let directory = kim_is_everywhere().await;
    let named = |directory: &Directory| directory.store().tables_with(kim().as_str());
    assert!(named(&directory).len() >= 9, "{:?}", named(&directory));

    let mut tx = directory.begin().await;
    let erased = tx.erase_person(kim(), &admin(), "asked for", NOW).unwrap();
    tx.commit().await.unwrap();
    let released: Vec<_> = erased
        .released
        .iter()
        .map(|it| it.handle.to_string())
        .collect();
    assert_eq!(released, ["@kim"]);
    let closed: BTreeSet<_> = erased.closed.iter().map(|it| it.room.as_str()).collect();
    assert_eq!(closed, ["!for-kim:example.org", "!kims:example.org"].into());

    let limits = [Usages::ID, Pauses::ID, Expiries::ID];
    let stays = [AuditLog::ID, Bans::ID, Blocks::ID]
        .into_iter()
        .chain(limits);
    assert_eq!(named(&directory), stays.collect());
    let exported = directory.export_person(kim(), NOW).unwrap();
    assert!(!exported.has_something_to_erase(), "{exported:#?}");
    // Others have what they had.
    assert_eq!(directory.requests_of(sam()).unwrap().len(), 1);
    assert_eq!(directory.handles_of(alice()).unwrap().len(), 1);
    // Nobody passes for Kim by what was hers, and she does not get it back.
    for (who, name) in [(alice(), "kim"), (kim(), "kim"), (alice(), "old")] {
        assert!(claim(&directory, who, name, NOW).await.is_err(), "{name}");
    }
    assert_eq!(
        label(&reach(&directory, alice(), "kim", NOW).await),
        "unclaimed"
    );
}

#[tokio::test]
async fn erasing_twice_does_nothing_more() {
    let directory = kim_is_everywhere().await;
    for _ in 0..2 {
        let mut tx = directory.begin().await;
        tx.erase_person(kim(), &admin(), "", NOW).unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx = directory.begin().await;
    let again = tx.erase_person(kim(), &admin(), "", NOW).unwrap();
    assert_eq!(again, ErasedPerson::default());
}

#[tokio::test]
async fn an_erasure_is_no_way_around_limits_and_freezes() {
    let directory = kim_is_everywhere().await;
    let reason = FreezeReason::Admin {
        note: String::new(),
    };
    write(&directory, |tx| tx.freeze(&handle("kim"), reason, NOW))
        .await
        .unwrap();
    let used = |directory: &Directory| directory.export_person(kim(), NOW).unwrap().limits;
    let before = used(&directory);
    assert!(!before.is_empty());
    let mut tx = directory.begin().await;
    let erased = tx.erase_person(kim(), &admin(), "", NOW).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(erased.released.len(), 1);
    assert_eq!(used(&directory), before);
    let record = directory.lookup(&handle("kim")).unwrap().unwrap();
    assert!(matches!(record.state, HandleState::Frozen { .. }));
    let later = NOW + 2 * directory.settings().quarantine;
    assert!(claim(&directory, kim(), "kim", later).await.is_err());
    let mut tx = directory.begin().await;
    let order = HandleOrder {
        handle: &handle("kim"),
        act: &HandleAct::Unfreeze,
        reason: "",
        by: &admin(),
    };
    let refused = tx.act_on_handle(&order, NOW).unwrap_err();
    assert!(matches!(refused, ActError::OwnerUnknown(_)), "{refused:?}");
}
