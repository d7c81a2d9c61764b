//! The conformance peer: calls, streams and topics by which another implementation can test itself (§21). It uses nothing but
//! the public API.

mod calls;
mod streams;
mod topics;

use fluxar::{Error, FromPayload, Raw, Server};

use crate::notation::map_entries;

/// Deliveries of which a connection remembers what became of them.
pub(crate) const DELIVERY_JOURNAL: usize = topics::REMEMBERED;

/// Registers everything.
pub(crate) fn register(server: &Server) {
    calls::register(server);
    streams::register(server);
    topics::register(server);
}

/// The arguments of a call or a stream: a map with text keys, of whatever length and with whatever else in it.
struct Arguments(Vec<(Raw, Raw)>);

impl Arguments {
    fn of(payload: &Raw) -> Result<Self, Error> {
        let entries = map_entries(payload.as_bytes()).ok_or_else(|| invalid("the payload is no map"))?;
        let raw = |bytes: &[u8]| Raw::new(bytes.to_vec()).map_err(|error| invalid(&error.to_string()));
        let entries = entries.iter().map(|(key, value)| Ok((raw(key)?, raw(value)?)));
        entries.collect::<Result<_, Error>>().map(Self)
    }

    fn get<T: FromPayload>(&self, key: &str) -> Result<Option<T>, Error> {
        let found = self.0.iter().find(|(name, _)| name.decode::<String>().is_ok_and(|name| name == key));
        let value = found.map(|(_, value)| value.decode::<T>()).transpose();
        value.map_err(|_| invalid(&format!("`{key}` is not what it should be")))
    }

    fn require<T: FromPayload>(&self, key: &str) -> Result<T, Error> {
        self.get(key)?.ok_or_else(|| invalid(&format!("`{key}` is missing")))
    }
}

fn invalid(message: &str) -> Error {
    Error::invalid_argument(message).with_processed(false)
}
