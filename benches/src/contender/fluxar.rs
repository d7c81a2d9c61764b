//! This project, through its public API.

use std::net::SocketAddr;
use std::sync::Arc;

use ::fluxar::{Client, Request, Server, TokioListener};
use serde_bytes::{ByteBuf, Bytes};
use tokio::net::TcpListener;

use crate::Error;
use crate::load::{Caller, Load, Measured, check, drive};

const METHOD: &str = "bench.echo";

pub(super) async fn serve(listener: TcpListener) -> Result<(), Error> {
    let server = Server::on(TokioListener::from(listener)).build().await?;
    server.handle(METHOD, |request: Request| async move { Ok(request.payload::<ByteBuf>()?) });
    Ok(server.run().await?)
}

pub(super) async fn measure(server: SocketAddr, load: Load) -> Result<Measured, Error> {
    drive(Arc::new(Client::connect(format!("tcp://{server}")).build().await?), load).await
}

impl Caller for Arc<Client> {
    async fn call(&self, payload: &[u8]) -> Result<(), Error> {
        let echo: ByteBuf = (**self).call(METHOD, Bytes::new(payload)).await?;
        check(payload, &echo)
    }
}
