//! A model that streams its answer token by token: to the end, to a reader that does not keep up, and to one that has
//! seen enough half-way.
//!
//! `cargo run --example llm_tokens`

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fluxar::{Client, Error, HandlerError, Server, StreamRequest};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// What the model answers to everything, again and again.
const ANSWER: &str = "It was a bright cold day in April, and the clocks were striking thirteen.";

/// What the client asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Prompt {
    text: String,
    max_tokens: u32,
}

/// One item of the stream.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    index: u32,
    text: String,
}

/// The final value of the stream.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Usage {
    tokens: u32,
}

/// How many tokens of the latest prompt the model has made.
type Made = Arc<AtomicU32>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("tcp://127.0.0.1:0").build().await?;
    let (made, (stopped, mut stops)) = (Made::default(), mpsc::unbounded_channel());
    let counter = made.clone();
    server.handle_stream("llm.complete", move |req: StreamRequest| {
        complete(req, Model { made: counter.clone(), stopped: stopped.clone() })
    });
    let (url, handle) = (server.url(), server.server_handle());
    let serving = tokio::spawn(server.run());
    let client = Client::connect(url).build().await?;

    println!("-- token by token, as they are made");
    to_the_end(&client).await?;
    stops.recv().await;

    println!("\n-- a reader that does not keep up");
    slowly(&client, &made).await?;
    let made = stops.recv().await.ok_or("the model is there")?;
    assert_eq!(made, MANY);

    println!("\n-- a reader that has seen enough");
    half_way(&client).await?;
    let made = stops.recv().await.ok_or("the model is there")?;
    println!("server   the handler was dropped: the model has stopped after {made} of {ENDLESS} tokens");
    assert!(made < ENDLESS);

    handle.stop();
    serving.await??;
    Ok(())
}

/// Makes tokens, each when there is room for it on the way to who asked.
async fn complete(mut req: StreamRequest, model: Model) -> Result<Usage, HandlerError> {
    let prompt: Prompt = req.payload()?;
    println!("server   the prompt is {:?}, at most {} tokens", prompt.text, prompt.max_tokens);
    model.made.store(0, Ordering::Relaxed);
    for (index, text) in (0..prompt.max_tokens).zip(ANSWER.split_inclusive(' ').cycle()) {
        if prompt.max_tokens < MANY {
            sleep(Duration::from_millis(15)).await; // it has to think
        }
        req.send(&Token { index, text: text.into() }).await?; // waits while the reader does not keep up
        model.made.store(index + 1, Ordering::Relaxed);
    }
    Ok(Usage { tokens: prompt.max_tokens })
}

async fn to_the_end(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let prompt = Prompt { text: "Begin a novel".into(), max_tokens: 14 };
    let mut tokens = client.stream::<Token>("llm.complete", &prompt).await?;
    let mut text = String::new();
    while let Some(token) = tokens.next().await {
        let token = token?;
        let margin = if text.is_empty() { "client   " } else { "" };
        print!("{margin}{}", token.text);
        std::io::stdout().flush()?;
        text += &token.text;
    }
    let usage: Usage = tokens.finish().await?;
    println!("\nclient   {usage:?}");
    assert_eq!((text.as_str(), usage), (ANSWER, Usage { tokens: 14 }));
    Ok(())
}

/// More than fits on the way.
const MANY: u32 = 50_000;

async fn slowly(client: &Client, made: &AtomicU32) -> Result<(), Error> {
    let prompt = Prompt { text: "Write a long one".into(), max_tokens: MANY };
    let mut tokens = client.stream::<Token>("llm.complete", &prompt).window(4096).await?;
    // Nobody reads. The model goes on until all is full, and waits then.
    let mut before = 0;
    loop {
        sleep(Duration::from_millis(50)).await;
        match made.load(Ordering::Relaxed) {
            now if now == before && now > 0 => break,
            now => before = now,
        }
    }
    let held = client.stats().stream_held_bytes;
    println!("client   reads nothing: the model waits after {before} tokens, of which {held} bytes are here");
    assert!(before < MANY);
    let mut read = 0;
    while let Some(token) = tokens.next().await {
        assert_eq!(token?.index, read);
        read += 1;
    }
    println!("client   reads on: {read} tokens, and none was lost");
    assert_eq!(read, MANY);
    Ok(())
}

/// More than anybody waits for.
const ENDLESS: u32 = 1_000_000_000;

async fn half_way(client: &Client) -> Result<(), Error> {
    let prompt = Prompt { text: "Never stop".into(), max_tokens: ENDLESS };
    let mut tokens = client.stream::<Token>("llm.complete", &prompt).await?;
    for _ in 0..1000 {
        tokens.next().await.ok_or_else(|| Error::internal("it never stops"))??;
    }
    println!("client   has 1000 tokens, and drops the stream");
    drop(tokens); // as `tokens.cancel()`
    Ok(())
}

/// Says how far it came when its handler is over, in whatever way.
struct Model {
    made: Made,
    stopped: mpsc::UnboundedSender<u32>,
}

impl Drop for Model {
    fn drop(&mut self) {
        // Nobody listens any more when the program ends.
        self.stopped.send(self.made.load(Ordering::Relaxed)).unwrap_or_default();
    }
}
