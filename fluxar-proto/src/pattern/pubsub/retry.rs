//! Whether a message that was not accepted is sent again, and when.

use core::time::Duration;

use crate::message::{Code, Error};

/// The wait before the first repetition, where the receiver names none; it doubles with each attempt.
const BACKOFF: Duration = Duration::from_millis(100);

/// How long to wait before a message is sent again that was refused with `error` at its `attempt`, which counts from 1; `None`
/// where a repetition has no chance (§12.8). It is as long as the receiver says; otherwise it grows with each attempt, up
/// to `most`. Up to a quarter of that comes to it, as `random` says, so that what was refused together does not come again
/// together.
///
/// ```
/// use core::time::Duration;
/// use fluxar_proto::{Error, retry_wait};
///
/// let most = Duration::from_secs(30);
/// assert_eq!(retry_wait(&Error::unavailable("not now"), 3, 0, most), Some(Duration::from_millis(400)));
/// assert_eq!(retry_wait(&Error::not_found("no such order"), 1, 0, most), None);
/// ```
pub fn retry_wait(error: &Error, attempt: u32, random: u8, most: Duration) -> Option<Duration> {
    let pointless = matches!(
        error.code,
        Code::MESSAGE_TOO_LARGE
            | Code::UNIMPLEMENTED
            | Code::INVALID_ARGUMENT
            | Code::PERMISSION_DENIED
            | Code::NOT_FOUND
            | Code::ALREADY_EXISTS
            | Code::OUT_OF_RANGE
            | Code::DRAINING
    );
    if pointless {
        return None;
    }
    Some(match error.retry_after_ms {
        Some(ms) => Duration::from_millis(ms),
        None => {
            let wait = BACKOFF.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(most);
            wait + wait / 4 * u32::from(random) / 256
        }
    })
}
