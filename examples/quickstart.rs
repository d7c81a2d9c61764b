//! The quickstart: a server and a client in one program, talking over TCP.
//!
//! `cargo run --example quickstart`

use std::time::{Duration, Instant};

use fluxar::{Client, Code, Error, Peer, Request, Server};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct User {
    id: u32,
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A server, on a port that the system chooses.
    let server = Server::bind("tcp://127.0.0.1:0").build().await?;
    register_handlers(&server);
    let (url, handle) = (server.url(), server.server_handle());
    let serving = tokio::spawn(server.run());
    println!("server   listening on {url}");

    // A client. It handles calls too: after the handshake, both sides are equal.
    let client = Client::connect(url)
        .handle("client.confirm", |req: Request| async move {
            println!("client   <- the server asks: {}", req.payload::<String>()?);
            Ok("yes")
        })
        .build()
        .await?;
    let info = client.info().ok_or("the handshake is done")?;
    println!("client   connected to {}, protocol version {}", info.agent.unwrap_or_default(), info.version);

    println!("\n-- a call");
    let user: User = client.call("users.get", &42).await?;
    println!("client   <- {user:?}");

    println!("\n-- concurrent calls, answered in the order they are done");
    concurrent(&client).await?;

    println!("\n-- a call from the server back to its caller, within a call");
    let outcome: String = client.call("users.delete", &42).await?;
    println!("client   <- {outcome}");

    println!("\n-- an error with its code");
    let error = client.call::<User>("users.get", &7).await.err().ok_or("there is no user 7")?;
    println!("client   <- {error} (code {}, safe to retry: {})", error.code.0, error.is_retry_safe());
    assert_eq!(error.code, Code::NOT_FOUND);

    println!("\n-- a deadline that fires, on both sides");
    let begun = Instant::now();
    let slow = client.call::<()>("sleep", &10_000).timeout(Duration::from_millis(100));
    let error = slow.await.err().ok_or("it sleeps longer than that")?;
    println!("client   <- {error}, after {} ms", begun.elapsed().as_millis());

    println!("\n-- progress while a call is open");
    let mut call = client.call::<u32>("index.rebuild", &()).start().await?;
    while let Some(percent) = call.next_update::<u8>().await {
        println!("client   .. {} %", percent?);
    }
    println!("client   <- {} documents", call.await?);

    println!("\n-- a round trip");
    println!("client   ping: {:?}", client.ping().await?);

    let stats = client.stats();
    println!("\n{} calls, {} bytes out, {} bytes in", stats.calls_made, stats.bytes_out, stats.bytes_in);
    handle.stop();
    serving.await??;
    Ok(())
}

fn register_handlers(server: &Server) {
    server.handle("users.get", |req: Request| async move {
        let id: u32 = req.payload()?;
        if id != 42 {
            return Err(Error::not_found(format!("no user {id}")).with_processed(false).into());
        }
        Ok(User { id, name: "Ada".into() })
    });
    server.handle("users.delete", |req: Request| async move {
        let id: u32 = req.payload()?;
        let caller: Peer = req.peer();
        let answer: String = caller.call("client.confirm", &format!("delete user {id}?")).await?;
        println!("server   the client says {answer}");
        Ok(format!("user {id} is deleted"))
    });
    server.handle("sleep", |req: Request| async move {
        let ms: u64 = req.payload()?;
        let patience = req.remaining().map_or("for ever".into(), |left| format!("{} ms", left.as_millis()));
        println!("server   sleeps {ms} ms; the caller waits {patience}");
        let _told = Told(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(ms)
    });
    server.handle("index.rebuild", |req: Request| async move {
        for percent in [25, 50, 75, 100] {
            tokio::time::sleep(Duration::from_millis(30)).await;
            req.update(&percent).await?;
        }
        Ok(1234)
    });
}

async fn concurrent(client: &Client) -> Result<(), Error> {
    let slow = async {
        let ms: u64 = client.call("sleep", &60).await?;
        println!("client   <- the first, which took {ms} ms");
        Ok(())
    };
    let fast = async {
        let ms: u64 = client.call("sleep", &20).await?;
        println!("client   <- the second, which took {ms} ms");
        Ok(())
    };
    tokio::try_join!(slow, fast).map(drop)
}

/// Says so when a handler was dropped before its time.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if self.0 > 1000 {
            println!("server   the handler of `sleep` was dropped: nobody waits for it any more");
        }
    }
}
