//! A server with streams whose honest client must not notice what the others do.

use fluxar::{Code, Error, HandlerError, Peer, Raw, ServerBuilder, StreamRequest};
use fluxar_proto::message::{Id, verb};
use futures_util::SinkExt;

use crate::honest::Field;
use crate::net::{Net, eventually};
use crate::verbs::Terms;
use crate::wire::{Message, Wire};

async fn echo(mut request: StreamRequest) -> Result<(), HandlerError> {
    let (mut sender, mut receiver) = request.split::<Raw>()?;
    sender.send_all(&mut receiver).await?;
    Ok(())
}

async fn forever(mut request: StreamRequest) -> Result<(), HandlerError> {
    let text = "x".repeat(1000);
    loop {
        request.send(&text).await?;
    }
}

async fn idle(_request: StreamRequest) -> Result<(), HandlerError> {
    std::future::pending().await
}

/// Reads for ever, and sends nothing.
async fn sink(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let mut count = 0;
    while let Some(item) = request.next::<Raw>().await {
        item?;
        count += 1;
    }
    Ok(count)
}

/// A server with streams, and its honest client; and how the others are to come.
pub struct Streams(pub Field);

impl Streams {
    /// Opens it, after `change`.
    pub async fn open(net: Net, change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let field = Field::open(net, |builder| {
            let builder = builder.handle_stream("echo", echo).handle_stream("forever", forever);
            change(builder.handle_stream("idle", idle).handle_stream("sink", sink))
        });
        Self(field.await)
    }

    /// A scripted peer that has streams.
    pub async fn wire(&self) -> Wire {
        Wire::with(self.0.site.url(), Terms::streams()).await
    }

    /// The server's side of the one connection that is not the honest one.
    pub async fn peer(&self) -> Peer {
        eventually("the hostile one is there", || self.0.site.handle().peers().len() == 2).await;
        self.0.site.handle().peers().remove(1)
    }

    /// What a connection is closed for on which an opening of `method` is followed by `messages`.
    pub async fn verdict(&self, method: &str, messages: impl Fn(Id) -> Vec<Message>) -> Code {
        let mut wire = self.wire().await;
        let opening = Message::stream(method);
        let frames = messages(opening.id).iter().flat_map(Message::frame).collect::<Vec<u8>>();
        wire.send_bytes(&[opening.frame(), frames].concat()).await;
        wire.closed_for().await
    }

    /// Nobody is harmed: no stream is left, and a new one works.
    ///
    /// # Panics
    ///
    /// Where something of that is not so.
    pub async fn unharmed(self) {
        let late = self.0.site.client().await;
        let mut stream = late.stream::<u8>("echo", &()).await.expect("a stream");
        stream.send(&7).await.expect("a stream");
        assert_eq!(stream.next().await, Some(Ok(7)));
        assert_eq!(stream.finish::<Option<u8>>().await, Ok(None));
        drop(late);
        self.0.unharmed().await;
    }
}

/// The next message on a stream; what else comes is passed over.
///
/// # Panics
///
/// Where the connection ends without.
pub async fn next_on(wire: &mut Wire, stream: Id) -> Message {
    loop {
        let message = wire.receive().await;
        if message.reference == Some(stream) {
            return message;
        }
    }
}

/// The error that a stream ends with.
///
/// # Panics
///
/// Where the connection ends without.
pub async fn end_of(wire: &mut Wire, stream: Id) -> Option<Error> {
    loop {
        let message = next_on(wire, stream).await;
        if message.does() == Some(verb::END) {
            return message.error;
        }
    }
}
