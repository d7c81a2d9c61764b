//! What a client does when it has lost its link, by why it has.

use std::time::Duration;

use fluxar_proto::{Code, ConnectionError, Error};

/// What comes after a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another attempt; there, no sooner than after this time.
    Again(Option<Duration>),
    /// Nothing: it would be the same everywhere.
    Stop,
}

/// What to do about it.
pub(crate) fn verdict(why: &ConnectionError) -> Verdict {
    match why {
        ConnectionError::Refused(error) => refused(error),
        ConnectionError::ClosedByPeer(error) => Verdict::Again(error.as_ref().and_then(retry_after)),
        _ => Verdict::Again(None),
    }
}

/// A refusal may be for now (§6.8); who is not let in, or speaks another language, is so the next time too.
fn refused(error: &Error) -> Verdict {
    match error.code {
        Code::RESOURCE_EXHAUSTED
        | Code::DRAINING
        | Code::UNAVAILABLE
        | Code::SESSION_UNKNOWN
        | Code::DEADLINE_EXCEEDED => Verdict::Again(retry_after(error)),
        _ => Verdict::Stop,
    }
}

/// How long the server wants to be left alone.
fn retry_after(error: &Error) -> Option<Duration> {
    error.retry_after_ms.map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: §6.8, §9.9
    #[test]
    fn who_is_refused_for_now_comes_again_when_he_is_told() {
        let full = Error::resource_exhausted("full house").with_retry_after_ms(1500);
        let expected = Verdict::Again(Some(Duration::from_millis(1500)));
        assert_eq!(verdict(&ConnectionError::Refused(full.clone())), expected);
        assert_eq!(verdict(&ConnectionError::ClosedByPeer(Some(full))), expected);
        for code in [Code::UNAVAILABLE, Code::DRAINING, Code::SESSION_UNKNOWN, Code::DEADLINE_EXCEEDED] {
            let refused = ConnectionError::Refused(Error::new(code, "not now"));
            assert_eq!(verdict(&refused), Verdict::Again(None), "{code:?}");
        }
    }

    // spec: §6.8
    #[test]
    fn who_is_refused_for_good_stops() {
        let codes = [
            Code::UNAUTHENTICATED,
            Code::PERMISSION_DENIED,
            Code::UNSUPPORTED_VERSION,
            Code::NO_COMMON_SUITE,
            Code(1234),
        ];
        for code in codes {
            let refused = ConnectionError::Refused(Error::new(code, "never"));
            assert_eq!(verdict(&refused), Verdict::Stop, "{code:?}");
        }
    }

    // spec: §8.8
    #[test]
    fn a_link_that_is_lost_is_replaced() {
        for why in [ConnectionError::LinkLost { unread: 3 }, ConnectionError::Transport("reset".into())] {
            assert_eq!(verdict(&why), Verdict::Again(None));
        }
    }
}
