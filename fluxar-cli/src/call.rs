//! `fluxar call`.

use std::time::Duration;

use fluxar::{Client, Error, Raw};
use fluxar_proto::message::TARGET_LIMIT;

use crate::args::{CallArgs, Output};
use crate::connect::{connect, unless_interrupted};
use crate::failure::{Exit, Failure, say};
use crate::{describe, payload};

/// A call whose arguments are in order.
pub(crate) struct Prepared<'a> {
    url: &'a str,
    method: &'a str,
    payload: Raw,
    meta: Vec<(String, Raw)>,
    timeout: Option<Duration>,
    output: Output,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(args: &'a CallArgs) -> Result<Self, Failure> {
        if args.method.len() > TARGET_LIMIT {
            return Err(Failure::usage(format_args!(
                "the method's name is longer than {TARGET_LIMIT} bytes"
            )));
        }
        if args.timeout == Some(Duration::ZERO) {
            return Err(Failure::usage("a timeout of 0 would leave no time at all"));
        }
        Ok(Self {
            url: &args.url,
            method: &args.method,
            payload: payload::read(&args.payload, args.input)?,
            meta: payload::read_meta(&args.meta, args.timeout.is_some())?,
            timeout: args.timeout,
            output: args.output,
        })
    }

    pub(crate) async fn run(self) -> Result<(), Failure> {
        let output = self.output;
        let Some(client) = unless_interrupted(connect(self.url)).await else {
            return Err(Failure::silent(Exit::Interrupted));
        };
        let client = client?;
        let done = match unless_interrupted(self.call(&client)).await {
            Some(Ok(answer)) => payload::print(&answer, output),
            Some(Err(error)) => Err(failure(&client, &error)),
            // Given up, and so cancelled.
            None => Err(Failure::silent(Exit::Interrupted)),
        };
        client.shut_down().await;
        done
    }

    async fn call(self, client: &Client) -> Result<Raw, Error> {
        let mut call = client.call::<Raw>(self.method, &self.payload);
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        for (key, value) in self.meta {
            call = call.meta(key, &value);
        }
        let mut open = call.start().await?;
        while let Some(update) = open.next_update::<Raw>().await {
            say(format_args!("update: {}", payload::show(&update?, self.output)));
        }
        open.await
    }
}

/// What the failure of a call is: the callee's, or that of the connection.
fn failure(client: &Client, error: &Error) -> Failure {
    let line = describe::error(&error.as_ref());
    let lost = client.error().filter(|why| why.call_error(true).message == error.message);
    Failure::new(if lost.is_some() { Exit::Connection } else { Exit::Failed }, line)
}
