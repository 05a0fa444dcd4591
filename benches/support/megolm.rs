//! One encryption and one decryption of Megolm in vodozemac alone: what no relay can do without.

use std::hint::black_box;

use matrix_sdk_crypto::vodozemac::megolm::{GroupSession, InboundGroupSession, SessionConfig};

use super::cpu;

const MESSAGE: [u8; 300] = [b'x'; 300];

/// CPU time of so many encryptions, and of their decryptions.
pub fn round(times: usize) -> (cpu::Threads, cpu::Threads) {
    let mut group = GroupSession::new(SessionConfig::version_1());
    let mut heard = InboundGroupSession::new(&group.session_key(), SessionConfig::version_1());
    let before = cpu::by_thread();
    let said: Vec<_> = (0..times).map(|_| group.encrypt(MESSAGE)).collect();
    let between = cpu::by_thread();
    for message in &said {
        black_box(heard.decrypt(message).unwrap());
    }
    let after = cpu::by_thread();
    (
        cpu::between(&before, &between, "homeserver"),
        cpu::between(&between, &after, "homeserver"),
    )
}
