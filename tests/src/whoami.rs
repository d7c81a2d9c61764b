//! A server that says as whom it knows its callers.

use fluxar::{Client, Request, ServerBuilder};

/// Name and scheme of an identity.
pub type Known = Option<(String, String)>;

/// Answers `whoami`: says who calls.
pub fn whoami(builder: ServerBuilder) -> ServerBuilder {
    builder.handle("whoami", |request: Request| async move {
        let identity = request.identity();
        Ok(identity.map(|identity| (identity.name().to_owned(), identity.scheme().to_owned())))
    })
}

/// As whom the other side knows a client.
///
/// # Panics
///
/// Where it does not say.
pub async fn name_of(client: &Client) -> Known {
    client.call("whoami", &()).await.expect("an answer")
}

/// Somebody of this name, known by this scheme.
pub fn known(name: &str, scheme: &str) -> Known {
    Some((name.into(), scheme.into()))
}
