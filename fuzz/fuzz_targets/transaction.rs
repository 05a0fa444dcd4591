//! `cargo +nightly fuzz run transaction`: no body of a transaction may bring us down, and JSON of
//! the right outer form is never refused, whatever is in it: the homeserver would send it again for
//! ever.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stonechat::matrix::transaction::Transaction;

fuzz_target!(|body: &[u8]| {
    let parsed = Transaction::parse(body);
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body);
    if object.is_ok() {
        assert!(parsed.is_ok());
    }
});
