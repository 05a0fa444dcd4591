//! The harness without Stonechat: what the other stories rely on.

use std::time::Duration;

use anyhow::Result;
use harness::synapse::federation::Authority;
use harness::venv::Venv;
use harness::{
    ChatOptions, JsBot, Person, PersonOptions, Synapse, SynapseOptions, World, checks, proxy::Proxy,
};

const ALICES: &str = "meet me at the fountain at nine";
const SAMS: &str = "I will bring the old map with me";

#[tokio::test]
async fn two_people_chat_and_only_they_can_read_it() -> Result<()> {
    let mut synapse = Synapse::start_new(SynapseOptions::default()).await?;
    let (alice, sam) = tokio::try_join!(
        Person::register(&synapse, "alice"),
        Person::register(&synapse, "sam")
    )?;

    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    let first = chat.says(ALICES).await?;
    let invite = sam.invited_by(&alice.user_id).await?;
    assert!(invite.is_direct && invite.encrypted);
    assert_eq!(invite.sender_name.as_deref(), Some("Alice"));

    let sams = sam.accepts(&invite).await?;
    assert_eq!(sams.sees(ALICES).await?.event_id, first);
    let answer = sams.replies(&first, SAMS).await?;
    let seen = chat.sees(SAMS).await?;
    assert_eq!(seen.relates_to(), Some(("m.in_reply_to", first.as_str())));
    sams.reacts(&first, "👍").await?;
    chat.sees_where("a reaction", |seen| seen.event_type == "m.reaction")
        .await?;
    sams.edits(&answer, "I will bring the new map with me")
        .await?;
    chat.sees("I will bring the new map with me").await?;
    chat.sends_file("map.bin", &[7; 2000]).await?;
    sams.sees("map.bin").await?;
    sams.sends_voice(&[9; 500]).await?;
    chat.sees("Voice message.ogg").await?;

    assert_eq!(alice.direct_chats_with(&sam.user_id).await?, [chat.id()]);
    assert!(
        alice
            .devices_of(&sam.user_id)
            .await?
            .values()
            .all(|signed| *signed)
    );
    assert_eq!(chat.present(&alice).await?.len(), 2);
    checks::nothing_to_warn_of(&[&alice, &sam]).await?;

    synapse.restart().await?;
    chat.says("and after the restart of the server").await?;
    sams.sees("and after the restart of the server").await?;
    synapse.kill().await?;
    synapse.start().await?;
    sams.says("and after a power cut").await?;
    chat.sees("and after a power cut").await?;

    synapse.stop().await?;
    checks::holds_none_of(synapse.folder(), &[ALICES, SAMS])?;
    Ok(())
}

#[tokio::test]
async fn a_person_who_excludes_insecure_devices_does_not_read_unsigned_ones() -> Result<()> {
    let synapse = Synapse::start_new(SynapseOptions::default()).await?;
    let careful = PersonOptions {
        exclude_insecure_devices: true,
        ..PersonOptions::default()
    };
    let unsigned = PersonOptions {
        cross_signing: false,
        ..PersonOptions::default()
    };
    let (alice, bob, eve) = tokio::try_join!(
        Person::register_with(&synapse, "alice", careful),
        Person::register(&synapse, "bob"),
        Person::register_with(&synapse, "eve", unsigned),
    )?;
    let chat = alice.starts_chat(&[&bob.user_id, &eve.user_id]).await?;
    let bobs = bob.accepts(&bob.invited_by(&alice.user_id).await?).await?;
    let eves = eve.accepts(&eve.invited_by(&alice.user_id).await?).await?;

    bobs.says("from a signed device").await?;
    chat.sees("from a signed device").await?;
    checks::nothing_to_warn_of(&[&alice]).await?;

    let sent = eves.says("from an unsigned device").await?;
    chat.sees_where("eve's message", |seen| seen.event_id == sent)
        .await?;
    assert!(checks::nothing_to_warn_of(&[&alice]).await.is_err());
    assert_eq!(alice.log().undecryptable().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_slow_network_keeps_the_gap_between_keys_and_message() -> Result<()> {
    let synapse = Synapse::start_new(SynapseOptions::default()).await?;
    let proxy = Proxy::start(&synapse.url()).await?;
    let slow = PersonOptions {
        through: Some(proxy.url().clone()),
        ..PersonOptions::default()
    };
    let (alice, sam) = tokio::try_join!(
        Person::register_with(&synapse, "alice", slow),
        Person::register(&synapse, "sam"),
    )?;
    let kim = Person::register(&synapse, "kim").await?;
    proxy.like_element(Duration::from_secs(1));
    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    let sams = sam.accepts(&sam.invited_by(&alice.user_id).await?).await?;

    let saying = tokio::spawn({
        let chat = chat.clone();
        async move { chat.says(ALICES).await }
    });
    proxy
        .hears(|method, path| method == "PUT" && path.contains("/send/m.room.encrypted"))
        .await?;
    // The key is out, the message is not: somebody who comes now sees the message, but cannot read
    // it.
    chat.invites(&kim.user_id).await?;
    let kims = kim.accepts(&kim.invited_by(&alice.user_id).await?).await?;
    let sent = saying.await??;
    sams.sees(ALICES).await?;
    kims.sees_where("the message", |seen| seen.event_id == sent)
        .await?;
    assert_eq!(kim.log().undecryptable().len(), 1);
    Ok(())
}

#[tokio::test]
async fn people_of_two_homeservers_chat_over_tls() -> Result<()> {
    let venv = Venv::ready(|_| {})?;
    let authority = Authority::new(&venv)?;
    let mut here = Synapse::prepare(
        &venv,
        SynapseOptions {
            federation: Some(authority.member()?),
            ..SynapseOptions::default()
        },
    )
    .await?;
    let mut there = Synapse::prepare(
        &venv,
        SynapseOptions {
            federation: Some(authority.member()?),
            ..SynapseOptions::default()
        },
    )
    .await?;
    tokio::try_join!(here.start(), there.start())?;
    let (alice, sam) = tokio::try_join!(
        Person::register(&here, "alice"),
        Person::register(&there, "sam")
    )?;
    assert_ne!(alice.user_id.server_name(), sam.user_id.server_name());

    let chat = alice.starts_chat(&[&sam.user_id]).await?;
    chat.says(ALICES).await?;
    let sams = sam.accepts(&sam.invited_by(&alice.user_id).await?).await?;
    sams.sees(ALICES).await?;
    sams.says(SAMS).await?;
    chat.sees(SAMS).await?;
    checks::nothing_to_warn_of(&[&alice, &sam]).await
}

#[tokio::test]
async fn the_settings_of_people_and_rooms_hold() -> Result<()> {
    let synapse = Synapse::start_new(SynapseOptions::default()).await?;
    let (alice, sam) = tokio::try_join!(
        Person::register(&synapse, "alice"),
        Person::register(&synapse, "sam")
    )?;

    for version in ["10", "11", "12"] {
        let options = ChatOptions::default().version(version)?;
        let chat = alice.starts_chat_with(&[&sam.user_id], options).await?;
        let create = chat
            .state("m.room.create", "")
            .await?
            .expect("a create event");
        assert_eq!(create["room_version"], version);
        let visibility = chat
            .state("m.room.history_visibility", "")
            .await?
            .expect("one");
        assert_eq!(visibility["history_visibility"], "invited");
        sam.leaves(&sam.invited(|invite| invite.room == chat.id()).await?.room)
            .await?;
        chat.sees_leave(&sam.user_id).await?;
    }

    let clear = ChatOptions {
        encrypted: false,
        ..ChatOptions::default()
    };
    let chat = alice.starts_chat_with(&[], clear).await?;
    assert!(chat.says("not in clear, please").await.is_err());
    chat.says_in_clear("in clear").await?;
    chat.sees("in clear").await?;
    assert!(checks::nothing_to_warn_of(&[&alice]).await.is_err());

    sam.blocks_all_invites().await?;
    assert!(chat.invites(&sam.user_id).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_client_of_another_family_chats_with_ours() -> Result<()> {
    let synapse = Synapse::start_new(SynapseOptions::default()).await?;
    let (alice, bot) = tokio::try_join!(
        Person::register(&synapse, "alice"),
        JsBot::start(&synapse, "echo", None)
    )?;

    let chat = alice.starts_chat(&[&bot.user_id]).await?;
    bot.says_that("invited", |said| said["by"] == alice.user_id.as_str())
        .await?;
    chat.sees_join(&bot.user_id).await?;
    let answer = chat.asks(&bot.user_id, ALICES).await?;
    assert_eq!(answer.text(), Some(format!("You said: {ALICES}").as_str()));
    bot.says_that("heard", |said| said["text"] == ALICES)
        .await?;

    bot.saw_nothing_to_warn_of()?;
    checks::nothing_to_warn_of(&[&alice]).await
}

#[tokio::test]
async fn homeserver_and_service_end_when_the_test_that_started_them_is_gone() -> Result<()> {
    let mut world = World::start().await?;
    let synapse = world.synapse.process_mut().expect("a running homeserver");
    synapse.lose_parent();
    assert!(!synapse.wait(Duration::from_secs(10)).await?.success());
    let service = world.service.process_mut().expect("a running service");
    service.lose_parent();
    assert!(!service.wait(Duration::from_secs(10)).await?.success());
    Ok(())
}
