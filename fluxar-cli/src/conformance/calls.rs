//! The calls of the conformance peer.

use std::future::pending;
use std::time::Duration;

use fluxar::{Code, Drain, Error, HandlerError, Peer, Raw, Request, Server};

use super::{Arguments, invalid};

/// Registers all calls.
pub(super) fn register(server: &Server) {
    server.handle("test.echo", |request: Request| async move { Ok(request.raw()) });
    server.handle("test.meta", |request: Request| async move { Ok(request.raw_meta()?) });
    server.handle("test.whoami", |_| async { whoami() });
    server.handle("test.fail", fail);
    server.handle("test.sleep", sleep);
    server.handle("test.never", never);
    server.handle("test.cancelled", cancelled);
    server.handle("test.update", update);
    server.handle("test.callback", callback);
    server.handle("test.drop_link", drop_link);
    server.handle("test.drain", drain);
}

/// As whom the caller is known. Nobody authenticates, and nothing is encrypted or resumed.
fn whoami() -> Result<Raw, HandlerError> {
    let nobody = "{\"scheme\": null, \"identity\": null, \"encrypted\": false, \"resumed\": false}";
    Ok(Raw::new(crate::notation::parse(nobody)?)?)
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
    after_the_answer(request, |peer| peer.hang_up());
    Ok(())
}

async fn drain(request: Request) -> Result<(), HandlerError> {
    let deadline = Arguments::of(&request.raw())?.get("deadline_ms")?.map(Duration::from_millis);
    let drain = Drain::new();
    let drain = deadline.map_or(drain.clone(), |deadline| drain.with_deadline(deadline));
    after_the_answer(request, |peer| peer.drain(drain));
    Ok(())
}

/// Does something to the connection once the answer to `request` is on its way.
fn after_the_answer(request: Request, act: impl FnOnce(Peer) + Send + 'static) {
    tokio::spawn(async move {
        // Then no update comes any more.
        while request.next_update::<Raw>().await.is_some() {}
        act(request.peer());
    });
}
