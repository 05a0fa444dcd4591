//! The homeserver's version, and settings of it that change what people can do with handles.

use super::*;

async fn check<T>(fake: Fake, which: impl AsyncFnOnce(&Checker<'_>) -> T) -> T {
    let both = Both::new(fake).await;
    let checker = both.checker().await;
    which(&checker).await
}

#[tokio::test]
async fn a_right_homeserver_has_nothing_to_change() {
    let both = Both::new(right()).await;
    let checker = both.checker().await;
    assert_eq!(checker.check_version().await.unwrap(), "Synapse 1.163.2");
    checker.check_auto_accept().await.unwrap();
    checker.check_search().await.unwrap();
    checker.check_rtc().await.unwrap();
    let lookups = checker.check_lookups().await.unwrap();
    assert!(lookups.contains("see each other"), "{lookups}");
}

#[tokio::test]
async fn where_the_admin_api_is_closed_the_version_is_that_of_the_federation() {
    let closed = wrong("admin version", 403, json!({"message": "go away"}));
    let old = check(closed, async |checker| checker.check_version().await).await;
    let old = old.unwrap_err();
    assert!(
        old.wrong.contains("1.142.1") && old.remedy.contains(OLDEST_SYNAPSE),
        "{old}"
    );
}

#[tokio::test]
async fn profiles_and_keys_that_are_hidden_are_told_apart_from_a_bot_that_is_not_made_yet() {
    let lookups = async |checker: &Checker<'_>| checker.check_lookups().await;
    let hidden = check(wrong("profile", 403, code("M_FORBIDDEN")), lookups).await;
    let remedy = hidden.unwrap_err().remedy;
    assert!(
        remedy.contains("limit_profile_requests_to_users_who_share_rooms"),
        "{remedy}"
    );
    let no_keys = wrong("keys", 200, json!({"device_keys": {}}));
    let remedy = check(no_keys, lookups).await.unwrap_err().remedy;
    assert!(
        remedy.contains("msc4263_limit_key_queries_to_users_who_share_rooms"),
        "{remedy}"
    );
    let not_made = check(wrong("profile", 404, code("M_NOT_FOUND")), lookups).await;
    assert!(not_made.unwrap().starts_with("not tried"));
    let failing = check(wrong("profile", 500, code("M_UNKNOWN")), lookups).await;
    assert!(failing.unwrap_err().is_temporary);
}

#[tokio::test]
async fn a_homeserver_that_joins_ghosts_by_itself_is_found_out() {
    let joined = json!({"joined_rooms": ["!other:example.org", "!room:example.org"]});
    let accepts = check(wrong("joined", 200, joined), async |checker| {
        checker.check_auto_accept().await
    });
    let problem = accepts.await.unwrap_err();
    assert!(problem.remedy.contains("auto_accept_invites"), "{problem}");
}

#[tokio::test]
async fn what_people_would_miss_is_advice_with_a_remedy() {
    let nobody = json!({"limited": false, "results": []});
    let search = check(wrong("search", 200, nobody), async |it| {
        it.check_search().await
    })
    .await;
    assert!(search.unwrap_err().remedy.contains("search_all_users"));
    let rtc = check(wrong("rtc", 404, code("M_UNRECOGNIZED")), async |it| {
        it.check_rtc().await
    });
    assert!(rtc.await.unwrap_err().remedy.contains("matrix_rtc"));
    let calls = check(right(), async |it| it.check_calls().await).await;
    assert!(calls.unwrap_err().remedy.contains("turn_uris"));
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("turn:{}?transport=udp", silent.local_addr().unwrap());
    let uris = [
        uri.as_str(),
        "turns:turn.example.org",
        "mailto:eve@example.org",
    ];
    let given = json!({"username": "u", "password": "the secret", "uris": uris, "ttl": 60});
    let calls = check(wrong("turn", 200, given), async |it| it.check_calls().await).await;
    let problem = calls.unwrap_err();
    assert!(problem.wrong.contains(&uri), "{problem}");
    assert!(
        !format!("{problem:?}").contains("the secret"),
        "{problem:?}"
    );
}
