//! Events as nobody should send them, as far as a homeserver takes them in.

use anyhow::{Context, Result, ensure};
use harness::{
    PATIENCE, Synapse,
    hostile::{Draft, Endpoint, HostileRoom, HostileServer, RoomOptions, to_device},
};
use ruma::UserId;
use serde_json::{Map, Value, json};

use crate::stage::{Stage, comes_to};

/// How many events may precede one, and so how many are sent beside each other.
const BESIDE: usize = 19;

/// Minimum share of malformed events, in percent, that the homeserver has to take of those sent into
/// a room, or the story shows nothing.
const TAKEN_MIN: usize = 65;

/// What a terminal would act on, and what looks like a line of a log.
const FORGED: &str = "\n2026-01-01T00:00:00Z ERROR restore: all is lost \u{1b}[31m";

/// The kinds of message that the service knows, each with the fields that it may look at.
const MESSAGES: [(&str, &[&str]); 12] = [
    (
        "m.room.message",
        &[
            "msgtype",
            "body",
            "format",
            "formatted_body",
            "m.relates_to",
            "m.mentions",
            "m.new_content",
        ],
    ),
    ("m.room.message", &["m.relates_to"]),
    ("m.room.message", &["url", "info", "file", "filename"]),
    (
        "m.room.encrypted",
        &[
            "algorithm",
            "ciphertext",
            "session_id",
            "sender_key",
            "device_id",
        ],
    ),
    ("m.room.encrypted", &["m.relates_to"]),
    ("m.reaction", &["m.relates_to"]),
    ("m.room.redaction", &["redacts", "reason"]),
    ("m.sticker", &["body", "url", "info"]),
    ("m.poll.start", &["m.poll", "m.text"]),
    (
        "m.call.invite",
        &["call_id", "version", "lifetime", "offer"],
    ),
    (
        "org.matrix.msc4075.rtc.notification",
        &["notification_type", "lifetime", "sender_ts", "m.mentions"],
    ),
    ("m.key.verification.start", &["from_device", "m.relates_to"]),
];

/// The kinds of state that the service knows, each with the fields that it may look at.
const STATES: [(&str, &[&str]); 14] = [
    ("m.room.name", &["name"]),
    ("m.room.topic", &["topic", "m.topic"]),
    ("m.room.avatar", &["url", "info"]),
    ("m.room.canonical_alias", &["alias", "alt_aliases"]),
    ("m.room.history_visibility", &["history_visibility"]),
    ("m.room.guest_access", &["guest_access"]),
    ("m.room.pinned_events", &["pinned"]),
    (
        "m.room.encryption",
        &["algorithm", "rotation_period_ms", "rotation_period_msgs"],
    ),
    ("m.room.server_acl", &["allow", "deny"]),
    ("m.room.tombstone", &["body", "replacement_room"]),
    ("m.space.parent", &["via", "canonical"]),
    ("m.bridge", &["bridgebot", "protocol", "channel"]),
    ("im.vector.modular.widgets", &["type", "url", "data"]),
    (
        "org.matrix.msc3401.call.member",
        &["memberships", "application", "foci_preferred"],
    ),
];

/// Values that no field should have.
fn oddities() -> Vec<Value> {
    let mut nested = json!({});
    for _ in 0..90 {
        nested = json!({ "m.relates_to": [nested] });
    }
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(""),
        json!([[], {}, null]),
        json!({ "rel_type": 7, "event_id": {}, "m.in_reply_to": "x", "key": [] }),
        json!({ "rel_type": "m.replace", "event_id": "$nothing" }),
        json!({ "rel_type": "m.thread", "event_id": FORGED, "m.in_reply_to": { "event_id": 1 } }),
        json!("A".repeat(8_000)),
        json!(FORGED),
        json!("\u{202e}\u{0}\u{7}\u{feff}\u{e0001}"),
        nested,
    ]
}

fn all_fields(fields: &[&str], value: &Value) -> Value {
    let with = |field: &&str| ((*field).to_owned(), value.clone());
    Value::Object(fields.iter().map(with).collect::<Map<_, _>>())
}

/// Every kind of message with nothing in it, and with each odd value in all of its fields.
fn messages() -> Vec<Draft> {
    let mut drafts = Vec::new();
    let values = oddities();
    for (kind, fields) in MESSAGES {
        drafts.push(Draft::message(kind, json!({})));
        let odd = values.iter().map(|value| all_fields(fields, value));
        drafts.extend(odd.map(|content| Draft::message(kind, content)));
    }
    drafts
}

/// Every kind of state with nothing in it, and with each odd value in all of its fields.
fn states() -> Vec<Draft> {
    let mut drafts = Vec::new();
    let values = oddities();
    for (kind, fields) in STATES {
        drafts.push(Draft::state(kind, "", json!({})));
        let odd = values.iter().map(|value| all_fields(fields, value));
        drafts.extend(odd.map(|content| Draft::state(kind, "", content)));
    }
    drafts
}

/// Events whose oddity lies outside of the content of a known kind.
fn others(room: &HostileRoom, ghost: &UserId) -> Vec<Draft> {
    let text = json!({ "msgtype": "m.text", "body": "well-formed" });
    let message = || Draft::message("m.room.message", text.clone());
    let member = |user: &str, content: Value| Draft::state("m.room.member", user, content);
    let mut drafts: Vec<Draft> = [-1, 0, i64::from(i32::MIN), 9_007_199_254_740_991]
        .into_iter()
        .map(|time| message().sent_at(time))
        .collect();
    for kind in [
        "",
        FORGED,
        "m.room.\u{0}message",
        "m.room.message ",
        &"k".repeat(255),
    ] {
        drafts.push(Draft::message(kind, text.clone()));
        drafts.push(Draft::state("m.room.topic", kind, text.clone()));
        drafts.push(Draft::state(
            "org.matrix.msc3401.call.member",
            kind,
            text.clone(),
        ));
    }
    for value in oddities() {
        // A display name that is no text at all, of somebody who is in the room.
        let content = json!({
            "membership": "join",
            "displayname": value,
            "avatar_url": value,
            "is_direct": value,
            "reason": value,
        });
        drafts.push(member(room.creator(), content).by(room.creator()));
        drafts.push(message().with("redacts", value.clone()));
        drafts.push(message().with("unsigned", value.clone()));
        drafts.push(message().with("user_id", value));
    }
    for membership in ["knock", "ban", "leave", "invite", "banana", "", FORGED] {
        let content = json!({ "membership": membership });
        drafts.push(member("not a user", content.clone()));
        drafts.push(member(&format!("@nobody{FORGED}:hs"), content.clone()));
        drafts.push(member(room.creator(), content.clone()).by("@mallory:elsewhere"));
        // Last of them is an invite of somebody who is there.
        if membership == "invite" {
            drafts.push(member(ghost.as_str(), content));
        }
    }
    drafts.push(Draft::message("m.room.redaction", json!({})).with("redacts", json!("$nothing")));
    drafts.push(Draft::message(
        "m.room.message",
        json!({ "body": "A".repeat(60 << 10) }),
    ));
    drafts.push(Draft::message(
        "m.room.encrypted",
        json!({ "ciphertext": "A".repeat(60 << 10) }),
    ));
    drafts
}

/// What servers tell each other outside of rooms.
fn edus(eve: &UserId, room: &str, to: &UserId, device: &str) -> Vec<Value> {
    let mut edus = Vec::new();
    for value in oddities() {
        let kinds = [
            (
                "m.typing",
                json!({ "room_id": room, "user_id": eve, "typing": value }),
            ),
            (
                "m.receipt",
                json!({ room: { "m.read": { eve.as_str(): { "event_ids": [value], "data": value } } } }),
            ),
            (
                "m.device_list_update",
                json!({ "user_id": eve, "device_id": "D", "stream_id": 1, "prev_id": value, "keys": value }),
            ),
        ];
        edus.extend(kinds.map(|(kind, content)| json!({ "edu_type": kind, "content": content })));
        let olm = json!({
            "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": value, "ciphertext": value,
        });
        let request = json!({
            "action": value, "body": value, "request_id": value, "requesting_device_id": value,
        });
        let kinds = [
            ("m.room.encrypted", &value),
            ("m.room.encrypted", &olm),
            ("m.room_key_request", &request),
            ("m.dummy", &value),
        ];
        edus.extend(kinds.map(|(kind, content)| to_device(eve, kind, (to, device), content)));
    }
    edus
}

/// Messages, and events whose oddity lies outside of their content.
pub async fn messages_and_others(stage: &mut Stage) -> Result<()> {
    events(stage, "odd", |room, ghost| {
        let mut drafts = messages();
        drafts.extend(others(room, ghost));
        drafts
    })
    .await
}

/// State. Synapse resolves it anew for each event, which takes it longer than anything else here.
pub async fn state(stage: &mut Stage) -> Result<()> {
    events(stage, "odd_state", |_, _| states()).await
}

async fn events(
    stage: &mut Stage,
    handle: &str,
    drafts: fn(&HostileRoom, &UserId) -> Vec<Draft>,
) -> Result<()> {
    let attacker = stage.attacker().await?;
    let bot = stage.world.bot()?;
    let (owner, control_room) = stage.world.owner(handle).await?;
    let mode = format!("mode {handle} masked");
    control_room.asks(&bot, &mode).await?;
    let ghost = stage.world.ghost(handle)?;

    let mut rooms = Vec::new();
    for visitor in [ghost.clone(), bot.clone()] {
        let room = attacker.opens_room(RoomOptions::default())?;
        let reply = attacker.invites(&room, &visitor, room.stripped()).await?;
        reply.accepted()?;
        attacker
            .hears_membership(&visitor, &room, "join", PATIENCE)
            .await?;
        rooms.push((visitor, room));
    }
    let device = attacker.devices_of(&bot).await?;
    let device = device.first().context("no device")?;
    let eve = attacker.user("eve")?;
    let counts = stage
        .under_attack_on(async |synapse| {
            let mut counts = Vec::new();
            for (visitor, room) in &rooms {
                let drafts = drafts(room, &ghost);
                if *visitor == ghost {
                    let taken = sends_all(synapse, &attacker, room, &drafts).await?;
                    counts.push((taken, drafts.len()));
                } else {
                    // The bot leaves what is no control room, and the homeserver takes no more then.
                    sends_blindly(&attacker, room, &drafts).await?;
                }
                let mut taken = 0;
                let edus = edus(&eve, room.id(), &bot, device);
                let all = edus.len();
                for edu in edus {
                    // The homeserver answers some of them 500.
                    taken += usize::from(attacker.sends(&[], vec![edu]).await.is_ok());
                }
                println!("the homeserver took {taken} of {all} ephemeral messages");
            }
            Ok(counts)
        })
        .await?;
    for (taken, sent) in counts {
        println!("the homeserver took {taken} of {sent} malformed events");
        ensure!(
            taken * 100 >= sent * TAKEN_MIN,
            "{taken} of {sent} events only"
        );
    }
    stage.no_forged_lines()?;
    drop(owner);
    Ok(())
}

/// Sends these events, some at a time; returns how many of them the homeserver has taken into the
/// room. What it has not taken is never referred to: it would ask for it, and wait.
async fn sends_all(
    synapse: &Synapse,
    attacker: &HostileServer,
    room: &HostileRoom,
    drafts: &[Draft],
) -> Result<usize> {
    // One that the homeserver takes may ban the attacker's server: nothing comes behind those.
    let (bans, drafts): (Vec<&Draft>, Vec<&Draft>) = drafts
        .iter()
        .partition(|draft| draft.kind == "m.room.server_acl");
    let mut all_taken = 0;
    for some in drafts.chunks(BESIDE) {
        let signed: Result<Vec<_>> = some.iter().map(|draft| room.adds_beside(draft)).collect();
        let mut signed = signed?;
        let last = json!({ "msgtype": "m.text", "body": "and on it goes" });
        let last = room.adds_beside(&Draft::message("m.room.message", last))?;
        attacker
            .sends(&signed.iter().collect::<Vec<_>>(), Vec::new())
            .await?;
        // It deals with what a room is sent in order. By itself, since some of them spoil the
        // transaction that they come in.
        let said = attacker.sends(&[&last], Vec::new()).await?;
        ensure!(said[&last.id].get("error").is_none(), "{said:?}");
        signed.push(last.clone());
        let there = "SELECT count(*) FROM events WHERE event_id = ?";
        comes_to(synapse, there, &[&last.id], 1).await?;
        let ids: Vec<&str> = signed.iter().map(|event| event.id.as_str()).collect();
        let marks = vec!["?"; ids.len()].join(",");
        let taken = format!(
            "SELECT event_id FROM events LEFT JOIN rejections USING (event_id) \
             WHERE reason IS NULL AND event_id IN ({marks})"
        );
        let taken = synapse.database_says(&taken, &ids).await?;
        let taken = taken.iter().filter_map(|row| row.first()?.as_str());
        let taken: Vec<String> = taken.map(str::to_owned).collect();
        all_taken += taken.len() - 1;
        room.goes_on_from(taken);
    }
    sends_blindly(attacker, room, bans).await?;
    Ok(all_taken)
}

/// Sends these events, some at a time, whatever the homeserver makes of them.
async fn sends_blindly(
    attacker: &HostileServer,
    room: &HostileRoom,
    drafts: impl IntoIterator<Item = &Draft>,
) -> Result<()> {
    let signed = drafts.into_iter().map(|draft| room.adds_beside(draft));
    let signed = signed.collect::<Result<Vec<_>>>()?;
    for some in signed.chunks(BESIDE) {
        attacker
            .sends(&some.iter().collect::<Vec<_>>(), Vec::new())
            .await?;
    }
    Ok(())
}

/// Stripped state as nobody should send it.
fn stripped(room: &HostileRoom, ghost: &UserId) -> Vec<Vec<Value>> {
    let entry = |kind: Value, key: Value, sender: Value, content: Value| json!({ "type": kind, "state_key": key, "sender": sender, "content": content });
    let eve = || json!(room.creator());
    let mut all = vec![Vec::new()];
    for value in oddities() {
        let mut one = vec![value.clone()];
        for (kind, fields) in STATES {
            one.push(entry(
                json!(kind),
                json!(""),
                eve(),
                all_fields(fields, &value),
            ));
            one.push(entry(json!(kind), value.clone(), eve(), json!({})));
            one.push(entry(json!(kind), json!(""), value.clone(), json!({})));
            one.push(entry(json!(kind), json!(""), eve(), value.clone()));
        }
        for kind in ["m.room.create", "m.room.join_rules", "m.room.encryption"] {
            let fields = [
                "type",
                "room_version",
                "join_rule",
                "algorithm",
                "predecessor",
            ];
            one.push(entry(
                json!(kind),
                json!(""),
                eve(),
                all_fields(&fields, &value),
            ));
        }
        let membership = json!({ "membership": value, "displayname": value });
        one.push(entry(
            json!("m.room.member"),
            eve(),
            eve(),
            membership.clone(),
        ));
        one.push(entry(
            json!("m.room.member"),
            json!(ghost),
            eve(),
            membership,
        ));
        one.extend(room.stripped());
        all.push(one);
    }
    // Small ones, and far too many.
    let many = (0..10_000).map(|n| entry(json!("t"), json!(n.to_string()), eve(), json!({})));
    all.push(many.collect());
    all
}

pub async fn invites(stage: &mut Stage) -> Result<()> {
    let attacker = stage.attacker().await?;
    let (owner, _) = stage.world.owner("odder").await?;
    let ghost = stage.world.ghost("odder")?;
    let bot = stage.world.bot()?;
    let ids = stage
        .under_attack(async {
            let example = attacker.opens_room(RoomOptions::default())?;
            let mut taken = 0;
            for (number, state) in stripped(&example, &ghost).into_iter().enumerate() {
                let target = if number % 2 == 0 { &ghost } else { &bot };
                let room = attacker.opens_room(RoomOptions::default())?;
                let reply = attacker.invites(&room, target, state).await?;
                taken += usize::from(reply.status == 200);
            }
            let mut ids = 0;
            for odd in [
                FORGED,
                "\u{0}",
                "\u{202e}",
                "%2e%2e/",
                "\u{1b}]0;x\u{7}",
                &"r".repeat(200),
            ] {
                let id = format!("!{odd}:{}", attacker.name());
                let room = attacker.opens_room_as(&id, RoomOptions::default())?;
                let reply = attacker.invites(&room, &ghost, room.stripped()).await;
                ids += usize::from(reply.is_ok_and(|reply| reply.status == 200));
            }
            println!("the homeserver took {taken} odd invites, and {ids} with odd room ids");
            ensure!(taken >= 8, "the homeserver takes {taken} invites only");
            Ok(ids)
        })
        .await?;
    ensure!(ids > 1, "the homeserver takes {ids} odd room ids only");
    println!("joins asked for: {}", attacker.asked(&[Endpoint::MakeJoin]));
    stage.no_forged_lines()?;
    drop(owner);
    Ok(())
}
