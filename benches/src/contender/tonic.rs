//! gRPC by tonic, with the code its generator would write written by hand.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::Error;
use crate::load::{Caller, Load, Measured, check, drive};

const METHOD: &str = "/fluxar.bench.Echo/Echo";

/// What goes there and back.
#[derive(Clone, PartialEq, prost::Message)]
struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    payload: Vec<u8>,
}

/// The service and its one method.
#[derive(Clone)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "fluxar.bench.Echo";
}

impl tonic::server::UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Bytes, Bytes>::default());
            Ok(if request.uri().path() == METHOD {
                grpc.unary(Self, request).await
            } else {
                Status::unimplemented("no such method").into_http()
            })
        })
    }
}

pub(super) async fn serve(listener: TcpListener) -> Result<(), Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(Echo).serve_with_incoming(incoming).await?)
}

pub(super) async fn measure(server: SocketAddr, load: Load) -> Result<Measured, Error> {
    let channel = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true).connect().await?;
    drive(channel, load).await
}

impl Caller for Channel {
    async fn call(&self, payload: &[u8]) -> Result<(), Error> {
        let mut grpc = tonic::client::Grpc::new(self.clone());
        grpc.ready().await?;
        let request = Request::new(Bytes { payload: payload.to_vec() });
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let response = grpc.unary(request, PathAndQuery::from_static(METHOD), codec).await?;
        check(payload, &response.get_ref().payload)
    }
}
