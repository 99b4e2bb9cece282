//! Follows an export on the terminal: three stages, rows a second, time to go. Nothing when stderr is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Client, Failure, table::printable};
use crate::rpc::pb;

const RECONNECTS_MAX: u32 = 10;
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

pub struct Display {
    bar: ProgressBar,
}

impl Display {
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(spinner());
        Self { bar }
    }

    pub fn show(&self, export: &pb::Export) {
        let Some(progress) = &export.progress else {
            self.bar.set_message(state_text(export));
            return;
        };
        let total = progress
            .estimated_rows
            .and_then(|rows| u64::try_from(rows).ok());
        if let Some(total) = total.filter(|total| *total > 0) {
            // An estimate that turned out too low would show more than all.
            let rows = u64::try_from(progress.rows_read).unwrap_or(0);
            self.bar.set_style(bar());
            self.bar.set_length(total.max(rows));
            self.bar.set_position(rows);
        }
        self.bar.set_message(progress_text(export, progress));
        self.bar.tick();
    }

    /// For downloads: bytes of `total_bytes`.
    pub fn show_bytes(&self, bytes: u64, total_bytes: u64) {
        self.bar.set_style(bar());
        self.bar.set_length(total_bytes);
        self.bar.set_position(bytes);
        self.bar
            .set_message(format!("{bytes} of {total_bytes} bytes"));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed")
}

fn bar() -> ProgressStyle {
    ProgressStyle::with_template("[{bar:30}] {percent:>3}% {msg}")
        .expect("the template is well-formed")
        .progress_chars("=> ")
}

fn state_text(export: &pb::Export) -> String {
    match export.queue_position {
        Some(position) => format!("{}, {position} before it", state_name(export.state())),
        None => state_name(export.state()).to_owned(),
    }
}

pub fn progress_text(export: &pb::Export, progress: &pb::Progress) -> String {
    let mut text = format!(
        "{}  {} rows, {:.0} rows/s",
        state_text(export),
        progress.rows_read,
        progress.rows_per_second
    );
    if let Some(eta) = &progress.eta {
        let eta = Duration::from_secs(u64::try_from(eta.seconds).unwrap_or(0));
        text.push_str(&format!(", {} to go", humantime::format_duration(eta)));
    }
    for stage in &progress.stages {
        let (busy, blocked) = (seconds(stage.busy), seconds(stage.blocked));
        let share = 100.0 * busy / (busy + blocked).max(f64::MIN_POSITIVE);
        let name = printable(&stage.name);
        text.push_str(&format!(" | {name} {share:.0}% busy"));
    }
    if !progress.slowest_stage.is_empty() {
        let slowest = printable(&progress.slowest_stage);
        text.push_str(&format!(" | slowest: {slowest}"));
    }
    text
}

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    duration.map_or(0.0, |d| d.seconds as f64 + f64::from(d.nanos) / 1e9)
}

/// `RUNNING` of `STATE_RUNNING`.
pub fn state_name(state: pb::State) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("STATE_").unwrap_or(name)
}

pub fn is_terminal(export: &pb::Export) -> bool {
    matches!(
        export.state(),
        pb::State::Succeeded | pb::State::Failed | pb::State::Cancelled
    )
}

/// Watches until the export has ended; reconnects while that makes sense.
pub async fn follow(client: &mut Client, export_id: &str) -> Result<pb::Export, Failure> {
    let display = Display::new();
    let mut reconnects = 0;
    loop {
        match watch_once(client, export_id, &display, &mut reconnects).await {
            Ok(Some(export)) => return Ok(export),
            // The server ended the stream early: it is restarting.
            Ok(None) if reconnects < RECONNECTS_MAX => {}
            Ok(None) => {
                return Err(Failure::Damaged(
                    "the server ended the watch before the export's end".to_owned(),
                ));
            }
            Err(status)
                if status.code() == tonic::Code::Unavailable && reconnects < RECONNECTS_MAX => {}
            Err(status) => return Err(status.into()),
        }
        reconnects += 1;
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

async fn watch_once(
    client: &mut Client,
    export_id: &str,
    display: &Display,
    reconnects: &mut u32,
) -> Result<Option<pb::Export>, tonic::Status> {
    let request = pb::WatchExportRequest {
        export_id: export_id.to_owned(),
        interval: None,
    };
    let mut events = client.watch_export(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        let Some(export) = event.export else { continue };
        *reconnects = 0;
        display.show(&export);
        if is_terminal(&export) {
            return Ok(Some(export));
        }
    }
    Ok(None)
}
