//! Bans of people and servers, and what is used of the limits.

use assert_matches::assert_matches;
use ruma::owned_user_id;

use super::*;
use crate::{
    directory::tables::{AuditLog, Bans, Usages},
    permissions::{Grantee, Permission},
    testing::let_everybody_claim,
};

async fn act(directory: &Directory, whom: &str, act: GranteeAct) -> Result<usize, ActError> {
    let by = ActingAdmin::Login("root".to_owned());
    let order = GranteeOrder {
        grantee: &whom.parse().unwrap(),
        act,
        reason: "spam",
        by: &by,
    };
    let mut tx = directory.begin().await;
    let handles = tx.act_on_grantee(&order, NOW)?;
    tx.commit().await.unwrap();
    Ok(handles.len())
}

fn bob() -> &'static Person {
    person("@bob:far.example:8448")
}

async fn permission(directory: &Directory, whom: &Person) -> Permission {
    directory.begin().await.permission_of(whom).unwrap()
}

#[tokio::test]
async fn a_banned_person_reaches_nobody_claims_nothing_and_is_not_reached() {
    let directory = directory();
    claim(&directory, sam(), "sam", NOW).await.unwrap();
    claim(&directory, kim(), "kim", NOW).await.unwrap();
    assert_eq!(
        act(&directory, sam().as_str(), GranteeAct::Ban)
            .await
            .unwrap(),
        1
    );
    assert_eq!(permission(&directory, sam()).await, Permission::None);
    let verdict = reach(&directory, sam(), "kim", NOW).await;
    assert_eq!(label(&verdict), "barred");
    let verdict = reach(&directory, alice(), "sam", NOW).await;
    assert_eq!(label(&verdict), "frozen");
    let refused = claim(&directory, sam(), "sammy", NOW).await;
    assert_matches!(refused, Err(DirectoryError::NotPermitted));
    let again = act(&directory, sam().as_str(), GranteeAct::Ban).await;
    assert_eq!(
        again.unwrap_err().to_string(),
        "@samuel:example.org is banned already"
    );
    act(&directory, sam().as_str(), GranteeAct::Unban)
        .await
        .unwrap();
    let verdict = reach(&directory, sam(), "kim", NOW).await;
    assert_eq!(label(&verdict), "introduce");
    let again = act(&directory, sam().as_str(), GranteeAct::Unban).await;
    assert_eq!(
        again.unwrap_err().to_string(),
        "@samuel:example.org is not banned"
    );
    assert_eq!(
        (records::<Bans>(&directory), records::<AuditLog>(&directory)),
        (0, 2)
    );
}

#[tokio::test]
async fn a_banned_server_is_banned_with_all_its_ports_or_with_one() {
    let directory = directory_with(let_everybody_claim);
    let other = person("@bob:far.example");
    for (whom, banned) in [
        ("far.example", [true, true]),
        ("far.example:8448", [true, false]),
    ] {
        act(&directory, whom, GranteeAct::Ban).await.unwrap();
        for (person, is_banned) in [bob(), other].into_iter().zip(banned) {
            let may = permission(&directory, person).await;
            assert_eq!(may == Permission::None, is_banned, "{whom} {person}");
        }
        assert_eq!(permission(&directory, sam()).await, Permission::Claim);
        let listed = list_bans(directory.store(), None).unwrap();
        assert_eq!((listed.bans.len(), listed.next), (1, None));
        assert_eq!(listed.bans[0].subject, whom);
        act(&directory, whom, GranteeAct::Unban).await.unwrap();
    }
    // However it is spelt.
    act(&directory, "FAR.example:8448", GranteeAct::Ban)
        .await
        .unwrap();
    assert_eq!(permission(&directory, bob()).await, Permission::None);
    let loud = person("@bob:Far.Example:8448");
    assert_eq!(permission(&directory, loud).await, Permission::None);
    act(&directory, "far.example:8448", GranteeAct::Unban)
        .await
        .unwrap();
    let with_port = directory_with(|settings| {
        settings.server_name = server_name!("hs.test:8448").to_owned();
    });
    for whom in ["hs.test", "HS.test:8448"] {
        let refused = act(&with_port, whom, GranteeAct::Ban).await;
        assert_matches!(refused, Err(ActError::WholeServer), "{whom}");
    }
    for whom in ["*", "example.org", "@_dm_sam:example.org"] {
        let refused = act(&directory, whom, GranteeAct::Ban).await;
        assert!(refused.unwrap_err().is_refusal(), "{whom}");
    }
    assert_eq!(records::<Bans>(&directory), 0);
}

#[tokio::test]
async fn what_is_used_of_the_limits_is_shown_and_forgotten() {
    let directory = directory_with(|settings| {
        let_everybody_claim(settings);
        settings.claims_per_day = 2;
    });
    for name in ["bob", "rob"] {
        claim(&directory, bob(), name, NOW).await.unwrap();
    }
    let refused = claim(&directory, bob(), "robert", NOW).await;
    assert_matches!(refused, Err(DirectoryError::TooManyClaims));
    reach(&directory, bob(), "nobody1", NOW).await;
    let used = |whose: &str| {
        let whose: Grantee = whose.parse().unwrap();
        let used = directory.limits_used(&whose, NOW).unwrap().into_iter();
        used.map(|it| (it.what, it.used)).collect::<Vec<_>>()
    };
    let a = |what: &str, used| (what.to_owned(), used);
    let bobs = [a("requests_of_sender", 1), a("claims", 2)];
    assert_eq!(used(bob().as_str()), bobs);
    let servers = [a("requests_of_server", 1), a("claims_of_server", 2)];
    assert_eq!(used("far.example:8448"), servers);
    assert_eq!(used("*"), [a("unclaimed", 1), a("claims_of_server", 2)]);
    let shown = directory.show_person(bob(), NOW).unwrap();
    assert_eq!(
        (shown.handles.len(), shown.limits.len(), shown.blocks),
        (2, 2, 0)
    );
    assert_eq!(shown.person, owned_user_id!("@bob:far.example:8448"));

    act(&directory, bob().as_str(), GranteeAct::ResetLimits)
        .await
        .unwrap();
    assert_eq!(used(bob().as_str()), []);
    claim(&directory, bob(), "robert", NOW).await.unwrap();
    for whose in [bob().as_str(), "far.example", "*"] {
        act(&directory, whose, GranteeAct::ResetLimits)
            .await
            .unwrap();
    }
    assert_eq!(records::<Usages>(&directory), 0);
}
