//! Messages on topics: from peer to peer, and by way of a hub.

use crate::Error;
use crate::contender::Contender;
use crate::load::{Mode, Work};
use crate::options::Options;
use crate::rounds::{rates, ratio, spread, take_turns};
use crate::stats::Spread;
use crate::table::{Table, grouped};

/// What a message carries, in bytes.
const PAYLOAD: usize = 64;

/// Measures publications, and shows how many messages arrive. Of the others only a bare socket knows something like it,
/// and nothing but at most once.
pub(crate) fn run(options: &Options) -> Result<String, Error> {
    let heading = format!("Publish/subscribe: messages of {PAYLOAD} bytes that arrive, per second");
    let columns = ["", "raw", "at most once", "to raw", "lost", "at least once", "exactly once"];
    let mut table = Table::new(heading, &columns);
    let relayed = [("by a hub, to 1", 1), ("by a hub, to 64", 64)];
    let relayed = relayed.map(|(name, to)| (name, Box::new(move |mode| Work::PublishRelayed(mode, to)) as _));
    let direct: (_, Box<dyn Fn(Mode) -> Work>) = ("from peer to peer", Box::new(Work::PublishDirect));
    for (name, work) in [direct].into_iter().chain(relayed) {
        let turns = [
            (Contender::Raw, Mode::AtMostOnce),
            (Contender::Fluxar, Mode::AtMostOnce),
            (Contender::Fluxar, Mode::AtLeastOnce),
            (Contender::Fluxar, Mode::ExactlyOnce),
        ];
        let turns = turns.map(|(contender, mode)| (contender, options.load(work(mode), PAYLOAD)));
        let rounds = take_turns(&turns, options)?;
        let lost = rounds[1].iter().map(|measured| measured.lost * 100.0).collect::<Vec<_>>();
        let figures = rounds.iter().map(|rounds| rates(rounds)).collect::<Vec<_>>();
        table.row(vec![
            name.to_owned(),
            spread(&figures[0], grouped),
            spread(&figures[1], grouped),
            ratio(&figures[1], &figures[0]),
            format!("{:.1} %", Spread::of(&lost).median),
            spread(&figures[2], grouped),
            spread(&figures[3], grouped),
        ]);
    }
    Ok(table.to_string())
}
