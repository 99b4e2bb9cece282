//! Counts what an export does while it does it: rows, bytes, and the time that each stage worked or waited.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::export::{Progress, StageProgress};

use super::bounded::Level;

/// `rows_per_second` looks back this far.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Samples of the window are at least this far apart, which bounds their number.
const RATE_STEP: Duration = Duration::from_millis(200);

/// One stage's clock. Busy is summed over its threads.
#[derive(Debug, Default)]
pub struct StageClock {
    busy_ns: AtomicU64,
    blocked_ns: AtomicU64,
    threads: AtomicU64,
    /// Since when the stage is busy with what it has not counted yet: a source that stands still in the middle of a
    /// batch must not look idle.
    busy_since: Mutex<Option<Instant>>,
}

impl StageClock {
    pub fn busy(&self, time: Duration) {
        *self.since() = None;
        self.busy_ns.fetch_add(nanos(time), Relaxed);
    }

    /// The stage works from now on; [`StageClock::busy`] ends that.
    pub fn begins(&self) {
        *self.since() = Some(Instant::now());
    }

    pub fn blocked(&self, time: Duration) {
        self.blocked_ns.fetch_add(nanos(time), Relaxed);
    }

    pub fn set_threads(&self, threads: u64) {
        self.threads.store(threads, Relaxed);
    }

    /// What is still going on included.
    pub fn busy_time(&self) -> Duration {
        let going_on = self.since().map(|since| since.elapsed());
        Duration::from_nanos(self.busy_ns.load(Relaxed)) + going_on.unwrap_or_default()
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.busy_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn blocked_time(&self) -> Duration {
        Duration::from_nanos(self.blocked_ns.load(Relaxed))
    }

    /// Busy time of an average thread.
    fn load(&self) -> Duration {
        let threads = self.threads.load(Relaxed).max(1);
        self.busy_time() / u32::try_from(threads).unwrap_or(u32::MAX)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

type LevelProbe = Box<dyn Fn() -> (Level, Level) + Send + Sync>;

/// Shared by the stages, the status call and the heartbeats of one export.
#[derive(Default)]
pub struct Meter {
    pub rows_read: AtomicU64,
    pub rows_filtered: AtomicU64,
    pub rows_written: AtomicU64,
    pub bytes_written: AtomicU64,
    pub estimated_rows: Option<u64>,
    pub source: StageClock,
    pub transform: StageClock,
    pub sink: StageClock,
    /// Time in which a stream's client took nothing.
    pub client: StageClock,
    /// Before transform, before sink; set when the queues exist.
    levels: OnceLock<LevelProbe>,
    window: Mutex<VecDeque<(Instant, u64)>>,
}

impl Meter {
    pub fn new(estimated_rows: Option<u64>) -> Self {
        Self {
            estimated_rows,
            ..Self::default()
        }
    }

    pub fn probe_levels(&self, probe: impl Fn() -> (Level, Level) + Send + Sync + 'static) {
        let _ = self.levels.set(Box::new(probe));
    }

    /// Called by the reader after each batch.
    pub fn count_read(&self, rows: u64) {
        let total = self.rows_read.fetch_add(rows, Relaxed) + rows;
        let now = Instant::now();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window
            .back()
            .is_none_or(|(last, _)| now.duration_since(*last) >= RATE_STEP)
        {
            window.push_back((now, total));
            while window.len() > 2 && now.duration_since(window[0].0) > RATE_WINDOW {
                window.pop_front();
            }
        }
    }

    pub fn progress(&self) -> Progress {
        let rows_read = self.rows_read.load(Relaxed);
        let rows_per_second = self.rate(rows_read);
        let (before_transform, before_sink) =
            self.levels.get().map(|probe| probe()).unwrap_or_default();
        let stage = |name: &str, clock: &StageClock, level: Level| StageProgress {
            name: name.to_owned(),
            busy: clock.busy_time(),
            blocked: clock.blocked_time(),
            queued_batches: level.batches,
            queued_bytes: level.bytes,
            capacity_bytes: level.capacity_bytes,
        };
        Progress {
            rows_read,
            rows_written: self.rows_written.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            estimated_rows: self.estimated_rows,
            rows_per_second,
            eta: self
                .estimated_rows
                .filter(|estimate| *estimate > rows_read && rows_per_second >= 1.0)
                .map(|estimate| {
                    Duration::from_secs_f64((estimate - rows_read) as f64 / rows_per_second)
                }),
            stages: vec![
                stage("source", &self.source, Level::default()),
                stage("transform", &self.transform, before_transform),
                stage("sink", &self.sink, before_sink),
            ],
            slowest_stage: self.slowest_stage().to_owned(),
        }
    }

    /// The stage whose threads had the least rest: the others wait for it.
    fn slowest_stage(&self) -> &'static str {
        [
            ("source", self.source.load()),
            ("transform", self.transform.load()),
            ("sink", self.sink.load()),
            ("client", self.client.load()),
        ]
        .into_iter()
        .filter(|(_, load)| !load.is_zero())
        .max_by_key(|(_, load)| *load)
        .map_or("", |(name, _)| name)
    }

    fn rate(&self, rows_read: u64) -> f64 {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, rows_then)) = window.front() else {
            return 0.0;
        };
        let seconds = since.elapsed().as_secs_f64();
        if seconds < 0.001 {
            return 0.0;
        }
        (rows_read.saturating_sub(*rows_then)) as f64 / seconds
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("rows_read", &self.rows_read)
            .field("rows_written", &self.rows_written)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_thread_names_the_slowest_stage() {
        let meter = Meter::new(None);
        assert_eq!(meter.progress().slowest_stage, "");
        meter.source.busy(Duration::from_secs(3));
        meter.transform.set_threads(2);
        meter.transform.busy(Duration::from_secs(4));
        assert_eq!(meter.progress().slowest_stage, "source");
        meter.transform.busy(Duration::from_secs(4));
        assert_eq!(meter.progress().slowest_stage, "transform");
        meter.client.busy(Duration::from_secs(9));
        assert_eq!(meter.progress().slowest_stage, "client");
    }

    #[test]
    fn a_stage_that_stands_still_is_busy() {
        let meter = Meter::new(None);
        meter.sink.busy(Duration::from_nanos(1));
        meter.source.begins();
        // Whatever the clock's resolution: time goes on until it shows.
        while meter.progress().slowest_stage != "source" {}
        meter.source.busy(Duration::ZERO);
        assert_eq!(meter.progress().slowest_stage, "sink");
    }

    #[test]
    fn no_eta_without_an_estimate_or_past_it() {
        assert_eq!(Meter::new(None).progress().eta, None);
        let meter = Meter::new(Some(10));
        meter.count_read(20);
        assert_eq!(meter.progress().eta, None);
    }
}
