//! Admission: what the directory answers to an invite of a handle's ghost.

use std::time::Duration;

use ruma::OwnedUserId;
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    directory::{HandleRecord, PairAdvice, ReachQuery, Verdict, WriteLock},
    engine::{Engine, EngineError},
    handle::Handle,
    ids::{Ghost, Person},
    introduction::{Admission, Reason},
    matrix::RoomState,
    store::Batch,
};

/// How far a server's clock may be behind ours: an invite that is dated this much before its
/// handle's owner still counts as meant for them.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// An invite of a ghost.
#[derive(Clone, Copy)]
pub(in crate::engine) struct GhostInvite<'a> {
    pub ghost: &'a Ghost,
    pub asker: &'a OwnedUserId,
    /// Whether it says that it is for a chat of two.
    pub direct: bool,
    /// When it was sent, as the asker's server says.
    pub sent_at: Option<Timestamp>,
    /// What it shows of the room.
    pub state: &'a [Box<RawValue>],
}

impl GhostInvite<'_> {
    /// Returns why a ghost would leave the room at once, if the invite shows that. The inviter's
    /// server may show what it likes; the ghost looks again when it has joined.
    fn unfit(&self) -> Option<Reason> {
        let shown = RoomState::from_state(self.state.iter().map(AsRef::as_ref));
        if shown.room_type.is_some() {
            Some(Reason::NotAChat)
        } else if shown.foreign_encryption {
            Some(Reason::NotEncrypted)
        } else {
            None
        }
    }
}

/// Returns the answer to an invite: the directory's, unless the room is not fit for anybody. Counts
/// are staged in `batch`; the lock is held until that is written.
pub(in crate::engine) async fn admission<'a>(
    engine: &'a Engine,
    invite: GhostInvite<'_>,
    batch: &mut Batch,
) -> Result<(Admission, Option<WriteLock<'a>>), EngineError> {
    let (admission, lock) = ask_directory(engine, invite, batch).await?;
    // Who cannot reach the owner reads the same here as everywhere.
    let admission = match (admission, invite.unfit()) {
        (Admission::Introduce { .. }, Some(reason)) => Admission::Unfit { reason },
        (admission, _) => admission,
    };
    Ok((admission, lock))
}

async fn ask_directory<'a>(
    engine: &'a Engine,
    invite: GhostInvite<'_>,
    batch: &mut Batch,
) -> Result<(Admission, Option<WriteLock<'a>>), EngineError> {
    let GhostInvite {
        ghost,
        asker,
        direct,
        sent_at,
        ..
    } = invite;
    if engine.is_ours(asker) {
        return Ok((Admission::GhostAsking, None));
    }
    let asker = &Person::new(asker.clone());
    let now = engine.now();
    let directory = engine.directory();
    let Some(handle) = Handle::of_ghost(ghost.localpart()) else {
        let admission = admission_by_alias(engine, ghost, asker, direct).await?;
        return Ok((admission, None));
    };
    let mut tx = directory.begin().await;
    let record = tx.lookup(&handle)?;
    // It was meant for somebody else, or for nobody.
    let older =
        |record: &HandleRecord| sent_at.is_some_and(|at| at + CLOCK_SKEW < record.claimed_at);
    if record
        .as_ref()
        .is_some_and(|record| record.holder().is_some() && older(record))
    {
        tracing::info!(%ghost, "an invite from before the handle's owner is declined");
        return Ok((Admission::NotNow, None));
    }
    let verdict = tx.decide_reach(&ReachQuery {
        asker,
        handle: &handle,
        now,
    })?;
    let asks_first = matches!(verdict, Verdict::Request { .. });
    let shown = record.map(|record| record.handle);
    let shown = shown.as_ref().unwrap_or(&handle).as_shown().to_owned();
    let admission = match verdict {
        Verdict::Relay { owner, .. }
        | Verdict::Request {
            owner,
            masked: true,
            ..
        } => Admission::Introduce {
            owner,
            handle: shown,
            strict: false,
            asks_first,
            masked: true,
            back_to: if direct {
                engine.existing_room(asker, ghost).await?
            } else {
                None
            },
        },
        Verdict::Introduce {
            owner,
            generation,
            strict,
        }
        | Verdict::Request {
            owner,
            generation,
            strict,
            ..
        } => Admission::Introduce {
            owner,
            handle: shown,
            strict: strict || engine.settings().strict,
            asks_first,
            masked: false,
            back_to: if direct && !asks_first {
                match tx.pair_advice(asker, &handle, generation, now)? {
                    PairAdvice::LeadBack { room } => Some(room),
                    PairAdvice::Introduce => None,
                }
            } else {
                None
            },
        },
        Verdict::NotNow(why) => {
            tracing::info!(why = why.metric_label(), "an invite is declined");
            Admission::NotNow
        }
        Verdict::Unclaimed { decline: true } => Admission::Unclaimed,
        Verdict::Unclaimed { decline: false } => Admission::LeaveAlone,
        Verdict::OwnHandle { .. } => Admission::OwnHandle,
    };
    Ok((admission, Some(tx.stage(batch))))
}

/// Answers an invite of a user of ours whose name cannot be a handle. The ghost of a person in one
/// conversation leads the person who talks with it back there, and reaches nobody for anybody else.
async fn admission_by_alias(
    engine: &Engine,
    ghost: &Ghost,
    asker: &Person,
    direct: bool,
) -> Result<Admission, EngineError> {
    if !engine.machines().is_known(ghost)? {
        return Ok(Admission::LeaveAlone);
    }
    // The conversation has ended.
    if engine.machines().device_of(ghost)?.is_none() {
        return Ok(Admission::NotNow);
    }
    let conversation = engine.conversation_with(asker, ghost)?;
    let people = conversation.into_iter().flat_map(|it| it.people);
    let person = people.into_iter().find(|person| person.ghost == *ghost);
    let Some(person) = person.filter(|_| direct) else {
        return Ok(Admission::NotNow);
    };
    let Some(room) = engine.existing_room(asker, ghost).await? else {
        return Ok(Admission::NotNow);
    };
    Ok(Admission::Introduce {
        owner: person.user,
        handle: person.name,
        strict: false,
        back_to: Some(room),
        asks_first: false,
        masked: true,
    })
}
