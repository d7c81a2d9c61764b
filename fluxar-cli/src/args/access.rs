//! Who comes, and what becomes of a link that is lost.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use clap::Args;

/// What every command has that connects.
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    /// Another URL of the same service; may be repeated
    #[arg(long = "url", value_name = "URL")]
    pub(crate) others: Vec<String>,

    /// bearer=TOKEN, api-key=KEY or credentials=USER:PASSWORD; behind the `=` may be @FILE or env:NAME
    #[arg(long, value_name = "SCHEME=SECRET")]
    pub(crate) auth: Option<Hidden>,

    /// A pre-shared key that the peer has to hold too, in hex or as @FILE or env:NAME
    #[arg(long, value_name = "ID=HEX")]
    pub(crate) psk: Option<Hidden>,

    /// Send credentials also where others on the network can read them
    #[arg(long)]
    pub(crate) allow_plaintext_auth: bool,
}

/// What a command has that may go on over another link.
#[derive(Debug, Args)]
pub(crate) struct ReconnectArgs {
    /// End where the connection is lost; otherwise the command connects again, and goes on
    #[arg(long)]
    pub(crate) no_reconnect: bool,
}

/// Who may come to a server.
#[derive(Debug, Args)]
pub(crate) struct DoorArgs {
    /// Let in only bearer=TOKEN:IDENTITY, api-key=KEY:IDENTITY, credentials=USER:PASSWORD; may be repeated
    #[arg(long, value_name = "SCHEME=...")]
    pub(crate) auth: Vec<Hidden>,

    /// Ask for this pre-shared key, in hex or as @FILE or env:NAME; may be repeated, and one is enough
    #[arg(long, value_name = "ID=HEX")]
    pub(crate) psk: Vec<Hidden>,
}

/// An argument that holds a secret, which no message about it shows.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl FromStr for Hidden {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}
