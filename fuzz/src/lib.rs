//! The lower rooms of Stonechat, compiled for the fuzzer: all but those that need the crypto stack,
//! which takes half an hour with coverage.

#![allow(
    dead_code,
    unused_imports,
    reason = "the rooms above these are missing"
)]

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/fuzzing.rs"]
mod fuzzing;
#[path = "../../src/handle/mod.rs"]
pub mod handle;
#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/introduction/mod.rs"]
pub mod introduction;
#[path = "../../src/matrix/mod.rs"]
pub mod matrix;
#[path = "../../src/metrics/mod.rs"]
pub mod metrics;
#[path = "../../src/permissions.rs"]
pub mod permissions;
#[path = "../../src/relay/mod.rs"]
pub mod relay;
#[path = "../../src/store/mod.rs"]
pub mod store;
#[path = "../../src/text.rs"]
pub mod text;

use std::{alloc::System, panic, sync::Once};

use cap::Cap;

/// Counts what is allocated; libFuzzer's own memory, which is C++, is not in it.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Maximum memory that a target takes besides what it takes for each byte of its input.
const MEMORY_AT_MOST: usize = 32 * 1024 * 1024;

/// Runs a target. What allocates more than it may aborts, and libFuzzer keeps its input.
pub fn run(name: &str, input: &[u8]) {
    let target = fuzzing::TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("every target is in the list");
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // What a panic says may take more than the target may.
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let _ = ALLOCATOR.set_limit(usize::MAX);
            next(info);
        }));
    });
    let at_most = MEMORY_AT_MOST + target.memory * input.len();
    ALLOCATOR
        .set_limit(ALLOCATOR.allocated() + at_most)
        .expect("the limit is above what is allocated");
    (target.run)(input);
    ALLOCATOR.set_limit(usize::MAX).expect("there is no limit");
}
