//! Ends the process when the store has failed and the orderly shutdown hangs.

use std::{io, thread, time::Duration};

use crate::store::StoreFailure;

/// How long the orderly shutdown may take after the store has failed.
pub(super) const GRACE: Duration = Duration::from_secs(8);

/// Calls `end` once the store has failed and `grace` has passed. Waits on its own thread, because
/// all threads of the runtime may be waiting for the disk.
pub(super) fn start(
    failure: StoreFailure,
    grace: Duration,
    end: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new()
        .name("store-watchdog".to_owned())
        .spawn(move || {
            failure.wait();
            thread::sleep(grace);
            end();
        })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn the_process_is_ended_after_a_failure_and_not_before() {
        let failure = StoreFailure::default();
        let (ended, is_ended) = mpsc::channel();
        let end = move || ended.send(()).unwrap();
        start(failure.clone(), Duration::from_millis(1), end).unwrap();
        let early = is_ended.recv_timeout(Duration::from_millis(50));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        failure.record(&StoreError::Stopped("the disk is gone".to_owned()));
        is_ended.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
