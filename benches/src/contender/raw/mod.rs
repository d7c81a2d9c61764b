//! The measure of all: what the sockets and Tokio allow, with the framing of the protocol and nothing above it.
//!
//! A client says with its first byte what it is up to.

mod calls;
mod relay;
mod streams;

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Error;
use crate::load::{Load, Measured, Mode, Work, payload};

const READ_SIZE: usize = 64 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Echo = 0,
    /// The server sends copies of the client's first frame.
    Download = 1,
    /// The client sends copies of its first frame, and is told how many came.
    Upload = 2,
    /// The client wants to have what others publish.
    Subscribe = 3,
    /// The client sends frames, which all others get that want them.
    Publish = 4,
}

pub(super) async fn serve(listener: TcpListener) -> Result<(), Error> {
    let subscribers = relay::Subscribers::default();
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let subscribers = subscribers.clone();
        // A client that goes away ends its own connection only.
        tokio::spawn(async move {
            match stream.read_u8().await {
                Ok(purpose) if purpose == Purpose::Echo as u8 => calls::echo(&stream).await,
                Ok(purpose) if purpose == Purpose::Download as u8 => streams::send(stream).await,
                Ok(purpose) if purpose == Purpose::Upload as u8 => streams::receive(stream).await,
                Ok(purpose) if purpose == Purpose::Subscribe as u8 => subscribers.join(stream).await,
                Ok(purpose) if purpose == Purpose::Publish as u8 => subscribers.relay(stream).await,
                _ => Ok(()),
            }
        });
    }
}

pub(super) async fn measure(server: SocketAddr, load: Load) -> Result<Measured, Error> {
    match load.work {
        Work::Calls(in_flight) => {
            calls::measure(connect(server, Purpose::Echo).await?, in_flight, load).await
        }
        Work::Download => streams::download(connect(server, Purpose::Download).await?, load).await,
        Work::Upload | Work::PublishDirect(Mode::AtMostOnce) => {
            streams::upload(connect(server, Purpose::Upload).await?, load).await
        }
        Work::PublishRelayed(Mode::AtMostOnce, subscribers) => {
            relay::measure(server, subscribers, load).await
        }
        Work::CallsBesideDownload
        | Work::PublishDirect(_)
        | Work::PublishRelayed(..)
        | Work::CallsAcrossCuts
        | Work::Detached => Err("there is no such thing on a bare socket".into()),
    }
}

async fn connect(server: SocketAddr, purpose: Purpose) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(purpose as u8).await?;
    Ok(stream)
}

fn frame(len: usize) -> Vec<u8> {
    let mut frame = (len as u32).to_be_bytes().to_vec();
    frame.extend(payload(len));
    frame
}

/// How many frames `bytes` begins with, and where the last of them ends; each is shown to `look`.
fn whole_frames(bytes: &[u8], mut look: impl FnMut(&[u8])) -> (usize, usize) {
    let (mut frames, mut end) = (0, 0);
    while let Some((prefix, rest)) = bytes[end..].split_first_chunk() {
        let len = u32::from_be_bytes(*prefix) as usize;
        let Some(frame) = rest.get(..len) else { break };
        look(frame);
        frames += 1;
        end += prefix.len() + len;
    }
    (frames, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found() {
        let bytes = [frame(2), frame(0), frame(300)].concat();
        let mut lengths = Vec::new();
        assert_eq!(whole_frames(&bytes, |frame| lengths.push(frame.len())), (3, bytes.len()));
        assert_eq!(lengths, [2, 0, 300]);
        assert_eq!(whole_frames(&bytes[..bytes.len() - 1], |_| ()), (2, 10));
        assert_eq!(whole_frames(&bytes[..3], |_| ()), (0, 0));
        assert_eq!(whole_frames(&[], |_| ()), (0, 0));
    }
}
