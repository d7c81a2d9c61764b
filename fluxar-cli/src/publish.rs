//! `fluxar pub`.

use std::fmt;
use std::future::IntoFuture;

use fluxar::{Fate, PublishError, Raw};
use fluxar_proto::message::key;
use fluxar_proto::topic::check_topic;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::args::PubArgs;
use crate::connect::{Connected, Destination, unless_interrupted};
use crate::describe;
use crate::failure::{Exit, Failure, print};
use crate::payload::{self, Reserved};
use crate::terminal::{Line, Lines, Printer, Progress};

/// Messages whose fate is not known yet, at once.
const AT_ONCE: usize = 256;

/// What is to be published, in order.
pub(crate) struct Prepared<'a> {
    args: &'a PubArgs,
    destination: Destination<'a>,
    /// None where standard input holds the messages.
    payload: Option<Raw>,
    meta: Vec<(String, Raw)>,
}

/// What became of the messages.
#[derive(Default)]
struct Tally {
    sent: u64,
    accepted: u64,
    repeated: u64,
    failed: u64,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(args: &'a PubArgs) -> Result<Self, Failure> {
        let has_lines = args.lines || args.raw_lines;
        if has_lines && args.payload != "null" {
            return Err(Failure::usage("the lines of standard input are the payloads: there is no other"));
        }
        check_topic(&args.topic).map_err(|error| Failure::usage(format_args!("bad topic: {error}")))?;
        let reserved = [
            Reserved { key: key::QOS, option: "--qos", is_set: true },
            Reserved { key: key::RETAIN, option: "--retain", is_set: args.retain },
        ];
        Ok(Self {
            args,
            destination: Destination::new(&args.url, &args.access, !args.reconnect.no_reconnect)?,
            meta: payload::read_meta(&args.meta, &reserved)?,
            payload: if has_lines { None } else { Some(payload::read(&args.payload, args.input)?) },
        })
    }

    pub(crate) async fn run(self) -> Result<(), Failure> {
        let client = self.destination.dial().await?;
        let done = match &self.payload {
            Some(payload) => unless_interrupted(self.one(&client, payload)).await,
            None => {
                let (mut tally, progress, printer) =
                    (Tally::default(), Progress::default(), Printer::start()?);
                let publishing = async {
                    tokio::select! {
                        done = self.lines(&client, &progress, &mut tally) => done,
                        () = progress.show(&printer) => Ok(()),
                    }
                };
                let done = unless_interrupted(publishing).await;
                printer.finish().await?;
                print(&tally)?;
                done
            }
        };
        client.shut_down().await;
        done.unwrap_or_else(|| Err(Failure::silent(Exit::Interrupted)))
    }

    /// Publishes one message, and says what became of it.
    async fn one(&self, client: &Connected, payload: &Raw) -> Result<(), Failure> {
        match self.publish(client, payload).await {
            Ok(Fate::Queued) => print("sent"),
            Ok(Fate::Accepted { attempts: 1 }) => print("accepted"),
            Ok(Fate::Accepted { attempts }) => print(format_args!("accepted after {attempts} attempts")),
            Err(error) => Err(failure(client, &error)),
        }
    }

    /// Publishes the lines of standard input. The first failure is said, the others are counted.
    async fn lines(&self, client: &Connected, progress: &Progress, tally: &mut Tally) -> Result<(), Failure> {
        let (mut lines, mut fates) = (Lines::read()?, FuturesUnordered::new());
        let (mut is_over, mut first) = (false, Ok(()));
        while !is_over || !fates.is_empty() {
            tokio::select! {
                biased;
                Some(fate) = fates.next() => {
                    if let Err(error) = tally.add(&fate) {
                        first = first.and(Err(failure(client, error)));
                    }
                }
                line = lines.next(), if !is_over && fates.len() < AT_ONCE => {
                    let read = |line: &Line| line.value(self.args.raw_lines);
                    let value = line.and_then(|line| line.as_ref().map(read).transpose());
                    match value {
                        Ok(None) => is_over = true,
                        Ok(Some(None)) => {}
                        Ok(Some(Some(payload))) => {
                            progress.sent(payload.as_bytes().len());
                            // They are polled for the first time in this order: so they are sent in it.
                            fates.push(self.publish(client, &payload));
                        }
                        Err(bad) => {
                            first = first.and(Err(bad));
                            is_over = true;
                        }
                    }
                }
            }
        }
        first
    }

    fn publish<'b>(&'b self, client: &'b Connected, payload: &Raw) -> fluxar::Publishing<'b> {
        let mut publish = client.publish(&self.args.topic, payload).qos(self.args.qos);
        if self.args.retain {
            publish = publish.retain();
        }
        for (key, value) in &self.meta {
            publish = publish.meta(key, value);
        }
        publish.into_future()
    }
}

/// Why a message was not published: the peer's word, or that of the connection.
fn failure(client: &Connected, error: &PublishError) -> Failure {
    let line = describe::error(&error.error().as_ref());
    let (exit, line) = match error {
        PublishError::Lost { .. } => (Exit::Connection, format!("lost: {line}")),
        PublishError::NotSent(_) if client.error().is_some() => (Exit::Connection, line),
        PublishError::Rejected { .. } => (Exit::Failed, format!("rejected: {line}")),
        PublishError::GivenUp { attempts, .. } => {
            (Exit::Failed, format!("given up after {attempts} attempts: {line}"))
        }
        _ => (Exit::Failed, format!("not published: {line}")),
    };
    Failure::new(exit, line)
}

impl Tally {
    /// Counts a message; its error, if it has one.
    fn add<'a>(&mut self, fate: &'a Result<Fate, PublishError>) -> Result<(), &'a PublishError> {
        match fate {
            Ok(Fate::Queued) => self.sent += 1,
            Ok(Fate::Accepted { attempts }) => {
                self.accepted += 1;
                self.repeated += u64::from(*attempts > 1);
            }
            Err(error) => {
                self.failed += 1;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.sent + self.accepted + self.failed;
        write!(f, "{all} published")?;
        let counts = [(self.sent, "sent"), (self.accepted, "accepted"), (self.failed, "failed")];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        match self.repeated {
            0 => Ok(()),
            repeated => write!(f, " ({repeated} after repetitions)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fluxar::Error;

    use super::*;

    #[test]
    fn the_summary() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "0 published");
        for attempts in [1, 1, 3] {
            assert_eq!(tally.add(&Ok(Fate::Accepted { attempts })), Ok(()));
        }
        assert_eq!(tally.to_string(), "3 published, 3 accepted (1 after repetitions)");
        let failed = Err(PublishError::Rejected { error: Error::not_found(""), attempts: 1 });
        assert!(tally.add(&failed).is_err());
        assert_eq!(tally.to_string(), "4 published, 3 accepted, 1 failed (1 after repetitions)");
        let mut tally = Tally::default();
        assert_eq!(tally.add(&Ok(Fate::Queued)), Ok(()));
        assert_eq!(tally.to_string(), "1 published, 1 sent");
    }
}
