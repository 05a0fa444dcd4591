//! Admission: what the directory answers to an invite of a handle's ghost.

use ruma::OwnedUserId;

use crate::{
    directory::{PairAdvice, ReachQuery, Verdict, WriteLock},
    engine::{Engine, EngineError},
    handle::Handle,
    ids::{Ghost, Person},
    introduction::Admission,
    store::Batch,
};

/// Asks the directory. Its counts are staged in `batch`; the lock is held until that is written.
pub(in crate::engine) async fn admission<'a>(
    engine: &'a Engine,
    ghost: &Ghost,
    asker: &OwnedUserId,
    direct: bool,
    batch: &mut Batch,
) -> Result<(Admission, Option<WriteLock<'a>>), EngineError> {
    if engine.is_ours(asker) {
        return Ok((Admission::GhostAsking, None));
    }
    let asker = &Person::new(asker.clone());
    let now = engine.now();
    let directory = engine.directory();
    // A user in our namespace whose name cannot be a handle has no owner.
    let Some(handle) = Handle::of_ghost(ghost.localpart()) else {
        return Ok((Admission::LeaveAlone, None));
    };
    let mut tx = directory.begin().await;
    let verdict = tx.decide_reach(&ReachQuery {
        asker,
        handle: &handle,
        now,
    })?;
    let asks_first = matches!(verdict, Verdict::Request { .. });
    let shown = tx.lookup(&handle)?.map(|record| record.handle);
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
