//! What the API promises to whoever builds on it.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use fluxar::{
    BindError, Call, Calling, Client, ClientBuilder, ConnectError, Error, HandlerError, OpenCall, Peer, Raw,
    Request, Server, ServerBuilder, ServerHandle, Tokio,
};
use fluxar_proto::{ConnectionError, Timeout};
use fluxar_runtime::{Address, Runtime};
use fluxar_tests::net::Net;
use fluxar_tests::schedulers;
use fluxar_tests::wire::Trap;

schedulers! {
    dialling_and_shaking_hands_share_one_timeout
}

fn send<T: Send>(_: &T) {}
fn is_send<T: Send + 'static>() {}
fn is_shared<T: Send + Sync + 'static>() {}

/// Compiles where every future can be spawned.
#[expect(dead_code, reason = "that it compiles is the test")]
async fn futures_can_be_sent(client: Client, request: Request, mut open: OpenCall<Raw>, server: Server) {
    send(&client.call::<u8>("method", &1).into_future());
    send(&client.call::<u8>("method", &1).start());
    send(&client.ping());
    send(&client.closed());
    send(&client.shut_down());
    send(&open.update(&1));
    send(&open.next_update::<u8>());
    send(&request.update(&1));
    send(&request.next_update::<u8>());
    send(&server.run());
    send(&Server::bind("").build());
    send(&Client::connect("").build());
}

#[test]
fn handles_can_be_shared() {
    is_shared::<Client>();
    is_shared::<ClientBuilder>();
    is_shared::<ServerHandle>();
    is_shared::<Peer>();
    is_shared::<Request>();
    is_shared::<OpenCall<Raw>>();
    // Whatever they bring, a call holds none of it.
    is_send::<OpenCall<std::rc::Rc<u8>>>();
    is_send::<Calling<'static, std::rc::Rc<u8>>>();
    is_shared::<Call<'static, Raw>>();
    is_shared::<Calling<'static, Raw>>();
    is_shared::<Server>();
    is_send::<ServerBuilder>();
    is_shared::<Raw>();
    is_shared::<Error>();
    is_shared::<HandlerError>();
    is_shared::<BindError>();
    is_shared::<ConnectError>();
}

/// Tokio, on a network where dialling takes long.
#[derive(Clone, Debug)]
struct Slow(Duration);

impl Runtime for Slow {
    type Timer = <Tokio as Runtime>::Timer;
    type Link = <Tokio as Runtime>::Link;
    type Listener = <Tokio as Runtime>::Listener;

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        Tokio.spawn(future);
    }

    fn now(&self) -> Instant {
        Tokio.now()
    }

    fn timer(&self, at: Instant) -> Self::Timer {
        Tokio.timer(at)
    }

    async fn connect(&self, address: &Address) -> io::Result<Self::Link> {
        tokio::time::sleep(self.0).await;
        Tokio.connect(address).await
    }

    async fn bind(&self, address: &Address) -> io::Result<Self::Listener> {
        Tokio.bind(address).await
    }
}

// spec: §6.9
async fn dialling_and_shaking_hands_share_one_timeout(_: Net) {
    let trap = Trap::open().await;
    let timeout = Duration::from_millis(1200);
    let since = Instant::now();
    let connecting = fluxar_runtime::ClientBuilder::new(Slow(Duration::from_millis(1000)), trap.url())
        .configure(|config| config.handshake_timeout = timeout)
        .build();
    // Accepted, and never answered.
    let (connected, _wire) = tokio::join!(connecting, trap.accept());
    let error = connected.unwrap_err();
    assert!(
        matches!(error, ConnectError::Handshake(ConnectionError::TimedOut(Timeout::Handshake))),
        "{error}"
    );
    assert!((timeout..timeout * 3 / 2).contains(&since.elapsed()), "{:?}", since.elapsed());
}
