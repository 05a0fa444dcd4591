//! Verdicts: whether somebody may reach the owner of a handle now.

use super::record::{HandleRecord, Mode, Others, Reach};
use crate::{clock::Timestamp, handle::Handle, ids::Person};

/// A question: may this person reach the owner of this handle now?
#[derive(Clone, Copy, Debug)]
pub struct ReachQuery<'a> {
    /// The person who asks.
    pub asker: &'a Person,
    /// The handle whose owner they want to reach.
    pub handle: &'a Handle,
    /// The time of the question.
    pub now: Timestamp,
}

/// The answer to a [`ReachQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Bring them together.
    Introduce {
        /// The handle's owner.
        owner: Person,
        /// The generation of the owner.
        generation: u32,
        /// Whether nothing that people write may pass through us.
        strict: bool,
    },
    /// Pass messages on to the owner, whose Matrix ID must not be seen.
    Relay {
        /// The handle's owner.
        owner: Person,
        /// The generation of the owner.
        generation: u32,
    },
    /// Ask the owner first.
    Request {
        /// The handle's owner.
        owner: Person,
        /// The generation of the owner.
        generation: u32,
        /// Whether nothing that people write may pass through us.
        strict: bool,
        /// Whether the owner's Matrix ID must not be seen.
        masked: bool,
    },
    /// Decline without joining. This is the one answer for refused, blocked, limited and frozen, in
    /// the same words and after the same delay: nobody may learn which it was.
    NotNow(OpaqueReason),
    /// Nobody holds the handle.
    Unclaimed {
        /// Whether to decline the invite. Each needs a registered ghost, so there is a limit, and
        /// invites beyond it are left alone.
        decline: bool,
    },
    /// The asker is the owner.
    OwnHandle {
        /// The generation of the owner.
        generation: u32,
    },
}

impl Verdict {
    /// Returns whether the asker may be brought together with the owner.
    pub fn is_introduce(&self) -> bool {
        matches!(self, Verdict::Introduce { .. })
    }
}

/// The reason of a "not now". It is only for the metrics, which count everybody together. It can be
/// neither shown nor compared, so that nobody is told it by mistake.
#[derive(Clone, Copy)]
pub struct OpaqueReason(RefusalReason);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalReason {
    Barred,
    Blocked,
    Policy,
    Limited,
    Frozen,
    NotOffered,
}

impl OpaqueReason {
    pub(super) fn new(reason: RefusalReason) -> OpaqueReason {
        OpaqueReason(reason)
    }

    /// Returns the value of the metrics' label.
    pub fn metric_label(self) -> &'static str {
        match self.0 {
            RefusalReason::Barred => "barred",
            RefusalReason::Blocked => "blocked",
            RefusalReason::Policy => "policy",
            RefusalReason::Limited => "limited",
            RefusalReason::Frozen => "frozen",
            RefusalReason::NotOffered => "not_offered",
        }
    }
}

impl std::fmt::Debug for OpaqueReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

/// All reasons are equal, so that a comparison tells nothing.
impl PartialEq for OpaqueReason {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for OpaqueReason {}

/// The facts on which a verdict is decided.
#[derive(Clone, Debug, Default)]
pub(super) struct ReachFacts {
    /// The record of the handle, if it has one.
    pub record: Option<HandleRecord>,
    /// Whether the owner has blocked the asker on this handle or on all.
    pub blocked: bool,
    /// Whether the admin lets the asker reach nobody.
    pub is_barred: bool,
    /// Whether an admin has banned the owner.
    pub is_owner_banned: bool,
    /// Whether the asker and the asker's server are within their limits.
    pub within_limits: bool,
    /// Whether the asker owns an active handle here.
    pub has_handle: bool,
    /// Whether the asker owns an active handle here that is verified.
    pub has_verified_handle: bool,
    /// Whether the asker is a contact of this handle.
    pub is_contact: bool,
    /// Whether a request may be opened: this asker has none open, and not too many others have.
    pub may_request: bool,
}

pub(super) fn decide(asker: &Person, facts: &ReachFacts) -> Verdict {
    let Some(record) = &facts.record else {
        return Verdict::Unclaimed { decline: true };
    };
    let Some(owner) = record.holder() else {
        return Verdict::Unclaimed { decline: true };
    };
    let not_now = |reason| Verdict::NotNow(OpaqueReason::new(reason));

    // A masked ghost must answer its owner like everybody else: a difference would reveal the
    // owner.
    if record.mode == Mode::Open && owner == asker {
        return Verdict::OwnHandle {
            generation: record.generation,
        };
    }
    if facts.is_barred {
        return not_now(RefusalReason::Barred);
    }
    if !facts.within_limits {
        return not_now(RefusalReason::Limited);
    }
    if !record.is_active() || facts.is_owner_banned {
        return not_now(RefusalReason::Frozen);
    }
    if facts.blocked {
        return not_now(RefusalReason::Blocked);
    }
    let direct = match record.policy.direct {
        Reach::Everyone => true,
        Reach::Handles => facts.has_handle,
        Reach::Verified => facts.has_verified_handle,
        Reach::Contacts => facts.is_contact,
        Reach::Nobody => false,
    };
    if !direct {
        return match record.policy.others {
            Others::Refuse => not_now(RefusalReason::Policy),
            Others::Request if record.mode == Mode::Sealed => not_now(RefusalReason::NotOffered),
            Others::Request if !facts.may_request => not_now(RefusalReason::Limited),
            Others::Request => Verdict::Request {
                owner: owner.to_owned(),
                generation: record.generation,
                strict: record.strict,
                masked: record.mode == Mode::Masked,
            },
        };
    }
    match record.mode {
        Mode::Open => Verdict::Introduce {
            owner: owner.to_owned(),
            generation: record.generation,
            strict: record.strict,
        },
        Mode::Masked => Verdict::Relay {
            owner: owner.to_owned(),
            generation: record.generation,
        },
        Mode::Sealed => not_now(RefusalReason::NotOffered),
    }
}
