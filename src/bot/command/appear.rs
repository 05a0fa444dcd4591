//! `appear Kim`: how somebody is called by people who do not see their Matrix ID.

use ruma::user_id;

use super::{Answer, Call, Command, Fail, NoticeText};
use crate::{
    bot::Effect,
    handle::{HandleRules, Typed},
    text::clean_name,
};

pub(super) const COMMAND: Command = Command {
    name: "appear",
    aliases: &["name", "nick"],
    usage: "appear Kim",
    about: "sets the name by which masked people see you",
    offered: |standing| standing.can_mask,
    run,
};

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    if let [name @ .., handle] = words
        && !name.is_empty()
        && handle.starts_with('@')
    {
        return to_one(call, &name.join(" "), handle);
    }
    let typed = words.join(" ");
    if words.is_empty() {
        let name = call.change.appearance(call.person)?;
        let name = name.unwrap_or_else(|| "Someone".to_owned());
        return Ok(NoticeText::new(
            "When you write to somebody whose handle is masked, they see you as ",
        )
        .strong(&name)
        .and(", or by your own masked handle if you have exactly one. To choose a name: ")
        .code("appear Kim")
        .and("; to be nobody in particular: ")
        .code("appear someone")
        .and(".")
        .into());
    }
    // Cleaned as every name that goes into our own sentences.
    let cleaned = clean_name(Some(&typed), user_id!("@someone:example.org"));
    let name = match cleaned.to_lowercase().as_str() {
        "someone" => None,
        _ => Some(cleaned.clone()),
    };
    let shown = name.clone().unwrap_or_else(|| "Someone".to_owned());
    call.change.set_appearance(call.person, name)?;
    Ok(
        NoticeText::new("From now on masked people to whom you write see you as ")
            .strong(&shown)
            .and(
                ". Conversations that have begun keep the name they have. If you have exactly one \
             masked handle, they see that instead. To change your name in one of those that have \
             begun, say with whom: ",
            )
            .code("appear Kim @sam")
            .and(".")
            .into(),
    )
}

/// The name in a conversation that has begun. Who has one with whom is not ours to look up here:
/// the answer is the same to everybody.
fn to_one(call: &mut Call<'_, '_>, typed: &str, handle: &str) -> Result<Answer, Fail> {
    let (handle, server) = Typed::parse_handle(handle, &HandleRules::WIDEST)?;
    if let Some(server) = call.elsewhere(server) {
        return Err(COMMAND.wrong(
            &format!("handles of {server} are looked after there"),
            "appear Kim @sam",
        ));
    }
    let mut name = clean_name(Some(typed), user_id!("@someone:example.org"));
    if name.to_lowercase() == "someone" {
        "Someone".clone_into(&mut name);
    }
    let text = NoticeText::new("If you have a conversation with ")
        .strong(&handle.to_string())
        .and(" that is carried, you are now called ")
        .strong(&name)
        .and(
            " there, and nowhere else. It changes nothing where you are seen by a masked handle \
             of your own.",
        );
    let mut answer = Answer::from(text);
    answer.effects.push(Effect::Appear {
        person: call.person.to_owned(),
        ghost: call.ghost(&handle)?,
        name,
    });
    Ok(answer)
}
