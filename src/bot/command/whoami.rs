//! `whoami`: what the service knows of somebody.

use super::{Answer, Call, Command, Fail, Say, names, no_handle};

pub(super) const COMMAND: Command = Command {
    name: "whoami",
    aliases: &["me", "who", "status"],
    usage: "whoami",
    about: "shows what I know about you",
    offered: |_| true,
    run,
};

fn run(call: &mut Call<'_, '_>, _: &[&str]) -> Result<Answer, Fail> {
    let handles = call.handles()?;
    let say = Say::text("You are ").strong(call.person.as_str()).and(". ");
    let say = if handles.is_empty() {
        say.then(no_handle())
    } else {
        say.and("You have ").then(names(&handles)).and(".")
    };
    let blocks = call.change.blocks_of(call.person)?.len();
    let say = match blocks {
        0 => say,
        1 => say.and(" You have blocked one person."),
        more => say.and(&format!(" You have made {more} blocks.")),
    };
    Ok(say
        .par()
        .and("I am ")
        .strong(call.context.bot.as_str())
        .and(
            ". I keep your Matrix ID, your handles and how they are set up, whom you blocked, and \
             for 90 days who was introduced to whom. What you write to each other I do not keep.",
        )
        .into())
}
