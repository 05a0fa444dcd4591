//! The retry policy: how long an item is tried, which errors count, and how long a room pauses.
//!
//! An item of a room is an inbox item or an effect. It is retried while its error says that it may
//! succeed later ([`Fate`]), for as long as [`Retry`] allows. Time runs from its first failure that
//! had an answer, for each time limit on its own (`failing`). It starts anew when the item failed
//! with a longer limit in between, and whenever the homeserver was away.
//!
//! The homeserver is away if it cannot be reached, and also if it fails at everything, whatever it or
//! a proxy before it answers ([`EngineError::HomeserverDown`], `outage`). Then no time runs at all,
//! and nobody is told something false because the homeserver restarts or its database is away. A
//! limit is for what fails alone: a request that the homeserver cannot answer, or another server that
//! it asks. If a proxy answers just one request without a homeserver behind it, that is tried for
//! [`OUTAGE`].
//!
//! Nothing in the same room overtakes an item that is retried, but for what waits for a person whose
//! server does not answer (`lanes`); other rooms go on. An item that cannot succeed is given up:
//!
//! | given up | who is told |
//! |---|---|
//! | an encrypted message in the inbox | its sender (`actors::give_up`) |
//! | a ghost's invite in the inbox | the inviter: it is declined |
//! | a notice of the bot in the inbox | its person, when they next have a control room |
//! | a leaving | nobody: the keys of the room are destroyed all the same |
//! | another effect of an introduction | [`crate::introduction::decide`], which decides what follows |
//! | an effect of a conversation | the sender of the message (`conversations::failures`) |
//! | an effect of a control room | its person, and the people who wait for them |

use std::time::Duration;

use crate::{
    bot,
    clock::Timestamp,
    conversation,
    crypto::DecryptError,
    engine::{
        ConversationSettings, EngineError,
        control_room::ControlEffect,
        event::RoomEvent,
        failing::Failing,
        records::{InboxItem, QueuedEffect},
        room::Room,
    },
    introduction::{self, Rules},
    matrix::{Fate, MEDIA_BEGINS_WITHIN, MatrixError},
};

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The shortest pause, when no time is left.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause while a key is missing.
const KEY_PAUSE: Duration = Duration::from_secs(2);

/// How long an item is tried while a proxy answers that the part of the homeserver is away which it
/// needs, in all. It is a limit because a proxy can refuse one request forever.
pub(in crate::engine) const OUTAGE: Duration = Duration::from_secs(60 * 60);
/// How long an optional step is tried.
const OPTIONAL: Duration = Duration::from_secs(30);
/// How long a step is tried that later steps depend on.
const NEEDED: Duration = Duration::from_secs(10 * 60);
/// How long an owner's invite is tried while our own homeserver fails at it alone.
const HICCUP: Duration = Duration::from_secs(5);
/// How long all messages of a server together are tried while it does not say which devices their
/// senders have, until it answers or has not been asked for a while.
const SENDER: Duration = Duration::from_secs(15);
/// How long to wait for a key that is unlikely to come. If it comes, it usually arrives a moment after
/// its message.
const UNLIKELY_KEY: Duration = Duration::from_secs(2);
/// How long a ghost tries to join. Only the asker knows of it yet.
const JOIN: Duration = Duration::from_secs(2 * 60);
/// How long a ghost tries to join the successor of a room. Clients invite at once.
const UPGRADE: Duration = Duration::from_secs(15);
/// How long leaving a room is tried although the homeserver refuses it. Then the user stays as a
/// member, without keys.
const LEAVE_REFUSED: Duration = Duration::from_secs(60 * 60);
/// How long an encrypted message in the inbox is tried. Then its sender is told.
const UNREADABLE: Duration = Duration::from_secs(2 * 60);
/// How long the events before one that arrived after a gap are looked for. Less than for the event
/// itself: a limit is known by its length, and this one must not use up the other.
const GAP: Duration = Duration::from_secs(90);
/// How long an effect of a control room is tried.
const CONTROL_ROOM: Duration = Duration::from_secs(5 * 60);

/// How long an item is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Retry {
    /// Never retried.
    Never,
    /// Retried while the error says that it may succeed later, but no longer than this.
    For(Duration),
    /// Retried whatever the error says, but no longer than this.
    DespiteRefusalFor(Duration),
    /// Retried until it succeeds. If the homeserver refuses it, no longer than this.
    UntilRefusedFor(Duration),
    /// Retried whatever the error says, until it succeeds.
    UntilDone,
}

impl Retry {
    /// Returns how long the events before one that arrived after a gap are looked for. If the
    /// history took too long once, it is not waited for again.
    pub(in crate::engine) fn of_gap(error: &EngineError) -> Self {
        match error {
            EngineError::HistoryTooSlow => Self::Never,
            _ => Self::For(GAP),
        }
    }

    /// Returns how long an item in the inbox is tried.
    pub(in crate::engine) fn of_arrival(arrived: &InboxItem) -> Self {
        match arrived {
            InboxItem::Event(json) | InboxItem::AfterGap(json)
                if RoomEvent::parse(json, None).is_none_or(|it| it.kind == "m.room.encrypted") =>
            {
                Self::For(UNREADABLE)
            }
            _ => Self::For(NEEDED),
        }
    }

    /// Returns how long an effect is tried that has failed with `error`.
    fn of(
        what: &QueuedEffect,
        error: &EngineError,
        relay: &ConversationSettings,
        rules: &Rules,
    ) -> Self {
        match what {
            QueuedEffect::Introduction { effect, .. } => Self::of_introduction(effect, error),
            QueuedEffect::Conversation { effect, .. } => {
                Self::of_conversation(effect, error, relay, rules)
            }
            QueuedEffect::Control(effect) => Self::of_control_room(effect, error),
        }
    }

    /// Returns how long an effect of an introduction is tried. Forgetting is retried until it
    /// succeeds, and leaving unless the homeserver goes on refusing it; every other effect ends at
    /// some time.
    fn of_introduction(effect: &introduction::Effect, error: &EngineError) -> Self {
        use introduction::Effect;
        match effect {
            Effect::Leave { .. } => Self::UntilRefusedFor(LEAVE_REFUSED),
            Effect::Forget => Self::UntilDone,
            Effect::Look
            | Effect::TurnOnEncryption
            | Effect::AskOwner
            | Effect::WithdrawRequest
            | Effect::OpenConversation
            | Effect::Decline { .. }
            | Effect::HandOver
            | Effect::LookBack
            | Effect::RememberPair
            | Effect::ForgetPair => Self::For(NEEDED),
            // One failed answer may be chance. For the owner's server the decider waits, so that
            // other ghosts in the room do not.
            Effect::InviteOwner if error.fate() == Fate::Failing && !error.is_outage() => {
                if error.is_of_own_homeserver() {
                    Self::For(HICCUP)
                } else {
                    Self::Never
                }
            }
            Effect::InviteOwner => Self::For(NEEDED),
            Effect::Join => Self::For(JOIN),
            // What is said must not get lost. For people who cannot read it the decider waits.
            Effect::PassOn { .. }
            | Effect::PassOnEdit { .. }
            | Effect::TakeBack { .. }
            | Effect::DeclineVerification { .. }
            | Effect::SendNotice { .. }
            | Effect::SendReply { .. }
            | Effect::ShowLine
            | Effect::TellAsker { .. }
            | Effect::TellOwner => Self::For(if is_about_readers(error) {
                OPTIONAL
            } else {
                NEEDED
            }),
            Effect::ShowAs => Self::For(OPTIONAL),
        }
    }

    fn of_conversation(
        effect: &conversation::Effect,
        error: &EngineError,
        settings: &ConversationSettings,
        rules: &Rules,
    ) -> Self {
        use conversation::Effect;
        match effect {
            Effect::LeaveRoom => Self::UntilRefusedFor(LEAVE_REFUSED),
            Effect::DeleteGhosts { .. } => Self::UntilDone,
            Effect::ForwardEvent { .. } => match error {
                EngineError::KeyOnItsWay | EngineError::TargetOnItsWay => {
                    Self::For(settings.wait_for_key)
                }
                EngineError::KeyUnlikely => Self::For(UNLIKELY_KEY.min(settings.wait_for_key)),
                // A server may be slow for a moment, but a sender whose server is silent must not
                // hold up other people's messages.
                EngineError::Decrypt(DecryptError::SenderUnknown { .. }) => Self::For(SENDER),
                // A person without a signed device is waited for, as in an introduction.
                EngineError::Encrypt(error) if error.is_about_readers() => {
                    Self::DespiteRefusalFor(rules.wait_for_owner)
                }
                // A server that keeps its files back must not hold up other messages.
                EngineError::Matrix(
                    MatrixError::MediaUnavailable { .. } | MatrixError::MediaMissing,
                ) => Self::For(MEDIA_BEGINS_WITHIN),
                _ => Self::For(NEEDED),
            },
            Effect::FollowUpgrade { .. } if error.is_of_own_homeserver() => Self::For(NEEDED),
            Effect::FollowUpgrade { .. } => Self::For(UPGRADE),
            // What is said about lost words must not get lost before the words.
            Effect::SendNotice { .. } if !is_about_readers(error) => Self::For(NEEDED),
            Effect::EnsurePortal { .. }
            | Effect::RemoveGhost { .. }
            | Effect::RedactCopy { .. }
            | Effect::RedactCopiesOf { .. } => Self::For(NEEDED),
            Effect::SendNotice { .. }
            | Effect::DeclineVerification { .. }
            | Effect::SetGhostName { .. }
            | Effect::SyncPortalInfo { .. }
            | Effect::RenameOrigin { .. } => Self::For(OPTIONAL),
        }
    }

    /// Returns how long an effect of a control room is tried. Forgetting is retried until it
    /// succeeds, and leaving unless the homeserver goes on refusing it; every other effect ends at
    /// some time, so that nobody can silence the bot in a room.
    fn of_control_room(effect: &ControlEffect, error: &EngineError) -> Self {
        match effect {
            ControlEffect::Leave { .. } => Self::UntilRefusedFor(LEAVE_REFUSED),
            ControlEffect::Forget => Self::UntilDone,
            // The person's server may be away.
            ControlEffect::Invite => Self::For(NEEDED),
            // The request says in words how it is answered.
            ControlEffect::OfferAnswers { .. } | ControlEffect::DeclineVerification { .. } => {
                Self::For(OPTIONAL)
            }
            ControlEffect::SendNotice { .. }
            | ControlEffect::ShowRequest { .. }
            | ControlEffect::ShowLine { .. }
            | ControlEffect::Bot(bot::Effect::Tell { .. })
                if !is_about_readers(error) =>
            {
                Self::For(NEEDED)
            }
            // It goes on without the room, so that the bot can answer.
            ControlEffect::Bot(effect) if effect.changed_ghost().is_some() => Self::For(OPTIONAL),
            ControlEffect::Join
            | ControlEffect::Decline { .. }
            | ControlEffect::Look
            | ControlEffect::TurnOnEncryption
            | ControlEffect::MoveTo { .. }
            | ControlEffect::SendNotice { .. }
            | ControlEffect::ShowRequest { .. }
            | ControlEffect::ShowLine { .. }
            | ControlEffect::Bot(_) => Self::For(CONTROL_ROOM),
        }
    }
}

/// Returns `true` if the error is about people for whom nothing can be encrypted now.
fn is_about_readers(error: &EngineError) -> bool {
    matches!(error, EngineError::Encrypt(error) if error.is_about_readers())
}

impl Room {
    /// Returns whether an effect that has failed is tried again.
    pub(in crate::engine) fn retries_effect(
        &mut self,
        number: u64,
        what: &QueuedEffect,
        error: &EngineError,
    ) -> bool {
        self.retries(number, self.retry_of(what, error), error)
    }

    fn retry_of(&self, what: &QueuedEffect, error: &EngineError) -> Retry {
        let settings = self.engine.settings();
        let retry = Retry::of(what, error, &settings.conversations, &settings.rules);
        match (retry, error) {
            (
                Retry::For(SENDER),
                EngineError::Decrypt(DecryptError::SenderUnknown { since, .. }),
            ) => self.retry_of_unknown_sender(*since),
            // It waits since it came, however long others have been waiting before it.
            (Retry::DespiteRefusalFor(limit), _)
                if self.engine.now().since(self.came_at(what)) > limit =>
            {
                Retry::Never
            }
            _ => retry,
        }
    }

    /// Returns how long an item in the inbox is tried that has failed with `error`.
    pub(in crate::engine) fn retry_of_arrival(
        &self,
        arrived: &InboxItem,
        error: &EngineError,
    ) -> Retry {
        let open = self.record.introductions.iter();
        let open = open.filter(|introduction| introduction.is_open()).count();
        let holds_up_others = self.record.conversation.is_some() || open > 1;
        match error {
            EngineError::Decrypt(DecryptError::SenderUnknown { since, .. }) if holds_up_others => {
                self.retry_of_unknown_sender(*since)
            }
            _ => Retry::of_arrival(arrived),
        }
    }

    /// Returns how long a message is tried whose sender's server does not say which devices they
    /// have, since a moment. Otherwise each message of a person there would hold up those of
    /// everybody else.
    fn retry_of_unknown_sender(&self, since: Timestamp) -> Retry {
        if self.engine.now().since(since) > SENDER {
            Retry::Never
        } else {
            Retry::For(SENDER)
        }
    }

    /// Returns when an event came that is to be forwarded, as far as it is known; for any other
    /// effect, when it was queued.
    fn came_at(&self, what: &QueuedEffect) -> Timestamp {
        let seen = match what {
            QueuedEffect::Conversation {
                effect: conversation::Effect::ForwardEvent { event, .. },
                ..
            } => self.engine.seen(event).ok().flatten(),
            _ => None,
        };
        seen.map_or(self.due_since, |seen| seen.at.min(self.due_since))
    }

    /// Returns since when the current effect fails with errors like this one.
    pub(in crate::engine) fn fails_since(
        &self,
        what: &QueuedEffect,
        error: &EngineError,
    ) -> Option<Timestamp> {
        match self.retry_of(what, error) {
            Retry::For(limit) | Retry::DespiteRefusalFor(limit) => {
                self.failing.as_ref()?.since(limit)
            }
            Retry::Never | Retry::UntilRefusedFor(_) | Retry::UntilDone => None,
        }
    }

    /// Returns whether the item with this number, which has failed with `error`, is tried again.
    pub(in crate::engine) fn retries(
        &mut self,
        number: u64,
        retry: Retry,
        error: &EngineError,
    ) -> bool {
        self.time_left = None;
        let fate = error.fate();
        let longest = match retry {
            Retry::UntilDone => return true,
            Retry::Never if fate != Fate::Away => return false,
            Retry::UntilRefusedFor(_) if fate != Fate::Final => return true,
            Retry::For(_) if fate == Fate::Final => return false,
            Retry::For(longest)
            | Retry::DespiteRefusalFor(longest)
            | Retry::UntilRefusedFor(longest) => longest,
            Retry::Never => Duration::ZERO,
        };
        let now = self.engine.now();
        let former = self
            .failing
            .take()
            .filter(|failing| failing.number == number);
        let mut failing = former.unwrap_or_else(|| Failing::new(number));
        let time_left = if fate == Fate::Away {
            failing = Failing::new(number);
            None
        } else if error.is_outage() {
            failing.clear();
            let since = *failing.outage_since.get_or_insert(now);
            Some(longest.max(OUTAGE).checked_sub(now.since(since)))
        } else {
            let since = failing.note(longest, LONGEST_PAUSE, now);
            Some(longest.checked_sub(now.since(since)))
        };
        self.failing = Some(failing);
        self.time_left = time_left.flatten();
        time_left != Some(None)
    }

    /// Returns how long the room pauses after this error: no longer than what is left of the time
    /// that the item is tried, unless the homeserver asked for it.
    pub(in crate::engine) fn pause_after(&mut self, error: &EngineError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
        let longest = match error {
            EngineError::KeyOnItsWay
            | EngineError::KeyUnlikely
            | EngineError::TargetOnItsWay
            | EngineError::NotThereYet => KEY_PAUSE,
            _ => LONGEST_PAUSE,
        };
        if let Some(asked) = error.retry_after() {
            return asked.clamp(FIRST_PAUSE, longest);
        }
        let time_left = self.time_left.take().unwrap_or(longest);
        doubled.min(longest).min(time_left.max(SHORTEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answered(status: StatusCode, errcode: Option<&str>) -> EngineError {
        EngineError::Matrix(MatrixError::Failing {
            status,
            errcode: errcode.map(str::to_owned),
            message: String::new(),
            retry_after: None,
        })
    }

    #[test]
    fn an_owners_invite_outlasts_a_hiccup_and_holds_up_nobody_for_another_server() {
        let invite = introduction::Effect::InviteOwner;
        let of = |error: &EngineError| Retry::of_introduction(&invite, error);
        for status in [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
        ] {
            let error = answered(status, Some("M_UNKNOWN"));
            assert_eq!(of(&error), Retry::For(HICCUP), "{status}");
        }
        // Synapse's answers when the owner's server does not answer, or not in time.
        let remote = answered(StatusCode::BAD_GATEWAY, Some("M_UNKNOWN"));
        assert_eq!(of(&remote), Retry::Never);
        assert_eq!(of(&MatrixError::TimedOut.into()), Retry::Never);
        // A proxy without a homeserver behind it.
        let outage = answered(StatusCode::SERVICE_UNAVAILABLE, None);
        assert_eq!(of(&outage), Retry::For(NEEDED));
    }
}
