//! What a call and a stream have in common: how they are opened, and how they fail.

use std::time::Duration;

use fluxar::{Code, Error, Raw};
use fluxar_proto::message::{TARGET_LIMIT, key};

use crate::args::{OpeningArgs, Output};
use crate::connect::{Connected, Destination};
use crate::failure::{Exit, Failure};
use crate::payload::Reserved;
use crate::{describe, payload};

/// Arguments that are in order.
pub(crate) struct Opening<'a> {
    destination: Destination<'a>,
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
            destination: Destination::new(&args.url, &args.access, !args.reconnect.no_reconnect)?,
            method: &args.method,
            payload: payload::read(&args.payload, args.input)?,
            meta: payload::read_meta(&args.meta, &reserved)?,
            timeout: args.timeout,
            output: args.output,
        })
    }

    /// Dials the peer.
    pub(crate) async fn connect(&self) -> Result<Connected, Failure> {
        self.destination.dial().await
    }
}

/// What the failure of a call, a stream or a subscription is: the peer's, or that of the connection.
pub(crate) fn failure(client: &Connected, error: &Error) -> Failure {
    let line = describe::error(&error.as_ref());
    let is_lost = client.error().is_some_and(|why| why.call_error(true).message == error.message)
        || client.has_lost() && error.code == Code::UNAVAILABLE && error.processed.is_none();
    Failure::new(if is_lost { Exit::Connection } else { Exit::Failed }, line)
}
