//! Shutdown as a value: a background task holds a [`Shutdown`] and ends when it is asked to. The
//! starter of the tasks holds the [`Trigger`].

use tokio::sync::watch;

/// Asks all holders of the [`Shutdown`] to end. Dropping it asks them as well.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Tells a task that it is time to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Returns a trigger and a shutdown that listens to it.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks all holders to end, now or when they next look.
    pub fn pull(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns whether it is time to end.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is time to end. Cancel-safe.
    pub async fn asked(&self) {
        // A dropped trigger asks as well.
        let _ = self.0.clone().wait_for(|asked| *asked).await;
    }

    /// Runs `work` to its end, or returns `None` if it is time to end first.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_learns_of_it_early_or_late() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_asked());
        assert_eq!(shutdown.or(async { 1 }).await, Some(1));
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.or(std::future::pending::<()>()).await }
        });
        trigger.pull();
        assert_eq!(waiting.await.unwrap(), None);
        shutdown.clone().asked().await;
        assert!(shutdown.is_asked());
        assert_eq!(shutdown.or(async { 1 }).await, None, "no new work");
    }

    #[tokio::test]
    async fn a_trigger_that_is_gone_asks_too() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.asked().await;
        assert!(shutdown.is_asked());
    }
}
