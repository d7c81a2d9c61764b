//! Connected sockets on Tokio.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr};
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
    confidential: bool,
    source: Option<String>,
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
        let at = stream.peer_addr()?;
        let (remote, ip) = (format!("tcp://{at}"), at.ip().to_canonical());
        Ok(Self {
            socket: Socket::Tcp(stream),
            remote,
            confidential: ip.is_loopback(),
            source: Some(source_of(ip)),
        })
    }

    /// Wraps a connection over a Unix socket; `path` is what the other side is called in messages.
    #[cfg(unix)]
    pub fn unix(stream: UnixStream, path: &std::path::Path) -> Self {
        let source = stream.peer_cred().ok().map(|peer| format!("user {}", peer.uid()));
        let remote = format!("unix://{}", path.display());
        Self { socket: Socket::Unix(stream), remote, confidential: true, source }
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

    /// A Unix socket, or TCP that does not leave the machine.
    fn is_confidential(&self) -> bool {
        self.confidential
    }

    fn source(&self) -> Option<String> {
        self.source.clone()
    }
}

/// An IP address as a source. Whoever has one address of IPv6 has its whole /64 as a rule.
fn source_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use fluxar_runtime::Link;
    use tokio::net::TcpListener;

    use super::*;

    // spec: §6.11, §17.4
    #[tokio::test]
    async fn what_does_not_leave_the_machine_is_confidential() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a socket");
        let link = TokioLink::tcp(stream).expect("a link");
        assert_eq!((link.is_confidential(), link.source()), (true, Some("127.0.0.1".into())));
    }

    // spec: §6.11, §17.4
    #[cfg(unix)]
    #[tokio::test]
    async fn a_unix_socket_tells_whose_it_is() {
        let (one, other) = UnixStream::pair().expect("two sockets");
        let uid = other.peer_cred().expect("a user").uid();
        let link = TokioLink::unix(one, std::path::Path::new("/x"));
        assert_eq!((link.is_confidential(), link.source()), (true, Some(format!("user {uid}"))));
    }

    // spec: §17.4
    #[test]
    fn one_who_owns_a_network_is_one_source() {
        let source = |ip: &str| source_of(ip.parse::<IpAddr>().expect("an address").to_canonical());
        assert_eq!(source("192.0.2.1"), "192.0.2.1");
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::2"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }
}
