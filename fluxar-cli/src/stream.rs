//! `fluxar stream`.

use std::future::ready;
use std::io::{self, IsTerminal};
use std::mem::take;

use fluxar::{Code, Error, Raw, StreamReceiver, StreamSender};
use fluxar_proto::message::key;

use crate::args::StreamArgs;
use crate::connect::{Connected, unless_interrupted};
use crate::failure::{Exit, Failure, say};
use crate::opening::{Opening, failure};
use crate::payload::{self, Reserved};
use crate::terminal::{Lines, Printer, Progress};

/// Items that came together are printed together, up to so many bytes.
const PIECE: usize = 64 << 10;

/// A stream whose arguments are in order.
pub(crate) struct Prepared<'a> {
    opening: Opening<'a>,
    args: &'a StreamArgs,
    /// Whether standard input holds items.
    has_items: bool,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(args: &'a StreamArgs) -> Result<Self, Failure> {
        let is_payload = args.opening.payload == "-";
        if is_payload && (args.stdin || args.raw_lines) {
            return Err(Failure::usage("standard input is the payload: it cannot hold items too"));
        }
        let window = Reserved { key: key::WINDOW, option: "--window", is_set: args.window.is_some() };
        let opening = Opening::new(&args.opening, &[window])?;
        let wanted = args.stdin || args.raw_lines || !args.no_stdin && !io::stdin().is_terminal();
        Ok(Self { opening, args, has_items: wanted && !is_payload })
    }

    pub(crate) async fn run(self) -> Result<(), Failure> {
        let client = self.opening.connect().await?;
        let printer = Printer::start()?;
        let done = unless_interrupted(self.stream(&client, &printer)).await;
        // What came is printed first, unless somebody is in a hurry.
        let printed = unless_interrupted(printer.finish()).await;
        if let Some(Ok(Some(last))) = &done {
            say(format_args!("final: {}", payload::show(last, self.opening.output)));
        }
        client.shut_down().await;
        // Interrupted: given up, and so cancelled.
        let interrupted = || Err(Failure::silent(Exit::Interrupted));
        done.map_or_else(interrupted, |done| done.map(drop)).and(printed.unwrap_or_else(interrupted))
    }

    /// Both directions to their ends. Returns the final value, if it is yet to be said.
    async fn stream(&self, client: &Connected, printer: &Printer) -> Result<Option<Raw>, Failure> {
        let Opening { method, payload, meta, timeout, .. } = &self.opening;
        let mut stream = client.stream::<Raw>(method, payload);
        if let Some(timeout) = timeout {
            stream = stream.timeout(*timeout);
        }
        if let Some(window) = self.args.window {
            stream = stream.window(window);
        }
        for (key, value) in meta {
            stream = stream.meta(key, value);
        }
        let (mut sender, mut receiver) = stream.await.map_err(|error| failure(client, &error))?.split();
        let progress = Progress::default();
        let received = tokio::select! {
            biased;
            Err(failure) = self.send(client, &mut sender, &progress) => return Err(failure),
            received = self.receive(&mut receiver, printer, &progress) => received,
            () = progress.show(printer) => Ok(None),
        };
        // Nobody waits for what is left of the input. Where all of it was sent, this is the second end.
        sender.end().await.unwrap_or_default();
        received.map_err(|error| failure(client, &error))
    }

    /// Sends what standard input holds, and the end. Where the stream is over before, the receiving half knows why.
    async fn send(
        &self,
        client: &Connected,
        sender: &mut StreamSender,
        progress: &Progress,
    ) -> Result<(), Failure> {
        if self.has_items {
            let mut lines = Lines::read()?;
            while let Some(line) = lines.next().await? {
                let Some(item) = line.value(self.args.raw_lines)? else { continue };
                match sender.send(&item).await {
                    Ok(()) => progress.sent(item.as_bytes().len()),
                    Err(error) if error.code == Code::MESSAGE_TOO_LARGE => {
                        return Err(failure(client, &error));
                    }
                    Err(_) => return Ok(()),
                }
            }
        }
        sender.end().await.unwrap_or_default();
        Ok(())
    }

    /// Prints what comes, up to its end. Returns the final value, if it is yet to be said.
    async fn receive(
        &self,
        receiver: &mut StreamReceiver<Raw>,
        printer: &Printer,
        progress: &Progress,
    ) -> Result<Option<Raw>, Error> {
        let mut piece = Vec::new();
        loop {
            let next = tokio::select! {
                biased;
                next = receiver.next(), if piece.len() < PIECE => next,
                () = ready(()), if !piece.is_empty() => {
                    if printer.print(take(&mut piece)).await.is_err() {
                        // Nobody reads it any more.
                        return Ok(None);
                    }
                    continue;
                }
            };
            match next {
                Some(Ok(item)) => {
                    progress.received(item.as_bytes().len());
                    payload::append(&mut piece, &item, self.opening.output);
                }
                ended => {
                    let last = receiver.last::<Raw>().transpose()?;
                    let printed = last.as_ref().filter(|_| self.args.last);
                    printed.iter().for_each(|last| payload::append(&mut piece, last, self.opening.output));
                    printer.print(piece).await.unwrap_or_default();
                    return ended.map_or(Ok(last.filter(|_| !self.args.last)), |failed| failed.map(Some));
                }
            }
        }
    }
}
