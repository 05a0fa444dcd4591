//! `POST /createRoom`

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    room::Room,
    route::{Answer, Ask},
    server::{Draft, Server},
};

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}

impl Server {
    pub(super) fn create_room(&mut self, ask: &Ask) -> Answer {
        let (body, me) = (ask.json(), ask.user.as_str());
        if !self.accounts.contains_key(me) {
            return Answer::forbidden("no such user");
        }
        let version = body["room_version"].as_str().unwrap_or("12").to_owned();
        let v12 = version == "12";
        if !["10", "11", "12"].contains(&version.as_str()) {
            let words = "Your homeserver does not support this room version";
            return Answer::refused(400, "M_UNSUPPORTED_ROOM_VERSION", words);
        }
        let preset = match body["preset"].as_str() {
            Some(preset) => preset,
            None if body["visibility"] == "public" => "public_chat",
            None => "private_chat",
        };
        let trusted = preset == "trusted_private_chat";
        let invited = texts(&body["invite"]);

        let mut create = body["creation_content"].clone();
        if !create.is_object() {
            create = json!({});
        }
        create["room_version"] = version.as_str().into();
        let mut creators = BTreeSet::new();
        if v12 {
            let mut additional = texts(&create["additional_creators"]);
            additional.extend(invited.iter().filter(|_| trusted).cloned());
            additional.dedup();
            if !additional.is_empty() {
                create["additional_creators"] = json!(additional);
            }
            creators = additional.into_iter().chain([me.to_owned()]).collect();
        }
        let levels = match levels(&body, preset, me, &creators, &invited, v12) {
            Ok(levels) => levels,
            Err(refused) => return refused,
        };

        let hash = self.fresh_id("room");
        let id = if v12 {
            format!("!{hash}")
        } else {
            format!("!{}:{}", &hash[..18], self.name)
        };
        let room = Room {
            id: id.clone(),
            version,
            creators,
            ..Room::default()
        };
        self.rooms.insert(id.clone(), room);
        let mine = self.member_content(me, "join");
        let mut set = |kind: &str, key: &str, content: &Value| {
            self.append(&id, Draft::state(me, kind, key, content));
        };
        set("m.room.create", "", &create);
        set("m.room.member", me, &mine);
        set("m.room.power_levels", "", &levels);

        let initial = body["initial_state"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let given = |kind: &str| initial.iter().any(|event| event["type"] == kind);
        if !given("m.room.join_rules") {
            let rule = if preset == "public_chat" {
                "public"
            } else {
                "invite"
            };
            set("m.room.join_rules", "", &json!({"join_rule": rule}));
        }
        if !given("m.room.history_visibility") {
            let content = json!({"history_visibility": "shared"});
            set("m.room.history_visibility", "", &content);
        }
        if !given("m.room.guest_access") && preset != "public_chat" {
            let content = json!({"guest_access": "can_join"});
            set("m.room.guest_access", "", &content);
        }
        for event in &initial {
            let key = event["state_key"].as_str().unwrap_or_default();
            if let Some(kind) = event["type"].as_str() {
                set(kind, key, &event["content"]);
            }
        }
        for (kind, field) in [("m.room.name", "name"), ("m.room.topic", "topic")] {
            if body[field].is_string() {
                set(kind, "", &json!({field: body[field]}));
            }
        }
        for user in invited {
            let mut content = self.member_content(&user, "invite");
            if body["is_direct"] == true {
                content["is_direct"] = true.into();
            }
            self.append(&id, Draft::state(me, "m.room.member", &user, &content));
        }
        Answer::ok(&json!({"room_id": id}))
    }
}

fn levels(
    body: &Value,
    preset: &str,
    me: &str,
    creators: &BTreeSet<String>,
    invited: &[String],
    v12: bool,
) -> Result<Value, Answer> {
    let tombstone = if v12 { 150 } else { 100 };
    let mut levels = json!({
        "users": {}, "users_default": 0, "events_default": 0, "state_default": 50,
        "ban": 50, "kick": 50, "redact": 50,
        "invite": if preset == "public_chat" { 50 } else { 0 },
        "events": {
            "m.room.name": 50, "m.room.power_levels": 100, "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50, "m.room.avatar": 50, "m.room.tombstone": tombstone,
            "m.room.server_acl": 100, "m.room.encryption": 100
        }
    });
    if !v12 {
        levels["users"][me] = 100.into();
        let trusted = preset == "trusted_private_chat";
        for user in invited.iter().filter(|_| trusted) {
            levels["users"][user] = 100.into();
        }
    }
    for (key, value) in body["power_level_content_override"]
        .as_object()
        .into_iter()
        .flatten()
    {
        levels[key] = value.clone();
    }
    let named = levels["users"].as_object().into_iter().flatten();
    if named.into_iter().any(|(user, _)| creators.contains(user)) {
        let words = "a creator cannot be in the users of the power levels";
        return Err(Answer::refused(400, "M_INVALID_PARAM", words));
    }
    Ok(levels)
}
