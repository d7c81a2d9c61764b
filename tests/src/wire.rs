//! A scripted peer: it says exactly what the test tells it to say, right or wrong.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use fluxar::{Address, Error, IntoPayload, Payload};
use fluxar_proto::frame;
use fluxar_proto::message::{Envelope, Id, Kind, Meta, MetaBuf, verb};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::verbs::Terms;

/// The longest frame that the scripted peer takes: any.
const ANY: u32 = u32::MAX;

/// One message, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: Kind,
    /// Its own id.
    pub id: Id,
    /// What it continues.
    pub reference: Option<Id>,
    /// Its address or verb.
    pub target: Option<String>,
    /// Its metadata: one encoded map, or empty.
    pub meta: Bytes,
    /// What it carries.
    pub payload: Payload,
    /// What went wrong.
    pub error: Option<Error>,
}

impl Message {
    /// A message that opens something.
    pub fn opening(kind: Kind, target: &str) -> Self {
        let (meta, payload) = (Bytes::new(), Payload::null());
        Self {
            kind,
            id: fresh_id(),
            reference: None,
            target: Some(target.into()),
            meta,
            payload,
            error: None,
        }
    }

    /// A message that continues what `reference` opened, without a verb.
    pub fn continuation(kind: Kind, reference: Id) -> Self {
        Self { reference: Some(reference), target: None, ..Self::opening(kind, "") }
    }

    /// A request.
    pub fn call(method: &str) -> Self {
        Self::opening(Kind::Call, method)
    }

    /// The response to a request.
    pub fn response(call: Id) -> Self {
        Self::continuation(Kind::Call, call)
    }

    /// An update of a call.
    pub fn update(call: Id) -> Self {
        Self::continuation(Kind::Call, call).verb(verb::UPDATE)
    }

    /// A caller's word that it waits no longer.
    pub fn cancel(call: Id) -> Self {
        Self::continuation(Kind::Call, call).verb(verb::CANCEL)
    }

    /// A control operation.
    pub fn control(operation: &str) -> Self {
        Self::opening(Kind::Control, operation)
    }

    /// The smallest offer that there is.
    pub fn offer() -> Self {
        let mut versions = BytesMut::from(&[0xa1, 0x68][..]);
        versions.extend_from_slice(b"versions");
        versions.extend_from_slice(&[0x81, 0x01]);
        Self { target: None, ..Self::opening(Kind::Hello, "") }.raw(versions)
    }

    /// The smallest answer to an offer.
    pub fn answer(offer: Id) -> Self {
        let mut version = BytesMut::from(&[0xa1, 0x67][..]);
        version.extend_from_slice(b"version");
        version.extend_from_slice(&[0x01]);
        Self::continuation(Kind::Hello, offer).raw(version)
    }

    /// The same with another verb, or address.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.target = Some(verb.into());
        self
    }

    /// The same with another id.
    #[must_use]
    pub fn id(mut self, id: Id) -> Self {
        self.id = id;
        self
    }

    /// The same with a payload.
    ///
    /// # Panics
    ///
    /// Where `value` cannot be encoded.
    #[must_use]
    pub fn payload(mut self, value: &(impl IntoPayload + ?Sized)) -> Self {
        self.payload = value.to_payload().expect("a payload");
        self
    }

    /// The same with a payload that is encoded already.
    ///
    /// # Panics
    ///
    /// Where `item` is no CBOR item.
    #[must_use]
    pub fn raw(mut self, item: impl Into<Bytes>) -> Self {
        self.payload = Payload::new(item.into()).expect("an item");
        self
    }

    /// The same with an error.
    #[must_use]
    pub fn error(mut self, error: Error) -> Self {
        self.error = Some(error);
        self
    }

    /// The same with so much time left, in milliseconds.
    ///
    /// # Panics
    ///
    /// Never: there is room for it.
    #[must_use]
    pub fn timeout_ms(mut self, ms: u64) -> Self {
        let mut meta = MetaBuf::<24>::new();
        meta.uint("timeout_ms", ms).expect("room");
        let map = [&[0xa1], meta.as_meta().entries()].concat();
        self.meta = map.into();
        self
    }

    /// What it carries, decoded.
    ///
    /// # Panics
    ///
    /// Where it is not a `T`.
    pub fn decode<T: fluxar::FromPayload>(&self) -> T {
        T::from_payload(&self.payload).expect("a payload of this type")
    }

    /// The message as a frame.
    ///
    /// # Panics
    ///
    /// Where its metadata is not what metadata must be.
    pub fn frame(&self) -> Vec<u8> {
        let meta =
            if self.meta.is_empty() { Meta::EMPTY } else { Meta::decode(&self.meta).expect("metadata") };
        let envelope = Envelope {
            kind: self.kind,
            id: self.id,
            reference: self.reference,
            target: self.target.as_deref(),
            meta,
            payload: self.payload.as_item(),
            error: self.error.as_ref().map(Error::as_ref),
        };
        let mut body = Vec::with_capacity(envelope.encoded_len());
        let Ok(()) = envelope.encode(&mut body);
        framed(&body)
    }

    fn decode_body(body: &[u8]) -> Self {
        let envelope = Envelope::decode(body).expect("a message");
        Self {
            kind: envelope.kind,
            id: envelope.id,
            reference: envelope.reference,
            target: envelope.target.map(String::from),
            meta: match envelope.meta.is_empty() {
                true => Bytes::new(),
                false => {
                    fluxar_proto::message::encode_meta(envelope.meta.iter().collect::<Vec<_>>().into_iter())
                }
            },
            payload: Payload::from(envelope.payload),
            error: envelope.error.map(Error::from),
        }
    }
}

/// `body` as a frame.
///
/// # Panics
///
/// Where it is longer than a frame can be.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = frame::prefix(u32::try_from(body.len()).expect("a short body")).to_vec();
    frame.extend_from_slice(body);
    frame
}

/// An id that no other message has.
pub fn fresh_id() -> Id {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0x77; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Id::from_bytes(bytes)
}

/// A link, of whatever transport.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A new link to a FLUXAR server.
///
/// # Panics
///
/// Where nobody listens at `url`.
pub async fn open(url: &str) -> Box<dyn Stream> {
    match url.parse::<Address>().expect("a URL") {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host, port)).await.expect("a connection");
            stream.set_nodelay(true).expect("nodelay");
            Box::new(stream)
        }
        Address::Unix { path } => Box::new(UnixStream::connect(path).await.expect("a connection")),
        other => panic!("no scripted peer for {other}"),
    }
}

/// A connection of the scripted peer.
pub struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
}

impl Wire {
    /// Connects to a FLUXAR server, and says nothing.
    ///
    /// # Panics
    ///
    /// Where nobody listens at `url`.
    pub async fn connect(url: &str) -> Self {
        Self::over(open(url).await)
    }

    /// Over a link that is there.
    pub fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// Connects, and shakes hands.
    ///
    /// # Panics
    ///
    /// Where the handshake fails.
    pub async fn established(url: &str) -> Self {
        let mut wire = Self::connect(url).await;
        wire.shake_hands().await;
        wire
    }

    /// The same with more than the least that there is.
    ///
    /// # Panics
    ///
    /// Where the handshake fails.
    pub async fn with(url: &str, terms: Terms) -> Self {
        let mut wire = Self::connect(url).await;
        wire.shake_hands_with(terms.offer()).await;
        wire
    }

    fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::over(Box::new(stream))
    }

    /// Offers and takes the answer.
    ///
    /// # Panics
    ///
    /// Where the answer is none.
    pub async fn shake_hands(&mut self) -> Message {
        self.shake_hands_with(Message::offer()).await
    }

    /// The same with another offer.
    ///
    /// # Panics
    ///
    /// Where the answer is none.
    pub async fn shake_hands_with(&mut self, offer: Message) -> Message {
        self.send(&offer).await;
        let answer = self.receive().await;
        assert_eq!((answer.kind, answer.reference, &answer.error), (Kind::Hello, Some(offer.id), &None));
        answer
    }

    /// Takes an offer and answers it.
    ///
    /// # Panics
    ///
    /// Where no offer comes.
    pub async fn answer_hands(&mut self) -> Message {
        self.answer_hands_with(Message::answer).await
    }

    /// The same with another answer.
    ///
    /// # Panics
    ///
    /// Where no offer comes.
    pub async fn answer_hands_with(&mut self, answer: impl FnOnce(Id) -> Message) -> Message {
        let offer = self.receive().await;
        assert_eq!((offer.kind, offer.reference), (Kind::Hello, None));
        self.send(&answer(offer.id)).await;
        offer
    }

    /// Sends a message.
    ///
    /// # Panics
    ///
    /// Where the other side takes nothing any more.
    pub async fn send(&mut self, message: &Message) {
        self.send_bytes(&message.frame()).await;
    }

    /// Sends bytes.
    ///
    /// # Panics
    ///
    /// Where the other side takes nothing any more.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.expect("the other side takes what we send");
    }

    /// Sends bytes, as far as the other side takes them.
    ///
    /// # Errors
    ///
    /// Where it takes no more.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Ends our direction.
    ///
    /// # Panics
    ///
    /// Where the connection is gone.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("a shutdown");
    }

    /// The next message, whatever it is.
    ///
    /// # Panics
    ///
    /// Where none comes.
    pub async fn receive(&mut self) -> Message {
        self.next().await.expect("a message")
    }

    /// The next message; `None` where the connection ends, which it must not do within a frame.
    ///
    /// # Panics
    ///
    /// Where the connection breaks, or what comes is no message.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(len) = frame::split(&self.input, ANY).expect("a frame") {
                let frame = self.input.split_to(frame::PREFIX_LEN + len);
                return Some(Message::decode_body(&frame[frame::PREFIX_LEN..]));
            }
            if self.stream.read_buf(&mut self.input).await.expect("the connection breaks") == 0 {
                assert!(self.input.is_empty(), "the connection ends within a frame");
                return None;
            }
        }
    }

    /// The response to a request; what else comes meanwhile is passed over.
    ///
    /// # Panics
    ///
    /// Where the connection ends without.
    pub async fn response_to(&mut self, call: Id) -> Message {
        loop {
            let message = self.receive().await;
            if message.reference == Some(call) && message.target.is_none() {
                return message;
            }
        }
    }

    /// What `close` says, once it comes; nothing may follow it. What comes before it is passed over.
    ///
    /// # Panics
    ///
    /// Where the connection ends without a `close`, or goes on after it.
    pub async fn closed(&mut self) -> Option<Error> {
        loop {
            let message = self.next().await.expect("a close before the end");
            if message.kind == Kind::Control && message.target.as_deref() == Some(verb::CLOSE) {
                assert_eq!(self.next().await, None, "something follows the close");
                return message.error;
            }
        }
    }

    /// The code that `close` names.
    ///
    /// # Panics
    ///
    /// As [`closed`](Self::closed), and where it names none.
    pub async fn closed_for(&mut self) -> fluxar::Code {
        self.closed().await.expect("a close with an error").code
    }

    /// Waits until the connection has ended, in whatever way, and says whether a `close` came.
    pub async fn ended(&mut self) -> bool {
        let mut closed = false;
        loop {
            while let Ok(Some(len)) = frame::split(&self.input, ANY) {
                let frame = self.input.split_to(frame::PREFIX_LEN + len);
                closed |=
                    Message::decode_body(&frame[frame::PREFIX_LEN..]).target.as_deref() == Some(verb::CLOSE);
            }
            if !matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
                return closed;
            }
        }
    }

    /// Checks that the other side is there and works: a ping, and its reply. What else comes is passed over.
    ///
    /// # Panics
    ///
    /// Where the connection has ended.
    pub async fn ping(&mut self) {
        let ping = Message::control(verb::PING);
        self.send(&ping).await;
        let reply = self.response_to(ping.id).await;
        assert_eq!((reply.kind, reply.error), (Kind::Control, None));
    }

    /// The next bytes that come, as they are; none at the end.
    ///
    /// # Panics
    ///
    /// Where the connection breaks.
    pub async fn bytes(&mut self) -> BytesMut {
        if self.input.is_empty() {
            self.stream.read_buf(&mut self.input).await.expect("the connection breaks");
        }
        self.input.split()
    }
}

/// A scripted server.
pub struct Trap {
    listener: TcpListener,
}

impl Trap {
    /// Listens.
    ///
    /// # Panics
    ///
    /// Where the system does not let us.
    pub async fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a listener") }
    }

    /// Where it listens.
    ///
    /// # Panics
    ///
    /// Where the listener is gone.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.listener.local_addr().expect("an address"))
    }

    /// The next connection.
    ///
    /// # Panics
    ///
    /// Where none can be accepted.
    pub async fn accept(&self) -> Wire {
        let (stream, _) = self.listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        Wire::new(stream)
    }

    /// Cuts a connection, and takes the next one.
    ///
    /// # Panics
    ///
    /// Where none can be accepted.
    pub async fn accept_after(&self, wire: &mut Wire) -> Wire {
        // Nobody reads or writes it any more; the other side finds it closed.
        *wire = Wire::new(tokio::io::empty());
        self.accept().await
    }

    /// The next connection, with the handshake done.
    ///
    /// # Panics
    ///
    /// Where the handshake fails.
    pub async fn established(&self) -> Wire {
        let mut wire = self.accept().await;
        wire.answer_hands().await;
        wire
    }

    /// The same with more than the least that there is.
    ///
    /// # Panics
    ///
    /// Where the handshake fails.
    pub async fn with(&self, terms: Terms) -> Wire {
        let mut wire = self.accept().await;
        wire.answer_hands_with(|offer| terms.answer(offer)).await;
        wire
    }
}

/// A connection that is reset when it is dropped, instead of being closed in order.
///
/// # Panics
///
/// Where nobody listens at `url`, or it is no TCP address.
pub async fn rude_connection(url: &str) -> TcpStream {
    let Ok(Address::Tcp { host, port }) = url.parse() else { panic!("no TCP address: {url}") };
    let stream = TcpStream::connect((host, port)).await.expect("a connection");
    stream.set_zero_linger().expect("linger");
    stream
}
