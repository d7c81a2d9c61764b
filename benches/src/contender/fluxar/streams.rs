//! Streams of byte strings. Each item is serialized from a slice by the sender and decoded into memory of its own by the
//! receiver, as with every contender above the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ::fluxar::{Client, Server, Stream, StreamRequest};
use serde_bytes::{ByteBuf, Bytes};
use tokio::task::JoinHandle;

use crate::Error;
use crate::load::{Load, Measured, check, payload};
use crate::meter::Meter;

/// The server sends copies of the opening's payload.
const DOWNLOAD: &str = "bench.download";

/// The client sends copies of the opening's payload, and is told how many came.
const UPLOAD: &str = "bench.upload";

pub(super) fn handle(server: &Server) {
    server.handle_stream(DOWNLOAD, |mut request: StreamRequest| async move {
        let item: ByteBuf = request.payload()?;
        // Until the client has had enough: that ends this future.
        loop {
            request.feed(Bytes::new(&item)).await?;
        }
        #[expect(unreachable_code, reason = "says what the handler's result would be")]
        Ok(())
    });
    server.handle_stream(UPLOAD, |mut request: StreamRequest| async move {
        let expected: ByteBuf = request.payload()?;
        let mut items = 0u64;
        while let Some(item) = request.next::<ByteBuf>().await {
            check(&expected, &item?).map_err(|error| ::fluxar::Error::invalid_argument(error.to_string()))?;
            items += 1;
        }
        Ok(items)
    });
}

pub(super) async fn download(client: &Client, load: Load) -> Result<Measured, Error> {
    let item = payload(load.payload);
    let mut items: Stream<ByteBuf> = client.stream(DOWNLOAD, Bytes::new(&item)).await?;
    let mut meter = Meter::new(&load);
    while let Some(received) = items.next().await {
        check(&item, &received?)?;
        if let Some(rate) = meter.count(1) {
            return Ok(Measured::rate(rate));
        }
    }
    Err("the server stopped sending".into())
}

pub(super) async fn upload(client: &Client, load: Load) -> Result<Measured, Error> {
    let item = payload(load.payload);
    let mut items: Stream<()> = client.stream(UPLOAD, Bytes::new(&item)).await?;
    let mut meter = Meter::new(&load);
    let rate = loop {
        items.feed(Bytes::new(&item)).await?;
        if let Some(rate) = meter.count(1) {
            break rate;
        }
    };
    let received: u64 = items.finish().await?;
    if received == meter.items() { Ok(Measured::rate(rate)) } else { Err("items are missing".into()) }
}

/// Receives in a task of its own, and counts.
pub(super) async fn drain(
    client: &Client,
    load: Load,
    count: Arc<AtomicU64>,
) -> Result<JoinHandle<Error>, Error> {
    let item = payload(load.payload);
    let mut items: Stream<ByteBuf> = client.stream(DOWNLOAD, Bytes::new(&item)).await?;
    Ok(tokio::spawn(async move {
        while let Some(received) = items.next().await {
            if let Err(error) = received.map_err(Into::into).and_then(|received| check(&item, &received)) {
                return error;
            }
            count.fetch_add(1, Relaxed);
        }
        "the server stopped sending".into()
    }))
}
