//! `fluxar sub`.

use std::future::ready;
use std::mem::take;

use fluxar::{Message, Messages};
use fluxar_proto::topic::check_filter;

use crate::args::{Output, SubArgs};
use crate::connect::{Connected, Destination, unless_interrupted};
use crate::failure::{Exit, Failure, say};
use crate::notation::{json, one_line, quoted};
use crate::opening::failure;
use crate::payload;
use crate::terminal::Printer;

/// Messages that came together are printed together, up to so many bytes.
const PIECE: usize = 64 << 10;

pub(crate) async fn run(args: &SubArgs) -> Result<(), Failure> {
    check_filter(&args.filter).map_err(|error| Failure::usage(format_args!("bad filter: {error}")))?;
    if args.group.as_ref().is_some_and(|group| group.is_empty() || group.len() > 255) {
        return Err(Failure::usage("a group is named by 1 to 255 bytes"));
    }
    let destination = Destination::new(&args.url, &args.access, !args.reconnect.no_reconnect)?;
    let interrupted = || Err(Failure::silent(Exit::Interrupted));
    let client = destination.dial().await?;
    let printer = Printer::start()?;
    let done = unless_interrupted(follow(&client, args, &printer)).await.unwrap_or_else(interrupted);
    let printed = unless_interrupted(printer.finish()).await.unwrap_or_else(interrupted);
    client.shut_down().await;
    done.and(printed)
}

/// Subscribes, and prints what comes.
async fn follow(client: &Connected, args: &SubArgs, printer: &Printer) -> Result<(), Failure> {
    let mut wish = client.messages(&args.filter).qos(args.qos);
    if let Some(group) = &args.group {
        wish = wish.group(group);
    }
    if let Some(inflight) = args.inflight {
        wish = wish.inflight(inflight);
    }
    let mut messages = wish.await.map_err(|error| failure(client, &error))?;
    let followed = print_all(&mut messages, args, printer).await;
    let lost = messages.stats().lost;
    if lost > 0 {
        say(format_args!("lost: {lost} messages, dropped because they came too fast"));
    }
    match (followed, messages.error()) {
        (End::Enough, _) | (End::Over, None) => Ok(()),
        (End::Over, Some(error)) => Err(failure(client, &error)),
    }
}

/// Why there is nothing more to print.
enum End {
    /// As many came as were wanted, or nobody reads any more.
    Enough,
    /// The subscription is over.
    Over,
}

async fn print_all(messages: &mut Messages, args: &SubArgs, printer: &Printer) -> End {
    let mut left = args.count.unwrap_or(u64::MAX);
    let (mut piece, mut unanswered) = (Vec::new(), Vec::new());
    loop {
        let next = tokio::select! {
            biased;
            next = messages.next(), if piece.len() < PIECE && left > 0 => next,
            () = ready(()), if !piece.is_empty() => {
                // Whoever acknowledges has printed it.
                if printer.print(take(&mut piece)).await.is_err() {
                    return End::Enough;
                }
                for message in unanswered.drain(..) {
                    acknowledge(message).await;
                }
                continue;
            }
            else => return End::Enough,
        };
        let Some(message) = next else { return End::Over };
        left -= 1;
        append(&mut piece, &message, args);
        unanswered.push(message);
    }
}

/// Where that fails, the subscription is over, and that is said elsewhere.
async fn acknowledge(message: Message) {
    message.ack().await.unwrap_or_default();
}

/// A message as it is printed.
fn append(out: &mut Vec<u8>, message: &Message, args: &SubArgs) {
    let payload = message.raw();
    if args.json {
        let (topic, payload) = (quoted(message.topic()), json(payload.as_bytes()).text);
        let (qos, attempt, retained) = (message.qos() as u8, message.attempt(), message.is_retained());
        let line = format!(
            "{{\"topic\": {topic}, \"payload\": {payload}, \"qos\": {qos}, \"attempt\": {attempt}, \"retained\": {retained}}}\n"
        );
        out.extend_from_slice(line.as_bytes());
        return;
    }
    if args.output != Output::Raw {
        out.extend_from_slice(one_line(message.topic()).as_bytes());
        out.push(b' ');
    }
    payload::append(out, &payload, args.output);
}
