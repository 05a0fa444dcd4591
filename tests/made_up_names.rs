//! What invites to names that nobody holds cost in memory. In a process of its own: every allocation
//! is counted.

use std::alloc::System;

use axum::{Json, Router, routing::get};
use cap::Cap;
use ruma::{OwnedRoomId, OwnedUserId};
use secrecy::SecretString;
use serde_json::json;
use stonechat::{
    crypto::Machines,
    matrix::{Homeserver, HomeserverOptions},
    store::Store,
};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const NAMES: usize = 100_000;
/// Maximum growth, in bytes: what is kept for a thousand names and not for a hundred thousand.
const GROWTH: usize = 1_000_000;

#[tokio::test]
async fn a_hundred_thousand_names_that_nobody_holds_leave_less_than_a_megabyte() {
    let versions = get(|| async { Json(json!({"versions": ["v1.15"]})) });
    let app = Router::new().route("/_matrix/client/versions", versions);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let token = SecretString::from("token");
    let options = HomeserverOptions::default();
    let homeserver = Homeserver::connect(&url.parse().unwrap(), token, options)
        .await
        .unwrap();
    let machines = Machines::new(Store::in_memory(), homeserver, Default::default()).unwrap();

    let before = HEAP.allocated();
    for n in 0..NAMES {
        let user = OwnedUserId::try_from(format!("@_dm_made{n}:hs.test")).unwrap();
        let room = OwnedRoomId::try_from(format!("!made{n}:evil.test")).unwrap();
        // What an invite does, whether it is declined in the end or left alone.
        machines.expect_room(&user, &room).await.unwrap();
        machines
            .mark_device_lists_outdated(&user, std::slice::from_ref(&user))
            .await;
        machines.turn_away(&user, &room).await.unwrap();
    }
    let grown = HEAP.allocated().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for {NAMES} names");
}
