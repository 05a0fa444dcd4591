//! Checks that need only the homeserver's answers.

use rand::distr::{Alphanumeric, SampleString};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::client::{
        account::{get_username_availability, register},
        room::create_room,
    },
};

use super::{CheckResult, Checker, OLDEST_SYNAPSE, Problem};
use crate::{
    config::{CHECK_LOCALPART, Setup},
    engine::{EngineError, STAMP_TYPE, Stamp, StampHistory},
    handle::GHOST_PREFIX,
    matrix::{Actor, Homeserver, HomeserverOptions, KEYS_ASKED_MAX, MatrixError},
};

/// Maximum number of missing ghosts that are named.
const GHOSTS_NAMED_MAX: usize = 10;

/// Connects to the homeserver.
pub(super) async fn connect(setup: &Setup) -> Result<Homeserver, Problem> {
    let wanted = &setup.config.homeserver;
    let options = HomeserverOptions {
        request_timeout: wanted.timeout,
        proxy: wanted.proxy.clone(),
        ..HomeserverOptions::default()
    };
    let token = setup.registration.as_token.clone();
    Homeserver::connect(&wanted.url, token, options)
        .await
        .map_err(|error| {
            // Nothing was asked yet, and the message says what to do.
            if let MatrixError::Request(_) = error {
                return Problem::of_message(&error.to_string());
            }
            let remedy = if error.is_temporary() {
                format!("start it, or correct homeserver.url ({})", wanted.url)
            } else {
                format!(
                    "is homeserver.url ({}) the homeserver's client-server API?",
                    wanted.url
                )
            };
            Problem::from_error(&error, remedy)
        })
}

impl Checker<'_> {
    /// Checks that the homeserver knows our token and our namespace.
    pub async fn check_token(&self) -> CheckResult {
        let registration = self.setup.registration_path.display();
        let add = format!(
            "add {registration} to app_service_config_files in homeserver.yaml and restart the \
             homeserver"
        );
        match self.homeserver.register(CHECK_LOCALPART).await {
            Ok(_) => {}
            Err(error)
                if error.has_errcode("M_UNKNOWN_TOKEN") || error.has_errcode("M_MISSING_TOKEN") =>
            {
                return Err(Problem::new("the homeserver does not know as_token", add));
            }
            Err(error) if error.has_errcode("M_EXCLUSIVE") => {
                return Err(Problem::new(
                    "the homeserver knows the token but not our namespace",
                    "run `stonechat registration` and restart the homeserver",
                ));
            }
            Err(error) => return Err(Problem::refused(&error, add)),
        }
        let server = &self.setup.config.homeserver.server_name;
        match self.homeserver.whoami(Actor::user(&self.user)).await {
            Ok((user, _)) if user == self.user => Ok(format!("accepted, also for {user}")),
            Ok((user, _)) => Err(Problem::new(
                format!("the homeserver takes us for {user}"),
                format!("correct homeserver.server_name ({server})"),
            )),
            Err(error) if error.has_errcode("M_FORBIDDEN") || error.has_errcode("M_EXCLUSIVE") => {
                Err(Problem::new(
                    format!("we cannot act as {}", self.user),
                    format!(
                        "is homeserver.server_name ({server}) the homeserver's own? After a \
                     correction run `stonechat registration` and restart the homeserver"
                    ),
                ))
            }
            Err(error) => Err(Problem::from_error(&error, "see the homeserver's log")),
        }
    }

    /// Checks that we can create devices without a login and act as them (MSC4190, MSC4326).
    pub async fn check_device(&self) -> CheckResult {
        let newer =
            format!("update the homeserver: Synapse {OLDEST_SYNAPSE} is the oldest tested version");
        let name = "Stonechat's self-test";
        if let Err(error) = self
            .homeserver
            .put_device(&self.user, &self.device, name)
            .await
        {
            return Err(Problem::refused(&error, newer));
        }
        match self
            .homeserver
            .whoami(Actor::device(&self.user, &self.device))
            .await
        {
            Ok((_, Some(device))) if device == self.device => {
                Ok("we can create a device and act as it".to_owned())
            }
            Ok(_) => Err(Problem::new(
                "the homeserver ignores the device we act as",
                newer,
            )),
            Err(error) => Err(Problem::refused(&error, newer)),
        }
    }

    /// Checks that the homeserver has users of ours, their devices and the keys of these, and that
    /// none of the ghosts `owed` is still to be made or removed.
    pub async fn check_ghosts(
        &self,
        devices: &[(OwnedUserId, OwnedDeviceId)],
        owed: &[OwnedUserId],
    ) -> CheckResult {
        let mut missing = Vec::new();
        for (user, device) in devices {
            match self.homeserver.whoami(Actor::device(user, device)).await {
                Ok(_) => {}
                Err(error)
                    if error.has_errcode("M_UNKNOWN_DEVICE")
                        || error.has_errcode("M_FORBIDDEN") =>
                {
                    missing.push(user.clone());
                }
                Err(error) => {
                    return Err(Problem::from_error(&error, "see the homeserver's log"));
                }
            }
        }
        if !missing.is_empty() {
            return Err(Problem::new(
                format!(
                    "the homeserver does not have {}, or not their devices: was its database set \
                     back, or did somebody delete them?",
                    list_some(&missing)
                ),
                "restart Stonechat: it makes them again, with the same keys (a strict handle gets \
                 others). Its log names those that it cannot make",
            ));
        }
        let keyless = self.without_keys(devices).await?;
        if !keyless.is_empty() {
            return Err(Problem::new(
                format!(
                    "the homeserver has lost the keys of {}: nobody can write to them",
                    list_some(&keyless)
                ),
                "restart Stonechat: it publishes them again (a strict handle gets other keys). Its log \
                 names those for which it cannot",
            ));
        }
        if !owed.is_empty() {
            return Err(Problem::new(
                format!(
                    "{} could not be made or removed when their handles changed ({} in all)",
                    list_some(owed),
                    owed.len()
                ),
                "Stonechat tries again every five minutes, and says in its log what the homeserver \
                 answered",
            ));
        }
        Ok(format!("the homeserver has all {} of them", devices.len()))
    }

    /// Returns the users that are shown without their device or their identity.
    async fn without_keys(
        &self,
        devices: &[(OwnedUserId, OwnedDeviceId)],
    ) -> Result<Vec<OwnedUserId>, Problem> {
        let mut keyless = Vec::new();
        for some in devices.chunks(KEYS_ASKED_MAX) {
            let Some((asker, _)) = some.first() else {
                break;
            };
            let users = some.iter().map(|(user, _)| user.clone());
            let shown = self.homeserver.query_keys(Actor::user(asker), users);
            let shown = shown.await;
            let shown =
                shown.map_err(|error| Problem::from_error(&error, "see the homeserver's log"))?;
            let lost = some.iter().filter(|(user, device)| {
                let theirs = shown.device_keys.get(user);
                let has_device = theirs.is_some_and(|theirs| theirs.contains_key(device));
                !has_device || !shown.master_keys.contains_key(user)
            });
            keyless.extend(lost.map(|(user, _)| user.clone()));
        }
        Ok(keyless)
    }

    /// Returns the stamp that the homeserver holds, if it holds one; or `None` if it keeps no account
    /// data for us.
    async fn held_stamp(&self) -> Result<Option<Option<Stamp>>, Problem> {
        let bot = self.setup.bot();
        let bot = bot.map_err(|error| Problem::of_message(&error.to_string()))?;
        let held = self
            .homeserver
            .account_data(Actor::user(&bot), STAMP_TYPE)
            .await;
        match held {
            Ok(held) => Ok(Some(held)),
            Err(error) if error.missing_user().is_some() => Ok(Some(None)),
            Err(error) if error.is_refusal() => Ok(None),
            Err(error) => Err(Problem::from_error(&error, "see the homeserver's log")),
        }
    }

    /// Checks that the homeserver knows no newer state of the data folder.
    pub async fn check_data(&self, history: &StampHistory) -> CheckResult {
        match self.held_stamp().await? {
            None => Ok(
                "the homeserver keeps no account data for us, so nobody would notice if the data \
                 folder were set back"
                    .to_owned(),
            ),
            Some(Some(held)) if history.is_outdated_by(&held) => {
                Err(Problem::of_message(&EngineError::StoreSetBack.to_string()))
            }
            Some(_) => Ok("the homeserver knows no newer state of the data folder".to_owned()),
        }
    }

    /// Checks that neither the data folder nor the homeserver's database was set back. The service
    /// starts after the latter, and heals what it can.
    pub async fn check_data_and_homeserver(&self, history: &StampHistory) -> CheckResult {
        let held = self.held_stamp().await?;
        if held.is_some_and(|held| history.outdates(held.as_ref())) {
            return Err(Problem::new(
                "the homeserver's database was set back: it has lost what happened since then",
                "restart Stonechat: it makes its users, their devices and keys again. Rooms that were \
                 made since then are lost; the people concerned are told in the rooms that they have, \
                 and others begin a new chat",
            ));
        }
        self.check_data(history).await
    }

    /// Checks that people cannot register names like ours. The namespace is not exclusive, so only
    /// the homeserver's own rules prevent it.
    pub async fn check_namespace(&self) -> CheckResult {
        let random = Alphanumeric
            .sample_string(&mut crate::cli::rng(), 12)
            .to_ascii_lowercase();
        let name = format!("{GHOST_PREFIX}{random}");
        let open = || {
            Problem::new(
                format!("anybody can register names that begin with {GHOST_PREFIX}"),
                "set `exclusive: true` in the registration and restart the homeserver (its user \
                 directory then lists no handle), or have it refuse names that begin with _",
            )
        };
        let ask = get_username_availability::v3::Request::new(name.clone());
        match self.homeserver.send_unauthenticated(ask).await {
            // With `inhibit_user_in_use_error` Synapse says this of every name, so another request
            // follows.
            Ok(_) => {}
            Err(error) => {
                return match error.errcode() {
                    Some("M_EXCLUSIVE" | "M_INVALID_USERNAME") => {
                        Ok(format!("people cannot register {GHOST_PREFIX}… names"))
                    }
                    Some("M_FORBIDDEN") => {
                        Ok("people cannot register by themselves here".to_owned())
                    }
                    Some("M_UNRECOGNIZED") => Ok(format!(
                        "another service registers users here; it has to refuse {GHOST_PREFIX}… names"
                    )),
                    Some("M_USER_IN_USE") => Err(open()),
                    _ => Err(unclear_namespace(&error)),
                };
            }
        }
        // The first step of a registration creates no user: it returns what would be asked next.
        let mut first = register::v3::Request::new();
        first.username = Some(name);
        match self.homeserver.send_unauthenticated(first).await {
            Ok(_) => Err(open()),
            Err(error) => match error.errcode() {
                Some("M_EXCLUSIVE" | "M_INVALID_USERNAME" | "M_FORBIDDEN") => {
                    Ok(format!("people cannot register {GHOST_PREFIX}… names"))
                }
                Some("M_USER_IN_USE") => Err(open()),
                // What would be asked next is an answer with this status and without an errcode.
                None if error.status() == Some(401) => Err(open()),
                _ => Err(unclear_namespace(&error)),
            },
        }
    }

    /// Checks that rooms are encrypted from the start. This is only recommended: a ghost turns
    /// encryption on, but earlier messages stay unencrypted.
    pub async fn check_encryption_by_default(&self) -> CheckResult {
        let who = Actor::user(&self.user);
        let mut request = create_room::v3::Request::new();
        request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
        request.name = Some("Stonechat's self-test".to_owned());
        let trouble = |error: MatrixError| Problem::from_error(&error, "see the homeserver's log");
        let room = self
            .homeserver
            .send(who, request)
            .await
            .map_err(trouble)?
            .room_id;
        let state = self.homeserver.room_state(who, &room).await;
        self.leave_and_forget(&self.user, &room).await;
        let encrypted = state
            .map_err(trouble)?
            .iter()
            .any(|event| is_of_type(event, "m.room.encryption"));
        if encrypted {
            Ok("rooms with invites are encrypted from their first moment".to_owned())
        } else {
            Err(Problem::new(
                "rooms are encrypted only if the client that creates them asks for it",
                "recommended in homeserver.yaml: \
                 encryption_enabled_by_default_for_room_type: invite",
            ))
        }
    }
}

/// Returns the problem of an error that says nothing about the names that people can register: of a
/// homeserver that fails, or of a proxy in front of it that keeps these requests from it.
fn unclear_namespace(error: &MatrixError) -> Problem {
    if error.is_temporary() {
        return Problem::from_error(error, "see the homeserver's log");
    }
    let problem = Problem::from_error(
        error,
        "let the proxy in front of the homeserver pass on /_matrix/client/v3/register and \
         /_matrix/client/v3/register/available, or set homeserver.url to the homeserver itself",
    );
    let wrong = problem.wrong;
    Problem {
        wrong: format!(
            "it could not be found out whether people can register names that begin with \
             {GHOST_PREFIX}: {wrong}"
        ),
        ..problem
    }
}

/// Returns the first of these users, and the number of the others.
fn list_some(users: &[OwnedUserId]) -> String {
    let named: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let shown = named.len().min(GHOSTS_NAMED_MAX);
    let more = match named.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named[..shown].join(", "))
}

fn is_of_type(event: &serde_json::value::RawValue, wanted: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_str::<Kind>(event.get()).is_ok_and(|event| event.kind == wanted)
}
