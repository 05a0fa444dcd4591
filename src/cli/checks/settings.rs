//! Checks of the homeserver's version and of its settings that change what people can do with handles.

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    OwnedUserId, RoomId, UserId,
    api::client::{membership::forget_room, room::create_room, user_directory::search_users},
};
use secrecy::ExposeSecret as _;

use super::{
    CheckResult, Checker, OLDEST_SYNAPSE, Problem,
    turn::{TurnServer, allocate},
};
use crate::{
    clock::sleep,
    config::{BOT_LOCALPART, SENDER_LOCALPART},
    matrix::{Actor, MatrixError, ServerVersion},
};

/// How often it is looked whether an invite was accepted by itself.
const LOOKS: u32 = 10;
/// How long to wait before each look.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long a TURN server may take to give an address.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of TURN servers that are tried.
const TURN_SERVERS_MAX: usize = 8;

fn unexpected(error: &MatrixError) -> Problem {
    Problem::from_error(error, "see the homeserver's log")
}

impl Checker<'_> {
    /// Leaves a room that was made for a check, and lets the homeserver forget it.
    pub(super) async fn leave_and_forget(&self, user: &UserId, room: &RoomId) {
        let who = Actor::user(user);
        let left = self.homeserver.leave(who, room, None).await;
        let forgotten = match left {
            Ok(()) => {
                let forget = forget_room::v3::Request::new(room.to_owned());
                self.homeserver.send(who, forget).await.map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = forgotten {
            tracing::debug!(%error, "a room of the checks stays behind");
        }
    }

    fn user_named(&self, localpart: &str) -> Result<OwnedUserId, Problem> {
        let server = &self.setup.config.homeserver.server_name;
        let user = UserId::parse(format!("@{localpart}:{server}"));
        user.map_err(|error| Problem::new(error.to_string(), "correct homeserver.server_name"))
    }

    /// Checks that the homeserver is not older than what Stonechat was tried with.
    pub async fn check_version(&self) -> CheckResult {
        let version = self
            .homeserver
            .server_version(Actor::user(&self.user))
            .await;
        judge_version(version.map_err(|error| unexpected(&error))?.as_ref())
    }

    /// Checks that users who share no room see each other's profiles and keys. A ghost and an owner
    /// share none until the owner has accepted the ghost's invite.
    pub async fn check_lookups(&self) -> CheckResult {
        let (who, bot) = (Actor::user(&self.user), self.user_named(BOT_LOCALPART)?);
        match self.homeserver.profile(who, &bot).await {
            Ok(None) => {
                return Ok("not tried: the bot is made when Stonechat runs first".to_owned());
            }
            Ok(Some(_)) => {}
            Err(error) if error.has_errcode("M_FORBIDDEN") => {
                return Err(Problem::new(
                    "the homeserver shows profiles only to people who share a room: nobody sees \
                     the name of a ghost or of the bot before they have accepted its invite",
                    "set limit_profile_requests_to_users_who_share_rooms: false in homeserver.yaml",
                ));
            }
            Err(error) => return Err(unexpected(&error)),
        }
        let keys = self.homeserver.query_keys(who, [bot.clone()]).await;
        let keys = keys.map_err(|error| unexpected(&error))?.device_keys;
        if keys.get(&bot).is_none_or(BTreeMap::is_empty) {
            return Err(Problem::new(
                "the homeserver shows the keys of people only to those who share a room with them: \
                 ghosts cannot encrypt for an owner whom they have invited",
                "set msc4263_limit_key_queries_to_users_who_share_rooms: false under \
                 experimental_features in homeserver.yaml",
            ));
        }
        Ok("people who share no room see each other's profiles and keys".to_owned())
    }

    /// Checks that the homeserver does not accept invites for our users: Stonechat decides first.
    pub async fn check_auto_accept(&self) -> CheckResult {
        let inviter = self.user_named(SENDER_LOCALPART)?;
        let registered = self.homeserver.register(SENDER_LOCALPART).await;
        registered.map_err(|error| unexpected(&error))?;
        let mut request = create_room::v3::Request::new();
        request.name = Some("Stonechat's self-test".to_owned());
        request.invite = vec![self.user.clone()];
        request.is_direct = true;
        let made = self.homeserver.send(Actor::user(&inviter), request).await;
        let room = made.map_err(|error| unexpected(&error))?.room_id;
        let joined = self.is_joined_by_itself(&room).await;
        self.leave_and_forget(&self.user, &room).await;
        self.leave_and_forget(&inviter, &room).await;
        if joined.map_err(|error| unexpected(&error))? {
            return Err(Problem::new(
                "the homeserver joins ghosts to every room into which they are invited, before \
                 Stonechat decides: everybody in a room sees which handles were tried",
                "set auto_accept_invites: {enabled: false} in homeserver.yaml, or take out the \
                 module that does it",
            ));
        }
        Ok("invites wait for Stonechat".to_owned())
    }

    async fn is_joined_by_itself(&self, room: &RoomId) -> Result<bool, MatrixError> {
        for _ in 0..LOOKS {
            // Nothing is pushed to us of what does not happen.
            sleep(LOOK_PAUSE / self.speedup).await;
            let joined = self
                .homeserver
                .joined_rooms(Actor::user(&self.user))
                .await?;
            if joined.iter().any(|joined| joined == room) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks whether people find handles by typing. This is only advice: some do not want it.
    pub async fn check_search(&self) -> CheckResult {
        let (who, bot) = (Actor::user(&self.user), self.user_named(BOT_LOCALPART)?);
        let request = search_users::v3::Request::new(BOT_LOCALPART.to_owned());
        let found = self.homeserver.send(who, request).await;
        let found = found.map_err(|error| unexpected(&error))?.results;
        if found.iter().any(|found| found.user_id == bot) {
            return Ok("people find handles and the bot by typing".to_owned());
        }
        Err(Problem::new(
            "people do not find handles by typing: they have to know the whole Matrix ID of a ghost",
            "set user_directory: {search_all_users: true} in homeserver.yaml if you want that. Then \
             everybody on the homeserver can find everybody",
        ))
    }

    /// Checks that calls can be relayed, by an allocation with the credentials that clients get. This
    /// is only advice: without calls everything else works.
    pub async fn check_calls(&self) -> CheckResult {
        let given = self
            .homeserver
            .turn_credentials(Actor::user(&self.user))
            .await;
        let given = given.map_err(|error| unexpected(&error))?;
        if given.uris.is_empty() {
            return Err(Problem::new(
                "the homeserver names no TURN server: masked people cannot call each other, and \
                 others only if their networks allow it",
                "set turn_uris and turn_shared_secret in homeserver.yaml",
            ));
        }
        let (mut reached, mut failed) = (Vec::new(), Vec::new());
        for uri in given.uris.iter().take(TURN_SERVERS_MAX) {
            let Ok(server) = uri.parse::<TurnServer>() else {
                reached.push(format!("{uri} (not tried)"));
                continue;
            };
            let password = given.password.expose_secret();
            let within = TURN_TIMEOUT / self.speedup;
            match allocate(&server, &given.username, password, within).await {
                Ok(address) => reached.push(format!("{server} gives {address}")),
                Err(why) => failed.push(format!("{server}: {why}")),
            }
        }
        if failed.is_empty() {
            return Ok(format!("calls can be relayed: {}", reached.join(", ")));
        }
        Err(Problem::new(
            format!(
                "TURN servers that clients are told of give no address: {}",
                failed.join(", ")
            ),
            "see the TURN server's log; turn_shared_secret in homeserver.yaml has to be its secret, \
             and its ports have to be open",
        ))
    }

    /// Checks that clients know where calls of MatrixRTC meet. This is only advice.
    pub async fn check_rtc(&self) -> CheckResult {
        let named = self
            .homeserver
            .names_rtc_transports(Actor::user(&self.user))
            .await;
        match named {
            Ok(true) => Ok("clients know where calls of Element Call meet".to_owned()),
            Ok(false) => Err(Problem::new(
                "the homeserver names no place for calls of Element Call (MatrixRTC), neither in \
                 rtc/transports nor in .well-known/matrix/client at homeserver.url: such calls are \
                 possible only between people whose clients know one",
                "set matrix_rtc: {transports: …} in homeserver.yaml if you run a MatrixRTC backend. \
                 Masked people cannot use it, since it shows who they are",
            )),
            Err(error) => Err(unexpected(&error)),
        }
    }
}

/// Returns what a version means.
fn judge_version(version: Option<&ServerVersion>) -> CheckResult {
    let Some(ServerVersion { name, version }) = version else {
        return Ok(format!(
            "the homeserver does not say what it is; Stonechat was tried with Synapse \
             {OLDEST_SYNAPSE} and newer"
        ));
    };
    if name != "Synapse" {
        return Err(Problem::new(
            format!("the homeserver is {name} {version}"),
            format!("Stonechat was tried only with Synapse, {OLDEST_SYNAPSE} and newer"),
        ));
    }
    let known = minor_version(version).zip(minor_version(OLDEST_SYNAPSE));
    if known.is_some_and(|(found, oldest)| found < oldest) {
        return Err(Problem::new(
            format!("Synapse {version} is older than what Stonechat was tried with"),
            format!("upgrade it to {OLDEST_SYNAPSE} or newer"),
        ));
    }
    Ok(format!("Synapse {version}"))
}

/// Returns the first two numbers of a version.
fn minor_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_synapse_and_another_homeserver_are_told_from_a_good_one() {
        let version = |name: &str, version: &str| ServerVersion {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        for good in ["1.143.0", "1.163.2", "1.200.0rc1", "2.0.0", "develop"] {
            let good = judge_version(Some(&version("Synapse", good)));
            assert!(good.is_ok(), "{good:?}");
        }
        let old = judge_version(Some(&version("Synapse", "1.99.0"))).unwrap_err();
        assert!(
            old.wrong.contains("1.99.0") && old.remedy.contains(OLDEST_SYNAPSE),
            "{old}"
        );
        let other = judge_version(Some(&version("Conduit", "0.10"))).unwrap_err();
        assert!(other.wrong.contains("Conduit"), "{other}");
        assert!(judge_version(None).unwrap().contains("does not say"));
    }
}
