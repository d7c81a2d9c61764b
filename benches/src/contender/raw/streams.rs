//! Streams: frames one behind the other, made one by one and written many at a time. Whoever reads takes what is there,
//! and copies what every frame carries into memory of its own, as all others do that hand items to an application.

use std::hint::black_box;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{READ_SIZE, frame, whole_frames};
use crate::Error;
use crate::load::{Load, Measured, check};
use crate::meter::Meter;

/// How many bytes are written at once, or one frame.
pub(super) const WRITE_SIZE: usize = 64 * 1024;

/// Sends copies of the frame that comes first, for ever.
pub(super) async fn send(mut stream: TcpStream) -> io::Result<()> {
    let frame = first_frame(&mut stream).await?;
    let mut batch = Vec::with_capacity(WRITE_SIZE + frame.len());
    loop {
        while batch.len() < WRITE_SIZE {
            batch.extend_from_slice(&frame);
        }
        stream.write_all(&batch).await?;
        batch.clear();
    }
}

/// Takes frames until there are no more, and answers with how many there were.
pub(super) async fn receive(mut stream: TcpStream) -> io::Result<()> {
    let first = first_frame(&mut stream).await?;
    let mut incoming = Incoming::new(first);
    let mut frames = 0;
    while let Some(more) = incoming.read(&mut stream).await? {
        frames += more;
    }
    stream.write_u64(frames).await
}

pub(super) async fn download(mut stream: TcpStream, load: Load) -> Result<Measured, Error> {
    let first = frame(load.payload);
    stream.write_all(&first).await?;
    let mut incoming = Incoming::new(first);
    let mut meter = Meter::new(&load);
    while let Some(frames) = incoming.read(&mut stream).await? {
        if let Some(rate) = meter.count(frames) {
            return Ok(Measured::rate(rate));
        }
    }
    Err("the server stopped sending".into())
}

pub(super) async fn upload(mut stream: TcpStream, load: Load) -> Result<Measured, Error> {
    let frame = frame(load.payload);
    stream.write_all(&frame).await?;
    let mut batch = Vec::with_capacity(WRITE_SIZE + frame.len());
    let mut meter = Meter::new(&load);
    let rate = loop {
        let mut frames = 0;
        while batch.len() < WRITE_SIZE {
            batch.extend_from_slice(&frame);
            frames += 1;
        }
        stream.write_all(&batch).await?;
        batch.clear();
        if let Some(rate) = meter.count(frames) {
            break rate;
        }
    };
    stream.shutdown().await?;
    if stream.read_u64().await? == meter.items() {
        Ok(Measured::rate(rate))
    } else {
        Err("items are missing".into())
    }
}

async fn first_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u32().await?;
    let mut frame = len.to_be_bytes().to_vec();
    frame.resize(frame.len() + len as usize, 0);
    stream.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

/// What has arrived and is not whole yet.
pub(super) struct Incoming {
    /// What every frame carries.
    item: Vec<u8>,
    bytes: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(frame: Vec<u8>) -> Self {
        Self { item: frame[4..].to_vec(), bytes: Vec::with_capacity(2 * READ_SIZE) }
    }

    /// Waits for more, and takes the whole frames out: how many there were; `None` at the end.
    pub(super) async fn read(&mut self, stream: &mut TcpStream) -> io::Result<Option<u64>> {
        self.bytes.reserve(READ_SIZE);
        if stream.read_buf(&mut self.bytes).await? == 0 {
            return Ok(None);
        }
        let mut wrong = false;
        let look = |item: &[u8]| wrong |= check(&self.item, &black_box(item.to_vec())).is_err();
        let (frames, end) = whole_frames(&self.bytes, look);
        if wrong {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.bytes.drain(..end);
        Ok(Some(frames as u64))
    }
}
