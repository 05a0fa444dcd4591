//! What became of the introductions of a room, to be counted.

use crate::{
    introduction::{Admission, Introduction, Phase},
    metrics::catalogue::{INTRODUCTIONS, REQUESTS},
};

/// A value of each label of [`INTRODUCTIONS`].
type Ending = [&'static str; 2];

/// Counts the introductions that have ended, and the requests that were made or ended, from one
/// record of a room to the next.
///
/// `has_conversation` says whether the room belongs to a masked conversation now.
pub(in crate::engine) fn count_outcomes(
    before: &[Introduction],
    after: &[Introduction],
    has_conversation: bool,
) {
    for was in before {
        let is = after.iter().find(|is| is.ghost == was.ghost);
        if let Some(ending) = ending(was, is, has_conversation) {
            INTRODUCTIONS.count(ending);
        }
        if is_asking(was) && !is.is_some_and(is_asking) {
            let accepted = is.is_some_and(|is| is.accepted);
            REQUESTS.count([if accepted { "accepted" } else { "ended" }]);
        }
    }
    for is in after.iter().filter(|is| is_asking(is)) {
        let was = before.iter().find(|was| was.ghost == is.ghost);
        if !was.is_some_and(is_asking) {
            REQUESTS.count(["asked"]);
        }
    }
}

fn is_asking(introduction: &Introduction) -> bool {
    matches!(introduction.phase, Phase::Asking { .. })
}

/// Returns how an introduction ended, if it has. What it was is no longer in the record of its end.
fn ending(was: &Introduction, is: Option<&Introduction>, has_conversation: bool) -> Option<Ending> {
    if !was.is_open() || is.is_some_and(Introduction::is_open) {
        return None;
    }
    let way = match was.invite.admission {
        Admission::Introduce { masked: true, .. } => "masked",
        Admission::Introduce { strict: true, .. } => "strict",
        Admission::Introduce { .. } => "open",
        _ => "none",
    };
    let outcome = match was.phase {
        Phase::Declining { .. } => "declined",
        Phase::Opening if has_conversation => "introduced",
        _ if was.owner_invited_at.is_some() => "introduced",
        _ => "ended",
    };
    Some([way, outcome])
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};

    use super::*;
    use crate::{
        clock::Timestamp,
        ids::{Ghost, Person},
        introduction::Invite,
    };

    fn introduction(phase: Phase, masked: bool) -> Introduction {
        let invite = Invite {
            asker: owned_user_id!("@alice:hs.test"),
            admission: Admission::Introduce {
                owner: Person::new(owned_user_id!("@sam:hs.test")),
                handle: "sam".to_owned(),
                strict: false,
                back_to: None,
                asks_first: false,
                masked,
            },
        };
        let room = owned_room_id!("!room:hs.test");
        let ghost = Ghost::new(owned_user_id!("@_dm_sam:hs.test"));
        let mut found = Introduction::found(&room, &ghost, invite, Timestamp(1));
        found.phase = phase;
        found
    }

    fn over(mut introduction: Introduction) -> Introduction {
        introduction.end();
        introduction
    }

    #[test]
    fn an_introduction_is_counted_once_as_what_it_was() {
        let mut led = introduction(Phase::Leaving, false);
        led.owner_invited_at = Some(Timestamp(2));
        let in_vain = introduction(Phase::Leaving, false);
        let masked = introduction(Phase::Opening, true);
        let declining = introduction(Phase::Declining { at: Timestamp(3) }, false);
        for (was, expected) in [
            (&led, ["open", "introduced"]),
            (&in_vain, ["open", "ended"]),
            (&masked, ["masked", "introduced"]),
            (&declining, ["open", "declined"]),
        ] {
            let is = over(was.clone());
            assert_eq!(ending(was, Some(&is), true), Some(expected));
            // A declined one is removed from the record.
            assert_eq!(ending(was, None, true), Some(expected));
            assert_eq!(ending(was, Some(was), true), None);
            assert_eq!(ending(&is, Some(&is), true), None);
        }
        let failed = ending(&masked, None, false);
        assert_eq!(failed, Some(["masked", "ended"]));
    }
}
