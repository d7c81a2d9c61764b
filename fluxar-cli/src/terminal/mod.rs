//! Standard input and output beside a connection: each has a thread of its own, so that a terminal that nobody types at,
//! or a pager that nobody scrolls, keeps no connection waiting.

mod lines;
mod printer;
mod progress;

pub(crate) use lines::{Line, Lines};
pub(crate) use printer::Printer;
pub(crate) use progress::Progress;
