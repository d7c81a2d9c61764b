//! How a command ends when it does not end well.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::notation::one_line;

/// What a program learns from the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The call failed, or no ping was answered.
    Failed = 1,
    /// The command line, or what it names, makes no sense.
    Usage = 2,
    /// No connection, or not any more.
    Connection = 3,
    /// What was to be decoded is malformed.
    Malformed = 4,
    /// Interrupted, as shells report it.
    Interrupted = 130,
}

/// Why a command did not do what it was asked to, and with which exit code it ends.
#[derive(Debug)]
pub(crate) struct Failure {
    /// None: nobody reads any more, or all is said; the exit code is 0 then if there is none.
    exit: Option<Exit>,
    message: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit: Some(exit), message: Some(message.to_string()) }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn connection(message: impl fmt::Display) -> Self {
        Self::new(Exit::Connection, message)
    }

    /// Ends with this code; what there is to say was said.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { exit: Some(exit), message: None }
    }

    /// The output cannot be written. Where that is because nobody reads it any more, all is well.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: None, message: None },
            _ => Self::usage(format_args!("cannot write the output: {error}")),
        }
    }

    /// Says on standard error, in one line, why; and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = &self.message {
            say(format_args!("error: {}", one_line(message)));
        }
        self.exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8))
    }
}

/// Writes a line to standard error. Where that cannot be written to, nobody is left to be told.
pub(crate) fn say(line: impl fmt::Display) {
    use io::Write;
    writeln!(io::stderr().lock(), "{line}").unwrap_or_default();
}

/// Writes a line to standard output, at once.
pub(crate) fn print(line: impl fmt::Display) -> Result<(), Failure> {
    use io::Write;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
