//! First come, first served: waiting in line for a lock.
//!
//! A waiter sends one command to stand in line, and one when it is woken, which confirms that it is there; in between
//! it costs nothing but its entry. Its process says for all its waiters that they live, and looks after locks whose
//! holder died ([`super::keeper`]). The one that gives the lock back hands it to the first in line whose process lives;
//! a lock that was handed over and not confirmed is handed on.

use super::{
    Result,
    keeper::Seat,
    lock::{Attempt, Backoff, Guard, Order, Patience, Taken},
};

/// Waits until the lock is had, or the patience is over.
pub(super) async fn wait_in_line(mut attempt: Attempt, patience: Patience) -> Result<Guard> {
    // Before the first command: a wake may come before its reply.
    let seat = Seat::take(attempt.handle.keeper.clone(), &attempt.name, &attempt.token);
    let options = attempt.handle.keeper.options;
    let mut backoff = Backoff::new(options.backoff_min, options.backoff_max);
    let mut place = None;
    loop {
        let last = match attempt.take(Order::InLine(place)).await {
            Ok(Taken::Guard(guard)) => return Ok(guard),
            Ok(Taken::Not(found)) => {
                place = found.or(place);
                seat.stands_at(place);
                if patience.bound(seat.woken()).await.is_some() {
                    continue;
                }
                attempt.is_taken()
            }
            Err(error) if error.retryable() => {
                if patience
                    .bound(tokio::time::sleep(backoff.next()))
                    .await
                    .is_some()
                {
                    continue;
                }
                error
            }
            Err(error) => error,
        };
        return Err(last);
    }
}
