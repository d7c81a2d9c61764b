//! Error codes (§16), and the error of a message: borrowed from its bytes, or owned.

use core::fmt;

use super::Item;

/// What went wrong, as a number that every implementation knows.
///
/// 1 to 16 are the canonical codes, 100 to 109 those of the protocol itself, 1000 and above belong to
/// applications. 0 is not a code; it is sent as [`Code::UNKNOWN`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $constant:ident = $code:literal $name:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $constant: Self = Self($code);)*

            /// Every code that has a name, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];

            /// The name in the specification; `application` from 1000 on, `unassigned` for the rest.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $name,)*
                    Self::FIRST_APPLICATION.. => "application",
                    _ => "unassigned",
                }
            }
        }
    };
}

codes! {
    /// The operation was cancelled, typically by its caller.
    CANCELLED = 1 "cancelled";
    /// An error that carries no better code.
    UNKNOWN = 2 "unknown";
    /// The arguments are wrong whatever the state of the system.
    INVALID_ARGUMENT = 3 "invalid_argument";
    /// The time ran out before the operation finished.
    DEADLINE_EXCEEDED = 4 "deadline_exceeded";
    /// What was asked for does not exist.
    NOT_FOUND = 5 "not_found";
    /// What was to be created exists.
    ALREADY_EXISTS = 6 "already_exists";
    /// The caller is known and may not do this.
    PERMISSION_DENIED = 7 "permission_denied";
    /// A limit or a quota is exhausted.
    RESOURCE_EXHAUSTED = 8 "resource_exhausted";
    /// The system is not in the state that the operation needs.
    FAILED_PRECONDITION = 9 "failed_precondition";
    /// The operation was aborted, typically because it conflicted with another.
    ABORTED = 10 "aborted";
    /// The arguments lie outside the range that is valid now.
    OUT_OF_RANGE = 11 "out_of_range";
    /// The operation does not exist here.
    UNIMPLEMENTED = 12 "unimplemented";
    /// An invariant broke: a bug.
    INTERNAL = 13 "internal";
    /// The service cannot be reached at present.
    UNAVAILABLE = 14 "unavailable";
    /// Data was lost or damaged beyond recovery.
    DATA_LOSS = 15 "data_loss";
    /// The caller has not shown who it is.
    UNAUTHENTICATED = 16 "unauthenticated";
    /// Bytes that are no message.
    MALFORMED = 100 "malformed";
    /// A message that its sender had no right to send.
    PROTOCOL_VIOLATION = 101 "protocol_violation";
    /// No version of the protocol in common.
    UNSUPPORTED_VERSION = 102 "unsupported_version";
    /// A message longer than its receiver takes.
    MESSAGE_TOO_LARGE = 103 "message_too_large";
    /// More data than the receiver gave credit for.
    FLOW_CONTROL = 104 "flow_control";
    /// No cipher suite in common.
    NO_COMMON_SUITE = 105 "no_common_suite";
    /// A sealed frame that does not open.
    DECRYPT_FAILED = 106 "decrypt_failed";
    /// The session to resume is not known.
    SESSION_UNKNOWN = 107 "session_unknown";
    /// The other side has fallen silent.
    HEARTBEAT_TIMEOUT = 108 "heartbeat_timeout";
    /// The receiver takes no new work.
    DRAINING = 109 "draining";
}

impl Code {
    /// The first of the codes that belong to applications.
    pub const FIRST_APPLICATION: u32 = 1000;

    /// Whether `code` may stand on the wire: 0 < code < 2^32.
    pub(super) fn from_wire(code: u64) -> Option<Self> {
        u32::try_from(code).ok().filter(|&code| code != 0).map(Self)
    }

    /// What is sent for this code.
    pub(super) const fn to_wire(self) -> u32 {
        if self.0 == 0 { Self::UNKNOWN.0 } else { self.0 }
    }

    fn is_named(self) -> bool {
        Self::ALL.contains(&self)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

/// The error of a message, borrowed (§5.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRef<'a> {
    /// What went wrong.
    pub code: Code,
    /// For people.
    pub message: Option<&'a str>,
    /// For programs: anything the application adds.
    pub data: Option<Item<'a>>,
    /// When a retry may succeed, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// `Some(false)`: guaranteed not acted upon, so a retry is safe (§16.4). `Some(true)`: acted upon.
    /// `None`: not known.
    pub processed: Option<bool>,
}

impl ErrorRef<'_> {
    /// An error that says nothing but its code.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self { code, message: None, data: None, retry_after_ms: None, processed: None }
    }
}

impl fmt::Display for ErrorRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_named() {
            f.write_str(self.code.name())?
        } else {
            write!(f, "{}", self.code)?
        }
        match self.message {
            Some(message) if !message.is_empty() => write!(f, ": {message}"),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "alloc")]
pub use owned::Error;

#[cfg(feature = "alloc")]
mod owned {
    use alloc::string::String;
    use core::fmt;

    use bytes::Bytes;

    use super::{Code, ErrorRef, Item};
    use crate::message::DecodeError;

    /// The error of a call, a stream, a subscription or a connection.
    ///
    /// ```
    /// use fluxar_proto::message::Error;
    ///
    /// let error = Error::not_found("no such user").with_processed(false);
    /// assert_eq!(error.to_string(), "not_found: no such user");
    /// assert!(error.is_retry_safe());
    /// ```
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Error {
        /// What went wrong.
        pub code: Code,
        /// For people; may be empty.
        pub message: String,
        /// For programs: one CBOR item. Bytes that are not one are not sent.
        pub data: Option<Bytes>,
        /// When a retry may succeed, in milliseconds from now.
        pub retry_after_ms: Option<u64>,
        /// `Some(false)`: guaranteed not acted upon, so a retry is safe. `Some(true)`: acted upon. `None`:
        /// not known.
        pub processed: Option<bool>,
        origin: Origin,
    }

    /// Whether the error is the outcome of an operation that this side asked for. That makes no difference to what the
    /// error says.
    #[derive(Clone, Copy, Debug, Default)]
    struct Origin {
        outcome: bool,
    }

    impl PartialEq for Origin {
        fn eq(&self, _: &Self) -> bool {
            true
        }
    }

    impl Eq for Origin {}

    impl Error {
        /// An error with a code and a text for people.
        pub fn new(code: Code, message: impl Into<String>) -> Self {
            let origin = Origin::default();
            Self { code, message: message.into(), data: None, retry_after_ms: None, processed: None, origin }
        }

        /// Adds data for programs: one CBOR item.
        #[must_use]
        pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
            self.data = Some(data.into());
            self
        }

        /// Says when a retry may succeed, in milliseconds from now.
        #[must_use]
        pub fn with_retry_after_ms(mut self, retry_after_ms: u64) -> Self {
            self.retry_after_ms = Some(retry_after_ms);
            self
        }

        /// Says whether the operation was acted upon.
        #[must_use]
        pub fn with_processed(mut self, processed: bool) -> Self {
            self.processed = Some(processed);
            self.origin = Origin::default();
            self
        }

        /// Marks the outcome of an operation that this side asked for, as a runtime hands it to the application: what
        /// `processed` says is about that operation.
        #[must_use]
        pub fn into_outcome(mut self) -> Self {
            self.origin.outcome = true;
            self
        }

        /// The error as the outcome of a request in the course of which it came up: what it says of whether *another*
        /// operation was acted upon says nothing of this one.
        #[must_use]
        pub fn passed_on(mut self) -> Self {
            if self.origin.outcome {
                self.processed = None;
            }
            self
        }

        /// The same error without text and data: the smallest form that still says what matters to programs.
        #[must_use]
        pub(crate) fn without_details(self) -> Self {
            Self { message: String::new(), data: None, ..self }
        }

        /// Whether it is certain that nothing was acted upon, so that a retry cannot do it twice.
        #[must_use]
        pub fn is_retry_safe(&self) -> bool {
            self.processed == Some(false)
        }

        /// The same error, borrowed: what goes into an envelope.
        #[must_use]
        pub fn as_ref(&self) -> ErrorRef<'_> {
            ErrorRef {
                code: self.code,
                message: Some(self.message.as_str()).filter(|message| !message.is_empty()),
                // The field is open to everybody: what is no item would cost the peer the whole connection.
                data: self.data.as_deref().and_then(|data| Item::new(data).ok()),
                retry_after_ms: self.retry_after_ms,
                processed: self.processed,
            }
        }
    }

    macro_rules! constructors {
        ($($name:ident $constant:ident)*) => {
            impl Error {
                $(
                    #[doc = concat!("An error with [`Code::", stringify!($constant), "`].")]
                    pub fn $name(message: impl Into<String>) -> Self {
                        Self::new(Code::$constant, message)
                    }
                )*
            }
        };
    }

    constructors! {
        cancelled CANCELLED
        unknown UNKNOWN
        invalid_argument INVALID_ARGUMENT
        deadline_exceeded DEADLINE_EXCEEDED
        not_found NOT_FOUND
        already_exists ALREADY_EXISTS
        permission_denied PERMISSION_DENIED
        resource_exhausted RESOURCE_EXHAUSTED
        failed_precondition FAILED_PRECONDITION
        aborted ABORTED
        out_of_range OUT_OF_RANGE
        unimplemented UNIMPLEMENTED
        internal INTERNAL
        unavailable UNAVAILABLE
        data_loss DATA_LOSS
        unauthenticated UNAUTHENTICATED
        malformed MALFORMED
        protocol_violation PROTOCOL_VIOLATION
        unsupported_version UNSUPPORTED_VERSION
        message_too_large MESSAGE_TOO_LARGE
        flow_control FLOW_CONTROL
        no_common_suite NO_COMMON_SUITE
        decrypt_failed DECRYPT_FAILED
        session_unknown SESSION_UNKNOWN
        heartbeat_timeout HEARTBEAT_TIMEOUT
        draining DRAINING
    }

    impl fmt::Display for Error {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.as_ref().fmt(f)
        }
    }

    impl core::error::Error for Error {}

    impl From<ErrorRef<'_>> for Error {
        fn from(error: ErrorRef<'_>) -> Self {
            Self {
                code: error.code,
                message: error.message.unwrap_or_default().into(),
                data: error.data.map(|data| Bytes::copy_from_slice(data.as_bytes())),
                retry_after_ms: error.retry_after_ms,
                processed: error.processed,
                origin: Origin::default(),
            }
        }
    }

    impl From<DecodeError> for Error {
        fn from(error: DecodeError) -> Self {
            Self::malformed(alloc::format!("{error}"))
        }
    }
}
