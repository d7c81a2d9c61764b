//! The command line.

use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::failure::Failure;

mod access;
mod pubsub;
mod stream;

pub(crate) use access::{AccessArgs, DoorArgs, Hidden, ReconnectArgs};
pub(crate) use pubsub::{PubArgs, SubArgs};
pub(crate) use stream::StreamArgs;

/// Calls, serves and looks into peers that speak FLUXAR.
#[derive(Debug, Parser)]
#[command(name = "fluxar", version, disable_help_subcommand = true)]
#[command(after_help = "\
URLs: tcp://HOST:PORT, unix:///PATH; a bare HOST:PORT means TCP.

Exit codes:
    0  all went well
    1  the call, stream, publication or subscription failed: the peer, or its deadline, says why;
       of pings: none was answered
    2  the command line or the payload is wrong
    3  could not connect or listen, or the connection was lost
    4  what was to be decoded is malformed
  130  interrupted

Errors are one line on standard error: `error: ...`.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(ServeArgs),
    Call(CallArgs),
    Stream(StreamArgs),
    Pub(PubArgs),
    Sub(SubArgs),
    Ping(PingArgs),
    Decode(DecodeArgs),
}

/// Listen, and serve whoever connects
///
/// It is a hub: what one peer publishes goes to all who have subscribed, with groups and last values.
///
/// Prints `listening on URL` for each listener, with the port that the system chose where 0 was
/// asked for. SIGINT and SIGTERM drain it: it listens no more, what is open may still come to its
/// end, and what is left after --drain-ms is cut. A second signal ends the command at once.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  fluxar serve --listen tcp://127.0.0.1:9000
  fluxar serve --conformance --listen tcp://[::1]:0 --listen unix:///run/fluxar.sock
  fluxar serve --listen localhost:9000 --auth bearer=env:TOKEN --psk site-7=@/run/secrets/site-7

Secrets of --auth and --psk need not stand here: behind the `=` may be @FILE or env:NAME instead.

The calls of the conformance peer:
  test.echo                                the payload, unchanged
  test.meta                                the metadata of the request
  test.whoami                              {\"scheme\", \"identity\", \"encrypted\", \"resumed\"}
  test.fail {\"code\", \"message\"?, \"data\"?}  that error
  test.sleep {\"ms\"}                        null, after so many milliseconds
  test.never                               nothing: for deadlines and cancels
  test.cancelled                           how many calls and streams of this connection were cancelled
  test.update {\"n\"}                        n updates, 0 to n-1; then n
  test.callback {\"method\", \"payload\"?}     what the caller's own method responds to that payload
  test.drop_link                           null; then the transport is cut without a close; the session goes on
  test.drain {\"deadline_ms\"?}              null; then the connection is drained

  test.emit {\"topic\", \"n\", \"qos\"?, \"retain\"?}  publishes the numbers 0 to n-1 on that topic; n
  test.deliveries {\"topic\"}                what was sent to your subscriptions: [{\"acked\", \"attempts\"}]

Its streams:
  test.count {\"n\", \"size\"?}               the numbers 0 to n-1, or byte strings of that size; ends with n
  test.sum                                 adds the integers that come; ends with the sum
  test.echo                                each item back; ends with the final value that came
  test.never                               sends nothing and takes no items
  test.reject                              refused, permission_denied"
)]
pub(crate) struct ServeArgs {
    /// Where to listen; may be repeated
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) listen: Vec<String>,

    /// Serve the test calls and streams below; otherwise it is a hub, and answers no calls
    #[arg(long)]
    pub(crate) conformance: bool,

    /// The heartbeat to ask for, in milliseconds; 0 for none [default: 15000]
    #[arg(long, value_name = "N")]
    pub(crate) heartbeat_ms: Option<u32>,

    /// The largest message to receive, in bytes; at least 1024 [default: 16777216]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1024..))]
    pub(crate) max_message: Option<u32>,

    /// What a peer may send on a stream before any of it is taken, in bytes [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=0x7fff_ffff))]
    pub(crate) stream_window: Option<u32>,

    /// How long a session outlives its link, in milliseconds; 0: not at all [default: 60000]
    #[arg(long, value_name = "N")]
    pub(crate) resume_ms: Option<u64>,

    #[command(flatten)]
    pub(crate) door: DoorArgs,

    /// How long what is open may go on after a signal, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub(crate) drain_ms: u64,
}

/// Call a method, and print its answer
///
/// Updates of the callee go to standard error as they come. Ctrl-C cancels the call.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
The payload is JSON, or CBOR diagnostic notation, which contains all of JSON: h'0102' and 'abc' are
bytes, 1(2) a tag, 1.5_3 a float of eight bytes, [_ 1, 2] an array of indefinite length; /comments/
are skipped. `@FILE` reads it from a file and `-` from standard input; there it may be CBOR too.

Examples:
  fluxar call tcp://localhost:9000 users.get 42
  fluxar call tcp://localhost:9000 users.add '{\"name\": \"Ada\"}' --timeout 2s
  fluxar call unix:///run/app.sock blobs.put @photo.cbor --input cbor
  fluxar call localhost:9000 jobs.run '{}' --meta trace_id=abc123 --meta attempt:=2
  echo '[1, 2]' | fluxar call localhost:9000 test.echo - --output hex
  fluxar call localhost:9000 users.me --auth bearer=@/run/secrets/token

Exit codes: 0 answered, 1 the call failed, 2 bad arguments or payload, 3 no connection, 130 interrupted."
)]
pub(crate) struct CallArgs {
    #[command(flatten)]
    pub(crate) opening: OpeningArgs,
}

/// What a call and a stream are opened with.
#[derive(Debug, Args)]
pub(crate) struct OpeningArgs {
    /// The peer: tcp://HOST:PORT or unix:///PATH
    pub(crate) url: String,

    /// The method
    pub(crate) method: String,

    /// The payload: JSON or CBOR diagnostic notation, @FILE, or - for standard input
    #[arg(default_value = "null", hide_default_value = true, allow_hyphen_values = true)]
    pub(crate) payload: String,

    /// How to print what comes
    #[arg(short, long, value_enum, default_value_t = Output::Auto)]
    pub(crate) output: Output,

    /// What a file, or a payload on standard input, holds
    #[arg(long, value_enum, default_value_t = Input::Auto)]
    pub(crate) input: Input,

    /// Give up after this time: 2s, 500ms, 1.5 (seconds)
    #[arg(short, long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// Metadata: KEY=TEXT, or KEY:=VALUE with a value in JSON or diagnostic notation; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) meta: Vec<String>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    #[command(flatten)]
    pub(crate) reconnect: ReconnectArgs,
}

/// How a value that came is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// JSON, or diagnostic notation where JSON would lose something
    Auto,
    /// JSON always: bytes as base64url, tags without their number, null for what JSON has not
    Json,
    /// CBOR diagnostic notation
    Diag,
    /// The encoded CBOR in hex
    Hex,
    /// The encoded CBOR itself, and no newline
    Raw,
}

/// What a payload from elsewhere is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Input {
    /// Text if it can be read as such, otherwise CBOR
    Auto,
    /// JSON or diagnostic notation
    Text,
    /// One CBOR item
    Cbor,
}

/// Measure round trips to a peer
///
/// Pings are answered by the protocol itself, not by a handler. Ctrl-C ends with the summary.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  fluxar ping tcp://localhost:9000
  fluxar ping unix:///run/app.sock -n 1000 -i 0

Exit codes: 0 some ping was answered, 1 none was, 2 bad arguments, 3 no connection, or not any more."
)]
pub(crate) struct PingArgs {
    /// The peer: tcp://HOST:PORT or unix:///PATH
    pub(crate) url: String,

    /// Stop after so many pings
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Between the beginning of one ping and that of the next; 0: as fast as answers come
    #[arg(short, long, value_name = "TIME", value_parser = parse_time, default_value = "1s")]
    pub(crate) interval: Duration,

    /// How long to wait for each answer
    #[arg(short, long, value_name = "TIME", value_parser = parse_time, default_value = "10s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Print frames in a form for people
///
/// Takes frames as they go over TCP or a Unix socket, of one direction or of both: each the four
/// bytes of its length and a message. Says what each message means: it opens something, or continues
/// what an earlier one has opened.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
The input is hex (white space, `:`, `,`, `0x` and `#` comments are skipped) or, in a file or on
standard input, the bytes themselves. Several arguments are taken together, so that hex need not be
quoted.

Examples:
  fluxar decode 0000001c 8707500192f2a04c017a109b3c5d7e2f112007f66470696e67f6f6f6
  fluxar decode @capture.bin
  fluxar decode --bare @message.cbor
  xxd -p capture.bin | fluxar decode

Exit codes: 0 all is well-formed, 4 something is not."
)]
pub(crate) struct DecodeArgs {
    /// Hex, @FILE, or - for standard input [default: -]
    #[arg(value_name = "HEX|@FILE|-")]
    pub(crate) input: Vec<String>,

    /// The input is one message, without the length in front: as over WebSocket
    #[arg(long)]
    pub(crate) bare: bool,

    /// Print values whole, however long they are
    #[arg(long)]
    pub(crate) full: bool,
}

/// A time: a number of `ms`, `s` (also without a unit), `m` or `h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("units are ms, s, m and h".into()),
    };
    let plain = digits.starts_with(|char: char| char.is_ascii_digit());
    let seconds =
        digits.parse::<f64>().ok().filter(|_| plain).ok_or("expected a time such as 2s or 500ms")?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|error| error.to_string())
}

/// What the command line asks for; help and version are printed here.
pub(crate) fn parse() -> Result<Option<Command>, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Some(cli.command)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            crate::failure::print(error.to_string().trim_end())?;
            Ok(None)
        }
        Err(error) => Err(Failure::usage(brief(&error))),
    }
}

/// A complaint of the parser's in one line, and where to read on.
fn brief(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let paragraph = paragraph.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let line = paragraph.collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let command = std::env::args().nth(1).filter(|name| is_command(name));
    let command = command.map(|name| format!(" {name}")).unwrap_or_default();
    let line = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => "no command",
        _ => line,
    };
    format!("{line} (see `fluxar{command} --help`)")
}

fn is_command(name: &str) -> bool {
    Cli::command().get_subcommands().any(|command| command.get_name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times() {
        for (text, millis) in
            [("2s", 2000), ("500ms", 500), ("1.5", 1500), ("0", 0), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "2 s", "2d", "inf", "nan", "1e999", "0x10", "+2", ".5"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
