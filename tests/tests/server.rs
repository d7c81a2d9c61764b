//! The side that listens.

use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use fluxar::{BindError, Client, Code, ConnectError, ConnectionError, Error, Request, Server, Transport};
use fluxar_tests::net::{Net, eventually, socket_path};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::{Site, common};
use fluxar_tests::wire::{Wire, rude_connection};
use fluxar_tests::{matrix, schedulers};
use futures_util::future::join_all;

matrix! {
    stopping_ends_run_and_every_connection
    stopping_without_a_connection_ends_run
    stopping_before_running_ends_run_at_once
    stopping_cuts_handshakes
    a_server_whose_run_is_dropped_listens_no_more
    the_handle_knows_who_is_connected
    a_peer_is_its_connection
    a_server_always_has_room_for_one_handshake
    what_could_not_be_bound_or_reached_says_why
    clients_come_and_go
    watching_a_connection_for_a_while_leaves_nothing_behind
}

schedulers! {
    one_server_listens_on_several_addresses
    a_tcp_address_in_use_is_an_error
    a_socket_file_left_behind_is_replaced
    a_socket_file_in_use_is_an_error
    a_file_that_is_no_socket_is_left_alone
    a_socket_file_goes_with_its_listener
    bad_urls_are_errors
    ipv6_addresses_stand_in_brackets
    a_socket_that_listens_already_serves
    too_many_handshakes_cost_only_the_oldest
    connections_that_are_reset_at_once_hold_up_nobody
}

// spec: §8.7, §8.8
async fn stopping_ends_run_and_every_connection(net: Net) {
    let dropped = Counter::new();
    let site = Site::with(net, |builder| {
        let dropped = dropped.clone();
        builder.handle("hang", move |_| {
            let guard = dropped.guard();
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok(())
            }
        })
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(site.client().await);
    }
    let mut calls = Vec::new();
    for client in &clients {
        calls.push(client.call::<()>("hang", &()).start().await.unwrap());
    }
    let peers = || site.handle().peers();
    eventually("all handlers run", || peers().iter().map(|p| p.stats().requests_running).sum::<usize>() == 5)
        .await;
    let url = site.url().to_owned();
    site.close().await;
    for call in calls {
        let error = call.await.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None));
    }
    for client in &clients {
        assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
    }
    dropped.reached(5).await;
    assert!(Client::connect(url).build().await.is_err(), "nobody listens any more");
}

async fn stopping_without_a_connection_ends_run(net: Net) {
    let site = Site::open(net).await;
    let handle = site.handle().clone();
    assert!(handle.peers().is_empty());
    site.close().await;
    // Harmless afterwards, and more than once.
    handle.stop();
    handle.stop();
}

async fn stopping_before_running_ends_run_at_once(net: Net) {
    let server = Server::bind(net.url()).build().await.unwrap();
    server.server_handle().stop();
    server.run().await.unwrap();
}

async fn stopping_cuts_handshakes(net: Net) {
    let site = Site::open(net).await;
    let mut silent = Wire::connect(site.url()).await;
    let mut slow = Wire::connect(site.url()).await;
    slow.send_bytes(&[0, 0, 0, 70, 0x87]).await;
    // Whoever connected later is served, so that both are accepted by then.
    site.client().await;
    site.close().await;
    silent.ended().await;
    slow.ended().await;
}

async fn a_server_whose_run_is_dropped_listens_no_more(net: Net) {
    let server = common(Server::bind(net.url())).build().await.unwrap();
    let (url, handle) = (server.url(), server.server_handle());
    let running = tokio::spawn(server.run());
    let client = Client::connect(&url).build().await.unwrap();
    running.abort();
    running.await.unwrap_err();
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1), "connections live on");
    // The listener's task may need a moment to end.
    while Client::connect(&url).build().await.is_ok() {
        tokio::task::yield_now().await;
    }
    handle.stop();
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
}

async fn the_handle_knows_who_is_connected(net: Net) {
    let site = Site::open(net).await;
    let mut clients = Vec::new();
    for number in 1..=4 {
        clients.push(site.connect().handle("who", move |_| async move { Ok(number) }).build().await.unwrap());
    }
    let peers = site.handle().peers();
    let names = join_all(peers.iter().map(|peer| peer.call::<i32>("who", &()).into_future())).await;
    assert_eq!(names, [Ok(1), Ok(2), Ok(3), Ok(4)], "in the order they came");
    clients.remove(1).close();
    assert_eq!(peers[1].closed().await, ConnectionError::ClosedByPeer(None));
    eventually("it is forgotten", || site.handle().peers().len() == 3).await;
    let reason = Error::permission_denied("you know why");
    site.handle().peers()[0].close_with(reason.clone());
    assert_eq!(clients[0].closed().await, ConnectionError::ClosedByPeer(Some(reason)));
    assert_eq!(clients[1].call::<u8>("echo", &1).await, Ok(1), "the others stay");
}

async fn clients_come_and_go(net: Net) {
    let site = Site::open(net).await;
    let tasks = (0..8u32).map(|task| {
        let site = &site;
        async move {
            for number in 0..25 {
                let client = site.client().await;
                assert_eq!(client.call::<(u32, u32)>("echo", &(task, number)).await, Ok((task, number)));
            }
        }
    });
    join_all(tasks).await;
    eventually("all are forgotten", || site.handle().peers().is_empty()).await;
}

struct Bell;

impl Wake for Bell {
    fn wake(self: Arc<Self>) {}
}

async fn watching_a_connection_for_a_while_leaves_nothing_behind(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let bells: Vec<_> = (0..100).map(|_| Arc::new(Bell)).collect();
    for bell in &bells {
        let waker = Waker::from(bell.clone());
        let mut closed = Box::pin(client.closed());
        assert!(closed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(bells.iter().all(|bell| Arc::strong_count(bell) == 1), "a waker was kept");
}

async fn one_server_listens_on_several_addresses(_: Net) {
    let path = socket_path();
    let site = Site::with(Net::Tcp, |builder| {
        builder.listen("127.0.0.1:0").listen(format!("unix://{}", path.display()))
    })
    .await;
    let server = Server::bind("tcp://127.0.0.1:0").listen(Net::Unix.url()).build().await.unwrap();
    assert_eq!(
        server.addresses().iter().map(fluxar::Address::transport).collect::<Vec<_>>(),
        [Transport::Tcp, Transport::Unix]
    );
    assert!(server.url().starts_with("tcp://127.0.0.1:") && !server.url().ends_with(":0"));
    let unix = Client::connect(format!("unix://{}", path.display())).build().await.unwrap();
    let tcp = site.client().await;
    assert_eq!(unix.call::<u8>("echo", &1).await, Ok(1));
    assert_eq!(tcp.call::<u8>("echo", &2).await, Ok(2));
    assert_eq!(site.handle().peers().len(), 2);
    site.close().await;
    assert_eq!(unix.closed().await, ConnectionError::ClosedByPeer(None));
    assert_eq!(tcp.closed().await, ConnectionError::ClosedByPeer(None));
    assert!(!path.exists());
}

async fn a_tcp_address_in_use_is_an_error(_: Net) {
    let site = Site::open(Net::Tcp).await;
    let error = Server::bind(site.url()).build().await.unwrap_err();
    let BindError::Io(url, io) = &error else { panic!("{error:?}") };
    assert_eq!((url.as_str(), io.kind()), (site.url(), ErrorKind::AddrInUse));
    assert!(error.to_string().contains(site.url()));
}

// spec: §3.6
async fn a_socket_file_left_behind_is_replaced(_: Net) {
    let path = socket_path();
    // As a server leaves it that is killed: the file stays, and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let url = format!("unix://{}", path.display());
    let site = Site::of(common(Server::bind(&url)).build().await.unwrap());
    assert_eq!(site.client().await.call::<u8>("echo", &1).await, Ok(1));
}

async fn a_socket_file_in_use_is_an_error(_: Net) {
    let site = Site::open(Net::Unix).await;
    let client = site.client().await;
    let error = Server::bind(site.url()).build().await.unwrap_err();
    assert!(matches!(&error, BindError::Io(_, io) if io.kind() == ErrorKind::AddrInUse), "{error:?}");
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1), "who listens there is unharmed");
    assert_eq!(site.client().await.call::<u8>("echo", &1).await, Ok(1));
    // Nor where it is too busy to take anybody.
    let path = socket_path();
    let busy = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut queued = Vec::new();
    loop {
        let socket = tokio::net::UnixStream::connect(&path).await;
        match socket {
            Ok(socket) => queued.push(socket),
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let error = Server::bind(format!("unix://{}", path.display())).build().await.unwrap_err();
    assert!(matches!(&error, BindError::Io(_, io) if io.kind() == ErrorKind::AddrInUse), "{error:?}");
    drop(busy);
    std::fs::remove_file(path).unwrap();
}

async fn a_file_that_is_no_socket_is_left_alone(_: Net) {
    let path = socket_path();
    std::fs::write(&path, "precious").unwrap();
    let error = Server::bind(format!("unix://{}", path.display())).build().await.unwrap_err();
    assert!(matches!(&error, BindError::Io(_, io) if io.kind() == ErrorKind::AddrInUse), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(path).unwrap();
}

async fn a_socket_file_goes_with_its_listener(_: Net) {
    let path = socket_path();
    let url = format!("unix://{}", path.display());
    // What has ended listens no more, so that the next one can, at once.
    for _ in 0..100 {
        let site = Site::of(common(Server::bind(&url)).build().await.unwrap());
        assert_eq!(site.client().await.call::<u8>("echo", &1).await, Ok(1));
        site.close().await;
        assert!(!path.exists());
    }
    // Also where it never ran.
    drop(Server::bind(&url).build().await.unwrap());
    assert!(!path.exists());
}

// spec: §3.6
async fn bad_urls_are_errors(_: Net) {
    let bad = [
        "",
        "tcp://",
        "tcp://:1",
        "tcp://host",
        "tcp://host:",
        "tcp://host:65536",
        "tcp://host:-1",
        "tcp://::1:80",
        "unix://relative",
        "unix://",
        "http://host:80",
        "ws://host:80/",
        "tls://host:443",
        "quic://host:1",
        "host",
    ];
    for url in bad {
        let error = Server::bind(url).build().await.unwrap_err();
        assert!(matches!(error, BindError::Address(_)), "{url}: {error:?}");
        assert!(error.to_string().contains(url));
        let error = Client::connect(url).build().await.unwrap_err();
        assert!(matches!(error, ConnectError::Address(_)), "{url}: {error:?}");
    }
    let error = Server::bind("tcp://127.0.0.1:0").transport(Transport::Unix).build().await.unwrap_err();
    assert!(matches!(error, BindError::WrongTransport(_)), "{error:?}");
    let error = Client::connect(Net::Unix.url()).transport(Transport::Tcp).build().await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongTransport(_)), "{error:?}");
    let missing = socket_path().join("below/nothing.sock");
    let error = Server::bind(format!("unix://{}", missing.display())).build().await.unwrap_err();
    assert!(matches!(error, BindError::Io(..)), "{error:?}");
}

// spec: §3.6
async fn ipv6_addresses_stand_in_brackets(_: Net) {
    // Not every machine that runs tests has it.
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let site = Site::of(common(Server::bind("tcp://[::1]:0")).build().await.unwrap());
    assert!(site.url().starts_with("tcp://[::1]:"));
    let client = site.client().await;
    assert_eq!(client.remote(), site.url());
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}

async fn a_socket_that_listens_already_serves(_: Net) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    // Whoever came before the server is served too.
    let (client, site) = tokio::join!(Client::connect(&url).build(), async {
        tokio::task::yield_now().await;
        Site::of(common(Server::on(fluxar::TokioListener::from(listener))).build().await.unwrap())
    });
    assert_eq!(site.url(), url);
    assert_eq!(client.unwrap().call::<u8>("echo", &1).await, Ok(1));
}

// spec: §15.3, §17.2
// limit: links in the handshake at once, per listener
async fn too_many_handshakes_cost_only_the_oldest(net: Net) {
    let site = Site::with(net, |builder| builder.max_handshakes(4)).await;
    let client = site.client().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Wire::connect(site.url()).await);
    }
    // With one more there is no room for the next, whatever comes of it: the oldest has to go.
    for number in 0..4u8 {
        silent.push(Wire::connect(site.url()).await);
        let honest = site.client().await;
        assert_eq!(honest.call::<u8>("echo", &number).await, Ok(number));
        assert!(!silent.remove(0).ended().await, "there was nothing to close yet");
    }
    let mut slow = Wire::connect(site.url()).await;
    slow.shake_hands().await;
    slow.ping().await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1), "who has shaken hands counts no more");
}

async fn connections_that_are_reset_at_once_hold_up_nobody(_: Net) {
    let site = Site::open(Net::Tcp).await;
    let client = site.client().await;
    for _ in 0..300 {
        drop(rude_connection(site.url()).await);
    }
    let since = std::time::Instant::now();
    let late = site.client().await;
    assert_eq!(late.call::<u8>("echo", &1).await, Ok(1));
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    assert!(since.elapsed().as_secs() < 5, "the listener rests after each of them");
}

#[expect(clippy::mutable_key_type, reason = "what a peer is compared by never changes")]
async fn a_peer_is_its_connection(net: Net) {
    let (seen, mut callers) = tokio::sync::mpsc::unbounded_channel();
    let site = Site::with(net, |builder| {
        builder.handle("note", move |request: Request| {
            let noted = seen.send(request.peer());
            async move { Ok(noted?) }
        })
    })
    .await;
    let (one, other) = (site.client().await, site.client().await);
    for client in [&one, &one, &other] {
        client.call::<()>("note", &()).await.unwrap();
    }
    let peers = [callers.recv().await.unwrap(), callers.recv().await.unwrap(), callers.recv().await.unwrap()];
    assert_eq!(peers[0], peers[1]);
    assert_ne!(peers[0], peers[2]);
    assert_ne!(peers[0], one.peer(), "each side has its own");
    let distinct: std::collections::HashSet<_> = peers.into_iter().collect();
    assert_eq!(distinct, site.handle().peers().into_iter().collect());
}

// spec: §15.3
async fn a_server_always_has_room_for_one_handshake(net: Net) {
    let site = Site::with(net, |builder| builder.max_handshakes(0)).await;
    assert_eq!(site.client().await.call::<u8>("echo", &1).await, Ok(1));
}

async fn what_could_not_be_bound_or_reached_says_why(net: Net) {
    fn kind(error: &dyn std::error::Error) -> Option<ErrorKind> {
        error.source()?.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    }
    let site = Site::open(net).await;
    let bind = Server::bind(site.url()).build().await.unwrap_err();
    assert_eq!(kind(&bind), Some(ErrorKind::AddrInUse));
    let url = site.url().to_owned();
    site.close().await;
    let refused = Client::connect(url).build().await.unwrap_err();
    assert!(matches!(kind(&refused), Some(ErrorKind::ConnectionRefused | ErrorKind::NotFound)), "{refused}");
    let handshake = ConnectError::from(ConnectionError::ClosedByPeer(None));
    let source = std::error::Error::source(&handshake).and_then(|why| why.downcast_ref::<ConnectionError>());
    assert_eq!(source, Some(&ConnectionError::ClosedByPeer(None)));
}
