//! Listening sockets on Tokio.

use std::future::poll_fn;
use std::io;

use fluxar_runtime::Address;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::TokioLink;

/// A listening socket on Tokio, of any transport that this crate has.
///
/// One that is handed over, as by a supervisor, is made with [`From`]. The file of a Unix socket is removed when the
/// listener is dropped, where this crate made it and it is still the same file.
#[derive(Debug)]
pub struct TokioListener(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        /// The socket's file, where we made it.
        _file: Option<unix::File>,
    },
}

impl From<TcpListener> for TokioListener {
    fn from(listener: TcpListener) -> Self {
        Self(Socket::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<UnixListener> for TokioListener {
    fn from(listener: UnixListener) -> Self {
        Self(Socket::Unix { listener, _file: None })
    }
}

impl TokioListener {
    #[cfg(unix)]
    pub(crate) async fn bind_unix(path: &std::path::Path) -> io::Result<Self> {
        unix::remove_stale(path).await?;
        let listener = UnixListener::bind(path)?;
        let file = unix::File::new(path)?;
        Ok(Self(Socket::Unix { listener, _file: Some(file) }))
    }
}

impl fluxar_runtime::Listener for TokioListener {
    type Link = TokioLink;

    async fn accept(&mut self) -> io::Result<TokioLink> {
        loop {
            let link = match &self.0 {
                Socket::Tcp(listener) => poll_fn(|cx| listener.poll_accept(cx)).await.map(|(stream, _)| {
                    // A connection that was reset before it was accepted has no peer any more.
                    TokioLink::tcp(stream).ok()
                }),
                #[cfg(unix)]
                Socket::Unix { listener, .. } => {
                    let accepted = poll_fn(|cx| listener.poll_accept(cx)).await;
                    accepted.map(|(stream, _)| Some(TokioLink::unix(stream, &unix::path_of(listener))))
                }
            };
            match link {
                Ok(Some(link)) => return Ok(link),
                Ok(None) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn local_address(&self) -> io::Result<Address> {
        match &self.0 {
            Socket::Tcp(listener) => listener.local_addr().map(|at| {
                let host = if at.is_ipv6() { format!("[{}]", at.ip()) } else { at.ip().to_string() };
                Address::Tcp { host, port: at.port() }
            }),
            #[cfg(unix)]
            Socket::Unix { listener, .. } => Ok(Address::Unix { path: unix::path_of(listener) }),
        }
    }
}

/// Whether a connection was gone before it was accepted: that is no trouble of the listener's, which must not rest for
/// it.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    /// The file of a socket that we have made, removed when it is dropped.
    #[derive(Debug)]
    pub(super) struct File {
        path: PathBuf,
        /// Device and inode: another server may have taken the path over since.
        identity: (u64, u64),
    }

    impl File {
        pub(super) fn new(path: &Path) -> io::Result<Self> {
            Ok(Self { path: path.to_owned(), identity: identity(path)? })
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
                std::fs::remove_file(&self.path).ok();
            }
        }
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
    }

    /// Where a socket listens; empty where it has no name.
    pub(super) fn path_of(listener: &UnixListener) -> PathBuf {
        let address = listener.local_addr().ok();
        address.and_then(|address| address.as_pathname().map(Path::to_owned)).unwrap_or_default()
    }

    /// Removes a socket file that nobody listens on any more, as a crashed server leaves it. Two servers that start on
    /// one path at the same moment may both take it for stale; whoever starts servers sees to it that they do not.
    pub(super) async fn remove_stale(path: &Path) -> io::Result<()> {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        // A connection that does not block: a server that lives may be too busy to take it.
        if is_socket && UnixStream::connect(path).await.is_err_and(refused) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}
