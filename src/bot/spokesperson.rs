//! The bot as the engine knows it: who answers in control rooms.

use rand::RngCore;
use ruma::{OwnedUserId, RoomId, UserId};

use super::{
    Answer as BotAnswer, BotContext, BotEffect,
    control_room::{self, ControlRoomVerdict},
    hear, welcome,
};
use crate::{
    clock::Timestamp,
    directory::{Change, Directory, DirectoryError},
    engine::{Answer, Invited, Judgement, Message, Shown, Spokesperson, Task, Words},
    handle::Handle,
    introduction::{MEGOLM, RoomView},
};

/// The bot, speaking.
#[derive(Debug)]
pub struct Bot {
    context: BotContext,
}

impl Bot {
    /// The bot with this Matrix ID.
    pub fn new(bot: OwnedUserId) -> Self {
        Self {
            context: BotContext::new(bot),
        }
    }

    fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == self.context.bot.server_name() && user.localpart().starts_with("_dm_")
    }

    fn ghost(&self, handle: &Handle) -> Option<OwnedUserId> {
        let server = self.context.bot.server_name();
        UserId::parse(format!("@{}:{server}", handle.ghost_localpart())).ok()
    }

    fn task(&self, effect: BotEffect, change: &Change<'_>) -> Result<Option<Task>, DirectoryError> {
        let strict = |handle: &Handle| -> Result<bool, DirectoryError> {
            Ok(change.lookup(handle)?.is_some_and(|record| record.strict))
        };
        Ok(match effect {
            BotEffect::ProvisionGhost { handle, .. } => match self.ghost(&handle) {
                Some(ghost) => Some(Task::MakeGhost {
                    ghost,
                    strict: strict(&handle)?,
                    name: handle.to_string(),
                }),
                None => None,
            },
            BotEffect::ReplaceIdentity { handle, .. } => match self.ghost(&handle) {
                Some(ghost) => Some(Task::ReplaceIdentity {
                    ghost,
                    strict: strict(&handle)?,
                    name: handle.to_string(),
                }),
                None => None,
            },
            BotEffect::RetireGhost { handle, generation } => self
                .ghost(&handle)
                .map(|ghost| Task::RetireGhost { ghost, generation }),
            BotEffect::EndConversations {
                handle,
                blocked_only,
            } => self.ghost(&handle).map(|ghost| Task::EndConversations {
                ghost,
                blocked_only,
            }),
            BotEffect::Appear {
                person,
                handle,
                name,
            } => self.ghost(&handle).map(|ghost| Task::Appear {
                person,
                ghost,
                name,
            }),
            BotEffect::AnswerRequest {
                room,
                ghost,
                accepted,
            } => Some(Task::AnswerRequest {
                room,
                ghost,
                accepted,
            }),
            BotEffect::Tell {
                person,
                plain,
                html,
            } => Some(Task::Tell {
                person,
                words: Words { plain, html },
            }),
        })
    }

    fn translate(&self, answer: BotAnswer, change: &Change<'_>) -> Result<Answer, DirectoryError> {
        let mut tasks = Vec::new();
        for effect in answer.effects {
            tasks.extend(self.task(effect, change)?);
        }
        Ok(Answer {
            words: Some(Words {
                plain: answer.plain,
                html: answer.html,
            }),
            tasks,
        })
    }
}

impl Spokesperson for Bot {
    fn greeting(&self, person: &UserId, change: &Change<'_>) -> Result<Words, DirectoryError> {
        let answer = welcome::greeting(person, change)?;
        Ok(Words {
            plain: answer.plain,
            html: answer.html,
        })
    }

    fn answer(
        &self,
        message: Message<'_>,
        change: &mut Change<'_>,
        rng: &mut dyn RngCore,
    ) -> Result<Answer, DirectoryError> {
        let answer = match hear::hear(message.event_type, message.content) {
            hear::Heard::Nothing => None,
            hear::Heard::NotText => super::not_a_command(
                message.person,
                welcome::not_text(),
                change,
                &self.context,
                message.now,
            )?,
            hear::Heard::Reaction { to, key } => super::react(
                message.person,
                &to,
                &key,
                message.sent_at,
                change,
                message.now,
            )?,
            hear::Heard::Text(text) => super::answer(
                message.person,
                &text,
                message.sent_at,
                change,
                &self.context,
                message.now,
                rng,
            )?,
        };
        match answer {
            Some(answer) => self.translate(answer, change),
            None => Ok(Answer::default()),
        }
    }

    fn request(&self, shown: &Shown<'_>, directory: &Directory) -> Result<Words, DirectoryError> {
        let say = super::request::show(shown, directory, shown.now)?;
        Ok(Words {
            plain: say.plain().to_owned(),
            html: say.html().to_owned(),
        })
    }

    fn sweep(
        &self,
        change: &mut Change<'_>,
        now: Timestamp,
        limit: usize,
    ) -> Result<usize, DirectoryError> {
        super::sweep(change, now, limit)
    }

    fn unreadable(&self) -> Words {
        let plain = "I could not decrypt that message, so I have done nothing. Please send it \
                     again; if that does not help, start a new chat with me."
            .to_owned();
        Words {
            html: plain.clone(),
            plain,
        }
    }

    fn restored(&self, made: Option<Timestamp>) -> Words {
        let answer = BotAnswer::from(welcome::restored(made));
        Words {
            plain: answer.plain,
            html: answer.html,
        }
    }

    fn not_encrypted(&self) -> Words {
        let plain =
            "That message was not encrypted, so I have done nothing. This room is encrypted \
                     now: please send it again."
                .to_owned();
        Words {
            html: plain.clone(),
            plain,
        }
    }

    fn invited(
        &self,
        person: &UserId,
        view: &RoomView,
        change: &mut Change<'_>,
        now: Timestamp,
    ) -> Result<Invited, DirectoryError> {
        super::invite::invited(person, view, &self.context.bot, change, now)
    }

    fn moved(&self, room: &RoomId) -> Words {
        let answer = BotAnswer::from(welcome::moved(room, self.context.bot.server_name()));
        Words {
            plain: answer.plain,
            html: answer.html,
        }
    }

    fn judge(&self, view: &RoomView, bot: &UserId, expected: Option<&UserId>) -> Judgement {
        let algorithm = match view.encryption {
            Some(_) => Some(MEGOLM),
            None if view.foreign_encryption => Some(""),
            None => None,
        };
        let seen = control_room::RoomView {
            bot,
            expected,
            joined: view.joined().cloned().collect(),
            invited: view.invited().cloned().collect(),
            join_rule: Some(&view.join_rule),
            history_visibility: Some(&view.history_visibility),
            encryption: algorithm,
            may_encrypt: view.may_send_state(bot, "m.room.encryption"),
        };
        // A room that the bot made: the person is invited and has not come yet.
        if seen.joined.len() == 1 && seen.invited.len() == 1 {
            return Judgement::Waiting;
        }
        match control_room::judge(&seen, |user| self.is_ours(user)) {
            ControlRoomVerdict::ControlRoom { person } => Judgement::ControlRoom(person),
            ControlRoomVerdict::Encrypt { person } => Judgement::NotEncrypted(person),
            ControlRoomVerdict::Leave(why) => Judgement::Leave(why.to_string()),
        }
    }
}
