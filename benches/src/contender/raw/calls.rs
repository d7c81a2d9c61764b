//! Calls: both sides read what is there and answer it with one write. With one call in flight that is a plain echo.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::{READ_SIZE, frame, whole_frames};
use crate::Error;
use crate::load::{Load, Measured, check, one_at_a_time};

pub(super) async fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut link = Link::new(stream);
    loop {
        link.exchange().await?;
        let end = whole_frames(&link.incoming, |_| ()).1;
        link.outgoing.extend_from_slice(&link.incoming[..end]);
        link.incoming.drain(..end);
    }
}

pub(super) async fn measure(stream: TcpStream, in_flight: usize, load: Load) -> Result<Measured, Error> {
    if in_flight == 1 {
        one_in_flight(stream, load).await
    } else {
        many_in_flight(&stream, in_flight, load).await
    }
}

async fn one_in_flight(mut stream: TcpStream, load: Load) -> Result<Measured, Error> {
    let request = frame(load.payload);
    let mut response = request.clone();
    one_at_a_time(load, async || {
        stream.write_all(&request).await?;
        stream.read_exact(&mut response).await?;
        check(&request, &response)
    })
    .await
}

async fn many_in_flight(stream: &TcpStream, in_flight: usize, load: Load) -> Result<Measured, Error> {
    let request = frame(load.payload);
    let mut link = Link::new(stream);
    link.outgoing = request.repeat(in_flight);
    run_for(&mut link, &request, load.warm_up).await?;
    let (answered, elapsed) = run_for(&mut link, &request, load.measure).await?;
    Ok(Measured::rate(answered as f64 / elapsed.as_secs_f64()))
}

/// Answers every response with the next request, for some time and until one has come. How many responses came, and
/// how long it took.
async fn run_for(link: &mut Link<'_>, request: &[u8], time: Duration) -> Result<(u64, Duration), Error> {
    let began = Instant::now();
    let mut answered = 0;
    loop {
        link.exchange().await?;
        let (frames, end) = whole_frames(&link.incoming, |_| ());
        if end != frames * request.len() {
            return Err("the answer is not what was sent".into());
        }
        link.incoming.drain(..end);
        for _ in 0..frames {
            link.outgoing.extend_from_slice(request);
        }
        answered += frames as u64;
        let elapsed = began.elapsed();
        if elapsed >= time && answered > 0 {
            return Ok((answered, elapsed));
        }
    }
}

/// A socket with what has arrived and what has to go out.
struct Link<'a> {
    stream: &'a TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl<'a> Link<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Self {
            stream,
            incoming: Vec::with_capacity(2 * READ_SIZE),
            outgoing: Vec::with_capacity(2 * READ_SIZE),
        }
    }

    /// Writes what has to go out with one write, then reads what is there with one read. Waits for either.
    async fn exchange(&mut self) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            match self.stream.try_write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // Nobody waits for writing alone: two sides that only write would wait for each other.
        let wanted = if self.outgoing.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        self.stream.ready(wanted).await?;
        self.incoming.reserve(READ_SIZE);
        match self.stream.try_read_buf(&mut self.incoming) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}
