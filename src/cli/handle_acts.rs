//! `stonechat handle freeze sam` and the other acts on a handle.

use clap::{Args, Subcommand};
use ruma::OwnedUserId;

use super::{CliError, admin::RunningService, json::print_json, printable::Printable};
use crate::{
    config::secrets::Environment,
    directory::HandleAct,
    server::{ActDone, ActRequest},
};

#[derive(Debug, Subcommand)]
pub enum ActCommand {
    /// Give a handle that nobody holds to somebody, reserved or not.
    Claim(GiveHandle),
    /// Let nobody claim a handle, nor a name that looks like it. An owner keeps it.
    Reserve(ActOnHandle),
    /// Take a reservation back.
    Unreserve(ActOnHandle),
    /// Let nobody new reach the owner of a handle by it. They keep it; masked conversations go on.
    Freeze(ActOnHandle),
    /// Take a freeze back, whatever its reason. After one that Stonechat made by itself, the handle's
    /// ghost gets new keys.
    Unfreeze(ActOnHandle),
    /// Mark a handle as verified.
    Verify(ActOnHandle),
    /// Take the mark back.
    Unverify(ActOnHandle),
    /// Take a handle from its owner and give it to somebody else. Its masked conversations end.
    Transfer(GiveHandle),
    /// Take a handle from its owner. Its masked conversations end, and nobody can claim it for the
    /// time of `handles.quarantine`.
    Release(ActOnHandle),
}

#[derive(Debug, Args)]
pub struct ActOnHandle {
    /// The handle, with or without @.
    handle: String,
    #[command(flatten)]
    how: HowToAct,
}

#[derive(Debug, Args)]
pub struct GiveHandle {
    /// The handle, with or without @.
    handle: String,
    /// The Matrix ID of its owner to be.
    owner: OwnedUserId,
    #[command(flatten)]
    how: HowToAct,
}

#[derive(Debug, Args)]
pub struct HowToAct {
    /// Why, at most 500 characters: a person who is told reads it, and the audit log keeps it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

impl ActCommand {
    /// Orders the act and prints what came of it.
    pub(super) async fn run(
        self,
        running: &RunningService,
        environment: Environment<'_>,
    ) -> Result<(), CliError> {
        let (handle, act, how) = self.order();
        let request = ActRequest {
            act,
            reason: how.reason,
            login: login(environment),
        };
        print_done(&running.act_on_handle(&handle, &request).await?, how.json)
    }

    fn order(self) -> (String, HandleAct, HowToAct) {
        let (to, act) = match self {
            Self::Claim(GiveHandle { handle, owner, how }) => {
                return (handle, HandleAct::Claim { owner }, how);
            }
            Self::Transfer(GiveHandle { handle, owner, how }) => {
                return (handle, HandleAct::Transfer { owner }, how);
            }
            Self::Reserve(to) => (to, HandleAct::Reserve),
            Self::Unreserve(to) => (to, HandleAct::Unreserve),
            Self::Freeze(to) => (to, HandleAct::Freeze),
            Self::Unfreeze(to) => (to, HandleAct::Unfreeze),
            Self::Verify(to) => (to, HandleAct::Verify),
            Self::Unverify(to) => (to, HandleAct::Unverify),
            Self::Release(to) => (to, HandleAct::Release),
        };
        (to.handle, act, to.how)
    }
}

/// Prints what an act has done.
pub(super) fn print_done(done: &ActDone, json: bool) -> Result<(), CliError> {
    if json {
        return print_json(done);
    }
    for line in done.done.lines() {
        println!("{}", Printable::whole(line));
    }
    Ok(())
}

/// Returns the login of the person who runs this, as the system or sudo names it.
pub(super) fn login(environment: Environment<'_>) -> String {
    let names = ["SUDO_USER", "LOGNAME", "USER"];
    let known = names.into_iter().find_map(environment);
    known.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}
