//! Streams over transports that give bytes in pieces of any size, and that end anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fluxar::{Client, Code, Error, HandlerError, Reconnect, StreamReceiver, StreamRequest};
use fluxar_runtime::{ClientBuilder, ServerBuilder};
use fluxar_tests::chaos::Chaos;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::random::Random;
use fluxar_tests::site::Site;
use fluxar_tests::{matrix, schedulers};
use futures_util::SinkExt;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

matrix! {
    items_may_come_and_go_in_pieces_of_any_size
}

schedulers! {
    what_arrives_before_a_cut_is_a_beginning_in_order
}

async fn echo(mut request: StreamRequest) -> Result<u8, HandlerError> {
    let (mut sender, mut receiver) = request.split::<(u32, String)>()?;
    sender.send_all(&mut receiver).await?;
    Ok(7)
}

// spec: §3.1, §11.2
async fn items_may_come_and_go_in_pieces_of_any_size(net: Net) {
    let mut random = Random::new();
    let server = ServerBuilder::new(Chaos::in_pieces(&mut random)).listen(net.url());
    let server = server.handle_stream("echo", echo).build().await.unwrap();
    let (url, handle) = (server.url(), server.server_handle());
    let running = tokio::spawn(server.run());
    let client = ClientBuilder::new(Chaos::in_pieces(&mut random), url).build().await.unwrap();
    let streams = (0..8).map(|_| {
        let (peer, mut random) = (client.peer(), random.fork());
        tokio::spawn(async move {
            let opening = peer.stream::<(u32, String)>("echo", &()).window(random.below(5000) as u32);
            let (mut sender, mut receiver) = opening.await.unwrap().split();
            let lengths: Vec<_> =
                (0..60).map(|_| [0, 1, 10, 100, 1000, 9000][random.below(6) as usize]).collect();
            let sending = async {
                for (number, length) in lengths.iter().enumerate() {
                    sender.send(&(number as u32, "x".repeat(*length))).await.unwrap();
                }
                sender.end().await.unwrap();
            };
            let receiving = async {
                for (number, length) in lengths.iter().enumerate() {
                    let (got, text) = receiver.next().await.unwrap().unwrap();
                    assert_eq!((got as usize, text.len()), (number, *length));
                }
                assert_eq!(receiver.next().await, None);
                assert_eq!(receiver.last::<u8>(), Some(Ok(7)));
            };
            tokio::join!(sending, receiving);
        })
    });
    for stream in futures_util::future::join_all(streams).await {
        stream.unwrap();
    }
    drop(client);
    handle.stop();
    running.await.unwrap().unwrap();
}

/// Passes on so many bytes in each direction, and then cuts both.
async fn cut_after(url: &str, there: u64, back: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (listener.local_addr().unwrap(), url.strip_prefix("tcp://").unwrap().to_owned());
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(target).await.unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let pass = async |from: OwnedReadHalf, mut to: OwnedWriteHalf, count| {
            tokio::io::copy(&mut from.take(count), &mut to).await.ok();
        };
        tokio::select! {
            () = pass(near_in, far_out, there) => {}
            () = pass(far_in, near_out, back) => {}
        }
    });
    format!("tcp://{address}")
}

// spec: §3.4, §8.8, §11.2, §11.3
async fn what_arrives_before_a_cut_is_a_beginning_in_order(net: Net) {
    let mut random = Random::new();
    let (told, mut tell) = mpsc::unbounded_channel();
    let running = Arc::new(AtomicUsize::new(0));
    let site = Site::with(net, |builder| {
        let running = running.clone();
        builder.handle_stream("both", move |mut request: StreamRequest| {
            let (told, running) = (told.clone(), running.clone());
            async move {
                let (mut sender, mut receiver) = request.split::<u32>()?;
                running.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    told.send(beginning(&mut receiver).await).unwrap();
                    running.fetch_sub(1, Ordering::SeqCst);
                });
                for number in 0_u32.. {
                    sender.send(&number).await?;
                }
                Ok(())
            }
        })
    })
    .await;
    let (mut arrived, mut returned) = (0, 0);
    for _ in 0..40 {
        let mut bytes = || 200 + random.below(200_000);
        let (there, back) = (bytes(), bytes());
        let url = cut_after(site.url(), there, back).await;
        // The handshake may be cut, too.
        let connect = Client::connect(url).reconnect(Reconnect::off());
        let Ok(client) = connect.build().await else { continue };
        let Ok(stream) = client.stream::<u32>("both", &()).await else { continue };
        let (mut sender, mut receiver) = stream.split();
        let sending = async {
            let mut sent = 0_u32;
            while sender.send(&sent).await.is_ok() {
                sent += 1;
            }
            sent
        };
        let (sent, (count, error)) = tokio::join!(sending, beginning(&mut receiver));
        returned += count;
        assert_eq!(error.code, Code::UNAVAILABLE);
        eventually("nobody is left over there", || running.load(Ordering::SeqCst) == 0).await;
        // The opening may have been cut.
        if let Ok((count, error)) = tell.try_recv() {
            assert!(count <= sent, "{count} of {sent} came");
            arrived += count;
            assert!([Code::UNAVAILABLE, Code::CANCELLED].contains(&error.code), "{error}");
        }
    }
    assert!(arrived > 0 && returned > 0, "{arrived} and {returned} came");
    eventually("all connections are gone", || site.handle().peers().is_empty()).await;
}

/// How many items come, one after the other from 0, and what ends them.
async fn beginning(receiver: &mut StreamReceiver<u32>) -> (u32, Error) {
    let mut count = 0;
    loop {
        match receiver.next().await.expect("nobody has ended it in order") {
            Ok(number) => assert_eq!(std::mem::replace(&mut count, number + 1), number),
            Err(error) => return (count, error),
        }
    }
}
