//! The conformance peer: calls by which another implementation can test itself. It uses nothing but the public API.

use std::future::pending;
use std::time::Duration;

use fluxar::{Code, Error, FromPayload, HandlerError, Raw, Request, Server};

use crate::notation::map_entries;

/// Registers all calls.
pub(crate) fn register(server: &Server) {
    server.handle("test.echo", |request: Request| async move { Ok(request.raw()) });
    server.handle("test.meta", |request: Request| async move { Ok(request.raw_meta()?) });
    server.handle("test.whoami", |_| async { whoami() });
    server.handle("test.fail", fail);
    server.handle("test.sleep", sleep);
    server.handle("test.never", never);
    server.handle("test.cancelled", |request: Request| async move { Ok(request.peer().stats().cancelled) });
    server.handle("test.update", update);
    server.handle("test.callback", callback);
    server.handle("test.drop_link", drop_link);
}

/// As whom the caller is known. Nobody authenticates, and nothing is encrypted or resumed.
fn whoami() -> Result<Raw, HandlerError> {
    let nobody = "{\"scheme\": null, \"identity\": null, \"encrypted\": false, \"resumed\": false}";
    Ok(Raw::new(crate::notation::parse(nobody)?)?)
}

async fn fail(request: Request) -> Result<(), HandlerError> {
    let arguments = Arguments::of(&request)?;
    let code = u32::try_from(arguments.require::<u64>("code")?).ok().filter(|code| *code > 0);
    let code = code.ok_or_else(|| invalid("`code` is not between 1 and 2^32 - 1"))?;
    let mut error = Error::new(Code(code), arguments.get::<String>("message")?.unwrap_or_default());
    error.data = arguments.get::<Raw>("data")?.map(Raw::into_bytes);
    Err(error.into())
}

async fn sleep(request: Request) -> Result<(), HandlerError> {
    let ms = Arguments::of(&request)?.require("ms")?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(())
}

/// Answers never. The runtime drops this when nobody waits any more.
async fn never(request: Request) -> Result<(), HandlerError> {
    let _held = request;
    pending().await
}

async fn update(request: Request) -> Result<u64, HandlerError> {
    let n = Arguments::of(&request)?.require("n")?;
    for i in 0..n {
        request.update(&i).await?;
    }
    Ok(n)
}

async fn callback(request: Request) -> Result<Raw, HandlerError> {
    let arguments = Arguments::of(&request)?;
    let (method, payload) = (arguments.require::<String>("method")?, arguments.get::<Raw>("payload")?);
    let peer = request.peer();
    let mut call = peer.call::<Raw>(&method, &payload.unwrap_or_default());
    if let Some(remaining) = request.remaining() {
        call = call.timeout(remaining);
    }
    Ok(call.await?)
}

async fn drop_link(request: Request) -> Result<(), HandlerError> {
    tokio::spawn(async move {
        // No update will come any more: the answer is on its way.
        while request.next_update::<Raw>().await.is_some() {}
        request.peer().hang_up();
    });
    Ok(())
}

/// The arguments of a call: a map with text keys, of whatever length and with whatever else in it.
struct Arguments(Vec<(Raw, Raw)>);

impl Arguments {
    fn of(request: &Request) -> Result<Self, Error> {
        let entries =
            map_entries(request.raw().as_bytes()).ok_or_else(|| invalid("the payload is no map"))?;
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
