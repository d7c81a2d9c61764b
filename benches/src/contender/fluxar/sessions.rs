//! Sessions that outlive their link.

use std::net::SocketAddr;
use std::time::Duration;

use ::fluxar::{Client, Reconnect, Request, Server, ServerBuilder, State};
use serde_bytes::{ByteBuf, Bytes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ECHO;
use crate::Error;
use crate::load::{Load, Measured, check, one_at_a_time, payload};

/// The server says how much memory it has, and how many sessions wait for a link.
const MEMORY: &str = "bench.memory";

/// More sessions without a link than any load leaves behind.
pub(super) fn keep_many(server: ServerBuilder) -> ServerBuilder {
    server.max_detached(1 << 20).max_detached_bytes(1 << 40).resume_for(Duration::from_secs(3600))
}

pub(super) fn handle(server: &Server) {
    let handle = server.server_handle();
    server.handle(MEMORY, move |_: Request| {
        let detached = handle.stats().detached as u64;
        async move { Ok((resident()?, detached)) }
    });
}

/// How much memory this process has, in bytes.
fn resident() -> Result<u64, std::io::Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().map_err(std::io::Error::other)?;
    Ok(kilobytes * 1024)
}

/// Times calls that are made when the link is cut: until their answer is there, over another one. What spreads the clients
/// of a server that restarts, a wait at random, is left out.
pub(super) async fn calls_across_cuts(server: SocketAddr, load: Load) -> Result<Measured, Error> {
    let (cut, cuts) = watch::channel(());
    let proxy = cutting_proxy(server, cuts).await?;
    let at_once = Reconnect::default().first(Duration::ZERO).max(Duration::ZERO);
    let client = Client::connect(format!("tcp://{proxy}")).reconnect(at_once).build().await?;
    let item = payload(load.payload);
    one_at_a_time(load, async || {
        cut.send_replace(());
        let echo: ByteBuf = client.call(ECHO, Bytes::new(&item)).await?;
        check(&item, &echo)
    })
    .await
}

/// Passes everything on, and resets its links on request.
async fn cutting_proxy(server: SocketAddr, cuts: watch::Receiver<()>) -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cuts = cuts.clone();
            cuts.mark_unchanged();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await?;
                for stream in [&near, &far] {
                    stream.set_nodelay(true)?;
                    stream.set_zero_linger()?;
                }
                tokio::select! {
                    passed = tokio::io::copy_bidirectional(&mut near, &mut far) => passed.map(|_| ()),
                    _ = cuts.changed() => Ok(()),
                }
            });
        }
    });
    Ok(address)
}

/// Leaves sessions behind, ten thousand in a second's measurement, and says what one of them holds at the server. Each has
/// made a call.
pub(super) async fn detached(client: &Client, server: SocketAddr, load: Load) -> Result<Measured, Error> {
    let many = ((load.measure.as_secs_f64() * 1e4) as u64).max(100);
    let mut left = leave_behind(client, server, many / 10, 0).await?;
    let (before, _): (u64, u64) = client.call(MEMORY, &()).await?;
    left = leave_behind(client, server, many, left).await?;
    let (after, _): (u64, u64) = client.call(MEMORY, &()).await?;
    if left < many {
        return Err("the server does not keep its sessions".into());
    }
    let memory = after.saturating_sub(before) as f64 / many as f64;
    Ok(Measured { memory, ..Measured::rate(many as f64) })
}

/// Leaves so many sessions more behind; how many there are then.
async fn leave_behind(client: &Client, server: SocketAddr, many: u64, left: u64) -> Result<u64, Error> {
    // Long enough that they are gone before they come back.
    let later = Reconnect::default().first(Duration::from_secs(1 << 20)).max(Duration::from_secs(1 << 20));
    for _ in 0..many {
        let leaving = Client::connect(format!("tcp://{server}")).reconnect(later.clone()).build().await?;
        let _: ByteBuf = leaving.call(ECHO, Bytes::new(&[1])).await?;
        let mut states = leaving.states();
        leaving.hang_up();
        while !matches!(states.next().await, None | Some(State::Reconnecting { .. })) {}
    }
    loop {
        let (_, detached): (u64, u64) = client.call(MEMORY, &()).await?;
        if detached >= left + many {
            return Ok(detached);
        }
        tokio::task::yield_now().await;
    }
}
