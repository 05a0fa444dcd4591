//! Queries for users and rooms, and third-party lookups.

use std::num::NonZeroU32;

use http::StatusCode;
use serde_json::json;

use super::{app, fake_appservice, get, options, refused};
use crate::server::router;

#[tokio::test]
async fn only_known_users_exist_and_no_room_does() {
    let (app, _) = app();
    for path in [
        "/users/@_dm_sam:example.org",
        "/users/%40_dm_sam%3Aexample.org",
    ] {
        assert_eq!(get(&app, path).await, (StatusCode::OK, json!({})), "{path}");
    }
    let long = format!("/users/@_dm_{}:example.org", "x".repeat(5000));
    for path in [
        "/users/@_dm_kim:example.org",
        "/users/@sam:example.org",
        "/users/@_dm_sam:example.com",
        "/users/sam",
        "/users/%00",
        "/users/@_dm_sam",
        "/users/@:",
        "/rooms/%23sam:example.org",
        "/rooms/x",
        &long,
    ] {
        refused(404, "M_NOT_FOUND")(get(&app, path).await, path);
    }
    refused(400, "M_INVALID_PARAM")(get(&app, "/users/%FF").await, "no UTF-8");
}

#[tokio::test]
async fn a_handle_is_found_and_all_others_get_the_same_empty_answer() {
    let (app, appservice) = app();
    let found = json!([{
        "userid": "@_dm_sam:example.org", "protocol": "stonechat", "fields": {"handle": "Sam"},
    }]);
    for path in [
        "/thirdparty/user/stonechat?handle=sam",
        "/thirdparty/user/stonechat?handle=%40sam",
        "/thirdparty/user/stonechat?handle=+sam+&x=y",
        "/thirdparty/user?userid=@_dm_sam:example.org",
    ] {
        assert_eq!(
            get(&app, path).await,
            (StatusCode::OK, found.clone()),
            "{path}"
        );
    }
    appservice.take_lookups();
    let long = format!("/thirdparty/user/stonechat?handle={}", "x".repeat(400));
    for path in [
        "/thirdparty/user/stonechat",
        "/thirdparty/user/stonechat?handle=sam&handle=kim",
        "/thirdparty/user",
        "/thirdparty/user?userid=sam",
        "/thirdparty/user?userid=@sam:example.org",
        "/thirdparty/user?userid=@_dm_sam:example.com",
        "/thirdparty/user/stonechat?%",
        "/thirdparty/location/stonechat?handle=sam",
        "/thirdparty/location?alias=%23a:b",
        &long,
    ] {
        assert_eq!(get(&app, path).await, (StatusCode::OK, json!([])), "{path}");
    }
    assert!(appservice.take_lookups().is_empty(), "nobody was asked");
    for path in [
        "/thirdparty/user/irc?handle=sam",
        "/thirdparty/protocol/irc",
        "/thirdparty/location/irc",
        "/thirdparty/user/STONECHAT?handle=sam",
    ] {
        refused(404, "M_NOT_FOUND")(get(&app, path).await, path);
    }
}

#[tokio::test]
async fn clients_are_told_what_a_handle_looks_like() {
    let (app, _) = app();
    let (status, body) = get(&app, "/thirdparty/protocol/stonechat").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        json!({
            "user_fields": ["handle"],
            "location_fields": [],
            "icon": "",
            "field_types": {
                "handle": {"regexp": "@?[A-Za-z0-9_]{1,15}", "placeholder": "sam"},
            },
            "instances": [{
                "desc": "Handles on example.org",
                "icon": "",
                "fields": {},
                "network_id": "stonechat",
            }],
        })
    );
}

#[tokio::test]
async fn above_the_limit_a_lookup_finds_nothing() {
    let appservice = fake_appservice();
    let mut options = options();
    options.lookups_per_second = NonZeroU32::new(3).unwrap();
    let app = router(appservice.clone(), options);
    let mut found = 0;
    for n in 0..20 {
        let path = if n % 2 == 0 {
            "/thirdparty/user/stonechat?handle=sam"
        } else {
            "/thirdparty/user?userid=@_dm_sam:example.org"
        };
        let (status, body) = get(&app, path).await;
        assert_eq!(status, StatusCode::OK);
        found += body.as_array().unwrap().len();
    }
    assert!((3..10).contains(&found), "{found} found");
    assert_eq!(appservice.take_lookups().len(), found);
}
