//! Server streaming and client streaming. Each item is copied from a slice into the message that the sender encodes, and
//! decoded into memory of its own by the receiver, as with every contender above the socket.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::server::{ClientStreamingService, ServerStreamingService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Bytes, DOWNLOAD, UPLOAD};
use crate::Error;
use crate::load::{Load, Measured, check, payload};
use crate::meter::Meter;

/// How many items came.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Count {
    #[prost(uint64, tag = "1")]
    items: u64,
}

/// The server sends copies of what was asked with.
pub(super) struct Download;

/// Copies of an item, for ever.
pub(super) struct Copies(Vec<u8>);

impl Stream for Copies {
    type Item = Result<Bytes, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Ok(Bytes { payload: self.0.clone() })))
    }
}

impl ServerStreamingService<Bytes> for Download {
    type Response = Bytes;
    type ResponseStream = Copies;
    type Future = Ready<Result<Response<Copies>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(Copies(request.into_inner().payload))))
    }
}

/// The client sends copies of its first item, and is told how many came.
pub(super) struct Upload;

impl ClientStreamingService<Bytes> for Upload {
    type Response = Count;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Count>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let mut received = request.into_inner();
            let mut items = 0;
            let mut first = None;
            while let Some(Bytes { payload }) = received.message().await? {
                let first = first.get_or_insert_with(|| payload.clone());
                check(first, &payload).map_err(|error| Status::invalid_argument(error.to_string()))?;
                items += 1;
            }
            Ok(Response::new(Count { items }))
        })
    }
}

pub(super) async fn download(channel: Channel, load: Load) -> Result<Measured, Error> {
    let item = payload(load.payload);
    let mut items = open_download(channel, &item).await?;
    let mut meter = Meter::new(&load);
    while let Some(received) = items.message().await? {
        check(&item, &received.payload)?;
        if let Some(rate) = meter.count(1) {
            return Ok(Measured::rate(rate));
        }
    }
    Err("the server stopped sending".into())
}

/// Receives in a task of its own, and counts.
pub(super) async fn drain(
    channel: Channel,
    load: Load,
    count: Arc<AtomicU64>,
) -> Result<JoinHandle<Error>, Error> {
    let item = payload(load.payload);
    let mut items = open_download(channel, &item).await?;
    Ok(tokio::spawn(async move {
        loop {
            match items.message().await {
                Ok(Some(received)) => match check(&item, &received.payload) {
                    Ok(()) => count.fetch_add(1, Relaxed),
                    Err(error) => return error,
                },
                Ok(None) => return "the server stopped sending".into(),
                Err(status) => return status.into(),
            };
        }
    }))
}

async fn open_download(channel: Channel, item: &[u8]) -> Result<Streaming<Bytes>, Error> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let request = Request::new(Bytes { payload: item.to_vec() });
    let codec = ProstCodec::<Bytes, Bytes>::default();
    let response = grpc.server_streaming(request, PathAndQuery::from_static(DOWNLOAD), codec).await?;
    Ok(response.into_inner())
}

/// Items, until their rate is known; it is left there with their number.
struct Metered {
    item: Vec<u8>,
    meter: Meter,
    result: Arc<Mutex<Option<(f64, u64)>>>,
}

impl Stream for Metered {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(rate) = self.meter.count(1) {
            // The item that was counted last is not sent any more.
            let result = (rate, self.meter.items() - 1);
            *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Bytes { payload: self.item.clone() }))
    }
}

pub(super) async fn upload(channel: Channel, load: Load) -> Result<Measured, Error> {
    let result = Arc::new(Mutex::new(None));
    let items = Metered { item: payload(load.payload), meter: Meter::new(&load), result: result.clone() };
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let codec = ProstCodec::<Bytes, Count>::default();
    let answer = grpc.client_streaming(Request::new(items), PathAndQuery::from_static(UPLOAD), codec).await?;
    let result = *result.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Some((rate, sent)) if sent == answer.get_ref().items => Ok(Measured::rate(rate)),
        _ => Err("items are missing".into()),
    }
}
