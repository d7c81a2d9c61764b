//! Servers against hostile clients in the handshake: each hears what it did wrong, where it still can, and nobody else
//! notices.

use std::time::{Duration, Instant};

use fluxar::{Code, Item};
use fluxar_proto::frame;
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::garbage::garbage;
use fluxar_tests::honest::Field;
use fluxar_tests::net::Net;
use fluxar_tests::schedulers;
use fluxar_tests::wire::{Message, Wire, fresh_id, rude_connection};
use futures_util::future::join_all;

schedulers! {
    what_is_no_offer_is_refused_by_its_bytes
    other_protocols_are_turned_away
    an_offer_that_is_none_is_malformed
    the_first_message_must_be_an_offer
    an_offer_without_a_common_version_is_told_the_versions
    whoever_closes_or_leaves_in_the_handshake_gets_no_answer
    silence_in_the_handshake_has_an_end
    an_offer_may_trickle_but_not_for_ever
}

async fn field(net: Net) -> Field {
    Field::open(net, |builder| builder).await
}

// spec: §3.1, §3.3, §4.2, §5.1, §5.2, §5.4, §5.5, §6.8
async fn what_is_no_offer_is_refused_by_its_bytes(net: Net) {
    let field = field(net).await;
    for (bytes, code) in garbage() {
        assert_eq!(field.verdict(false, &bytes).await, code, "{bytes:02x?}");
    }
    // From its length alone, before any of it has come.
    assert_eq!(field.verdict(false, &frame::prefix(65_537)).await, Code::MESSAGE_TOO_LARGE);
    assert_eq!(field.verdict(false, &[0xff; 4]).await, Code::MESSAGE_TOO_LARGE);
    field.unharmed().await;
}

// spec: §3.3, §3.5
async fn other_protocols_are_turned_away(net: Net) {
    let field = field(net).await;
    let client_hello = {
        let mut hello = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
        hello.resize(517, 0xab);
        hello
    };
    let others: [&[u8]; 6] = [
        b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"EHLO example.org\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        &client_hello,
    ];
    for bytes in others {
        assert_eq!(field.verdict(false, bytes).await, Code::MESSAGE_TOO_LARGE, "{}", bytes.escape_ascii());
    }
    field.unharmed().await;
}

// spec: §5.14, §6.2, §6.3, §6.8
async fn an_offer_that_is_none_is_malformed(net: Net) {
    let field = field(net).await;
    let bad: [&[u8]; 9] = [
        b"\xf6",
        b"\x81\x01",
        b"\xa0",
        b"\xa1\x68versions\x80",
        b"\xa1\x68versions\x01",
        b"\xa1\x68versions\x81\x20",
        b"\xa2\x68versions\x81\x01\x68versions\x81\x01",
        b"\xa2\x68versions\x81\x01\x66limits\xa1\x6bmax_message\x00",
        b"\xa2\x68versions\x81\x01\x64caps\x01",
    ];
    for payload in bad {
        let offer = Message::offer().raw(payload).frame();
        assert_eq!(field.verdict(false, &offer).await, Code::MALFORMED, "{}", payload.escape_ascii());
    }
    let addressed = Message::offer().verb("x").frame();
    assert_eq!(field.verdict(false, &addressed).await, Code::MALFORMED);
    field.unharmed().await;
}

// spec: §6.1
async fn the_first_message_must_be_an_offer(net: Net) {
    let field = field(net).await;
    let early = [
        Message::call("echo"),
        Message::control(verb::PING),
        Message::opening(Kind::Stream, "echo"),
        Message::response(fresh_id()),
        Message::answer(fresh_id()),
    ];
    for message in early {
        assert_eq!(field.verdict(false, &message.frame()).await, Code::PROTOCOL_VIOLATION, "{message:?}");
    }
    field.unharmed().await;
}

// spec: §6.5, §6.8
async fn an_offer_without_a_common_version_is_told_the_versions(net: Net) {
    let field = field(net).await;
    let mut wire = Wire::connect(field.site.url()).await;
    // What else a later version may hold is not judged.
    let offer = Message::offer().raw(&b"\xa2\x68versions\x82\x02\x18\x63\x64caps\x01"[..]);
    wire.send(&offer).await;
    let answer = wire.receive().await;
    assert_eq!((answer.kind, answer.reference), (Kind::Hello, Some(offer.id)));
    let error = answer.error.unwrap();
    assert_eq!(error.code, Code::UNSUPPORTED_VERSION);
    let versions: Vec<_> = Item::new(error.data.as_deref().unwrap()).unwrap().array().unwrap().collect();
    assert_eq!(versions.iter().map(|version| version.as_u64()).collect::<Vec<_>>(), [Some(1)]);
    assert_eq!(wire.next().await, None);
    field.unharmed().await;
}

// spec: §3.4, §6.14, §8.7
async fn whoever_closes_or_leaves_in_the_handshake_gets_no_answer(net: Net) {
    let field = field(net).await;
    let mut wire = Wire::connect(field.site.url()).await;
    wire.send(&Message::control(verb::CLOSE)).await;
    assert_eq!(wire.next().await, None);
    let offer = Message::offer().frame();
    for cut in [0, 1, 4, 5, offer.len() - 1] {
        let mut wire = Wire::connect(field.site.url()).await;
        wire.send_bytes(&offer[..cut]).await;
        wire.finish().await;
        assert_eq!(wire.next().await, None, "cut at {cut}");
    }
    drop(rude_connection(field.site.url()).await);
    field.unharmed().await;
}

// spec: §6.9
// limit: time for the handshake
async fn silence_in_the_handshake_has_an_end(net: Net) {
    let time = Duration::from_millis(60);
    let field = Field::open(net, |builder| builder.configure(|config| config.handshake_timeout = time)).await;
    let since = Instant::now();
    let mut silent = join_all((0..20).map(|_| Wire::connect(field.site.url()))).await;
    let verdicts = join_all(silent.iter_mut().map(Wire::closed_for)).await;
    assert!(verdicts.into_iter().all(|code| code == Code::DEADLINE_EXCEEDED));
    assert!(since.elapsed() >= time);
    field.unharmed().await;
}

// spec: §3.1, §6.9
async fn an_offer_may_trickle_but_not_for_ever(net: Net) {
    let time = Duration::from_millis(300);
    let field = Field::open(net, |builder| builder.configure(|config| config.handshake_timeout = time)).await;
    let mut slow = Wire::connect(field.site.url()).await;
    for byte in Message::offer().frame() {
        slow.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.receive().await.error, None);
    // It moves on all the time, and does not get there.
    let mut slower = Wire::connect(field.site.url()).await;
    slower.send_bytes(&frame::prefix(60_000)).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let trickle = async {
        while slower.try_send_bytes(&[0x87]).await.is_ok() {
            ticks.tick().await;
        }
    };
    // It is told, whether it listens or not; then nobody takes its bytes any more.
    tokio::time::timeout(Duration::from_secs(20), trickle).await.expect("the link ends");
    drop((slow, slower));
    field.unharmed().await;
}
