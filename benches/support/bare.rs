//! The same operations in vodozemac alone: the cryptography, and nothing to keep or to check.

use std::hint::black_box;

use matrix_sdk_crypto::vodozemac::{
    Ed25519SecretKey,
    megolm::{self, GroupSession, InboundGroupSession},
    olm::{self, Account, AccountPickle, OlmMessage},
};

use super::{
    CREATE, DECRYPT, ENCRYPT, FIRST, Figures, LOAD, TAKE,
    support::{cpu, megolm as both_ways},
};

/// A room key with what stands around it.
const ROOM_KEY: [u8; 1000] = [b'x'; 1000];
const MESSAGE: [u8; 300] = [b'x'; 300];
/// What the signatures of a new device are made of.
const SIGNED: [u8; 200] = [b'x'; 200];

fn measure<T>(times: usize, mut work: impl FnMut(usize) -> T) -> (cpu::Threads, usize) {
    let before = cpu::by_thread();
    for n in 0..times {
        black_box(work(n));
    }
    (
        cpu::between(&before, &cpu::by_thread(), "homeserver"),
        times,
    )
}

fn account() -> Account {
    let mut account = Account::new();
    account.generate_one_time_keys(50);
    account.generate_fallback_key();
    account
}

pub fn round(figures: &mut Figures) {
    let mut note = |operation, (used, times)| figures.note(operation, &used, times);
    note(
        CREATE,
        measure(50, |_| {
            let account = account();
            // Device, one-time and fallback keys; three keys of the identity and what they sign.
            for _ in 0..52 {
                black_box(account.sign(SIGNED));
            }
            for _ in 0..3 {
                black_box(Ed25519SecretKey::new().sign(&SIGNED));
            }
            account
        }),
    );

    let pickle = serde_json::to_string(&account().pickle()).unwrap();
    let pickles: Vec<AccountPickle> = (0..100)
        .map(|_| serde_json::from_str(&pickle).unwrap())
        .collect();
    let mut pickles = pickles.into_iter();
    note(
        LOAD,
        measure(100, |_| Account::from_pickle(pickles.next().unwrap())),
    );

    let (ours, mut theirs) = (account(), account());
    let identity = theirs.curve25519_key();
    let fallback = *theirs.fallback_key().values().next().unwrap();
    let config = olm::SessionConfig::version_1();
    let begin = || {
        ours.create_outbound_session(config, identity, fallback)
            .unwrap()
    };
    note(
        FIRST,
        measure(100, |_| {
            let key = begin().encrypt(ROOM_KEY);
            let mut session = GroupSession::new(megolm::SessionConfig::version_1());
            (key, session.encrypt(MESSAGE))
        }),
    );

    let keys: Vec<_> = (0..100)
        .map(|_| match begin().encrypt(ROOM_KEY).unwrap() {
            OlmMessage::PreKey(message) => message,
            OlmMessage::Normal(_) => panic!("the first message begins the session"),
        })
        .collect();
    let group = GroupSession::new(megolm::SessionConfig::version_1());
    let session_key = group.session_key();
    note(
        TAKE,
        measure(100, |n| {
            let taken = theirs.create_inbound_session(config, ours.curve25519_key(), &keys[n]);
            let config = megolm::SessionConfig::version_1();
            (
                taken.unwrap(),
                InboundGroupSession::new(&session_key, config),
            )
        }),
    );

    let (encrypting, decrypting) = both_ways::round(1000);
    note(ENCRYPT, (encrypting, 1000));
    note(DECRYPT, (decrypting, 1000));
}
