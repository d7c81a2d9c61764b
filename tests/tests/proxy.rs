//! What the tests of cut links rest on: a proxy that does exactly what its plan says.

use std::time::{Duration, Instant};

use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::plan::{Mishap, Plan, Way};
use fluxar_tests::proxy::Proxy;
use fluxar_tests::random::Random;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

matrix! {
    everything_passes_in_pieces_of_any_size
    a_cut_comes_after_exactly_so_many_bytes
    a_half_closed_link_goes_on_in_the_other_direction
    silence_tells_nobody_anything
    a_stalled_link_goes_on_later
    orders_concern_the_links_that_there_are
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a proxy leads to.
enum Target {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

impl Target {
    async fn open(net: Net) -> Self {
        match net {
            Net::Tcp => Self::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap()),
            Net::Unix => {
                let url = net.url();
                Self::Unix(UnixListener::bind(url.strip_prefix("unix://").unwrap()).unwrap(), url)
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Tcp(listener) => format!("tcp://{}", listener.local_addr().unwrap()),
            Self::Unix(_, url) => url.clone(),
        }
    }

    async fn accept(&self) -> Box<dyn Stream> {
        match self {
            Self::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Unix(listener, _) => Box::new(listener.accept().await.unwrap().0),
        }
    }

    /// Both ends of a link through `proxy`.
    async fn link(&self, proxy: &Proxy) -> (Box<dyn Stream>, Box<dyn Stream>) {
        (dial(proxy).await.unwrap(), self.accept().await)
    }
}

async fn dial(proxy: &Proxy) -> std::io::Result<Box<dyn Stream>> {
    Ok(match proxy.url().split_once("://").unwrap() {
        ("tcp", address) => Box::new(TcpStream::connect(address).await?),
        (_, path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// What comes until the end, in whatever way it comes.
async fn rest(stream: &mut Box<dyn Stream>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut all).await {}
    all
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| (number % 251) as u8).collect()
}

async fn everything_passes_in_pieces_of_any_size(net: Net) {
    let target = Target::open(net).await;
    for piece in [1, 7, 4000, 1 << 20] {
        let mut random = Random::new();
        let way = Way { random: random.fork(), ..Way::default().in_pieces(piece) };
        let plan = Plan { there: way.clone(), back: way };
        let proxy = Proxy::open(&target.url(), move |_| plan.clone()).await;
        let (near, mut far) = target.link(&proxy).await;
        let sent = bytes(100 * piece.min(1000));
        let mut got = vec![0; sent.len()];
        let (mut returning, mut sending) = tokio::io::split(near);
        let mut returned = Vec::new();
        tokio::join!(
            async {
                sending.write_all(&sent).await.unwrap();
                sending.shutdown().await.unwrap();
            },
            async {
                far.read_exact(&mut got).await.unwrap();
                assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
                far.write_all(&got).await.unwrap();
                far.shutdown().await.unwrap();
                returning.read_to_end(&mut returned).await.unwrap();
            }
        );
        assert!(got == sent && returned == sent);
        eventually("the link has ended", || proxy.alive() == 0).await;
        assert_eq!((proxy.links(), proxy.cuts()), (1, 0));
    }
}

async fn a_cut_comes_after_exactly_so_many_bytes(net: Net) {
    let target = Target::open(net).await;
    for count in [0, 1, 2, 3, 100, 70_000] {
        let sent = bytes(80_000);
        let proxy = Proxy::open(&target.url(), move |number| match number {
            0 => Plan::there(count, Mishap::Close),
            _ => Plan::back(count, Mishap::Close),
        })
        .await;
        let (mut near, mut far) = target.link(&proxy).await;
        let (_, got) = tokio::join!(near.write_all(&sent), rest(&mut far));
        assert_eq!(got, sent[..count as usize]);
        assert_eq!(rest(&mut near).await, []);
        let (mut near, mut far) = target.link(&proxy).await;
        let (_, got) = tokio::join!(far.write_all(&sent), rest(&mut near));
        assert_eq!(got, sent[..count as usize]);
        eventually("both links have ended", || proxy.alive() == 0).await;
        assert_eq!(proxy.cuts(), 2);
    }
    // What is reset may lose what was on the way; but nothing is made up.
    for count in [1, 1000, 70_000] {
        let proxy = Proxy::open(&target.url(), move |_| Plan::there(count, Mishap::Reset)).await;
        let (mut near, mut far) = target.link(&proxy).await;
        let sent = bytes(80_000);
        let (_, got) = tokio::join!(near.write_all(&sent), rest(&mut far));
        assert!(sent[..count as usize].starts_with(&got), "{} bytes of {count}", got.len());
        if net == Net::Tcp {
            let failed = far.write_all(&sent).await.and(far.read(&mut [0]).await.map(|_| ()));
            assert!(failed.is_err(), "nobody is there");
        }
    }
}

async fn a_half_closed_link_goes_on_in_the_other_direction(net: Net) {
    let target = Target::open(net).await;
    let proxy = Proxy::open(&target.url(), |_| Plan::there(3, Mishap::HalfClose)).await;
    let (mut near, mut far) = target.link(&proxy).await;
    near.write_all(b"abcdef").await.unwrap();
    assert_eq!(rest(&mut far).await, b"abc");
    for text in [b"123", b"456"] {
        far.write_all(text).await.unwrap();
        let mut got = [0; 3];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, text);
    }
    drop(far);
    assert_eq!(rest(&mut near).await, []);
    eventually("the link has ended", || proxy.alive() == 0).await;
    assert_eq!(proxy.cuts(), 1);
}

async fn silence_tells_nobody_anything(net: Net) {
    let target = Target::open(net).await;
    // In one direction.
    let proxy = Proxy::open(&target.url(), |_| Plan::there(3, Mishap::Silence)).await;
    let (mut near, mut far) = target.link(&proxy).await;
    near.write_all(&bytes(1 << 20)).await.unwrap();
    far.write_all(b"still").await.unwrap();
    let mut got = [0; 5];
    near.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still");
    drop(far);
    assert_eq!(rest(&mut near).await, []);
    // In both; who leaves does not tell the other one.
    let proxy = Proxy::open(&target.url(), |_| Plan::there(3, Mishap::SilenceBoth)).await;
    let (mut near, mut far) = target.link(&proxy).await;
    near.write_all(b"abcdef").await.unwrap();
    far.read_exact(&mut got[..3]).await.unwrap();
    far.write_all(&bytes(1 << 20)).await.unwrap();
    drop(near);
    let waiting = tokio::time::timeout(Duration::from_millis(50), far.read(&mut got)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    assert_eq!((proxy.alive(), proxy.cuts()), (1, 1));
    drop(far);
    eventually("the link has ended", || proxy.alive() == 0).await;
}

async fn a_stalled_link_goes_on_later(net: Net) {
    const TIME: Duration = Duration::from_millis(60);
    let target = Target::open(net).await;
    for mishap in [Mishap::Stall(TIME), Mishap::StallBoth(TIME)] {
        let proxy = Proxy::open(&target.url(), move |_| Plan::there(3, mishap)).await;
        let (mut near, mut far) = target.link(&proxy).await;
        let since = Instant::now();
        near.write_all(b"abcdef").await.unwrap();
        let mut got = [0; 6];
        far.read_exact(&mut got[..3]).await.unwrap();
        far.write_all(b"x").await.unwrap();
        far.read_exact(&mut got[3..]).await.unwrap();
        assert!(since.elapsed() >= TIME);
        assert_eq!(&got, b"abcdef");
        near.read_exact(&mut got[..1]).await.unwrap();
        assert_eq!(proxy.cuts(), 0);
    }
    // Slow, all the time.
    let slow = Plan { there: Way::default().in_pieces(1).paused(TIME / 10), back: Way::default() };
    let proxy = Proxy::open(&target.url(), move |_| slow.clone()).await;
    let (mut near, mut far) = target.link(&proxy).await;
    let since = Instant::now();
    near.write_all(b"abcdef").await.unwrap();
    let mut got = [0; 6];
    far.read_exact(&mut got).await.unwrap();
    assert!(since.elapsed() >= TIME / 2, "{:?}", since.elapsed());
}

async fn orders_concern_the_links_that_there_are(net: Net) {
    let target = Target::open(net).await;
    let proxy = Proxy::clear(&target.url()).await;
    for mishap in [Mishap::Reset, Mishap::Close] {
        let (mut near, mut far) = target.link(&proxy).await;
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 1);
        proxy.strike(mishap);
        assert_eq!((rest(&mut near).await, rest(&mut far).await), (vec![], vec![]));
    }
    proxy.shut(true);
    // It may be reset before it is known to be there.
    let near = dial(&proxy).await;
    assert_eq!(rest(&mut target.accept().await).await, []);
    if let Ok(mut near) = near {
        assert_eq!(rest(&mut near).await, []);
    }
    proxy.shut(false);
    let (mut near, mut far) = target.link(&proxy).await;
    near.write_all(b"x").await.unwrap();
    assert_eq!(far.read(&mut [0]).await.unwrap(), 1);
    eventually("the others have ended", || proxy.alive() == 1).await;
    assert_eq!((proxy.links(), proxy.cuts()), (4, 3));
}

#[test]
fn the_same_seed_makes_the_same_plans() {
    let plans = |seed| {
        let mut random = Random::of(seed);
        (0..50).map(|_| format!("{:?}", Plan::random(&mut random, 1 << 16))).collect::<Vec<_>>()
    };
    assert_eq!(plans(1), plans(1));
    assert_ne!(plans(1), plans(2));
    let mut random = Random::new();
    for _ in 0..1000 {
        let plan = Plan::random(&mut random, 1 << 16);
        let mishaps = [plan.there.mishap, plan.back.mishap];
        assert!(mishaps.iter().flatten().any(|(_, mishap)| mishap.is_cut()), "{plan:?}");
        assert!(mishaps.iter().flatten().all(|(after, _)| *after < 1 << 16), "{plan:?}");
    }
}
