//! gRPC by tonic, with the code its generator would write written by hand.

mod streams;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::Grpc;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::Error;
use crate::load::{Caller, Load, Measured, Work, beside, check, drive};

const ECHO: &str = "/fluxar.bench.Bench/Echo";
const DOWNLOAD: &str = "/fluxar.bench.Bench/Download";
const UPLOAD: &str = "/fluxar.bench.Bench/Upload";

/// What goes there and back.
#[derive(Clone, PartialEq, prost::Message)]
struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    payload: Vec<u8>,
}

/// The service, and its unary method.
#[derive(Clone)]
struct Bench;

impl tonic::server::NamedService for Bench {
    const NAME: &'static str = "fluxar.bench.Bench";
}

impl tonic::server::UnaryService<Bytes> for Bench {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Bench {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let bytes = ProstCodec::<Bytes, Bytes>::default;
            Ok(match request.uri().path() {
                ECHO => Grpc::new(bytes()).unary(Self, request).await,
                DOWNLOAD => Grpc::new(bytes()).server_streaming(streams::Download, request).await,
                UPLOAD => Grpc::new(ProstCodec::default()).client_streaming(streams::Upload, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

pub(super) async fn serve(listener: TcpListener) -> Result<(), Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(Bench).serve_with_incoming(incoming).await?)
}

pub(super) async fn measure(server: SocketAddr, load: Load) -> Result<Measured, Error> {
    let channel = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true).connect().await?;
    match load.work {
        Work::Calls(in_flight) => drive(channel, in_flight, load).await,
        Work::Download => streams::download(channel, load).await,
        Work::Upload => streams::upload(channel, load).await,
        Work::CallsBesideDownload => {
            beside(channel.clone(), load, async |items| streams::drain(channel, load, items).await).await
        }
        Work::PublishDirect(_) | Work::PublishRelayed(..) => Err("gRPC has no topics".into()),
        Work::CallsAcrossCuts | Work::Detached => Err("gRPC has no sessions".into()),
    }
}

impl Caller for Channel {
    async fn call(&self, payload: &[u8]) -> Result<(), Error> {
        let mut grpc = tonic::client::Grpc::new(self.clone());
        grpc.ready().await?;
        let request = Request::new(Bytes { payload: payload.to_vec() });
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let response = grpc.unary(request, PathAndQuery::from_static(ECHO), codec).await?;
        check(payload, &response.get_ref().payload)
    }
}
