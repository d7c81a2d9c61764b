//! What a call and a stream have in common: how they are opened, and how they fail.

use std::time::Duration;

use fluxar::{Client, Error, Raw};
use fluxar_proto::message::{TARGET_LIMIT, key};

use crate::args::{OpeningArgs, Output};
use crate::connect::dial;
use crate::failure::{Exit, Failure};
use crate::payload::Reserved;
use crate::{describe, payload};

/// Arguments that are in order.
pub(crate) struct Opening<'a> {
    url: &'a str,
    pub(crate) method: &'a str,
    pub(crate) payload: Raw,
    pub(crate) meta: Vec<(String, Raw)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) output: Output,
}

impl<'a> Opening<'a> {
    /// Beside the timeout, `reserved` are the keys of the metadata that options set.
    pub(crate) fn new(args: &'a OpeningArgs, reserved: &[Reserved]) -> Result<Self, Failure> {
        if args.method.len() > TARGET_LIMIT {
            return Err(Failure::usage(format_args!(
                "the method's name is longer than {TARGET_LIMIT} bytes"
            )));
        }
        if args.timeout == Some(Duration::ZERO) {
            return Err(Failure::usage("a timeout of 0 would leave no time at all"));
        }
        let timeout = Reserved { key: key::TIMEOUT_MS, option: "--timeout", is_set: args.timeout.is_some() };
        let reserved = [&[timeout], reserved].concat();
        Ok(Self {
            url: &args.url,
            method: &args.method,
            payload: payload::read(&args.payload, args.input)?,
            meta: payload::read_meta(&args.meta, &reserved)?,
            timeout: args.timeout,
            output: args.output,
        })
    }

    /// Dials the peer.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        dial(self.url).await
    }
}

/// What the failure of a call, a stream or a subscription is: the peer's, or that of the connection.
pub(crate) fn failure(client: &Client, error: &Error) -> Failure {
    let line = describe::error(&error.as_ref());
    let lost = client.error().filter(|why| why.call_error(true).message == error.message);
    Failure::new(if lost.is_some() { Exit::Connection } else { Exit::Failed }, line)
}
