//! Masked handles: what a conversation is made of besides lines of text.

use anyhow::{Context, Result, ensure};
use harness::{Chat, Person, Seen, World, WorldOptions, checks};
use ruma::{EventId, OwnedUserId, UserId, events::receipt::ReceiptThread};
use serde_json::{Value, json};

use crate::{
    federation::two_servers,
    masked::{comes_to_portal, does_not_name, masked, masks},
    told::{LINE, Story, confirms, quick},
};

/// Alice and the masked Sam have begun to talk.
struct Talk {
    story: Story,
    /// Alice's room.
    chat: Chat,
    /// Sam's portal.
    sams: Chat,
    /// Who Alice is in it.
    alices_ghost: OwnedUserId,
    /// Her first line, in both rooms.
    first: (Seen, Seen),
}

impl Talk {
    async fn begins(options: WorldOptions) -> Result<Self> {
        let story = masked(options).await?;
        let chat = story.alice_writes(LINE).await?;
        let (alices_ghost, sams) = comes_to_portal(&story.sam).await?;
        let first = (chat.sees(LINE).await?, sams.sees(LINE).await?);
        Ok(Self {
            story,
            chat,
            sams,
            alices_ghost,
            first,
        })
    }

    async fn ends_well(&self) -> Result<()> {
        does_not_name(&self.sams, &self.story.alice.user_id)?;
        does_not_name(&self.chat, &self.story.sam.user_id)?;
        checks::nothing_to_warn_of(&[&self.story.alice, &self.story.sam]).await
    }
}

fn message(content: &Value, by: &UserId) -> impl Fn(&Seen) -> bool + use<> {
    let (kind, body) = (content["msgtype"].clone(), content["body"].clone());
    let by = by.to_owned();
    move |seen: &Seen| {
        seen.sender == by && seen.content["msgtype"] == kind && seen.content["body"] == body
    }
}

#[tokio::test]
async fn all_kinds_of_messages_come_through_both_ways() -> Result<()> {
    let talk = Talk::begins(quick()).await?;
    let (chat, sams) = (&talk.chat, &talk.sams);
    let server = talk.story.alice.user_id.server_name();
    let url = format!("mxc://{server}/duck");
    let file = json!({
        "v": "v2", "url": url, "iv": "AAAAAAAAAAAAAAAAAAAAAA", "hashes": {"sha256": "aGFzaA"},
        "key": {
            "kty": "oct", "alg": "A256CTR", "ext": true, "k": "a2V5",
            "key_ops": ["encrypt", "decrypt"],
        },
    });
    let kinds = [
        json!({"msgtype": "m.emote", "body": "waves"}),
        json!({"msgtype": "m.notice", "body": "low water"}),
        json!({
            "msgtype": "m.text", "body": "a bold word", "format": "org.matrix.custom.html",
            "formatted_body": "a <strong>bold</strong> word",
        }),
        json!({
            "msgtype": "m.image", "body": "duck.png", "file": file,
            "info": {"w": 20, "h": 10, "mimetype": "image/png", "thumbnail_file": file},
        }),
        json!({"msgtype": "m.video", "body": "duck.mp4", "file": file, "info": {"duration": 7}}),
        json!({"msgtype": "m.audio", "body": "duck.ogg", "file": file, "info": {"duration": 7}}),
        json!({"msgtype": "m.location", "body": "the lock", "geo_uri": "geo:52.5,13.4;u=10"}),
    ];
    let ghost = &talk.story.ghost;
    // A client shows what its owner has said as well.
    for (from, to, by) in [(chat, sams, &talk.alices_ghost), (sams, chat, ghost)] {
        for content in &kinds {
            from.sends("m.room.message", content.clone()).await?;
            let seen = to.sees_where("a message", message(content, by)).await?;
            ensure!(seen.was_encrypted());
            for (key, value) in content.as_object().context("no object")? {
                ensure!(seen.content[key] == *value, "{key}: {seen:?}");
            }
        }
        let sticker = json!({"body": "a duck", "info": {}, "url": url});
        from.sends("m.sticker", sticker.clone()).await?;
        let seen = to
            .sees_where("a sticker", |seen| {
                seen.sender == *by && seen.event_type == "m.sticker"
            })
            .await?;
        ensure!(seen.content["url"] == sticker["url"], "{seen:?}");
        from.sends_voice(b"not really a voice").await?;
        let voice = |seen: &Seen| {
            seen.sender == *by && seen.content.get("org.matrix.msc3245.voice").is_some()
        };
        let seen = to.sees_where("a voice message", voice).await?;
        let sound = &seen.content["org.matrix.msc1767.audio"];
        ensure!(
            sound["waveform"]
                .as_array()
                .is_some_and(|all| all.len() == 3),
            "{seen:?}"
        );
        // What nobody knows yet is carried as it is.
        let unknown = json!({"greeting": "ahoy"});
        from.sends("com.example.unheard_of", unknown.clone())
            .await?;
        let unheard =
            |seen: &Seen| seen.sender == *by && seen.event_type == "com.example.unheard_of";
        let seen = to.sees_where("something new", unheard).await?;
        ensure!(seen.content["greeting"] == "ahoy", "{seen:?}");
    }
    talk.ends_well().await
}

#[tokio::test]
async fn threads_polls_mentions_and_many_reactions_find_what_they_refer_to() -> Result<()> {
    let talk = Talk::begins(quick()).await?;
    let (chat, sams) = (&talk.chat, &talk.sams);
    let (root_here, root_there) = (&talk.first.0.event_id, &talk.first.1.event_id);

    // A thread on what was said before there was a portal.
    let in_thread = json!({
        "msgtype": "m.text", "body": "about that heron",
        "m.relates_to": {
            "rel_type": "m.thread", "event_id": root_there, "is_falling_back": true,
            "m.in_reply_to": {"event_id": root_there},
        },
    });
    sams.sends("m.room.message", in_thread).await?;
    let seen = chat.sees("about that heron").await?;
    let relation = &seen.content["m.relates_to"];
    ensure!(relation["rel_type"] == "m.thread", "{seen:?}");
    ensure!(relation["event_id"] == root_here.as_str(), "{seen:?}");

    // Several reactions, one of them taken back.
    let duck = sams.reacts(root_there, "🦆").await?;
    sams.reacts(root_there, "⚓").await?;
    let reaction = |emoji: &'static str, to: &EventId| {
        let to = to.to_string();
        move |seen: &Seen| {
            seen.content["m.relates_to"]["key"] == emoji
                && seen.content["m.relates_to"]["event_id"] == to.as_str()
        }
    };
    let duck_here = chat.sees_where("🦆", reaction("🦆", root_here)).await?;
    chat.sees_where("⚓", reaction("⚓", root_here)).await?;
    sams.redacts(&duck).await?;
    let taken_back = |seen: &Seen| {
        seen.event_type == "m.room.redaction"
            && seen.content["redacts"] == duck_here.event_id.as_str()
    };
    chat.sees_where("the duck go", taken_back).await?;

    // A mention, by the ghost that stands for the other one.
    let ghost = &talk.story.ghost;
    let mention = json!({
        "msgtype": "m.text", "body": "ahoy @sam", "format": "org.matrix.custom.html",
        "formatted_body": format!("ahoy <a href=\"https://matrix.to/#/{ghost}\">@sam</a>"),
        "m.mentions": {"user_ids": [ghost]},
    });
    chat.sends("m.room.message", mention).await?;
    let seen = sams.sees_part("ahoy").await?;
    let mentioned = &seen.content["m.mentions"]["user_ids"];
    ensure!(*mentioned == json!([talk.story.sam.user_id]), "{seen:?}");

    // A poll, a vote and its end.
    let poll = json!({
        "org.matrix.msc3381.poll.start": {
            "kind": "org.matrix.msc3381.poll.disclosed", "max_selections": 1,
            "question": {"org.matrix.msc1767.text": "Which way?"},
            "answers": [
                {"id": "up", "org.matrix.msc1767.text": "Up the river"},
                {"id": "down", "org.matrix.msc1767.text": "Down the river"},
            ],
        },
        "org.matrix.msc1767.text": "Which way? 1. Up the river 2. Down the river",
    });
    let of_kind = |kind: &'static str| move |seen: &Seen| seen.event_type == kind;
    let start = "org.matrix.msc3381.poll.start";
    let poll_here = chat.sends(start, poll).await?;
    let poll_there = sams.sees_where("a poll", of_kind(start)).await?;
    let about = |poll: &EventId| json!({"rel_type": "m.reference", "event_id": poll});
    let response = "org.matrix.msc3381.poll.response";
    let vote = json!({
        response: {"answers": ["down"]}, "m.relates_to": about(&poll_there.event_id),
    });
    sams.sends(response, vote).await?;
    let vote = chat.sees_where("a vote", of_kind(response)).await?;
    ensure!(
        vote.content["m.relates_to"] == about(&poll_here),
        "{vote:?}"
    );
    ensure!(vote.content[response]["answers"] == json!(["down"]));
    let end = "org.matrix.msc3381.poll.end";
    let ended = json!({
        end: {}, "m.relates_to": about(&poll_here), "org.matrix.msc1767.text": "It is over.",
    });
    chat.sends(end, ended).await?;
    let ended = sams.sees_where("its end", of_kind(end)).await?;
    ensure!(
        ended.content["m.relates_to"] == about(&poll_there.event_id),
        "{ended:?}"
    );
    talk.ends_well().await
}

#[tokio::test]
async fn typing_and_receipts_are_seen_on_the_other_side() -> Result<()> {
    let mut options = quick();
    // Else a receipt may be the ghost's own, which says that a message has arrived.
    options.service = options.service.set("relay.delivery_receipts", false);
    let talk = Talk::begins(options).await?;
    let (chat, sams) = (&talk.chat, &talk.sams);
    let ghosts = (&*talk.story.ghost, &*talk.alices_ghost);
    chat.types(true).await?;
    let typing = |sign: &harness::Sign| sign.types(ghosts.1);
    sams.shows("typing", typing).await?;
    chat.types(false).await?;
    let after = |log: &harness::Log| {
        let signs = log.signs_in(sams.id());
        let last = signs.iter().rev().find(|sign| sign.kind == "m.typing")?;
        (!last.types(ghosts.1)).then_some(())
    };
    talk.story.sam.until("that it stops", after).await?;

    let (here, there) = (&talk.first.0.event_id, &talk.first.1.event_id);
    sams.reads(there, ReceiptThread::Unthreaded).await?;
    let read = |sign: &harness::Sign| sign.read(here, ghosts.0) == Some(None);
    chat.shows("a receipt", read).await?;

    let in_thread = json!({
        "msgtype": "m.text", "body": "about that heron",
        "m.relates_to": {"rel_type": "m.thread", "event_id": here},
    });
    let reply_here = chat.sends("m.room.message", in_thread).await?;
    let reply_there = sams.sees("about that heron").await?.event_id;
    sams.reads(&reply_there, ReceiptThread::Thread(there.clone()))
        .await?;
    let read = |sign: &harness::Sign| sign.read(&reply_here, ghosts.0) == Some(Some(here.as_str()));
    chat.shows("a receipt in the thread", read).await?;
    talk.ends_well().await
}

#[tokio::test]
async fn a_receipt_shows_that_a_message_has_reached_the_other_side() -> Result<()> {
    let talk = Talk::begins(quick()).await?;
    let arrived = talk.chat.says("has it arrived?").await?;
    let ghost = &talk.story.ghost;
    let shown = |sign: &harness::Sign| sign.read(&arrived, ghost) == Some(None);
    talk.chat.shows("that it has arrived", shown).await?;
    talk.ends_well().await
}

/// The address of a file names the homeserver that stores it.
#[tokio::test]
async fn a_file_from_another_homeserver_does_not_name_it() -> Result<()> {
    let (world, there) = two_servers(quick()).await?;
    let (sam, control_room) = world.owner("sam").await?;
    masks(&world, &control_room, "sam").await?;
    let bob = Person::register(&there, "bob").await?;
    let chat = bob.starts_chat(&[&world.ghost("sam")?]).await?;
    chat.says(LINE).await?;
    let (ghost, sams) = comes_to_portal(&sam).await?;
    sams.sees(LINE).await?;
    chat.sends_file("map.png", b"not really a picture").await?;
    let is_file = |seen: &Seen| seen.content["msgtype"] == "m.file";
    let file = sams.sees_where("the file", is_file).await?;
    let url = file.content["file"]["url"].as_str().unwrap_or_default();
    let ours = format!("mxc://{}/", sam.user_id.server_name());
    ensure!(url.starts_with(&ours), "{file:?}");
    let own = chat.sees_where("the same", is_file).await?;
    ensure!(own.content["file"]["key"] == file.content["file"]["key"]);
    let bytes = sams.downloads(&file).await?;
    ensure!(bytes == b"not really a picture");
    // The other way there is nothing to hide: the ghost is on our homeserver.
    sams.sends_file("answer.png", b"no picture either").await?;
    let is_answer = |seen: &Seen| seen.content["body"] == "answer.png";
    let answer = chat.sees_where("the answer", is_answer).await?;
    ensure!(chat.downloads(&answer).await? == b"no picture either");
    does_not_name(&sams, &bob.user_id)?;
    does_not_name(&chat, &sam.user_id)?;
    let server = bob.user_id.server_name().to_string();
    for seen in sams.events() {
        ensure!(!format!("{seen:?}").contains(&server), "{seen:?}");
    }
    ensure!(file.sender == ghost);
    checks::nothing_to_warn_of(&[&bob, &sam]).await
}

/// Who is in both rooms of a group must not learn whose a masked handle is.
#[tokio::test]
async fn in_a_group_nobody_is_shown_by_their_masked_handle() -> Result<()> {
    let story = masked(quick()).await?;
    let world: &World = &story.world;
    let (bob, bobs_room) = world.owner("bob").await?;
    masks(world, &bobs_room, "bob").await?;
    let ghosts = [&*story.ghost, &*bob.user_id];
    let group = harness::ChatOptions::group();
    let chat = story.alice.starts_chat_with(&ghosts, group).await?;
    let invite = bob.invited(|invite| invite.room == chat.id()).await?;
    let bobs = bob.accepts(&invite).await?;
    chat.sees_join(&story.ghost).await?;
    bobs.says("it is me, and nobody is to know by which handle")
        .await?;
    let sams = crate::masked::comes_to_group(&story.sam).await?;
    let seen = sams.sees_part("nobody is to know").await?;
    ensure!(seen.sender.localpart().starts_with("_dm_.p"), "{seen:?}");
    does_not_name(&sams, &world.ghost("bob")?)
}

#[tokio::test]
async fn a_person_who_leaves_a_group_is_gone_for_all_and_can_come_back() -> Result<()> {
    let story = masked(quick()).await?;
    let (kim, kims_room) = story.world.owner("kim").await?;
    masks(&story.world, &kims_room, "kim").await?;
    let kims = story.world.ghost("kim")?;
    let ghosts = [&*story.ghost, &*kims];
    let group = harness::ChatOptions::group();
    let chat = story.alice.starts_chat_with(&ghosts, group).await?;
    // She does not wait until both are there.
    chat.says(LINE).await?;
    let sams = crate::masked::comes_to_group(&story.sam).await?;
    sams.sees(LINE).await?;
    // Kim does not want to.
    let invite = kim
        .invited(|invite| invite.sender.localpart().starts_with("_dm_.p"))
        .await?;
    kim.leaves(&invite.room).await?;
    chat.sees_part("kim has left the conversation").await?;
    chat.sees_leave(&kims).await?;
    chat.says("then without her").await?;
    sams.sees("then without her").await?;
    // And then she does.
    let left = left_at(&chat, &kims);
    chat.invites(&kims).await?;
    chat.sees_where("her again", |seen| {
        seen.membership() == Some((kims.as_str(), "join")) && seen.sent > left
    })
    .await?;
    chat.says("welcome back").await?;
    let again = kim
        .invited(|again| {
            again.sender.localpart().starts_with("_dm_.p") && again.room != invite.room
        })
        .await?;
    let kim_there = kim.accepts(&again).await?;
    kim_there.sees("welcome back").await?;
    kim_there.says("I am here after all").await?;
    chat.sees("I am here after all").await?;
    sams.sees("I am here after all").await?;
    // Until she takes the mask off: that ends it for her, and for nobody else.
    let bot = story.world.bot()?;
    let answer = confirms(&kims_room, &bot, "mode kim open").await?;
    ensure!(answer.text().is_some_and(|text| text.contains("is open")));
    kim_there.sees_part("has ended").await?;
    let told = |log: &harness::Log| {
        let all = log.texts_in(chat.id()).into_iter();
        let told = all.filter(|(_, text)| text.contains("kim has left the conversation"));
        (told.count() == 2).then_some(())
    };
    story.alice.until("to be told again", told).await?;
    chat.says("good night, then").await?;
    sams.sees("good night, then").await?;
    checks::nothing_to_warn_of(&[&story.alice, &story.sam, &kim]).await
}

/// When somebody left last.
fn left_at(chat: &Chat, user: &UserId) -> u64 {
    let events = chat.events();
    let left = events
        .iter()
        .filter(|seen| seen.membership() == Some((user.as_str(), "leave")));
    left.map(|seen| seen.sent).max().unwrap_or_default()
}
