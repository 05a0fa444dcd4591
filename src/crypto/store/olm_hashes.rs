//! Which Olm messages were seen, with an end to it.
//!
//! Every Olm message leaves a hash, so that it is not taken twice. They are kept in generations:
//! when one is full the next begins, and the one before last is deleted. So at least the last
//! thousand messages of a ghost are known, and never more than two thousand. An older message
//! that comes again does no harm: its Olm session has moved on and does not decrypt it.

use std::sync::PoisonError;

use matrix_sdk_crypto::olm::OlmMessageHash;

use super::{
    GhostStoreError,
    ghost::{Ghost, Writes},
    record::OLM_HASH,
};

/// How many hashes a generation has.
pub(super) const GENERATION_HASHES: usize = 1000;

/// Where a ghost stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct OlmHashes {
    generation: u32,
    count: usize,
}

fn generation_prefix(ghost: &Ghost, generation: u32) -> Vec<u8> {
    let mut key = ghost.keys.of(OLM_HASH, &[]);
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

fn key(ghost: &Ghost, generation: u32, hash: &OlmMessageHash) -> Vec<u8> {
    let mut key = generation_prefix(ghost, generation);
    // Both are base64, so a zero byte separates them.
    let text = [hash.sender_key.as_bytes(), &[0], hash.hash.as_bytes()].concat();
    key.extend_from_slice(&ghost.keys.part(OLM_HASH, 0, &text));
    key
}

fn load(ghost: &Ghost) -> Result<OlmHashes, GhostStoreError> {
    if let Some(hashes) = *ghost
        .olm_hashes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Ok(hashes);
    }
    let start = ghost.keys.of(OLM_HASH, &[]).len();
    let generations: Vec<u32> = ghost
        .keys_of(&ghost.keys.of(OLM_HASH, &[]))?
        .iter()
        .filter_map(|key| {
            key.get(start..)?
                .first_chunk()
                .map(|g| u32::from_be_bytes(*g))
        })
        .collect();
    let generation = generations.last().copied().unwrap_or(0);
    let count = generations.iter().filter(|g| **g == generation).count();
    Ok(OlmHashes { generation, count })
}

/// Whether a message was seen.
pub(super) fn is_known(ghost: &Ghost, hash: &OlmMessageHash) -> Result<bool, GhostStoreError> {
    let now = load(ghost)?;
    remember(ghost, now);
    if ghost.has(&key(ghost, now.generation, hash))? {
        return Ok(true);
    }
    match now.generation.checked_sub(1) {
        Some(before) => ghost.has(&key(ghost, before, hash)),
        None => Ok(false),
    }
}

/// Add hashes to what will be written. Call [`remember`] with the result once it is.
pub(super) fn add(
    ghost: &Ghost,
    hashes: &[OlmMessageHash],
    writes: &mut Writes,
) -> Result<OlmHashes, GhostStoreError> {
    let mut now = load(ghost)?;
    for hash in hashes {
        if now.count >= GENERATION_HASHES {
            let gone = now.generation.checked_sub(1);
            now = OlmHashes {
                generation: now.generation.saturating_add(1),
                count: 0,
            };
            if let Some(gone) = gone {
                for key in ghost.keys_of(&generation_prefix(ghost, gone))? {
                    writes.delete(key);
                }
            }
        }
        writes.mark(key(ghost, now.generation, hash));
        now.count += 1;
    }
    Ok(now)
}

/// Take note of where a ghost stands.
pub(super) fn remember(ghost: &Ghost, hashes: OlmHashes) {
    *ghost
        .olm_hashes
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(hashes);
}
