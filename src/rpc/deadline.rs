//! `grpc-timeout`, for all methods: read once, told to the handlers, and answered in time.
//!
//! tonic answers a call that is late with CANCELLED and without a reason; [`InTime`] comes first.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use tonic::{Request, codegen::http};
use tower::Service;

use super::status::from_failure;
use crate::service::{Deadline, deadline_exceeded};

/// Of a call that came through [`InTime`].
pub fn deadline<T>(request: &Request<T>) -> Option<Deadline> {
    request.extensions().get().copied()
}

/// Gives each request its [`Deadline`], and DEADLINE_EXCEEDED where no answer comes before it.
#[derive(Clone, Debug)]
pub struct InTime<S>(pub S);

impl<S, Body, Answer> Service<http::Request<Body>> for InTime<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Answer>>,
    S::Future: Send + 'static,
    Answer: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let timeout = request.headers().get("grpc-timeout");
        let timeout = timeout.and_then(|text| read(text.to_str().ok()?));
        let Some(timeout) = timeout else {
            return Box::pin(self.0.call(request));
        };
        let deadline = Deadline::after(timeout);
        request.extensions_mut().insert(deadline);
        let answer = self.0.call(request);
        Box::pin(async move {
            match tokio::time::timeout_at(deadline.answer_by(), answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(from_failure(deadline_exceeded()).into_http()),
            }
        })
    }
}

/// Up to eight digits and a unit. What is malformed is ignored, as tonic does.
fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_deadlines_that_clients_send() {
        assert_eq!(read("10S"), Some(Duration::from_secs(10)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        for odd in ["", "S", "10", "-1S", "123456789S", "1é"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
