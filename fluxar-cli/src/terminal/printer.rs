//! Standard output, and the line that shows progress.

use std::io::{self, Write};

use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;

/// Pieces that wait to be written.
const WAITING: usize = 8;

/// Takes back what the line that shows progress said.
const CLEAR: &str = "\r\x1b[K";

/// Writes to standard output in a thread of its own.
pub(crate) struct Printer {
    jobs: mpsc::Sender<Job>,
    done: oneshot::Receiver<io::Result<()>>,
}

/// Standard output takes no more; [`Printer::finish`] says why.
#[derive(Debug)]
pub(crate) struct Closed;

enum Job {
    /// For standard output.
    Print(Vec<u8>, oneshot::Sender<()>),
    /// For the terminal behind standard error.
    Progress(String),
}

impl Printer {
    pub(crate) fn start() -> Result<Self, Failure> {
        let (jobs, queue) = mpsc::channel(WAITING);
        let (report, done) = oneshot::channel();
        let writing = std::thread::Builder::new().name("output".into()).spawn(move || {
            // Nobody waits for that any more: interrupted.
            drop(report.send(write(queue, &mut io::stdout(), &mut io::stderr())));
        });
        writing.map_err(|error| Failure::usage(format_args!("cannot start: {error}")))?;
        Ok(Self { jobs, done })
    }

    /// Prints whole lines, and waits until they are written.
    pub(crate) async fn print(&self, lines: Vec<u8>) -> Result<(), Closed> {
        let (written, done) = oneshot::channel();
        self.jobs.send(Job::Print(lines, written)).await.map_err(|_| Closed)?;
        done.await.map_err(|_| Closed)
    }

    /// Shows progress, where nothing else waits to be shown.
    pub(crate) fn progress(&self, line: String) {
        if self.jobs.capacity() == WAITING {
            self.jobs.try_send(Job::Progress(line)).unwrap_or_default();
        }
    }

    /// Waits until all is written. Fails where it cannot be.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        drop(self.jobs);
        self.done.await.unwrap_or(Ok(())).map_err(|error| Failure::output(&error))
    }
}

fn write(mut queue: mpsc::Receiver<Job>, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    let mut is_shown = false;
    while let Some(job) = queue.blocking_recv() {
        // Where standard error cannot be written to, nobody is left to be told.
        if is_shown {
            err.write_all(CLEAR.as_bytes()).and_then(|()| err.flush()).unwrap_or_default();
        }
        is_shown = matches!(job, Job::Progress(_));
        match job {
            Job::Print(lines, written) => {
                out.write_all(&lines).and_then(|()| out.flush())?;
                // Nobody waits for that any more.
                written.send(()).unwrap_or_default();
            }
            Job::Progress(line) => {
                err.write_all(line.as_bytes()).and_then(|()| err.flush()).unwrap_or_default();
            }
        }
    }
    if is_shown {
        err.write_all(CLEAR.as_bytes()).and_then(|()| err.flush()).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_taken_back_before_anything_else_is_said() {
        let (jobs, queue) = mpsc::channel(WAITING);
        for job in [
            Job::Progress("1 item".into()),
            Job::Progress("2 items".into()),
            Job::Print(b"a\n".into(), oneshot::channel().0),
            Job::Print(b"b\n".into(), oneshot::channel().0),
            Job::Progress("3 items".into()),
        ] {
            jobs.try_send(job).ok().unwrap();
        }
        drop(jobs);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        write(queue, &mut out, &mut err).unwrap();
        assert_eq!(out, b"a\nb\n");
        let expected = format!("1 item{CLEAR}2 items{CLEAR}3 items{CLEAR}");
        assert_eq!(String::from_utf8(err).unwrap(), expected);
    }
}
