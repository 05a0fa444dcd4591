//! `confirm 4827`: do what waits for this code.
//!
//! Only words of the person, encrypted by a device of theirs, reach a command, and the code is
//! new each time: so an old message cannot be played again to destroy something.

use super::{Answer, Call, Command, Fail, NoticeText, release};
use crate::bot::confirmation::{self, Action, RedeemedCode};

pub(super) const COMMAND: Command = Command {
    name: "confirm",
    aliases: &["yes", "ok"],
    usage: "confirm 1234",
    about: "does what waits for that code",
    offered: |standing| standing.is_asked,
    run,
};

fn run(call: &mut Call<'_, '_>, words: &[&str]) -> Result<Answer, Fail> {
    let code = words.concat();
    if code.is_empty() {
        return Err(
            if confirmation::current(call.change, call.person, call.now)?.is_some() {
                COMMAND.wrong("the code I gave you belongs behind it", "confirm 1234")
            } else {
                nothing()
            },
        );
    }
    match confirmation::redeem_code(call.change, call.person, &code, call.now)? {
        RedeemedCode::Do(Action::Release { handle, generation }) => {
            release::confirmed(call, &handle, generation)
        }
        RedeemedCode::Nothing => Err(nothing()),
        RedeemedCode::Wrong { tries_left: 0 } => Err(Fail::Told(NoticeText::new(
            "That is not the code either, so I have dropped what waited for it. Nothing was \
             changed.",
        ))),
        RedeemedCode::Wrong { tries_left } => Err(Fail::Told(
            NoticeText::new("That is not the code I gave you. ")
                .and(&match tries_left {
                    1 => "You have one more try".to_owned(),
                    more => format!("You have {more} more tries"),
                })
                .and(", or write ")
                .code("cancel")
                .and("."),
        )),
    }
}

fn nothing() -> Fail {
    Fail::Told(NoticeText::new(
        "Nothing waits for a code, or its time has run out. Nothing was changed.",
    ))
}
