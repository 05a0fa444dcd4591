//! What Prometheus reads of a service that has seen everything once.

use anyhow::{Result, ensure};
use harness::{PersonOptions, metrics::Metrics};

use crate::{
    masked::{comes_to_portal, masks},
    told::{LINE, Story, comes, quick},
};

#[tokio::test]
async fn what_happened_is_counted_and_nobody_is_named() -> Result<()> {
    let mut story = Story::begins_with(quick(), PersonOptions::default()).await?;
    let bot = story.world.bot()?;
    let before = story.world.service.metrics().await?;
    let parts = before.by("stonechat_part_ready", "part");
    ensure!(
        parts.len() == 4 && parts.values().all(|ready| *ready == 1.0),
        "{parts:?}"
    );

    let introductions = "stonechat_introductions_total";
    // One is introduced, one after he was asked, one is declined, and one talks through a mask.
    let chat = story.alice_writes(LINE).await?;
    let sams = story.sam_comes(&chat).await?;
    story.ends_well(&chat, &sams).await?;
    story.control_room.asks(&bot, "policy sam ask").await?;
    let kim = story.world.person("kim").await?;
    let kims = kim.starts_chat(&[&story.ghost]).await?;
    kims.says(LINE).await?;
    story.control_room.sees_part("asks to chat").await?;
    let asked = |shown: &Metrics| shown.sum("stonechat_requests_total", &[("outcome", "asked")]);
    let shown = story.world.service.metrics().await?;
    ensure!(
        asked(&shown) == 1.0 && shown.sum(introductions, &[]) == 1.0,
        "{shown}"
    );
    // Counters begin anew, and what was counted is not counted again.
    story.world.service.kill().await?;
    story.world.service.start().await?;
    story.control_room.asks(&bot, "accept 1").await?;
    comes(&story.sam, &kims, &story.ghost, "Kim (via @sam)").await?;
    let nobody = story.world.ghost("nobodyhere")?;
    kim.starts_chat(&[&nobody]).await?;
    let control_room = story.world.control_room(&kim).await?;
    story.world.claims(&kim, &control_room, "kim").await?;
    masks(&story.world, &control_room, "kim").await?;
    let bob = story.world.person("bob").await?;
    let bobs = bob.starts_chat(&[&story.world.ghost("kim")?]).await?;
    bobs.says(LINE).await?;
    let (_, portal) = comes_to_portal(&kim).await?;
    let line = portal.sees(LINE).await?;
    portal.reacts(&line.event_id, "🦆").await?;
    bobs.sees_where("the reaction", |seen| seen.event_type == "m.reaction")
        .await?;

    let shown = story.world.service.shows("all that happened", |shown| {
        let count = |way, outcome| shown.sum(introductions, &[("way", way), ("outcome", outcome)]);
        count("open", "introduced") == 1.0
            && count("masked", "introduced") == 1.0
            && count("none", "declined") == 1.0
            && shown.sum("stonechat_reconciled_timestamp_seconds", &[]) > 1.7e9
    });
    let shown = shown.await?;
    for (name, labels, expected) in [
        (introductions, &[][..], 3.0),
        ("stonechat_requests_total", &[("outcome", "asked")], 0.0),
        ("stonechat_requests_total", &[("outcome", "accepted")], 1.0),
        ("stonechat_relayed_total", &[("kind", "message")], 1.0),
        ("stonechat_relayed_total", &[("kind", "reaction")], 1.0),
        ("stonechat_relay_delay_seconds", &[], 2.0),
        (
            "stonechat_transactions_total",
            &[("outcome", "failed")],
            0.0,
        ),
        ("stonechat_effects_total", &[("outcome", "given_up")], 0.0),
        ("stonechat_dead_letters_total", &[], 0.0),
        ("stonechat_inbox_oldest_item_seconds", &[], 0.0),
    ] {
        let found = shown.sum(name, labels);
        ensure!(found == expected, "{name} {labels:?}: {found}");
    }
    for (name, labels) in [
        (
            "stonechat_transactions_total",
            &[("outcome", "accepted")][..],
        ),
        ("stonechat_received_total", &[("kind", "to_device")]),
        ("stonechat_event_age_seconds", &[]),
        (
            "stonechat_homeserver_requests_total",
            &[("endpoint", "send"), ("status", "2xx")],
        ),
        (
            "stonechat_homeserver_request_duration_seconds",
            &[("endpoint", "keys/query")],
        ),
        ("stonechat_store_flush_duration_seconds", &[]),
        ("stonechat_store_bytes", &[]),
        ("stonechat_machines_in_memory", &[]),
        ("stonechat_one_time_keys_published_total", &[]),
        ("process_resident_memory_bytes", &[]),
    ] {
        ensure!(shown.sum(name, labels) > 0.0, "{name} {labels:?}");
    }
    let letters = shown.by("stonechat_dead_letters_total", "reason");
    ensure!(letters.len() == 11, "{letters:?}");
    let endpoints = shown.by("stonechat_homeserver_requests_total", "endpoint");
    ensure!(!endpoints.contains_key("other"), "{endpoints:?}");
    story.world.service.stop().await.map(drop)
}
