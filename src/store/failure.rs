//! The failure that stopped the store, for those who have to act on it.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::StoreError;

/// The first failure after which the store cannot be relied on. Clones watch the same store and do
/// not keep it open.
#[derive(Clone, Default)]
pub struct StoreFailure(Arc<Inner>);

struct Inner {
    error: OnceLock<StoreError>,
    /// Wakes tasks.
    happened: watch::Sender<bool>,
    /// Wakes threads, also when no task runs any longer.
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
            // The sender lives as long as `self`, so this ends with the failure and no sooner.
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

    /// Fails when the store has failed before.
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

    /// Passes `result` on and records its error if it is one of the store as a whole.
    pub(super) fn noting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
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
    fn what_concerns_one_record_or_a_closed_store_is_no_failure() {
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
            let _ = failure.noting::<()>(Err(error));
        }
        assert!(failure.get().is_none());
        let _ = failure.noting::<()>(Err(full()));
        assert!(failure.get().is_some());
    }
}
