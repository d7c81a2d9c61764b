//! What becomes of handlers that fail, and what their callers learn.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use fluxar::{Client, Code, Error, HandlerError, Raw, Reconnect, Request};
use fluxar_tests::matrix;
use fluxar_tests::net::{Flavor, Net, eventually, runtime};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use futures_util::future::join_all;
use serde::{Serialize, Serializer};

matrix! {
    an_error_of_a_handler_reaches_the_caller_whole
    any_other_error_becomes_unknown_and_tells_nothing
    a_panic_is_internal_and_harms_nobody_else
    a_result_that_cannot_be_encoded_is_internal
    nothing_and_null_are_the_same
    an_empty_list_is_not_nothing
    a_later_handler_takes_the_place_of_an_earlier_one
    a_handler_that_is_replaced_may_register_others_when_it_is_dropped
    a_handler_may_leave_its_request_to_somebody_else
    whoever_waits_for_a_handler_of_a_runtime_that_ends_is_told
}

// spec: §5.12, §16.3
async fn an_error_of_a_handler_reaches_the_caller_whole(net: Net) {
    let whole = Error::new(Code(4_294_967_295), "Zürich ist zu")
        .with_data(Raw::encode(&("data", [1, 2, 3])).unwrap().into_bytes())
        .with_retry_after_ms(u64::MAX)
        .with_processed(true);
    let bare = Error::new(Code(1000), "");
    let errors = [whole, bare, Error::not_found("no such user").with_processed(false)];
    let site = Site::with(net, |builder| {
        let errors = errors.clone();
        builder.handle("error", move |request: Request| {
            let errors = errors.clone();
            async move { Err::<(), _>(HandlerError::from(errors[request.payload::<usize>()?].clone())) }
        })
    })
    .await;
    let client = site.client().await;
    for (number, error) in errors.iter().enumerate() {
        assert_eq!(client.call::<Raw>("error", &number).await.as_ref(), Err(error));
    }
}

#[derive(Debug)]
struct Secret;

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password is swordfish")
    }
}

impl std::error::Error for Secret {}

// spec: §10.2
async fn any_other_error_becomes_unknown_and_tells_nothing(net: Net) {
    let site = Site::with(net, |builder| {
        builder
            .handle("secret", |_| async { Err::<(), _>(Secret.into()) })
            .handle("question", |_| async { Ok("forty-two".parse::<u8>()?) })
    })
    .await;
    let client = site.client().await;
    for method in ["secret", "question"] {
        let error = client.call::<Raw>(method, &()).await.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::UNKNOWN, None));
        assert!(!error.message.contains("swordfish") && !error.message.contains("digit"), "{error}");
        assert_eq!(error.data, None);
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

/// A future that is ready, and cannot be dropped in peace.
struct Trapped(Ready<Result<u8, HandlerError>>, Bomb);

impl Future for Trapped {
    type Output = Result<u8, HandlerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Panics when it is to be encoded.
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("unspeakable")
    }
}

// spec: §10.2
async fn a_panic_is_internal_and_harms_nobody_else(net: Net) {
    let site = Site::with(net, |builder| {
        builder
            .handle("early", |request: Request| {
                if request.method() == "early" {
                    panic!("before there is a future");
                }
                ready(Ok(1))
            })
            .handle("at once", |request: Request| async move {
                if request.is_wanted() {
                    panic!("at the first poll");
                }
                Ok(1)
            })
            .handle("later", |request: Request| async move {
                tokio::task::yield_now().await;
                if request.is_wanted() {
                    panic!("at a later poll");
                }
                Ok(1)
            })
            .handle("early, and again", |request: Request| {
                if request.method() == "early, and again" {
                    std::panic::panic_any(Bomb);
                }
                ready(Ok(1))
            })
            .handle("in drop", |_| Trapped(ready(Ok(1)), Bomb))
            .handle("in encoding", |_| async { Ok(Unspeakable) })
    })
    .await;
    let client = site.client().await;
    let neighbours = join_all((0..20u32).map(|number| client.call::<u32>("echo", &number).into_future()));
    let panics = async {
        for method in ["early", "early, and again", "at once", "later", "in drop", "in encoding"] {
            let error = client.call::<Raw>(method, &()).await.unwrap_err();
            assert_eq!((error.code, error.processed), (Code::INTERNAL, None), "{method}: {error}");
            assert!(!error.message.contains("poll"), "{error}");
        }
    };
    let (neighbours, ()) = tokio::join!(neighbours, panics);
    assert!(neighbours.into_iter().zip(0..).all(|(answer, number)| answer == Ok(number)));
    let peer = site.peer().await;
    eventually("all slots are free", || peer.stats().requests_running == 0).await;
}

struct Refusing;

impl Serialize for Refusing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it does not want to"))
    }
}

// spec: §5.12, §10.2
async fn a_result_that_cannot_be_encoded_is_internal(net: Net) {
    let done = Counter::new();
    let site = Site::with(net, |builder| {
        let done = done.clone();
        builder.handle("refuse", move |_| {
            let done = done.clone();
            async move {
                done.add();
                Ok(Refusing)
            }
        })
    })
    .await;
    let error = site.client().await.call::<Raw>("refuse", &()).await.unwrap_err();
    assert_eq!(error.code, Code::INTERNAL, "it is no fault of the caller's");
    assert_eq!((done.get(), error.is_retry_safe()), (1, false), "the handler has run");
}

#[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
struct Unit;

/// Other languages have one value for both, which is null.
async fn nothing_and_null_are_the_same(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("nothing", |request: Request| async move {
            request.payload::<()>()?;
            request.payload::<Unit>()?;
            request.payload::<Option<u8>>()?;
            assert_eq!(request.raw(), Raw::default());
            Ok(())
        })
    })
    .await;
    let client = site.client().await;
    assert_eq!(client.call::<()>("nothing", &()).await, Ok(()));
    assert_eq!(client.call::<Raw>("nothing", &Raw::default()).await, Ok(Raw::default()));
    assert_eq!(client.call::<Option<u8>>("nothing", &None::<u8>).await, Ok(None));
    assert_eq!(client.call::<Unit>("nothing", &Unit).await, Ok(Unit));
    // An empty array is what serde's own rules make of it in some formats.
    assert_eq!(Raw::new(&[0x80][..]).unwrap().decode::<()>(), Ok(()));
    assert!(Raw::new(&[0x81, 0x00][..]).unwrap().decode::<()>().is_err());
}

async fn an_empty_list_is_not_nothing(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let empty = Raw::new(&[0x80][..]).unwrap();
    let slice: &[u32] = &[];
    assert_eq!(client.call::<Raw>("echo", slice).await.as_ref(), Ok(&empty));
    assert_eq!(client.call::<Raw>("echo", &Vec::<u32>::new()).await.as_ref(), Ok(&empty));
    assert_eq!(client.call::<Raw>("echo", &[0u32; 0]).await.as_ref(), Ok(&empty));
    assert_eq!(client.call::<[u32; 0]>("echo", &empty).await, Ok([]));
    assert!(client.call::<Vec<u32>>("echo", &()).await.is_err(), "and the other way round");
}

async fn a_later_handler_takes_the_place_of_an_earlier_one(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let peer = site.peer().await;
    assert_eq!(peer.call::<u8>("version", &()).await.unwrap_err().code, Code::UNIMPLEMENTED);
    client.handle("version", |_| async { Ok(1) });
    assert_eq!(peer.call::<u8>("version", &()).await, Ok(1));
    client.handle("version", |_| async { Ok(2) });
    assert_eq!(peer.call::<u8>("version", &()).await, Ok(2));
}

/// Registers a handler when it is dropped.
struct Successor(Weak<Client>);

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(client) = self.0.upgrade() {
            client.handle("successor", |_| async { Ok(3) });
        }
    }
}

async fn a_handler_that_is_replaced_may_register_others_when_it_is_dropped(net: Net) {
    let site = Site::open(net).await;
    let client = Arc::new(site.client().await);
    let successor = Successor(Arc::downgrade(&client));
    client.handle("version", move |_| {
        let known = successor.0.strong_count() > 0;
        async move { Ok(u8::from(known)) }
    });
    let peer = site.peer().await;
    assert_eq!(peer.call::<u8>("version", &()).await, Ok(1));
    client.handle("version", |_| async { Ok(2) });
    assert_eq!(peer.call::<u8>("version", &()).await, Ok(2));
    assert_eq!(peer.call::<u8>("successor", &()).await, Ok(3));
}

async fn a_handler_may_leave_its_request_to_somebody_else(net: Net) {
    let kept = Counter::new();
    let site = Site::with(net, |builder| {
        let kept = kept.clone();
        builder.handle("leave", move |request: Request| {
            let kept = kept.clone();
            async move {
                tokio::spawn(async move {
                    assert_eq!(request.payload::<u8>().unwrap(), 7);
                    while request.next_update::<Raw>().await.is_some() {}
                    assert!(!request.is_wanted());
                    let late = request.update(&1).await.unwrap_err();
                    assert_eq!((late.code, late.processed), (Code::CANCELLED, Some(false)));
                    kept.add();
                });
                Ok(())
            }
        })
    })
    .await;
    let client = site.client().await;
    assert_eq!(client.call::<Raw>("leave", &7).await, Ok(Raw::default()));
    kept.reached(1).await;
}

// spec: §8.8
async fn whoever_waits_for_a_handler_of_a_runtime_that_ends_is_told(net: Net) {
    let started = Counter::new();
    let (url, urls) = tokio::sync::oneshot::channel();
    let (stop, stopped) = std::sync::mpsc::channel();
    let server = std::thread::spawn({
        let started = started.clone();
        move || {
            let runtime = runtime(Flavor::Multi);
            let site = runtime.block_on(Site::with(net, |builder| {
                builder.handle("hang", move |_| {
                    started.add();
                    std::future::pending::<Result<(), HandlerError>>()
                })
            }));
            url.send(site.url().to_owned()).unwrap();
            stopped.recv().unwrap();
            // Tasks are dropped where they stand.
            drop(runtime);
        }
    });
    let connect = Client::connect(urls.await.unwrap()).reconnect(Reconnect::off());
    let client = connect.build().await.unwrap();
    let call = client.call::<Raw>("hang", &()).start().await.unwrap();
    started.reached(1).await;
    stop.send(()).unwrap();
    let error = call.await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "{error}");
    server.join().unwrap();
}
