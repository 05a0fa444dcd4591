//! The hashes of the last Olm messages.
//!
//! Every Olm message leaves a hash, so that it is not received twice. Hashes are kept in
//! generations: when one is full, the next begins and the one before last is deleted. So a ghost
//! keeps the hashes of the last one to two thousand messages. An older message that comes again
//! does no harm: its Olm session has moved on and does not decrypt it.

use matrix_sdk_crypto::olm::OlmMessageHash;

use super::{
    GhostStoreError,
    record::OLM_HASH,
    sealed_records::{SealedRecords, Writes},
};

/// Number of hashes in a generation.
pub(super) const GENERATION_HASHES: usize = 1000;

/// The current generation of a ghost, and the number of hashes in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OlmHashes {
    generation: u32,
    count: usize,
}

fn generation_prefix(records: &SealedRecords, generation: u32) -> Vec<u8> {
    let mut key = records.keys.of(OLM_HASH, &[]);
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

fn key(records: &SealedRecords, generation: u32, hash: &OlmMessageHash) -> Vec<u8> {
    let mut key = generation_prefix(records, generation);
    // Both are base64, so a zero byte separates them.
    let text = [hash.sender_key.as_bytes(), &[0], hash.hash.as_bytes()].concat();
    key.extend_from_slice(&records.keys.part(OLM_HASH, 0, &text));
    key
}

/// Returns the current generation: `known`, or counted from the records.
fn load(records: &SealedRecords, known: Option<OlmHashes>) -> Result<OlmHashes, GhostStoreError> {
    if let Some(hashes) = known {
        return Ok(hashes);
    }
    let start = records.keys.of(OLM_HASH, &[]).len();
    let generations: Vec<u32> = records
        .keys_of(&records.keys.of(OLM_HASH, &[]))?
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

/// Returns whether a message was received before, and the current generation.
pub(super) fn is_known(
    records: &SealedRecords,
    known: Option<OlmHashes>,
    hash: &OlmMessageHash,
) -> Result<(bool, OlmHashes), GhostStoreError> {
    let now = load(records, known)?;
    let mut found = records.has(&key(records, now.generation, hash))?;
    if !found && let Some(before) = now.generation.checked_sub(1) {
        found = records.has(&key(records, before, hash))?;
    }
    Ok((found, now))
}

/// Adds hashes to `writes`. Returns the current generation once they are written.
pub(super) fn add(
    records: &SealedRecords,
    known: Option<OlmHashes>,
    hashes: &[OlmMessageHash],
    writes: &mut Writes,
) -> Result<OlmHashes, GhostStoreError> {
    let mut now = load(records, known)?;
    for hash in hashes {
        if now.count >= GENERATION_HASHES {
            let gone = now.generation.checked_sub(1);
            now = OlmHashes {
                generation: now.generation.saturating_add(1),
                count: 0,
            };
            if let Some(gone) = gone {
                for key in records.keys_of(&generation_prefix(records, gone))? {
                    writes.delete(key);
                }
            }
        }
        writes.mark(key(records, now.generation, hash));
        now.count += 1;
    }
    Ok(now)
}
