//! Peers that send what nobody expects: the command says so and ends, whatever it is.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use fluxar::{Error, Raw, Request};

use crate::support::{fluxar, fluxar_beside, serve};

/// A listener that answers whatever its one client says first with these bytes, and closes.
fn answers(bytes: &'static [u8]) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut offer = [0; 4];
        stream.read_exact(&mut offer).unwrap();
        let mut offer = vec![0; u32::from_be_bytes(offer) as usize];
        stream.read_exact(&mut offer).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Until the client closes too; what it still says is of no interest.
        let _said = stream.read_to_end(&mut offer);
    });
    (url, thread)
}

#[test]
fn whoever_does_not_shake_hands_is_no_peer() {
    for (bytes, why) in [
        (&b""[..], "connection lost"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "bad frame: frame of 1213486160 bytes, the limit is 65536"),
        (&[0, 0, 0, 0], "bad frame: frame of no bytes"),
        (&[0, 0, 0, 2, 0x86, 0x01], "malformed message: first byte is not 0x87 at offset 0"),
        (&[0, 0, 0, 9, 0x87], "connection lost within a frame, after 5 bytes of it"),
    ] {
        for command in [&["call", "", "m"][..], &["ping", ""]] {
            let (url, thread) = answers(bytes);
            let arguments = command.iter().map(|argument| if argument.is_empty() { &url } else { *argument });
            fluxar(arguments).failed(3, &format!("cannot connect: {url}: the handshake failed: {why}"));
            thread.join().unwrap();
        }
    }
}

#[tokio::test]
async fn odd_answers_are_printed() {
    let url = serve(|server| {
        server.handle("odd", |request: Request| async move {
            Ok(match request.payload::<u8>()? {
                0 => Raw::new([&[0x81; 64][..], &[0x00]].concat())?,
                1 => Raw::new(vec![0x62, 0xc3, 0x28])?,
                2 => Raw::new([&[0xc2, 0x59, 0x27, 0x10][..], &[0xff; 10_000]].concat())?,
                3 => Raw::new(vec![0x83, 0xf9, 0x7e, 0x00, 0xfa, 0x7f, 0xc0, 0x00, 0x01, 0xf9, 0x80, 0x00])?,
                4 => Raw::new(vec![0x9f, 0x5f, 0x41, 0x01, 0xff, 0x7f, 0xff, 0xbf, 0xff, 0xff])?,
                5 => Raw::new(vec![0xa2, 0x01, 0x02, 0x01, 0x03])?,
                6 => Raw::encode("\u{1b}]0;owned\u{7}\u{202e}\n")?,
                7 => Raw::new([&[0xdb][..], &[0xff; 8], &[0xf8, 0x20]].concat())?,
                _ => Raw::new([&[0x9a, 0x00, 0x0f, 0x42, 0x40][..], &[0xf6; 1_000_000]].concat())?,
            })
        });
    })
    .await;
    let odd =
        async |which: &str, output: &str| fluxar_beside(["call", &url, "odd", which, "-o", output]).await;
    let deep = format!("{}0{}", "[".repeat(64), "]".repeat(64));
    odd("0", "auto").await.is(&deep);
    odd("1", "auto").await.is("\"\u{fffd}(\" / not UTF-8: c328 /");
    odd("1", "json").await.is("\"\u{fffd}(\"");
    odd("2", "auto").await.is(&format!("2(h'{}')", "ff".repeat(10_000)));
    odd("3", "auto").await.is("[NaN, NaN_2 / 7fc00001 /, -0.0]");
    odd("3", "json").await.is("[null, null, -0.0]");
    odd("4", "diag").await.is("[_ (_ h'01'), \"\"_, {_ }]");
    odd("5", "auto").await.is("{1: 2, 1: 3}");
    odd("6", "auto").await.is("\"\\u001b]0;owned\\u0007\\u202e\\n\"");
    odd("7", "auto").await.is("18446744073709551615(simple(32))");
    assert_eq!(odd("8", "auto").await.text().len(), 1_000_000 * 6 + 1);
}

#[tokio::test]
async fn odd_errors_and_updates_are_printed() {
    let url = serve(|server| {
        server.handle("fail", |request: Request| async move {
            request.update(&Raw::new(vec![0x62, 0xc3, 0x28])?).await?;
            request.update("\u{1b}[2J\n").await?;
            let data = [&[0x81; 64][..], &[0xf7]].concat();
            Err::<(), _>(Error::internal("\u{1b}[31m\nerror: fake").with_data(data).into())
        });
    })
    .await;
    let said = fluxar_beside(["call", &url, "fail"]).await;
    assert_eq!((said.exit, said.text()), (Some(1), ""));
    let expected = format!(
        "update: \"\u{fffd}(\" / not UTF-8: c328 /
update: \"\\u001b[2J\\n\"
error: internal (13): \\u001b[31m\\nerror: fake data: {}undefined{}
",
        "[".repeat(64),
        "]".repeat(64)
    );
    assert_eq!(said.err, expected);
}

#[tokio::test]
async fn an_odd_agent_is_printed_in_one_line() {
    let server = fluxar::Server::bind("tcp://127.0.0.1:0");
    let server =
        server.configure(|config| config.agent = Some("\u{1b}[2J\nevil".into())).build().await.unwrap();
    let url = server.url();
    tokio::spawn(server.run());
    let said = fluxar_beside(["ping", &url, "-n", "1"]).await;
    assert!(
        said.text().starts_with(&format!("connected to {url} (\\u001b[2J\\nevil) in ")),
        "{}",
        said.text()
    );
}
