//! The failure that stopped the store.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::StoreError;

/// The first failure after which the store is unreliable. Clones watch the same store and do not
/// keep it open.
#[derive(Clone, Default)]
pub struct StoreFailure(Arc<Inner>);

struct Inner {
    error: OnceLock<StoreError>,
    /// Wakes tasks.
    happened: watch::Sender<bool>,
    /// Wakes threads, even when tasks no longer run.
    bell: (Mutex<bool>, Condvar),
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            error: OnceLock::new(),
            happened: watch::Sender::new(false),
            bell: (Mutex::new(false), Condvar::new()),
        }
    }
}

impl std::fmt::Debug for StoreFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreFailure").field(&self.get()).finish()
    }
}

impl StoreFailure {
    /// Returns the failure, if there was one.
    pub fn get(&self) -> Option<&StoreError> {
        self.0.error.get()
    }

    /// Waits for the failure. Safe to drop and to call again.
    pub async fn happened(&self) -> StoreError {
        loop {
            if let Some(error) = self.get() {
                return error.clone();
            }
            // The sender lives as long as `self`, so this waits until the failure.
            let _ = self.0.happened.subscribe().wait_for(|it| *it).await;
        }
    }

    /// Blocks the thread until the failure.
    pub fn wait(&self) {
        let (happened, bell) = &self.0.bell;
        let mut happened = happened.lock().unwrap_or_else(PoisonError::into_inner);
        while !*happened {
            happened = bell.wait(happened).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns an error if the store has failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.get() {
            Some(error) => Err(StoreError::Stopped(error.to_string())),
            None => Ok(()),
        }
    }

    /// Records `error` as the failure of the store. Only the first one counts.
    pub(crate) fn record(&self, error: &StoreError) {
        if self.0.error.set(error.clone()).is_err() {
            return;
        }
        tracing::error!(%error, "the store has failed");
        let (happened, bell) = &self.0.bell;
        *happened.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
        self.0.happened.send_replace(true);
    }

    /// Returns `result`, and records its error if the store as a whole has failed.
    pub(super) fn record_fatal<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.record(error);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> StoreError {
        StoreError::Full {
            path: "/disk".into(),
            why: "full".to_owned(),
        }
    }

    #[tokio::test]
    async fn tasks_and_threads_learn_of_the_first_failure_early_and_late() {
        let failure = StoreFailure::default();
        assert!(failure.check().is_ok());
        let (task, thread) = (failure.clone(), failure.clone());
        let task = tokio::spawn(async move { task.happened().await });
        let thread = std::thread::spawn(move || thread.wait());
        failure.record(&full());
        failure.record(&StoreError::Stopped("later".to_owned()));
        assert_eq!(task.await.unwrap().to_string(), full().to_string());
        thread.join().unwrap();
        failure.wait();
        assert_eq!(failure.happened().await.to_string(), full().to_string());
        assert!(failure.check().is_err());
    }

    #[test]
    fn an_error_of_one_record_or_a_closed_store_is_no_failure() {
        let failure = StoreFailure::default();
        for error in [
            StoreError::Unseal { table: "t" },
            StoreError::Closed,
            StoreError::Backup("the other disk is full".to_owned()),
            StoreError::Decode {
                table: "t",
                why: "it has another shape".to_owned(),
            },
        ] {
            let _ = failure.record_fatal::<()>(Err(error));
        }
        assert!(failure.get().is_none());
        let _ = failure.record_fatal::<()>(Err(full()));
        assert!(failure.get().is_some());
    }
}
