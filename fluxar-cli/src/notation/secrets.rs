//! Which values in a message are nobody's business: tokens, passwords, keys, proofs and session secrets (§6.11, §6.12,
//! §9.1, §9.5).

/// Where they are to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// In the payload of a hello.
    OfHello,
    /// In a structure `auth`: all but what says who and how.
    OfAuth,
    /// Anywhere, in what cannot be read as a message.
    Anywhere,
}

/// What is to become of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// It is printed.
    None,
    /// It is a structure `auth`.
    Auth,
    /// Its length is printed.
    Secret,
}

/// Keys of hellos and control messages whose values are no secrets, or have keys of their own.
const HARMLESS: [&str; 22] = [
    "versions",
    "version",
    "agent",
    "caps",
    "limits",
    "compress",
    "encrypt",
    "features",
    "psk",
    "id",
    "nonce",
    "resume",
    "resumed",
    "session",
    "handled",
    "next",
    "resume_ms",
    "auth_expires_ms",
    "scheme",
    "username",
    "name",
    "deadline_ms",
];

/// Words without which bytes hold no secret.
const SIGNS: [&[u8]; 5] = [b"auth", b"psk", b"secret", b"proof", b"scheme"];

impl Secrets {
    /// What is to become of the value of a key, which is given as it is printed.
    pub(super) fn of(self, key: &str) -> Secrecy {
        let is = |names: &[&str]| {
            let key = key.strip_prefix('"').unwrap_or_default();
            names.iter().any(|name| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('"')))
        };
        match self {
            Self::OfAuth if is(&["scheme", "username", "name"]) => Secrecy::None,
            Self::OfAuth => Secrecy::Secret,
            _ if is(&["auth"]) => Secrecy::Auth,
            Self::OfHello if is(&["token", "password", "secret", "proof"]) => Secrecy::Secret,
            Self::Anywhere if !is(&HARMLESS) => Secrecy::Secret,
            _ => Secrecy::None,
        }
    }
}

/// Whether there may be secrets in bytes that are no message: in a hello, or a `control`.
pub(crate) fn may_hold_secrets(bytes: &[u8]) -> bool {
    let is_other = matches!(bytes, [0x87, 2..=6, ..]);
    !is_other && SIGNS.iter().any(|sign| bytes.windows(sign.len()).any(|window| window == *sign))
}
