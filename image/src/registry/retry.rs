//! When and how often what failed is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use super::error::RegistryError;

/// The longest wait that a registry is granted by `Retry-After`.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often something is tried, and how long is waited between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often after the first time.
    pub retries: u32,
    /// The first wait; each one after it is twice as long, within a random half.
    pub delay: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: 5, delay: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    /// Counts a failure and waits; the failure itself if there is no use in trying again.
    pub(super) fn pause(&self, failures: &mut u32, error: RegistryError) -> Result<(), RegistryError> {
        if !error.is_transient() || *failures >= self.retries {
            return Err(error);
        }
        let delay = match error.retry_after() {
            Some(asked) if asked > PATIENCE => return Err(error),
            Some(asked) => asked.max(self.backoff(*failures)),
            None => self.backoff(*failures),
        };
        *failures += 1;
        tracing::warn!("{error}; trying again in {:.1} s ({failures} of {})", delay.as_secs_f32(), self.retries);
        std::thread::sleep(delay);
        Ok(())
    }

    /// Between half and all of the delay for this failure: many clients that fail together do not come back together.
    fn backoff(&self, failures: u32) -> Duration {
        let full = self.delay.saturating_mul(1 << failures.min(16)).min(self.longest);
        let random = RandomState::new().hash_one(failures) % 1024;
        full / 2 + (full / 2 * u32::try_from(random).unwrap_or(0)) / 1024
    }
}

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::StatusCode;

    fn status(code: u16, retry_after: Option<Duration>) -> RegistryError {
        RegistryError::Status {
            method: "GET",
            url: "http://h.example/".to_owned(),
            status: StatusCode::from_u16(code).unwrap(),
            detail: String::new(),
            retry_after,
        }
    }

    const QUICK: Retry = Retry { retries: 3, delay: Duration::from_millis(1), longest: Duration::from_millis(2) };

    #[test]
    fn what_may_pass_is_tried_again() {
        let tries = |code, after| {
            let (mut failures, mut tries) = (0, 1);
            while QUICK.pause(&mut failures, status(code, after)).is_ok() {
                tries += 1;
            }
            tries
        };
        for code in [408, 429, 500, 502, 503, 504] {
            assert_eq!(tries(code, None), 4, "{code}");
        }
        for code in [400, 401, 403, 404, 416, 501] {
            assert_eq!(tries(code, None), 1, "{code}");
        }
        assert_eq!(tries(429, Some(PATIENCE * 2)), 1, "nobody waits that long");
    }

    #[test]
    fn the_wait_that_is_asked_for_is_kept() {
        let start = std::time::Instant::now();
        let mut failures = 0;
        QUICK.pause(&mut failures, status(429, Some(Duration::from_millis(50)))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(50));
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |text| retry_after(text, now);
        assert_eq!(read(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn waits_grow_and_differ() {
        let retry = Retry { retries: 9, delay: Duration::from_secs(1), longest: Duration::from_secs(30) };
        for failures in 0..60 {
            let full = Duration::from_secs(1_u64 << failures.min(10)).min(Duration::from_secs(30));
            let wait = retry.backoff(failures);
            assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
        }
        assert!((0..20).any(|_| retry.backoff(3) != retry.backoff(3)));
    }
}
