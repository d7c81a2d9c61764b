//! The streams of the conformance peer.

use std::future::pending;

use fluxar::{Code, Error, HandlerError, Raw, Server, StreamRequest};

use super::{Arguments, invalid};
use crate::notation;

/// The largest item of `test.count`, in bytes: no larger message is taken by this peer either, where nothing else is
/// set.
const LARGEST_ITEM: u64 = 16 << 20;

/// Registers all streams.
pub(super) fn register(server: &Server) {
    server.handle_stream("test.count", count);
    server.handle_stream("test.sum", sum);
    server.handle_stream("test.echo", echo);
    server.handle_stream("test.never", never);
    server.handle_stream("test.reject", |_| async {
        let error = Error::permission_denied("this is what test.reject is for");
        Err::<(), HandlerError>(error.with_processed(false).into())
    });
}

/// Sends numbers, or byte strings of a size.
async fn count(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let arguments = Arguments::of(&request.raw())?;
    let n = arguments.require("n")?;
    match arguments.get("size")? {
        Some(size) => {
            for i in 0..n {
                request.send(&byte_string(size, i as u8)?).await?;
            }
        }
        None => {
            for i in 0..n {
                request.send(&i).await?;
            }
        }
    }
    Ok(n)
}

/// A byte string of `size` equal bytes, encoded.
fn byte_string(size: u64, byte: u8) -> Result<Raw, Error> {
    let size = u32::try_from(size).ok().filter(|size| u64::from(*size) <= LARGEST_ITEM);
    let too_large = || Error::new(Code::MESSAGE_TOO_LARGE, "no item may be as large as `size`");
    let size = size.ok_or_else(too_large)?;
    Raw::new(notation::byte_string(&vec![byte; size as usize])).map_err(|error| invalid(&error.to_string()))
}

/// Adds the integers that come.
async fn sum(mut request: StreamRequest) -> Result<i64, HandlerError> {
    // Wide enough for more items than can ever come.
    let mut sum = 0i128;
    while let Some(item) = request.next::<Raw>().await {
        let item = item?;
        let is_integer = item.as_bytes().first().is_some_and(|first| *first < 0x40);
        let integer = item.decode::<i128>().ok().filter(|_| is_integer);
        sum += integer.ok_or_else(|| Error::invalid_argument("an item is no integer"))?;
    }
    let too_large = |_| Error::new(Code::OUT_OF_RANGE, "the sum does not fit into 64 bits");
    Ok(i64::try_from(sum).map_err(too_large)?)
}

/// Sends back what comes, and the final value.
async fn echo(mut request: StreamRequest) -> Result<Raw, HandlerError> {
    let (mut sender, mut receiver) = request.split::<Raw>()?;
    while let Some(item) = receiver.next().await {
        sender.send(&item?).await?;
    }
    Ok(receiver.last().transpose()?.unwrap_or_default())
}

/// Takes and sends nothing. The runtime drops this when nobody waits any more.
async fn never(request: StreamRequest) -> Result<(), HandlerError> {
    let _held = request;
    pending().await
}
