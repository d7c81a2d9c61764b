//! The calls of the conformance peer.

use std::future::{Future, pending};
use std::time::Duration;

use fluxar::{Code, Drain, Error, HandlerError, Peer, Raw, Request, Server};

use tokio::time::timeout;

use super::{Arguments, invalid};
use crate::notation::{parse, quoted};

/// How long a peer has for a sign of life, before its link is dropped all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// Registers all calls.
pub(super) fn register(server: &Server) {
    server.handle("test.echo", |request: Request| async move { Ok(request.raw()) });
    server.handle("test.meta", |request: Request| async move { Ok(request.raw_meta()?) });
    server.handle("test.whoami", |request: Request| async move { whoami(&request.peer()) });
    server.handle("test.fail", fail);
    server.handle("test.sleep", sleep);
    server.handle("test.never", never);
    server.handle("test.cancelled", cancelled);
    server.handle("test.update", update);
    server.handle("test.callback", callback);
    server.handle("test.drop_link", drop_link);
    server.handle("test.drain", drain);
}

/// As whom the caller is known. Nothing is encrypted.
fn whoami(peer: &Peer) -> Result<Raw, HandlerError> {
    let identity = peer.identity();
    let text = |text: Option<&str>| text.map_or_else(|| "null".into(), quoted);
    let scheme = text(identity.as_ref().map(|identity| identity.scheme()));
    let name = text(identity.as_ref().map(|identity| identity.name()));
    let resumed = peer.stats().resumed > 0;
    let map = format!(
        "{{\"scheme\": {scheme}, \"identity\": {name}, \"encrypted\": false, \"resumed\": {resumed}}}"
    );
    Ok(Raw::new(parse(&map)?)?)
}

async fn fail(request: Request) -> Result<(), HandlerError> {
    let arguments = Arguments::of(&request.raw())?;
    let code = u32::try_from(arguments.require::<u64>("code")?).ok().filter(|code| *code > 0);
    let code = code.ok_or_else(|| invalid("`code` is not between 1 and 2^32 - 1"))?;
    let mut error = Error::new(Code(code), arguments.get::<String>("message")?.unwrap_or_default());
    error.data = arguments.get::<Raw>("data")?.map(Raw::into_bytes);
    Err(error.into())
}

async fn sleep(request: Request) -> Result<(), HandlerError> {
    let ms = Arguments::of(&request.raw())?.require("ms")?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(())
}

/// Answers never. The runtime drops this when nobody waits any more.
async fn never(request: Request) -> Result<(), HandlerError> {
    let _held = request;
    pending().await
}

/// How many of the caller's calls and streams it has cancelled.
async fn cancelled(request: Request) -> Result<u64, HandlerError> {
    let stats = request.peer().stats();
    Ok(stats.cancelled + stats.streams_cancelled)
}

async fn update(request: Request) -> Result<u64, HandlerError> {
    let n = Arguments::of(&request.raw())?.require("n")?;
    for i in 0..n {
        request.update(&i).await?;
    }
    Ok(n)
}

async fn callback(request: Request) -> Result<Raw, HandlerError> {
    let arguments = Arguments::of(&request.raw())?;
    let (method, payload) = (arguments.require::<String>("method")?, arguments.get::<Raw>("payload")?);
    let peer = request.peer();
    let mut call = peer.call::<Raw>(&method, &payload.unwrap_or_default());
    if let Some(remaining) = request.remaining() {
        call = call.timeout(remaining);
    }
    Ok(call.await?)
}

async fn drop_link(request: Request) -> Result<(), HandlerError> {
    let goes_on = request.peer().info().is_some_and(|info| info.features.iter().any(|name| name == "resume"));
    after_the_answer(request, move |peer| async move {
        if goes_on {
            // Whoever answers this has been sent the answer.
            timeout(PATIENCE, peer.ping()).await.map(drop).unwrap_or_default();
            peer.drop_link();
        } else {
            peer.hang_up();
        }
    });
    Ok(())
}

async fn drain(request: Request) -> Result<(), HandlerError> {
    let deadline = Arguments::of(&request.raw())?.get("deadline_ms")?.map(Duration::from_millis);
    let drain = Drain::new();
    let drain = deadline.map_or(drain.clone(), |deadline| drain.with_deadline(deadline));
    after_the_answer(request, |peer| async move { peer.drain(drain) });
    Ok(())
}

/// Does something to the connection once the answer to `request` is on its way.
fn after_the_answer<F>(request: Request, act: impl FnOnce(Peer) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        // Then no update comes any more.
        while request.next_update::<Raw>().await.is_some() {}
        act(request.peer()).await;
    });
}
