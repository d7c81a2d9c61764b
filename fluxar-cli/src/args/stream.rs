//! The arguments of `fluxar stream`.

use clap::Args;

use super::OpeningArgs;

/// Open a stream, send items and print those that come
///
/// Each line of standard input is an item: JSON or diagnostic notation as the payload, or with
/// --raw-lines the line as text. They are sent as fast as the peer takes them. The end of standard
/// input ends this direction.
///
/// Items that come are printed one per line, and the final value of the peer, if there is one, as
/// `final: VALUE` on standard error, or with --final as the last line of standard output. The command
/// ends when the peer has ended its direction, whatever is left on standard input. Ctrl-C cancels the
/// stream.
///
/// Standard input is read where it is not a terminal, or with --stdin or --raw-lines; otherwise this
/// direction is ended at once, as it is with --no-stdin. Where the payload is `-`, standard input is
/// the payload and there are no items.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
On a terminal that shows errors, a line says how many items and bytes went and came, and how fast.

Examples:
  fluxar stream tcp://localhost:9000 llm.complete '\"Once upon a time\"'
  seq 1000 | fluxar stream localhost:9000 test.sum --final
  fluxar stream localhost:9000 logs.put --raw-lines < app.log
  fluxar stream localhost:9000 blobs.get '{\"id\": 7}' --window 16777216 --output raw --no-stdin > blobs.cborseq
  fluxar stream unix:///run/app.sock chat.join '\"lobby\"' --stdin

Exit codes: 0 the peer has ended its direction, 1 the stream failed, 2 bad arguments, payload or item,
3 no connection, 130 interrupted."
)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    pub(crate) opening: OpeningArgs,

    /// Read items from standard input although it is a terminal
    #[arg(long, conflicts_with = "no_stdin")]
    pub(crate) stdin: bool,

    /// Send no items, whatever standard input is
    #[arg(long)]
    pub(crate) no_stdin: bool,

    /// Each line of standard input is an item as it is, a text; it is read although it is a terminal
    #[arg(long, conflicts_with = "no_stdin")]
    pub(crate) raw_lines: bool,

    /// Print the final value as the last line of standard output
    #[arg(long = "final")]
    pub(crate) last: bool,

    /// What the peer may send before any of it is printed, in bytes; it grows where that helps [default: 262144]
    #[arg(long, value_name = "BYTES")]
    pub(crate) window: Option<u32>,
}
