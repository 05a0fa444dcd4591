//! `whoami`: what the service knows about a person.

use super::{
    Answer, Command, CommandContext, CommandError, NoticeText, handle_names, no_handle_text,
};

pub(super) const COMMAND: Command = Command {
    name: "whoami",
    aliases: &["me", "who", "status"],
    usage: "whoami",
    about: "shows what I know about you",
    offered: |_| true,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, _: &[&str]) -> Result<Answer, CommandError> {
    let handles = context.handles()?;
    let text = NoticeText::new("You're ")
        .name(context.person.as_str())
        .and(". ");
    let text = if handles.is_empty() {
        text.append(no_handle_text(context.may_claim()))
    } else {
        text.and("You have ")
            .append(handle_names(&handles))
            .and(".")
    };
    let blocks = context.tx.blocks_of(context.person)?.len();
    let text = match blocks {
        0 => text,
        1 => text.and(" You've blocked one person."),
        more => text.and(&format!(" You've made {more} blocks.")),
    };
    Ok(text
        .paragraph()
        .and("I'm ")
        .name(context.options.bot.as_str())
        .and(
            ". I keep your Matrix ID, your handles and how they're set up, the name you want to be \
             seen by, whom you've blocked and accepted, who is asking to reach you, your masked \
             conversations (who is in them and what they were called there, and for a time which \
             message is the copy of which), whether you're banned, for 90 days who was introduced to whom, for two days how often you've used me, and for a \
             year what an admin has done to a handle of yours. What you \
             write to each other I keep only while it waits to be passed on, as encrypted as it \
             came.",
        )
        .into())
}
