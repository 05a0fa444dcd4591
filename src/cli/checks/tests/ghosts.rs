//! The check of the ghosts.

use super::*;

#[tokio::test]
async fn ghosts_that_the_homeserver_does_not_have_are_named() {
    let ghosts: Vec<(OwnedUserId, OwnedDeviceId)> = (0..12)
        .map(|n| (format!("@_dm_g{n}:example.org"), format!("STONE{n}")))
        .map(|(user, device)| (user.try_into().unwrap(), device.into()))
        .collect();
    let both = Both::new(right()).await;
    let checker = both.checker().await;
    let found = checker.check_ghosts(&ghosts, &[]).await.unwrap();
    assert!(found.contains("all 12"), "{found}");
    for (status, errcode) in [(400, "M_UNKNOWN_DEVICE"), (403, "M_FORBIDDEN")] {
        let both = Both::new(wrong("whoami with device", status, code(errcode))).await;
        let checker = both.checker().await;
        let problem = checker.check_ghosts(&ghosts, &[]).await.unwrap_err();
        assert!(problem.wrong.contains("@_dm_g9:example.org and 2 more"));
        assert!(problem.remedy.contains("restart"), "{problem}");
    }
    // The fourth is shown with both, the fifth without its identity.
    let shown = json!({
        "device_keys": {
            "@_dm_g3:example.org": {"STONE3": {}},
            "@_dm_g4:example.org": {"STONE4": {}},
        },
        "master_keys": {"@_dm_g3:example.org": {}},
    });
    let both = Both::new(wrong("keys", 200, shown)).await;
    let checker = both.checker().await;
    let problem = checker.check_ghosts(&ghosts, &[]).await.unwrap_err();
    assert!(problem.wrong.contains("has lost the keys of"), "{problem}");
    assert!(
        problem.wrong.contains("@_dm_g10:example.org and 1 more"),
        "{problem}"
    );
    assert!(!problem.wrong.contains("@_dm_g3:"), "{problem}");
    assert!(problem.wrong.contains("@_dm_g4:"), "{problem}");
    let both = Both::new(wrong("whoami with device", 502, json!({}))).await;
    let checker = both.checker().await;
    let problem = checker.check_ghosts(&ghosts, &[]).await.unwrap_err();
    assert!(problem.is_temporary, "{problem}");
    let Observer::Running(running) = &both.running else {
        panic!("it runs");
    };
    assert_eq!(running.devices().await.unwrap(), []);
}

#[tokio::test]
async fn ghosts_that_are_still_to_be_made_are_counted() {
    let ghosts: Vec<OwnedUserId> = (0..12)
        .map(|n| format!("@_dm_g{n}:example.org").try_into().unwrap())
        .collect();
    let both = Both::new(right()).await;
    let problem = both.checker().await.check_ghosts(&[], &ghosts).await;
    let problem = problem.unwrap_err();
    assert!(problem.wrong.contains("and 2 more could not be made"));
    assert!(problem.wrong.contains("12 in all"), "{problem}");
    let Observer::Running(running) = &both.running else {
        panic!("it runs");
    };
    assert_eq!(running.owed_ghosts().await.unwrap(), [] as [OwnedUserId; 0]);
}
