//! Connected sockets on Tokio.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// A connected socket on Tokio, of any transport that this crate has.
#[derive(Debug)]
pub struct TokioLink {
    socket: Socket,
    remote: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl TokioLink {
    /// Wraps a TCP connection; turns Nagle's algorithm off, since the driver batches by itself.
    ///
    /// # Errors
    ///
    /// Where the system reports that the socket is not connected.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let remote = format!("tcp://{}", stream.peer_addr()?);
        Ok(Self { socket: Socket::Tcp(stream), remote })
    }

    /// Wraps a connection over a Unix socket; `path` is what the other side is called in messages.
    #[cfg(unix)]
    pub fn unix(stream: UnixStream, path: &std::path::Path) -> Self {
        Self { socket: Socket::Unix(stream), remote: format!("unix://{}", path.display()) }
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream),
            #[cfg(unix)]
            Socket::Unix(stream) => Pin::new(stream),
        }
    }
}

impl fluxar_runtime::Link for TokioLink {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            let read = match &self.socket {
                Socket::Tcp(stream) => stream.try_read_buf(buffer),
                #[cfg(unix)]
                Socket::Unix(stream) => stream.try_read_buf(buffer),
            };
            match read {
                // Readiness may be stale: asking again registers for the next one.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match pieces {
            [piece] => self.writer().poll_write(cx, piece),
            pieces => self.writer().poll_write_vectored(cx, pieces),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(cx)
    }

    fn remote(&self) -> String {
        self.remote.clone()
    }
}
