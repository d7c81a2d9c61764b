//! Rooms to talk in, over publish/subscribe, in as many terminals as you like:
//!
//! ```text
//! cargo run --example chat -- serve tcp://127.0.0.1:9000
//! cargo run --example chat -- join lobby Ada tcp://127.0.0.1:9000
//! cargo run --example chat -- join lobby Grace tcp://127.0.0.1:9000
//! ```
//!
//! A room is the topic `chat.ROOM.said`. Whoever is there is the last value of `chat.ROOM.here.NAME`, so that those who
//! come later see it at once. Without arguments it plays a scene by itself and ends:
//!
//! `cargo run --example chat`

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io::BufRead;

use fluxar::{Client, Message, Messages, PublishError, Qos, Server};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What somebody says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Said {
    by: String,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => scene().await,
        ["serve", url] => serve(url).await,
        ["join", room, name, url] => talk(room, name, url).await,
        _ => Err("usage: chat [serve URL | join ROOM NAME URL]".into()),
    }
}

/// A server needs nothing of its own: it is a hub.
async fn serve(url: &str) -> Result<(), Box<dyn StdError>> {
    let server = Server::bind(url).build().await?;
    println!("the rooms are open at {}; Ctrl-C closes them", server.url());
    let handle = server.server_handle();
    tokio::spawn(async move {
        tokio::signal::ctrl_c().await.ok();
        handle.stop();
    });
    Ok(server.run().await?)
}

/// Somebody in a room.
struct Guest {
    client: Client,
    room: String,
    name: String,
    events: Messages,
    others: BTreeSet<String>,
}

/// What a guest notices.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Said(Said),
    Came(String),
    Left(String),
}

impl Guest {
    /// Enters a room, and tells those who are there and those who will come.
    async fn join(url: &str, room: &str, name: &str) -> Result<Self, Box<dyn StdError>> {
        let client = Client::connect(url).build().await?;
        let events = client.messages(&format!("chat.{room}.>")).await?;
        let guest = Self { client, room: room.into(), name: name.into(), events, others: BTreeSet::new() };
        guest.publish_presence(Some(&guest.name)).await?;
        Ok(guest)
    }

    async fn say(&self, text: &str) -> Result<(), PublishError> {
        let said = Said { by: self.name.clone(), text: text.into() };
        let topic = format!("chat.{}.said", self.room);
        self.client.publish(&topic, &said).qos(Qos::AtLeastOnce).await.map(drop)
    }

    /// Leaves in order; whoever just vanishes is seen in the room until somebody of that name leaves.
    async fn leave(self) -> Result<(), PublishError> {
        self.publish_presence(None).await?;
        self.client.shut_down().await;
        Ok(())
    }

    /// A last value: null clears it.
    async fn publish_presence(&self, name: Option<&str>) -> Result<(), PublishError> {
        let topic = format!("chat.{}.here.{}", self.room, self.name);
        self.client.publish(&topic, &name).qos(Qos::AtLeastOnce).retain().await.map(drop)
    }

    /// What happens next; `None` once the connection is lost.
    async fn next(&mut self) -> Result<Option<Event>, Box<dyn StdError>> {
        while let Some(message) = self.events.next().await {
            let event = self.event(&message)?;
            message.ack().await.map_err(|error| error.error().clone())?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn event(&mut self, message: &Message) -> Result<Option<Event>, fluxar::Error> {
        if message.topic().ends_with(".said") {
            return message.payload().map(Event::Said).map(Some);
        }
        let name = message.topic().rsplit('.').next().unwrap_or_default().to_owned();
        let is_here = message.payload::<Option<String>>()?.is_some();
        let is_news = if is_here { self.others.insert(name.clone()) } else { self.others.remove(&name) };
        let is_other = name != self.name;
        let event = if is_here { Event::Came(name) } else { Event::Left(name) };
        Ok((is_news && is_other).then_some(event))
    }
}

/// Talks in a room: lines that are typed, until there are no more of them.
async fn talk(room: &str, name: &str, url: &str) -> Result<(), Box<dyn StdError>> {
    let mut guest = Guest::join(url, room, name).await?;
    println!("you are in {room}; Ctrl-D leaves it");
    let (typed, mut lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => guest.say(&line).await?,
                None => return Ok(guest.leave().await?),
            },
            event = guest.next() => match event? {
                Some(Event::Said(said)) if said.by == guest.name => {}
                Some(event) => println!("{}", describe(&event)),
                None => return Err("the connection is lost".into()),
            },
        }
    }
}

fn describe(event: &Event) -> String {
    match event {
        Event::Said(Said { by, text }) => format!("{by}: {text}"),
        Event::Came(name) => format!("* {name} is here"),
        Event::Left(name) => format!("* {name} has left"),
    }
}

/// Two in a room, and one in another.
async fn scene() -> Result<(), Box<dyn StdError>> {
    let server = Server::bind("tcp://127.0.0.1:0").build().await?;
    let (url, handle) = (server.url(), server.server_handle());
    let serving = tokio::spawn(server.run());

    let mut ada = Guest::join(&url, "lobby", "Ada").await?;
    let mut grace = Guest::join(&url, "lobby", "Grace").await?;
    let mut alan = Guest::join(&url, "library", "Alan").await?;
    alan.say("Is anybody here?").await?;
    grace.say("Hello Ada!").await?;
    ada.say("Hello Grace, good to see you.").await?;
    let hello = |by: &str, text: &str| Event::Said(Said { by: by.into(), text: text.into() });
    let (first, second) = (hello("Grace", "Hello Ada!"), hello("Ada", "Hello Grace, good to see you."));
    watch("Ada", &mut ada, &[Event::Came("Grace".into()), first.clone(), second.clone()]).await?;
    // Who came before is a last value, and the room's talk is heard by whoever talks as well.
    watch("Grace", &mut grace, &[Event::Came("Ada".into()), first, second]).await?;
    watch("Alan", &mut alan, &[hello("Alan", "Is anybody here?")]).await?;
    grace.leave().await?;
    watch("Ada", &mut ada, &[Event::Left("Grace".into())]).await?;

    ada.leave().await?;
    alan.leave().await?;
    handle.stop();
    Ok(serving.await??)
}

/// Prints what a guest notices, and checks it.
async fn watch(name: &str, guest: &mut Guest, expected: &[Event]) -> Result<(), Box<dyn StdError>> {
    for expected in expected {
        let event = guest.next().await?.ok_or("the connection is lost")?;
        println!("{name:<5} sees   {}", describe(&event));
        assert_eq!(&event, expected);
    }
    Ok(())
}
