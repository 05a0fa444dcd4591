//! Users: registering them, their profiles, their files.

use serde_json::{Value, json};

use super::{
    route::{Answer, Ask},
    server::{Draft, Server},
};

impl Server {
    /// Makes a user with a device: of the homeserver's own, or with `sam:far.test` of another.
    pub fn add_person(&mut self, name: &str, device: &str) -> String {
        let (localpart, server) = name.split_once(':').unwrap_or((name, &self.name));
        let user = format!("@{localpart}:{server}");
        let localpart = localpart.to_owned();
        let account = self.account(&user);
        account.devices.entry(device.to_owned()).or_default();
        // As Synapse names a new account.
        let name = account.profile.entry("displayname".to_owned());
        name.or_insert_with(|| localpart.into());
        user
    }

    /// `POST /register` with the application service's token.
    pub(crate) fn register(&mut self, body: &Value) -> Answer {
        let Some(localpart) = body["username"].as_str() else {
            return Answer::refused(400, "M_MISSING_PARAM", "no username");
        };
        let user = format!("@{localpart}:{}", self.name);
        if !self.is_ours(&user) {
            return Answer::refused(400, "M_EXCLUSIVE", "Invalid user localpart");
        }
        if self.accounts.contains_key(&user) {
            return Answer::refused(400, "M_USER_IN_USE", "User ID already taken.");
        }
        let profile = &mut self.account(&user).profile;
        profile.insert("displayname".to_owned(), localpart.into());
        if body["inhibit_login"] != true {
            // The user has been made all the same.
            let words = "inhibit_login must be true";
            return Answer::refused(400, "M_APPSERVICE_LOGIN_UNSUPPORTED", words);
        }
        Answer::ok(&json!({"user_id": user}))
    }

    pub(super) fn profile(&self, user: &str, field: Option<&str>) -> Answer {
        let Some(account) = self.accounts.get(user) else {
            return Answer::refused(404, "M_UNKNOWN", "No row found (profiles)");
        };
        let Some(field) = field else {
            return Answer::ok(&account.profile);
        };
        match account.profile.get(field) {
            Some(value) => Answer::ok(&json!({field: value})),
            None => Answer::not_found("no such field"),
        }
    }

    /// Every change of a profile is an event in each room of its user.
    pub(super) fn set_profile(&mut self, ask: &Ask, user: &str, field: &str) -> Answer {
        let body = ask.json();
        if ask.user != user {
            return Answer::forbidden("Cannot set another user's profile");
        }
        let Some(account) = self.accounts.get_mut(user) else {
            return Answer::forbidden("no such user");
        };
        let value = body[field].clone();
        if account.profile.get(field) == Some(&value) {
            return Answer::empty();
        }
        account.profile.insert(field.to_owned(), value);
        if !matches!(field, "displayname" | "avatar_url") {
            return Answer::empty();
        }
        let rooms = account.rooms.clone();
        for room in rooms {
            if self
                .rooms
                .get(&room)
                .is_some_and(|room| room.is_joined(user))
            {
                let content = self.member_content(user, "join");
                self.append(&room, Draft::state(user, "m.room.member", user, &content));
            }
        }
        Answer::empty()
    }

    pub(super) fn account_data(&self, user: &str, kind: &str) -> Answer {
        let account = self.accounts.get(user);
        match account.and_then(|account| account.account_data.get(kind)) {
            Some(data) => Answer::ok(data),
            None => Answer::not_found("Account data not found"),
        }
    }

    pub(super) fn set_account_data(&mut self, ask: &Ask, user: &str, kind: &str) -> Answer {
        let own = ask.user == user;
        match self.accounts.get_mut(user).filter(|_| own) {
            Some(account) => {
                account.account_data.insert(kind.to_owned(), ask.json());
                Answer::empty()
            }
            None => Answer::forbidden("Cannot add account data for other users."),
        }
    }

    pub(super) fn upload_media(&mut self, ask: &Ask) -> Answer {
        let id = self.fresh_id("media");
        let kind = ask.content_type.clone();
        let kind = kind.unwrap_or_else(|| "application/octet-stream".to_owned());
        self.media.insert(id.clone(), (kind, ask.body.clone()));
        Answer::ok(&json!({"content_uri": format!("mxc://{}/{id}", self.name)}))
    }

    pub(super) fn download_media(&self, id: &str) -> Answer {
        match self.media.get(id) {
            Some((_, bytes)) => Answer {
                status: 200,
                body: bytes.clone(),
            },
            None => Answer::not_found("Not found"),
        }
    }
}
