//! The arguments of `fluxar pub` and `fluxar sub`.

use clap::Args;
use fluxar::Qos;

use super::{AccessArgs, Input, Output, ReconnectArgs};

/// Publish a message, and print its fate
///
/// With --qos 1 or 2 the command waits until the peer has taken responsibility for the message, and
/// repeats it where that is needed; with 0 nobody learns what becomes of it.
///
/// With --lines each line of standard input is a message: JSON or diagnostic notation as the payload,
/// or with --raw-lines the line as text. They are published in their order, and counted in the end.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  fluxar pub tcp://localhost:9000 orders.created '{\"id\": 42}' --qos 2
  fluxar pub localhost:9000 sensors.kitchen 21.5 --retain
  fluxar pub localhost:9000 sensors.kitchen --retain          # clears the value that is kept
  tail -f app.log | fluxar pub localhost:9000 logs.app --raw-lines

Exit codes: 0 all were accepted (or with --qos 0 sent), 1 some were not, 2 bad arguments, payload or
line, 3 no connection, 130 interrupted."
)]
pub(crate) struct PubArgs {
    /// The peer: tcp://HOST:PORT or unix:///PATH
    pub(crate) url: String,

    /// The topic, such as orders.created
    pub(crate) topic: String,

    /// The payload: JSON or CBOR diagnostic notation, @FILE, or - for standard input
    #[arg(default_value = "null", hide_default_value = true, allow_hyphen_values = true)]
    pub(crate) payload: String,

    /// Publish each line of standard input
    #[arg(long)]
    pub(crate) lines: bool,

    /// Publish each line of standard input as it is: a text
    #[arg(long)]
    pub(crate) raw_lines: bool,

    /// How often each message arrives: 0 at most once, 1 at least once, 2 exactly once
    #[arg(short, long, value_name = "N", value_parser = parse_qos, default_value = "0")]
    pub(crate) qos: Qos,

    /// Have it kept as the topic's last value, for those who subscribe later
    #[arg(long)]
    pub(crate) retain: bool,

    /// What a file, or a payload on standard input, holds
    #[arg(long, value_enum, default_value_t = Input::Auto)]
    pub(crate) input: Input,

    /// Metadata: KEY=TEXT, or KEY:=VALUE with a value in JSON or diagnostic notation; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) meta: Vec<String>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}

/// Subscribe to topics, and print the messages
///
/// One line for each message: its topic, a space, its payload; with --json an object. What was
/// published with acknowledgement is acknowledged once it is printed. Ctrl-C ends the subscription.
/// Where the connection is lost the command connects again and subscribes again, and says so on
/// standard error; where the session was lost too, messages from in between may be missing.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
In a filter `*` stands for one token of a topic, `>` at the end for one or more. In a group each
message goes to one member.

Examples:
  fluxar sub tcp://localhost:9000 'orders.*'
  fluxar sub localhost:9000 '>' --json --count 10
  fluxar sub localhost:9000 jobs.new --group workers --inflight 1

Exit codes: 0 as many came as --count says, 1 the subscription was refused or ended by the peer,
2 bad arguments, 3 no connection, or not any more, 130 interrupted."
)]
pub(crate) struct SubArgs {
    /// The peer: tcp://HOST:PORT or unix:///PATH
    pub(crate) url: String,

    /// The filter, such as orders.* or orders.>
    pub(crate) filter: String,

    /// The highest mode to deliver in: 0 at most once, 1 at least once, 2 exactly once
    #[arg(short, long, value_name = "N", value_parser = parse_qos, default_value = "2")]
    pub(crate) qos: Qos,

    /// Share the messages with the others of this group
    #[arg(short, long)]
    pub(crate) group: Option<String>,

    /// How many may be on the way without acknowledgement [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) inflight: Option<u32>,

    /// End after so many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// One JSON object per line: topic, payload, qos, attempt, retained
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,

    /// How to print payloads
    #[arg(short, long, value_enum, default_value_t = Output::Auto)]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}

/// How often a message arrives.
fn parse_qos(text: &str) -> Result<Qos, String> {
    match text {
        "0" => Ok(Qos::AtMostOnce),
        "1" => Ok(Qos::AtLeastOnce),
        "2" => Ok(Qos::ExactlyOnce),
        _ => Err("expected 0, 1 or 2".into()),
    }
}
