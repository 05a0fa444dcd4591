//! Where it is written down what has arrived, and how it is found again.
//!
//! The database uses a part of its log again when no page in it is needed. If each arrival was written
//! under its digest alone, each would change another page, and nearly every part of the log would
//! hold a few pages that are needed for weeks: a hundred thousand messages, 6 MB of records with
//! those of their copies, took 270 MB. So arrivals are written in *blocks*, one after the other, and
//! the few pages of the newest blocks change over and over. An older block is *packed*: its records
//! are replaced by one.
//!
//! In which block an arrival is, only the memory knows; it is read from the database at the start.
//! An arrival takes 20 to 40 bytes there.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Timestamp,
    engine::{
        Engine,
        inbox::dedup::SEEN_FOR,
        packs::{SeenEvent, SeenPack},
        records::{Seen, SeenBlocks, SeenPacks},
    },
    store::{Batch, Digest, Store, StoreError, prefix},
};

/// Number of arrivals in a block. Packed, they stay below the size from which a value is split.
const BLOCK_ARRIVALS: usize = 128;
/// How many blocks before the present one are not packed yet: what has arrived is soon handled,
/// which changes its record.
const LOOSE_BLOCKS: u32 = 8;
/// Maximum number of arrivals that the memory knows: some 150 MB. Beyond it, the oldest are no longer
/// known.
const ARRIVALS_MAX: usize = 5_000_000;
/// How long a block is written to at most.
const BLOCK_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The blocks of what has arrived.
pub(in crate::engine) struct Arrivals(Mutex<State>);

struct State {
    /// When each block was begun. The last one is the present block.
    begun: BTreeMap<u32, Timestamp>,
    /// How many arrivals the present block has.
    count: usize,
    /// The first block that is not packed.
    loose_from: u32,
    /// The newest block that an arrival was written to, by a hash of its digest. Two arrivals of two
    /// weeks have the same hash once in millions of years, and nobody can find two: it has a key.
    blocks: HashMap<u64, u32>,
    hasher: RandomState,
}

impl State {
    fn present(&self) -> u32 {
        self.begun.last_key_value().map_or(0, |(block, _)| *block)
    }

    fn note(&mut self, digest: &Digest, block: u32) {
        let hash = self.hasher.hash_one(digest);
        let newest = self.blocks.entry(hash).or_insert(block);
        *newest = block.max(*newest);
        if self.blocks.len() > ARRIVALS_MAX {
            let mut blocks: Vec<u32> = self.blocks.values().copied().collect();
            // A part of them at once, since all are looked at.
            let (_, last, _) = blocks.select_nth_unstable(ARRIVALS_MAX / 8);
            let last = *last;
            tracing::warn!(last, "too much has arrived: the oldest is no longer known");
            self.forget_until(last);
        }
    }

    fn forget_until(&mut self, last: u32) {
        self.blocks.retain(|_, block| *block > last);
        self.blocks.shrink_to_fit();
    }

    /// Returns the blocks in which nothing was written for more than a week.
    fn old_blocks(&self, now: Timestamp) -> Vec<u32> {
        let after = self.begun.iter().zip(self.begun.values().skip(1));
        let is_old = |ended: &Timestamp| now.since(*ended) >= SEEN_FOR + BLOCK_FOR;
        let old = after.take_while(|(_, ended)| is_old(ended));
        old.map(|((block, _), _)| *block).collect()
    }

    /// Returns whether arrivals may still be written to a block, so that they are remembered for as
    /// long as is promised.
    fn is_open(&self, block: u32, now: Timestamp) -> bool {
        let next = self.begun.range(block.saturating_add(1)..).next();
        block >= self.loose_from && next.is_none_or(|(_, ended)| now.since(*ended) < BLOCK_FOR)
    }
}

impl Arrivals {
    /// Reads what has arrived, and begins a block.
    pub(in crate::engine) fn load(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut state = State {
            begun: BTreeMap::new(),
            count: 0,
            loose_from: 0,
            blocks: HashMap::new(),
            hasher: RandomState::new(),
        };
        for page in store.pages::<SeenBlocks>(&[]) {
            state.begun.extend(page?);
        }
        state.loose_from = state.begun.keys().next().copied().unwrap_or_default();
        let old = state.old_blocks(now).last().copied();
        for page in store.pages::<SeenPacks>(&[]) {
            for (block, pack) in page? {
                state.loose_from = block.saturating_add(1);
                if old.is_some_and(|old| block <= old) {
                    continue;
                }
                for (digest, ..) in &pack.arrivals {
                    state.note(digest, block);
                }
            }
        }
        for page in store.pages::<Seen>(&[]) {
            for ((block, digest), _) in page? {
                state.note(&digest, block);
            }
        }
        let arrivals = Self(Mutex::new(state));
        arrivals.begin_block(store, now)?;
        Ok(arrivals)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the block to which an arrival was written, if there was such an arrival.
    fn block_of(&self, digest: &Digest) -> Option<u32> {
        let state = self.state();
        let hash = state.hasher.hash_one(digest);
        state.blocks.get(&hash).copied()
    }

    /// Begins a block after the present one. That is written at once: a block is begun before its
    /// first arrival is written.
    fn begin_block(&self, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        begin_block(&mut state, store, now)
    }

    /// Returns the block to which an arrival is to be written.
    fn place(&self, digest: &Digest, store: &Store, now: Timestamp) -> Result<u32, StoreError> {
        let mut state = self.state();
        let hash = state.hasher.hash_one(digest);
        let known = match state.blocks.get(&hash) {
            Some(block) if state.is_open(*block, now) => return Ok(*block),
            Some(block) => read(store, *block, digest)?,
            None => None,
        };
        if state.count >= BLOCK_ARRIVALS {
            begin_block(&mut state, store, now)?;
        }
        let block = state.present();
        // Until what is staged is written, or if it never is, it is found here as it was.
        if let Some(known) = known {
            let mut batch = Batch::new();
            batch.put::<Seen>(&(block, *digest), &known)?;
            store.apply(batch)?;
        }
        state.count += 1;
        state.note(digest, block);
        Ok(block)
    }

    /// Returns a block that is to be packed now, and counts it as packed.
    fn next_to_pack(&self) -> Option<u32> {
        let mut state = self.state();
        let block = state.loose_from;
        let is_due = block.saturating_add(LOOSE_BLOCKS) < state.present();
        if is_due {
            state.loose_from += 1;
        }
        is_due.then_some(block)
    }

    /// Returns how many arrivals are known.
    #[cfg(test)]
    pub(in crate::engine) fn count(&self) -> usize {
        self.state().blocks.len()
    }
}

/// Reads an arrival in a block.
fn read(store: &Store, block: u32, digest: &Digest) -> Result<Option<SeenEvent>, StoreError> {
    // In this order: what is no longer here is in the pack.
    let loose = store.get::<Seen>(&(block, *digest))?;
    if loose.is_some() {
        return Ok(loose);
    }
    let pack = store.get::<SeenPacks>(&block)?;
    Ok(pack.and_then(|pack| pack.find(digest)))
}

fn begin_block(state: &mut State, store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let last = state.begun.last_key_value();
    let block = last.map_or(0, |(last, _)| last.saturating_add(1));
    let mut batch = Batch::new();
    batch.put::<SeenBlocks>(&block, &now)?;
    store.apply(batch)?;
    state.begun.insert(block, now);
    state.count = 0;
    Ok(())
}

/// Stages that the records of a block are replaced by one. What was written to the block after it
/// was packed replaces what is in the pack.
fn stage_pack(store: &Store, block: u32) -> Result<Batch, StoreError> {
    let mut batch = Batch::new();
    let mut arrivals = BTreeMap::new();
    for page in store.pages::<Seen>(&prefix(&block)) {
        for (key, seen) in page? {
            batch.delete::<Seen>(&key);
            arrivals.insert(key.1, seen);
        }
    }
    if arrivals.is_empty() {
        return Ok(batch);
    }
    let packed = store.get::<SeenPacks>(&block)?.unwrap_or_default();
    for (digest, seen) in packed.iter() {
        arrivals.entry(digest).or_insert(seen);
    }
    batch.put::<SeenPacks>(&block, &SeenPack::of(&arrivals))?;
    Ok(batch)
}

impl Engine {
    /// Returns when something arrived, if it has, and whether it was handled.
    pub(super) fn arrival(&self, digest: &Digest) -> Result<Option<SeenEvent>, StoreError> {
        let Some(block) = self.0.arrivals.block_of(digest) else {
            return Ok(None);
        };
        read(self.store(), block, digest)
    }

    /// Stages that something has arrived, or what became of it.
    pub(super) fn stage_arrival(
        &self,
        digest: Digest,
        seen: &SeenEvent,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let block = self.0.arrivals.place(&digest, self.store(), self.now())?;
        batch.put::<Seen>(&(block, digest), seen)
    }

    /// Packs the blocks that are old enough.
    pub(in crate::engine) fn pack_arrivals(&self) -> Result<(), StoreError> {
        while let Some(block) = self.0.arrivals.next_to_pack() {
            self.pack_block(block)?;
        }
        Ok(())
    }

    fn pack_block(&self, block: u32) -> Result<(), StoreError> {
        let store = self.store();
        store.apply_exclusively(|| stage_pack(store, block))
    }

    /// Begins a new block once a day, and forgets blocks in which nothing was written for more than
    /// a week: no homeserver sends again what arrived before that.
    pub(in crate::engine) async fn forget_old_arrivals(&self) -> Result<(), StoreError> {
        let now = self.now();
        self.end_present_block(now)?;
        self.pack_arrivals()?;
        self.pack_stragglers()?;
        let forgotten = self.0.arrivals.state().old_blocks(now);
        let Some(last) = forgotten.last() else {
            return Ok(());
        };
        for block in &forgotten {
            let store = self.store();
            let mut batch = Batch::new();
            for page in store.pages::<Seen>(&prefix(block)) {
                for (key, _) in page? {
                    batch.delete::<Seen>(&key);
                }
            }
            batch.delete::<SeenPacks>(block);
            batch.delete::<SeenBlocks>(block);
            store.commit(batch).await?;
        }
        let mut state = self.0.arrivals.state();
        state.begun.retain(|block, _| block > last);
        state.forget_until(*last);
        state.loose_from = state.loose_from.max(last.saturating_add(1));
        Ok(())
    }

    /// Begins a new block if the present one has been written to for long enough. Where the clock
    /// was ahead, a block counts as begun now, so that it is forgotten in time.
    fn end_present_block(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.0.arrivals.state();
        let mut batch = Batch::new();
        for (block, begun) in &mut state.begun {
            if *begun > now {
                *begun = now;
                batch.put::<SeenBlocks>(block, begun)?;
            }
        }
        self.store().apply(batch)?;
        let begun = state.begun.last_key_value().map(|(_, begun)| *begun);
        let is_over = begun.is_none_or(|begun| now.since(begun) >= BLOCK_FOR);
        if is_over && state.count > 0 {
            begin_block(&mut state, self.store(), now)?;
        }
        Ok(())
    }

    /// Packs again the blocks to which something was written after they were packed, by somebody who
    /// had been given the block before.
    fn pack_stragglers(&self) -> Result<(), StoreError> {
        loop {
            let first = self.store().scan::<Seen>(&[], None, 1)?;
            let loose_from = self.0.arrivals.state().loose_from;
            match first.first() {
                Some(((block, _), _)) if *block < loose_from => self.pack_block(*block)?,
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
#[path = "arrivals_tests.rs"]
mod tests;
