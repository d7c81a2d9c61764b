//! A download whose progress bar never goes back, although its connection is cut every few hundred kilobytes.
//!
//! Between client and server stands a proxy that cuts each link after so many bytes, wherever that is. The client comes
//! back by itself and takes its session up again; what was on the way comes once more, and the stream goes on in the
//! middle, as if nothing had happened. Neither the client's loop nor the server's handler sees anything of it.
//!
//! `cargo run --example resume`

use std::error::Error as StdError;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fluxar::{Client, HandlerError, Reconnect, Server, State, States, StreamRequest};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// How many pieces the file has, and how many bytes each.
const PIECES: u32 = 2_000;
const PIECE: usize = 4_000;

/// After how many bytes the proxy cuts a link; each link gets another number of them.
const CUT_AFTER: [u64; 4] = [300_017, 123, 750_001, 41_111];

#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    number: u32,
    text: String,
}

/// What a piece of the file says.
fn text(number: u32) -> String {
    let number = format!("{number:08} ");
    number.chars().cycle().take(PIECE).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let server = Server::bind("tcp://127.0.0.1:0").build().await?;
    server.handle_stream("files.read", read);
    let (url, handle) = (server.url(), server.server_handle());
    let serving = tokio::spawn(server.run());

    let (proxy, cuts) = cutting_proxy(url).await?;
    // Where links break as soon as they are there, the wait for the next one grows, which would bore who watches.
    let soon = Reconnect::default().first(Duration::from_millis(10)).max(Duration::from_millis(50));
    let client = Client::connect(proxy).reconnect(soon).build().await?;
    let told = Told::default();
    let watching = tokio::spawn(watch(client.states(), told.clone()));

    let mut bar = Bar::new(PIECES);
    let mut stream = client.stream::<Piece>("files.read", "novel.txt").await?;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        // Each once, in order, and whole.
        assert_eq!(piece.number, bar.done, "a piece came twice, or not at all");
        assert_eq!(piece.text, text(piece.number));
        bar.advance(&told);
    }
    let pieces: u32 = stream.finish().await?;
    assert_eq!((pieces, bar.done), (PIECES, PIECES));

    let (cuts, resumed) = (cuts.load(Ordering::Relaxed), told.resumed.load(Ordering::Relaxed));
    println!(
        "client   {PIECES} pieces, each once and in order; {cuts} links were cut, {resumed} times the session went on"
    );
    assert!(resumed > 10, "the links were cut, and the session has gone on");
    assert_eq!(told.lost.load(Ordering::Relaxed), 0);

    client.shut_down().await;
    watching.await?;
    handle.stop();
    serving.await??;
    Ok(())
}

/// The server's side: it knows nothing of links.
async fn read(mut request: StreamRequest) -> Result<u32, HandlerError> {
    let name: String = request.payload()?;
    println!("server   somebody reads {name}");
    for number in 0..PIECES {
        request.send(&Piece { number, text: text(number) }).await?;
    }
    Ok(PIECES)
}

/// What the client has learned of its links.
#[derive(Clone, Debug, Default)]
struct Told {
    resumed: Arc<AtomicU32>,
    lost: Arc<AtomicU32>,
}

/// Notes what becomes of the connection; an application that wants to show it does so here.
async fn watch(mut states: States, told: Told) {
    while let Some(state) = states.next().await {
        match state {
            State::Resumed { .. } => {
                told.resumed.fetch_add(1, Ordering::Relaxed);
            }
            State::Lost { .. } => {
                told.lost.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// A progress bar: drawn in place on a terminal, and line by line elsewhere.
struct Bar {
    done: u32,
    of: u32,
    in_place: bool,
}

impl Bar {
    fn new(of: u32) -> Self {
        Self { done: 0, of, in_place: io::stdout().is_terminal() }
    }

    fn advance(&mut self, told: &Told) {
        self.done += 1;
        let steps = if self.in_place { 100 } else { 10 };
        if self.done * steps / self.of == (self.done - 1) * steps / self.of {
            return;
        }
        let (filled, resumed) = ((self.done * 40 / self.of) as usize, told.resumed.load(Ordering::Relaxed));
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(40 - filled));
        let line = format!("client   [{bar}] {:3} %, resumed {resumed} times", self.done * 100 / self.of);
        match self.in_place && self.done < self.of {
            true => print!("\r{line}"),
            false if self.in_place => println!("\r{line}"),
            false => println!("{line}"),
        }
        io::stdout().flush().ok();
    }
}

/// Stands before the server at `url`, and cuts every link; says where, and how many it has cut.
async fn cutting_proxy(url: String) -> io::Result<(String, Arc<AtomicU32>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (proxy, cuts) = (format!("tcp://{}", listener.local_addr()?), Arc::<AtomicU32>::default());
    let server = url.trim_start_matches("tcp://").to_owned();
    let counter = cuts.clone();
    tokio::spawn(async move {
        for after in CUT_AFTER.into_iter().cycle() {
            let Ok((near, _)) = listener.accept().await else { return };
            let Ok(far) = TcpStream::connect(&server).await else { return };
            let ((mut near_in, mut near_out), (far_in, mut far_out)) = (near.into_split(), far.into_split());
            let mut far_in = far_in.take(after);
            tokio::select! {
                _ = tokio::io::copy(&mut near_in, &mut far_out) => {}
                _ = tokio::io::copy(&mut far_in, &mut near_out) => {}
            }
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok((proxy, cuts))
}
