//! Stops a query from outside: a cancel, or too much time spent waiting for SQLite.
//!
//! SQLite blocks its thread, so a second one looks at the clock and calls `sqlite3_interrupt`, which is heeded also
//! where no row comes. (A progress handler is not called within one long instruction, as `count(*)` is.)

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::InterruptHandle;
use tokio_util::sync::CancellationToken;

use super::super::Error;

/// How late a cancel or a time-out may be seen: well under the second that is promised.
const TICK: Duration = Duration::from_millis(50);

/// A clock that costs nothing to look at, and is as exact as [`TICK`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Ticks(u32);

impl Ticks {
    pub fn after(self, time: Duration) -> Self {
        let ticks = time.as_millis().div_ceil(TICK.as_millis());
        Self(
            self.0
                .saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)),
        )
    }
}

/// Ends with its value.
pub struct Watch {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    limit: Duration,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    ticks: AtomicU32,
    clock: Mutex<Clock>,
    changed: Condvar,
}

/// Counts only time between [`Watch::resume`] and [`Watch::pause`].
#[derive(Default)]
struct Clock {
    waited: Duration,
    since: Option<Instant>,
    timed_out: bool,
    finished: bool,
}

impl Clock {
    fn total(&self) -> Duration {
        self.waited + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Watch {
    /// The clock stands still until [`Self::resume`]; a cancel is seen at once.
    pub fn start(
        interrupt: InterruptHandle,
        cancel: CancellationToken,
        limit: Duration,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            ticks: AtomicU32::new(0),
            clock: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = thread::Builder::new()
            .name("sqlite-watch".to_owned())
            .spawn({
                let (shared, cancel) = (Arc::clone(&shared), cancel.clone());
                move || shared.run(&interrupt, &cancel, limit)
            })
            .map_err(|error| Error::Unavailable {
                operator: format!("no thread to watch a SQLite query: {error}"),
            })?;
        Ok(Self {
            shared,
            cancel,
            limit,
            thread: Some(thread),
        })
    }

    /// From here on time counts as spent waiting for SQLite.
    pub fn resume(&self) {
        self.shared.lock().since.get_or_insert_with(Instant::now);
    }

    /// From here on time is somebody else's.
    pub fn pause(&self) {
        let mut clock = self.shared.lock();
        clock.waited = clock.total();
        clock.since = None;
    }

    pub fn ticks(&self) -> Ticks {
        Ticks(self.shared.ticks.load(Ordering::Relaxed))
    }

    /// Why the query has to stop, if it has to.
    pub fn verdict(&self) -> Option<Error> {
        if self.cancel.is_cancelled() {
            Some(Error::Cancelled)
        } else if self.shared.lock().timed_out {
            Some(Error::StatementTimeout { limit: self.limit })
        } else {
            None
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().finished = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It can't have panicked, and there is nothing to learn from it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, interrupt: &InterruptHandle, cancel: &CancellationToken, limit: Duration) {
        let mut clock = self.lock();
        while !clock.finished {
            if clock.total() > limit {
                clock.timed_out = true;
            }
            // Again at every tick: an interrupt between two statements is lost.
            if clock.timed_out || cancel.is_cancelled() {
                interrupt.interrupt();
            }
            clock = self
                .changed
                .wait_timeout(clock, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            self.ticks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
