//! The list of all handles, for the admin.

use ruma::{OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};

use super::{
    record::{Discoverable, FreezeReason, HandleRecord, HandleState, Mode, Others, Reach},
    tables::Handles,
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    ids::host_of,
    store::{Store, StoreError},
};

/// Maximum number of handles on one page of the list.
const HANDLES_PER_PAGE_MAX: usize = 500;
/// Maximum number of records that are looked through for one page.
const LOOKED_AT_MAX: usize = 10_000;

/// A state of handles, to list only those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateFilter {
    /// Held and in use.
    Active,
    /// Frozen.
    Frozen,
    /// Released.
    Quarantined,
}

impl StateFilter {
    /// Returns its name in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Which handles are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleFilter {
    /// Only those of this person.
    pub owner: Option<OwnedUserId>,
    /// Only those of people of this server, whatever its port.
    pub server: Option<String>,
    /// Only those in this state.
    pub state: Option<StateFilter>,
}

impl HandleFilter {
    fn admits(&self, handle: &HandleSummary) -> bool {
        let owner = self.owner.as_ref();
        let server = self.server.as_deref();
        owner.is_none_or(|owner| *owner == handle.owner)
            && server.is_none_or(|server| {
                let asked = ServerName::parse(server).map(|server| host_of(&server));
                asked.is_ok_and(|asked| asked == host_of(handle.owner.server_name()))
            })
            && self.state.is_none_or(|state| state == handle.state)
    }
}

/// What the admin is shown of a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleSummary {
    /// The handle.
    pub handle: Handle,
    /// Its owner, or in quarantine its last owner.
    pub owner: OwnedUserId,
    /// Its state.
    pub state: StateFilter,
    /// Its mode.
    pub mode: Mode,
    /// Whether it is strict.
    pub strict: bool,
    /// Who may reach the owner directly.
    pub reach: Reach,
    /// How all others are treated.
    pub others: Others,
    /// Who can find it.
    pub discoverable: Discoverable,
    /// When its owner claimed it, in milliseconds since 1970.
    pub claimed_at: Timestamp,
    /// When it was marked as verified.
    pub verified_at: Option<Timestamp>,
    /// Why it is frozen.
    pub frozen_for: Option<FreezeReason>,
    /// Since when it is frozen.
    pub frozen_since: Option<Timestamp>,
    /// When everybody may claim it, if it was released.
    pub free_at: Option<Timestamp>,
    /// The number of this owner among all owners of the name, counted from 1.
    pub generation: u32,
}

impl HandleSummary {
    /// Returns the word by which the bot sets this mode.
    pub fn mode_word(&self) -> &'static str {
        match self.mode {
            _ if self.strict => "strict",
            Mode::Open => "open",
            Mode::Masked => "masked",
            Mode::Sealed => "sealed",
        }
    }

    /// Returns who may reach the owner, and what happens to others.
    pub fn policy_words(&self) -> String {
        let direct = match self.reach {
            Reach::Everyone => return "everyone".to_owned(),
            Reach::Handles => "people with a handle here",
            Reach::Verified => "people with a verified handle",
            Reach::Contacts => "contacts",
            Reach::Nobody => "nobody",
        };
        let others = match self.others {
            Others::Request => "the owner is asked about others",
            Others::Refuse => "others are refused",
        };
        format!("{direct}; {others}")
    }
}

impl From<HandleRecord> for HandleSummary {
    fn from(record: HandleRecord) -> Self {
        let (state, frozen, free_at) = match record.state {
            HandleState::Active => (StateFilter::Active, None, None),
            HandleState::Frozen { reason, since } => {
                (StateFilter::Frozen, Some((reason, since)), None)
            }
            HandleState::Quarantined { until, .. } => (StateFilter::Quarantined, None, Some(until)),
        };
        let (frozen_for, frozen_since) = frozen.unzip();
        Self {
            handle: record.handle,
            owner: record.owner.into(),
            state,
            mode: record.mode,
            strict: record.strict,
            reach: record.policy.direct,
            others: record.policy.others,
            discoverable: record.discoverable,
            claimed_at: record.claimed_at,
            verified_at: record.verified_at,
            frozen_for,
            frozen_since,
            free_at,
            generation: record.generation,
        }
    }
}

/// A page of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlePage {
    /// The handles, by name.
    pub handles: Vec<HandleSummary>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// Returns a page of the handles after this key that a filter admits. A page may be empty although
/// there is a next one.
pub fn list_handles(
    store: &Store,
    filter: &HandleFilter,
    after: Option<&str>,
) -> Result<HandlePage, StoreError> {
    let mut page = HandlePage::default();
    let mut after = after.map(ToOwned::to_owned);
    for _ in 0..LOOKED_AT_MAX / HANDLES_PER_PAGE_MAX {
        let records = store.scan::<Handles>(&[], after.as_ref(), HANDLES_PER_PAGE_MAX)?;
        let is_last = records.len() < HANDLES_PER_PAGE_MAX;
        for (key, record) in records {
            after = Some(key);
            page.handles
                .extend(Some(record.into()).filter(|handle| filter.admits(handle)));
            if page.handles.len() == HANDLES_PER_PAGE_MAX {
                page.next = after;
                return Ok(page);
            }
        }
        if is_last {
            return Ok(page);
        }
    }
    page.next = after;
    Ok(page)
}

/// Returns what there is to be shown of a handle that is held or in quarantine.
pub fn show_handle(store: &Store, handle: &Handle) -> Result<Option<HandleSummary>, StoreError> {
    let record = store.get::<Handles>(&handle.key().to_owned())?;
    Ok(record.map(HandleSummary::from))
}
