//! Where peers are: the URLs of §3.6.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A transport that carries FLUXAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP: `tcp://host:port`.
    Tcp,
    /// A Unix domain socket: `unix:///path`.
    Unix,
}

/// The address of a peer, parsed from a URL (§3.6).
///
/// ```
/// use fluxar_runtime::Address;
///
/// let address: Address = "tcp://[::1]:9000".parse()?;
/// assert_eq!(address.to_string(), "tcp://[::1]:9000");
/// let address: Address = "localhost:9000".parse()?;
/// assert_eq!(address.to_string(), "tcp://localhost:9000");
/// let address: Address = "unix:///run/app.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:///run/app.sock");
/// assert!("http://localhost:80".parse::<Address>().is_err());
/// # Ok::<(), fluxar_runtime::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `tcp://host:port`; a port of 0 lets the system choose, when listening.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address in brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:///path`.
    Unix {
        /// The path of the socket.
        path: PathBuf,
    },
}

impl Address {
    /// The transport that it names.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Tcp { .. } => Transport::Tcp,
            Self::Unix { .. } => Transport::Unix,
        }
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = |why| Err(AddressError { text: text.to_owned(), why });
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "tcp" => {
                let Some((host, port)) = rest.trim_end_matches('/').rsplit_once(':') else {
                    return fail("the port is missing");
                };
                let bracketed = host.starts_with('[') && host.ends_with(']');
                if host.is_empty() || (host.contains(':') && !bracketed) {
                    return fail("no host, or an IPv6 address without brackets");
                }
                match port.parse() {
                    Ok(port) => Ok(Self::Tcp { host: host.to_owned(), port }),
                    Err(_) => fail("the port is not a number below 65536"),
                }
            }
            "unix" if rest.starts_with('/') => Ok(Self::Unix { path: rest.into() }),
            "unix" => fail("the path must be absolute, as in unix:///run/app.sock"),
            "tls" | "ws" | "wss" | "quic" => {
                fail("this transport is not built in yet; use tcp:// or unix://")
            }
            _ => fail("unknown scheme; use tcp:// or unix://"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad address `{}`: {}", self.text, self.why)
    }
}

impl std::error::Error for AddressError {}
