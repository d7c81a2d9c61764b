//! Messages: the server passes whole frames on to everyone who wants them, as many as have arrived with one write each.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::streams::{Incoming, WRITE_SIZE};
use super::{Purpose, READ_SIZE, connect, frame, whole_frames};
use crate::Error;
use crate::load::{Load, Measured};
use crate::meter::{Tally, tallied};

/// Those who want to have what is published.
#[derive(Clone, Default)]
pub(super) struct Subscribers(Arc<Mutex<Vec<TcpStream>>>);

impl Subscribers {
    /// Adds one, and tells it.
    pub(super) async fn join(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.write_u8(1).await?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(())
    }

    /// Passes on what comes to those who have joined so far, as fast as the slowest of them takes it.
    pub(super) async fn relay(&self, mut publisher: TcpStream) -> io::Result<()> {
        let mut subscribers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut bytes = Vec::with_capacity(2 * READ_SIZE);
        while publisher.read_buf(&mut bytes).await? > 0 {
            let end = whole_frames(&bytes, |_| ()).1;
            for subscriber in &mut subscribers {
                subscriber.write_all(&bytes[..end]).await?;
            }
            bytes.drain(..end);
            bytes.reserve(READ_SIZE);
        }
        Ok(())
    }
}

pub(super) async fn measure(server: SocketAddr, subscribers: usize, load: Load) -> Result<Measured, Error> {
    let [sent, received] = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let mut tasks = JoinSet::new();
    for _ in 0..subscribers {
        let mut stream = connect(server, Purpose::Subscribe).await?;
        stream.read_u8().await?;
        tasks.spawn(subscribe(stream, frame(load.payload), received.clone()));
    }
    let publisher = connect(server, Purpose::Publish).await?;
    tasks.spawn(publish(publisher, frame(load.payload), sent.clone()));
    let began = Instant::now();
    let tally = async || {
        let [sent, received] = [&sent, &received].map(|count| count.load(Relaxed));
        Ok(Tally { sent: sent * subscribers as u64, received, at: began.elapsed() })
    };
    tokio::select! {
        measured = tallied(load, tally) => Ok(Measured { lost: 0.0, ..measured? }),
        Some(ended) = tasks.join_next() => Err(ended?.err().map_or_else(|| "the server has gone".into(), Into::into)),
    }
}

async fn subscribe(mut stream: TcpStream, frame: Vec<u8>, count: Arc<AtomicU64>) -> io::Result<()> {
    let mut incoming = Incoming::new(frame);
    while let Some(frames) = incoming.read(&mut stream).await? {
        count.fetch_add(frames, Relaxed);
    }
    Ok(())
}

async fn publish(mut stream: TcpStream, frame: Vec<u8>, count: Arc<AtomicU64>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_SIZE + frame.len());
    loop {
        let mut frames = 0;
        while batch.len() < WRITE_SIZE {
            batch.extend_from_slice(&frame);
            frames += 1;
        }
        stream.write_all(&batch).await?;
        batch.clear();
        count.fetch_add(frames, Relaxed);
    }
}
