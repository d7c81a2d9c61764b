//! What a [`Proxy`](crate::proxy::Proxy) does to one link.

use std::time::Duration;

use crate::random::Random;

/// What becomes of a link: of what goes there, from the side that dialled, and of what comes back.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The way from the side that dialled.
    pub there: Way,
    /// The way to it.
    pub back: Way,
}

/// What becomes of the bytes of one direction.
#[derive(Clone, Debug)]
pub struct Way {
    /// How many bytes are passed on at once: a random number up to this one.
    pub piece: usize,
    /// How long nothing is passed on after each piece.
    pub pause: Duration,
    /// What happens after exactly so many bytes.
    pub mishap: Option<(u64, Mishap)>,
    /// Where the sizes of pieces come from.
    pub random: Random,
}

/// What happens to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Both ends are reset.
    Reset,
    /// Both ends are closed in order.
    Close,
    /// This direction is closed in order, and not read any more; the other one goes on.
    HalfClose,
    /// Nothing of this direction is passed on any more, nor is its end. Both ends stay open.
    Silence,
    /// The same for both directions.
    SilenceBoth,
    /// Nothing of this direction is read for so long; then it goes on.
    Stall(Duration),
    /// The same for both directions.
    StallBoth(Duration),
}

impl Mishap {
    /// Whether the link is of no use afterwards.
    pub fn is_cut(self) -> bool {
        !matches!(self, Self::Stall(_) | Self::StallBoth(_))
    }
}

impl Default for Way {
    fn default() -> Self {
        Self { piece: 64 << 10, pause: Duration::ZERO, mishap: None, random: Random::of(0) }
    }
}

impl Way {
    /// Passes on so many bytes, and then this happens.
    pub fn until(after: u64, mishap: Mishap) -> Self {
        Self { mishap: Some((after, mishap)), ..Self::default() }
    }

    /// The same in pieces of at most so many bytes.
    #[must_use]
    pub fn in_pieces(self, piece: usize) -> Self {
        Self { piece, ..self }
    }

    /// The same with so long a rest after each piece.
    #[must_use]
    pub fn paused(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// How many bytes go at once where `available` are there, which is not 0.
    pub(crate) fn next_piece(&mut self, available: usize) -> usize {
        let bound = available.min(self.piece.max(1)) as u64;
        // What is passed on whole needs no dice.
        if self.piece >= available && self.piece >= 64 << 10 {
            return available;
        }
        1 + self.random.below(bound) as usize
    }
}

impl Plan {
    /// What the side that dialled says is passed on for so many bytes; then this happens.
    pub fn there(after: u64, mishap: Mishap) -> Self {
        Self { there: Way::until(after, mishap), ..Self::default() }
    }

    /// What is said to the side that dialled is passed on for so many bytes; then this happens.
    pub fn back(after: u64, mishap: Mishap) -> Self {
        Self { back: Way::until(after, mishap), ..Self::default() }
    }

    /// The same after so many bytes more.
    #[must_use]
    pub fn later(mut self, bytes: u64) -> Self {
        for way in [&mut self.there, &mut self.back] {
            if let Some((after, _)) = &mut way.mishap {
                *after += bytes;
            }
        }
        self
    }

    /// Passes on nothing at all.
    pub fn refused() -> Self {
        Self::there(0, Mishap::Reset)
    }

    /// A plan that cuts the link after fewer than `bound` bytes of one direction, mostly a good deal sooner. Of the two
    /// directions' mishaps, the first one to come counts.
    pub fn random(random: &mut Random, bound: u64) -> Self {
        let cut = random_cut(random);
        let other = match random.below(3) {
            0 => Some(random_cut(random)),
            1 => Some(random_stall(random)),
            _ => None,
        };
        let mut ways = [Some(cut), other].map(|mishap| random_way(random, mishap, bound.max(2)));
        if random.below(2) == 0 {
            ways.reverse();
        }
        let [there, back] = ways;
        Self { there, back }
    }
}

fn random_way(random: &mut Random, mishap: Option<Mishap>, bound: u64) -> Way {
    let mishap = mishap.map(|mishap| {
        // All orders of magnitude alike: the handshake is short, and is to be cut as often as what follows.
        let magnitude = 1 + random.below(u64::from(bound.ilog2()) + 1);
        (random.below((1 << magnitude).min(bound)), mishap)
    });
    // Many in the smallest pieces, or a pause after each of them, would take for ever.
    let is_short = mishap.is_some_and(|(after, _)| after < 2000);
    let pieces = if is_short { [1, 7, 200, 64 << 10] } else { [200, 1500, 64 << 10, 64 << 10] };
    let piece = pieces[random.below(4) as usize];
    let is_slow = piece >= 1500 && random.below(8) == 0;
    let pause = if is_slow { Duration::from_millis(1) } else { Duration::ZERO };
    Way { piece, pause, mishap, random: random.fork() }
}

fn random_cut(random: &mut Random) -> Mishap {
    match random.below(40) {
        0 => Mishap::Silence,
        1 => Mishap::SilenceBoth,
        2..6 => Mishap::HalfClose,
        6..23 => Mishap::Close,
        _ => Mishap::Reset,
    }
}

fn random_stall(random: &mut Random) -> Mishap {
    let time = Duration::from_millis(1 + random.below(40));
    if random.below(2) == 0 { Mishap::Stall(time) } else { Mishap::StallBoth(time) }
}
