//! `fluxar call`.

use fluxar::{Error, Raw};

use crate::args::CallArgs;
use crate::connect::{Connected, unless_interrupted};
use crate::failure::{Exit, Failure, say};
use crate::opening::{Opening, failure};
use crate::payload;

/// A call whose arguments are in order.
pub(crate) struct Prepared<'a>(Opening<'a>);

impl<'a> Prepared<'a> {
    pub(crate) fn new(args: &'a CallArgs) -> Result<Self, Failure> {
        Opening::new(&args.opening, &[]).map(Self)
    }

    pub(crate) async fn run(self) -> Result<(), Failure> {
        let output = self.0.output;
        let client = self.0.connect().await?;
        let done = match unless_interrupted(self.call(&client)).await {
            Some(Ok(answer)) => payload::print(&answer, output),
            Some(Err(error)) => Err(failure(&client, &error)),
            // Given up, and so cancelled.
            None => Err(Failure::silent(Exit::Interrupted)),
        };
        client.shut_down().await;
        done
    }

    async fn call(self, client: &Connected) -> Result<Raw, Error> {
        let Opening { method, payload, meta, timeout, output, .. } = self.0;
        let mut call = client.call::<Raw>(method, &payload);
        if let Some(timeout) = timeout {
            call = call.timeout(timeout);
        }
        for (key, value) in meta {
            call = call.meta(key, &value);
        }
        let mut open = call.start().await?;
        while let Some(update) = open.next_update::<Raw>().await {
            say(format_args!("update: {}", payload::show(&update?, output)));
        }
        open.await
    }
}
