//! Group commit: one thread flushes for all writers.
//!
//! A writer that needs durability sends a request and waits for the outcome. The thread takes all
//! requests that have arrived, flushes once, and answers all of them, while the next requests queue
//! up. So a hundred writers cost one `fsync`, and a single writer waits for no other. Writes that
//! nobody waits for are flushed within a second.

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

use super::{StoreError, failure::StoreFailure, files::Progress, memtable::Memtable};
use crate::metrics::catalogue::FLUSH_TIME;

type Outcome = Result<(), StoreError>;
type Request = Box<dyn FnOnce(Outcome) + Send>;

/// Maximum time that a write stays unflushed if nobody waits for it.
const FLUSH_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Minimum time from the start of one flush to the start of the next. A flush has a fixed cost,
/// since the database writes its buffer and wakes its threads, so under load a pause lets one flush
/// serve more writers. A lone writer is not delayed.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(3);

pub(super) struct Committer {
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failure: StoreFailure,
    flushes: Arc<AtomicU64>,
    durable: Arc<AtomicU64>,
}

impl Committer {
    /// Starts the thread. Its first flush includes what is already in the database.
    pub(super) fn start(
        memtable: Arc<Memtable>,
        progress: Option<Progress>,
    ) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel();
        let failure = StoreFailure::default();
        let flushes = Arc::default();
        let durable = Arc::default();
        let flusher = Flusher {
            memtable,
            progress,
            confirmed: 0,
            failure: failure.clone(),
            is_closed: false,
            flushes: Arc::clone(&flushes),
            durable: Arc::clone(&durable),
        };
        let thread = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || flusher.run(&receiver))
            .map_err(|e| StoreError::Stopped(format!("cannot start the flush thread: {e}")))?;
        Ok(Self {
            requests: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            failure,
            flushes,
            durable,
        })
    }

    /// Returns the number of flushes.
    pub(super) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Returns the number of durable batches.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Returns the failure that stops the store, whether the thread or another part notices it.
    pub(super) fn failure(&self) -> &StoreFailure {
        &self.failure
    }

    /// Requests a flush. Everything applied before this call is durable when `Ok` arrives.
    pub(super) fn request_flush(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.send(Box::new(move |outcome| drop(sender.send(outcome))));
        receiver
    }

    /// Requests a flush like [`Self::request_flush`], and blocks the thread until the outcome.
    pub(super) fn flush_blocking(&self) -> Outcome {
        let (sender, receiver) = mpsc::channel();
        self.send(Box::new(move |outcome| drop(sender.send(outcome))));
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn send(&self, request: Request) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = requests.as_ref() {
            // If the thread has ended, the request is dropped and its receiver gets an error.
            let _ = requests.send(request);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.requests
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
    memtable: Arc<Memtable>,
    progress: Option<Progress>,
    /// The number of the last batch that this run has confirmed to be durable.
    confirmed: u64,
    failure: StoreFailure,
    /// Whether the thread ended because the store is closed.
    is_closed: bool,
    flushes: Arc<AtomicU64>,
    durable: Arc<AtomicU64>,
}

/// Stops the store if a panic ends the thread: without it nothing becomes durable.
impl Drop for Flusher {
    fn drop(&mut self) {
        if !self.is_closed {
            let why = "the flush thread has ended".to_owned();
            self.failure.record(&StoreError::Stopped(why));
        }
    }
}

impl Flusher {
    #[expect(
        clippy::disallowed_methods,
        reason = "its thread sleeps as well: nothing here is tokio's"
    )]
    fn run(mut self, requests: &Receiver<Request>) {
        let mut waiting = Vec::new();
        let mut began: Option<Instant> = None;
        loop {
            match requests.recv_timeout(FLUSH_INTERVAL_MAX) {
                Ok(first) => waiting.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // Nobody waits for this outcome.
                    let _ = self.flush();
                    self.is_closed = true;
                    return;
                }
            }
            if let Some(rest) =
                began.and_then(|began| FLUSH_INTERVAL_MIN.checked_sub(began.elapsed()))
            {
                std::thread::sleep(rest);
            }
            let begins = Instant::now();
            began = Some(begins);
            waiting.extend(requests.try_iter());
            let flushed_before = self.flushes.load(Ordering::Relaxed);
            let outcome = self.flush();
            if self.flushes.load(Ordering::Relaxed) > flushed_before {
                FLUSH_TIME.observe([], begins.elapsed());
            }
            for answer in waiting.drain(..) {
                answer(outcome.clone());
            }
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.failure.check()?;
        // Read first: a writer applies its batch before it sends its request.
        let applied = self.memtable.applied();
        let batch = match self.memtable.write_out() {
            Ok(batch) if batch == self.confirmed => {
                self.durable.store(applied, Ordering::Release);
                return Ok(());
            }
            written_out => written_out,
        };
        let outcome = batch.and_then(|batch| {
            self.memtable.backend().flush()?;
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
            // A failed flush may have dropped writes, so a later flush that succeeds would not make
            // them durable.
            Err(e) => {
                self.failure.record(e);
            }
        }
        outcome.map(drop)
    }
}
