//! This project, through its public API.

mod pubsub;
mod sessions;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;

use ::fluxar::{Client, Request, Server, TokioListener};
use serde_bytes::{ByteBuf, Bytes};
use tokio::net::TcpListener;

use crate::Error;
use crate::load::{Caller, Load, Measured, Work, beside, check, drive};

const ECHO: &str = "bench.echo";

pub(super) async fn serve(listener: TcpListener) -> Result<(), Error> {
    let server = Server::on(TokioListener::from(listener));
    let server = sessions::keep_many(server).build().await?;
    server.handle(ECHO, |request: Request| async move { Ok(request.payload::<ByteBuf>()?) });
    streams::handle(&server);
    pubsub::handle(&server).await?;
    sessions::handle(&server);
    Ok(server.run().await?)
}

async fn connect(server: SocketAddr) -> Result<Arc<Client>, Error> {
    Ok(Arc::new(Client::connect(format!("tcp://{server}")).build().await?))
}

/// Puts the load on a server; with sessions that outlive their link, or without.
pub(super) async fn measure(server: SocketAddr, load: Load, resume: bool) -> Result<Measured, Error> {
    let client = Client::connect(format!("tcp://{server}")).configure(|config| config.resume = resume);
    let client = Arc::new(client.build().await?);
    match load.work {
        Work::Calls(in_flight) => drive(client, in_flight, load).await,
        Work::Download => streams::download(&client, load).await,
        Work::Upload => streams::upload(&client, load).await,
        Work::CallsBesideDownload => {
            beside(client.clone(), load, async |items| streams::drain(&client, load, items).await).await
        }
        Work::CallsAcrossCuts => sessions::calls_across_cuts(server, load).await,
        Work::Detached => sessions::detached(&client, server, load).await,
        Work::PublishDirect(mode) => pubsub::direct(client, mode, load).await,
        Work::PublishRelayed(mode, subscribers) => {
            pubsub::relayed(client, server, mode, subscribers, load).await
        }
    }
}

impl Caller for Arc<Client> {
    async fn call(&self, payload: &[u8]) -> Result<(), Error> {
        let echo: ByteBuf = (**self).call(ECHO, Bytes::new(payload)).await?;
        check(payload, &echo)
    }
}
