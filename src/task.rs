//! The only place that starts tasks and threads: each has a name, and a panic in it is an error of its owner, not a
//! silence.

use std::{future::Future, io, panic::AssertUnwindSafe, thread};

use tokio::{sync::oneshot, task::JoinHandle};
use tracing::Instrument;

/// Starts a task that outlives the caller. Its owner keeps the handle, or has given it a cancellation token.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this is the wrapper")]
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}

/// What a thread came to: its value, or the text of its panic.
pub type Joined<T> = Result<T, Panicked>;

#[derive(Debug, thiserror::Error)]
#[error("the thread {name} panicked: {text}")]
pub struct Panicked {
    name: String,
    text: String,
}

/// Runs CPU-heavy or blocking work on a thread of its own. The receiver hears of its end; dropping the receiver
/// doesn't stop it.
///
/// # Errors
/// The system has no thread left.
pub fn spawn_thread<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<Joined<T>>> {
    let (sender, receiver) = oneshot::channel();
    let span = tracing::Span::current();
    let thread_name = name.clone();
    thread::Builder::new().name(name).spawn(move || {
        let _entered = span.enter();
        let result = std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked {
            name: thread_name,
            text: panic_text(payload.as_ref()),
        });
        // The owner may have gone: then nobody waits for the value.
        let _ = sender.send(result);
    })?;
    Ok(receiver)
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}
