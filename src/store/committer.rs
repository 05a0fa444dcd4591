//! One thread that flushes, for everybody who waits.
//!
//! Whoever wants durability sends a note here and waits for the answer. The thread takes all the
//! notes that lie there, flushes once, and answers them all; while it flushes, the next notes
//! gather. So a hundred writers cost one `fsync`, and a single one waits for nobody. What nobody
//! waits for is flushed within a second.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{StoreError, failure::StoreFailure, files::Progress, pending::Pending};

type Outcome = Result<(), StoreError>;
type Waiter = Box<dyn FnOnce(Outcome) + Send>;

/// How long a write may stay unflushed that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// From the beginning of one flush to that of the next. A flush costs the database a write of what
/// has gathered and the waking of its threads, however little that is: under load more gathers, and
/// whoever comes alone waits for nothing.
const PACE: Duration = Duration::from_millis(3);

pub(super) struct Committer {
    notes: Mutex<Option<Sender<Waiter>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failure: StoreFailure,
    flushes: Arc<AtomicU64>,
    durable: Arc<AtomicU64>,
}

impl Committer {
    /// Start the thread. What lies in the database was not flushed yet.
    pub(super) fn start(
        pending: Arc<Pending>,
        progress: Option<Progress>,
    ) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel();
        let failure = StoreFailure::default();
        let flushes = Arc::default();
        let durable = Arc::default();
        let flusher = Flusher {
            pending,
            progress,
            confirmed: 0,
            failure: failure.clone(),
            ended: false,
            flushes: Arc::clone(&flushes),
            durable: Arc::clone(&durable),
        };
        let thread = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || flusher.run(&receiver))
            .map_err(|e| StoreError::Stopped(format!("no thread to flush with: {e}")))?;
        Ok(Self {
            notes: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            failure,
            flushes,
            durable,
        })
    }

    /// How many flushes there were.
    pub(super) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// How many batches are durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The failure that stops everything, also one that is noticed elsewhere.
    pub(super) fn failure(&self) -> &StoreFailure {
        &self.failure
    }

    /// Ask for a flush. Everything applied before this call is durable when `Ok` comes.
    pub(super) fn ask(&self) -> oneshot::Receiver<Outcome> {
        let (waiter, answer) = oneshot::channel();
        self.leave(Box::new(move |outcome| drop(waiter.send(outcome))));
        answer
    }

    /// As [`Self::ask`], for callers outside of tasks.
    pub(super) fn wait(&self) -> Outcome {
        let (waiter, answer) = mpsc::channel();
        self.leave(Box::new(move |outcome| drop(waiter.send(outcome))));
        answer.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn leave(&self, waiter: Waiter) {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notes) = notes.as_ref() {
            // If the thread is gone the waiter is dropped, and who waits is told.
            let _ = notes.send(waiter);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            let _ = thread.join();
        }
    }
}

struct Flusher {
    pending: Arc<Pending>,
    progress: Option<Progress>,
    /// The last batch that this run has made sure of.
    confirmed: u64,
    failure: StoreFailure,
    /// Whether the thread ended because the store is closed.
    ended: bool,
    flushes: Arc<AtomicU64>,
    durable: Arc<AtomicU64>,
}

/// Nothing becomes durable without the thread: a panic that ends it stops the store.
impl Drop for Flusher {
    fn drop(&mut self) {
        if !self.ended {
            let why = "the thread that flushes has ended".to_owned();
            self.failure.record(&StoreError::Stopped(why));
        }
    }
}

impl Flusher {
    #[expect(
        clippy::disallowed_methods,
        reason = "its thread sleeps as well: nothing here is tokio's"
    )]
    fn run(mut self, notes: &Receiver<Waiter>) {
        let mut waiting = Vec::new();
        let mut began: Option<Instant> = None;
        loop {
            match notes.recv_timeout(PATIENCE) {
                Ok(first) => waiting.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // Nobody is left to tell.
                    let _ = self.flush();
                    self.ended = true;
                    return;
                }
            }
            if let Some(rest) = began.and_then(|began| PACE.checked_sub(began.elapsed())) {
                std::thread::sleep(rest);
            }
            began = Some(Instant::now());
            waiting.extend(notes.try_iter());
            let outcome = self.flush();
            for waiter in waiting.drain(..) {
                waiter(outcome.clone());
            }
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.failure.check()?;
        // Whoever waits applied what they wait for before they left their note.
        let applied = self.pending.applied();
        let batch = match self.pending.hand_over() {
            Ok(batch) if batch == self.confirmed => {
                self.durable.store(applied, Ordering::Release);
                return Ok(());
            }
            handed_over => handed_over,
        };
        let outcome = batch.and_then(|batch| {
            self.pending.backend().flush()?;
            if let Some(file) = &self.progress {
                file.write(batch)?;
            }
            Ok(batch)
        });
        self.flushes.fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Ok(batch) => {
                self.confirmed = *batch;
                self.durable.store(applied, Ordering::Release);
            }
            // A flush that failed may have dropped what it should have written: to try again and
            // report success would be a lie.
            Err(e) => {
                self.failure.record(e);
            }
        }
        outcome.map(drop)
    }
}
