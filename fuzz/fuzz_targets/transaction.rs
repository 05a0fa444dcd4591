//! `cargo +nightly fuzz run transaction`: no body of a transaction may bring us down, and JSON of
//! the right outer form is never refused, whatever is in it: the homeserver would send it again for
//! ever.
#![no_main]

#[expect(dead_code, reason = "not every field is looked at")]
#[path = "../../src/matrix/transaction.rs"]
mod transaction;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use transaction::Transaction;

fuzz_target!(|body: &[u8]| {
    let parsed = Transaction::parse(body);
    if serde_json::from_slice::<Map<String, Value>>(body).is_ok() {
        assert!(parsed.is_ok());
    }
    // What is taken can be taken apart further.
    for item in parsed
        .iter()
        .flat_map(|it| it.events.iter().chain(&it.to_device))
    {
        assert!(item.get().starts_with('{'));
    }
});
