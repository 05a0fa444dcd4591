//! `appear Kim`: the name by which masked people see a person.

use ruma::user_id;

use super::{Answer, Command, CommandContext, CommandError, NoticeText};
use crate::{
    bot::{
        Effect,
        confirmation::{self, Action},
    },
    handle::{Handle, HandleRules, Typed},
    text::clean_name,
};

/// The name of a person who has not chosen one.
const SOMEONE: &str = "Someone";

pub(super) const COMMAND: Command = Command {
    name: "appear",
    aliases: &["name", "nick"],
    usage: "appear Kim",
    about: "sets the name by which masked people see you",
    offered: |person| person.can_mask,
    run,
};

fn run(context: &mut CommandContext<'_, '_>, words: &[&str]) -> Result<Answer, CommandError> {
    if let [name @ .., handle] = words
        && !name.is_empty()
        && handle.starts_with('@')
    {
        return rename_in_conversation(context, &name.join(" "), handle);
    }
    let typed = words.join(" ");
    if words.is_empty() {
        let name = context.tx.appearance(context.person)?;
        let name = name.unwrap_or_else(|| SOMEONE.to_owned());
        return Ok(NoticeText::new(
            "When you write to someone whose handle is masked, they see you as ",
        )
        .name(&name)
        .and(", or by your own masked handle if you have exactly one. To choose a name: ")
        .code("appear Kim")
        .and(". To be nobody in particular: ")
        .code("appear someone")
        .and(".")
        .into());
    }
    // Cleaned like every name in our own sentences.
    let cleaned = clean_name(Some(&typed), user_id!("@someone:example.org"));
    let name = match cleaned.to_lowercase().as_str() {
        "someone" => None,
        _ => Some(cleaned.clone()),
    };
    let shown = name.clone().unwrap_or_else(|| SOMEONE.to_owned());
    context.tx.set_appearance(context.person, name)?;
    Ok(
        NoticeText::new("From now on, masked people you write to see you as ")
            .name(&shown)
            .and(
                ". Conversations that have begun keep your old name. If you have exactly one masked \
                 handle, they see that instead. To change your name in a chat of two that has begun, \
                 say with whom: ",
            )
            .code("appear Kim @sam")
            .and(".")
            .into(),
    )
}

/// Says what a name in a conversation of two that has begun may show, and gives the code for it. The
/// bot does not look up whether there is one: everybody gets the same answer.
fn rename_in_conversation(
    context: &mut CommandContext<'_, '_>,
    typed: &str,
    handle: &str,
) -> Result<Answer, CommandError> {
    let (handle, server) = Typed::parse_handle(handle, &HandleRules::WIDEST)?;
    if let Some(server) = context.foreign_server(server) {
        return Err(COMMAND.usage_error(
            &format!("handles on {server} are managed by that server"),
            "appear Kim @sam",
        ));
    }
    let name = clean_name(Some(typed), user_id!("@someone:example.org"));
    // People who have not chosen a name are called like this, so it links nobody.
    if name.to_lowercase() == "someone" {
        return confirmed(context, &handle, SOMEONE.to_owned());
    }
    let text = NoticeText::new("In the chat of two that this service passes on between you and ")
        .name(&handle.to_string())
        .and(", if there is one, you would be called ")
        .name(&name)
        .and(". ")
        .strong(
            "Somebody who is in two chats in which you have the same name can tell that both are \
             you.",
        )
        .and(" That can't be taken back, not even with another name. ");
    let action = Action::Rename { handle, name };
    let code =
        confirmation::issue_code(context.tx, context.person, action, context.now, context.rng)?;
    Ok(text.append(confirmation::code_text(&code)).into())
}

/// Changes the name.
pub(super) fn confirmed(
    context: &mut CommandContext<'_, '_>,
    handle: &Handle,
    name: String,
) -> Result<Answer, CommandError> {
    let text = NoticeText::new("If you have a chat of two with ")
        .name(&handle.to_string())
        .and(" that this service passes on, you're now called ")
        .name(&name)
        .and(
            " there, and nowhere else: in groups you keep your name. Where people see you by a \
             masked handle of your own, nothing changes.",
        );
    let mut answer = Answer::from(text);
    answer.effects.push(Effect::SetName {
        person: context.person.clone(),
        ghost: context.ghost(handle)?,
        name,
    });
    Ok(answer)
}
