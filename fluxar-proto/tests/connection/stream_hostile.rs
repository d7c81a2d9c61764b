//! A peer that sends any messages of streams, while the application uses its own: no panic, one error that stays, memory
//! within the windows, and nothing left behind.

use std::sync::Arc;

use fluxar_proto::message::{Id, Kind, key, verb};
use fluxar_proto::{Config, ConnectionError, Error, Event, StreamEvent, StreamId, StreamOptions};
use proptest::prelude::*;

use crate::support::{
    Last, Msg, Script, TestRng, blob, cases, cbor, config, hello, id, is_close, ms, one, take, uint,
};

const WINDOW: usize = 3_000;
const MESSAGE: usize = 5_000;

fn settings() -> Arc<Config> {
    config(|c| {
        c.limits.max_streams = 4;
        c.limits.max_message = MESSAGE as u32;
        (c.limits.stream_window, c.max_stream_window) = (WINDOW as u32 / 2, WINDOW as u32);
        c.stream_buffer = 1_000;
        c.request_bytes = 3_000;
        c.misuse_capacity = 50;
    })
}

struct Attack {
    script: Script,
    /// What the application has not let go of.
    held: Vec<StreamId>,
    /// What may be referred to.
    known: Vec<Id>,
    rng: TestRng,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let limits = [("stream_window", [0, 1, 1_000, 1 << 30][rng.below(4)]), ("max_message", 2_000)];
        let script = Script::initiator_with(&settings(), hello(true, &limits));
        Self { script, held: vec![], known: vec![id(1 << 40)], rng }
    }

    fn message(&mut self) -> Msg {
        let id = self.script.id();
        let rng = &mut self.rng;
        if rng.below(8) == 0 {
            self.known.push(id);
            let opening = Msg::opening(Kind::Stream, id, "m");
            return match rng.below(4) {
                0 => opening
                    .meta_uint([key::WINDOW, key::TIMEOUT_MS][rng.below(2)], rng.word() >> rng.below(64)),
                1 => opening.payload(blob(1_000)),
                _ => opening,
            };
        }
        // Of late ones mostly.
        let nth = self.known.len() - 1 - rng.below(self.known.len().min(6));
        let message = Msg::continuation(Kind::Stream, id, self.known[nth]);
        match rng.below(24) {
            0..8 => message.payload([uint(1), blob(100), blob(4_900)][rng.below(3)].clone()),
            8..12 => {
                message.verb(verb::ITEMS).payload(cbor(|out| out.array(2)?.u8(1)?.bytes(&[1; 50])?.ok()))
            }
            12 => message.verb(verb::ITEMS).payload(vec![0x80]),
            13 => message.verb(verb::END),
            14 => message.verb(verb::END).payload(uint(1)),
            15 => message.verb(verb::END).error(Error::aborted("no")),
            16 => message.verb(verb::CANCEL),
            17 => message.verb(verb::PAUSE),
            18 => message.verb(verb::RESUME),
            19..23 => message.verb(verb::CREDIT).payload(uint(rng.word() >> (40 + rng.below(24)))),
            _ => match rng.below(6) {
                0 => message.verb(verb::ITEMS),
                1 => message.verb(verb::CREDIT),
                2 => message.error(Error::aborted("no")),
                3 => Msg { kind: Kind::Call, ..message },
                4 => message.verb(verb::CREDIT).payload(uint(1 << 31)),
                _ => message.verb("dance"),
            },
        }
    }

    /// The application does something.
    fn act(&mut self) {
        let now = self.script.now;
        let connection = &mut self.script.connection;
        if self.rng.below(6) == 0
            && let Ok(stream) = connection.open_stream(now, "m", uint(1), StreamOptions::new())
        {
            self.held.push(stream);
            self.known.push(stream.wire_id());
        }
        if self.held.is_empty() {
            return;
        }
        let nth = self.rng.below(self.held.len());
        let stream = self.held[nth];
        match self.rng.below(16) {
            0..4 => drop(connection.send_item(stream, blob([2, 300, 1_900][self.rng.below(3)]))),
            4..9 => drop(take(connection, stream)),
            9 => drop(connection.end_stream(stream, uint(1))),
            10 => connection.fail_stream(stream, Error::aborted("no")),
            11 => connection.cancel_stream(stream, None),
            12 => connection.pause_stream(stream),
            13 => connection.release_receiver(stream),
            14 => connection.release_sender(stream),
            _ => connection.release_stream(stream),
        }
        // Perhaps by both of its halves, one after the other.
        if !connection.holds_stream(stream) {
            self.held.swap_remove(nth);
        }
    }

    fn collect(&mut self) -> Vec<Event> {
        let events = self.script.events();
        for event in &events {
            if let Event::Stream(StreamEvent::Opened(opening)) = event {
                self.held.push(opening.id);
            }
        }
        events
    }

    fn check_bounds(&self) {
        let stats = self.script.connection.stats();
        assert!(stats.streams_serving <= 4, "{stats:?}");
        let streams = self.held.len() + stats.streams_open + stats.streams_serving;
        assert!(stats.stream_held_bytes <= streams * (WINDOW + MESSAGE), "{stats:?}");
        assert!(stats.stream_queued_bytes <= streams * (1_000 + 2_000 + 64), "{stats:?}");
    }

    /// Something, of one side or the other.
    fn step(&mut self) -> Result<(), ConnectionError> {
        match self.rng.below(10) {
            0..5 => {
                let message = self.message();
                self.script.send(message)?;
            }
            5..8 => self.act(),
            8 => drop(self.script.read()),
            _ => {
                let time = ms(self.rng.below(50) as u64);
                self.script.wait(time)?;
            }
        }
        self.collect();
        self.check_bounds();
        Ok(())
    }

    /// The connection has ended for `error`.
    fn check_end(mut self, error: &ConnectionError) {
        assert!(is_close(&one(self.script.read()), Some(error.code())));
        let events = self.collect();
        assert!(matches!(events.last(), Some(Event::Closed(_))), "{events:?}");
        for stream in std::mem::take(&mut self.held) {
            let connection = &mut self.script.connection;
            assert_ne!(take(connection, stream).1, Last::Open);
            connection.release_stream(stream);
            assert!(connection.poll_stream(stream).is_err());
        }
        let stats = self.script.connection.stats();
        assert_eq!((stats.streams_open, stats.streams_serving), (0, 0));
        assert_eq!((stats.stream_held_bytes, stats.stream_queued_bytes), (0, 0));
        assert_eq!(self.script.connection.poll_timeout(), None);
    }
}

proptest! {
    #![proptest_config(cases(500))]

    // spec: §11.9, §5.15, §5.17, §17.2
    #[test]
    fn any_messages_of_streams_are_borne(seed: u64, count in 1usize..300) {
        let mut attack = Attack::new(seed);
        for _ in 0..count {
            if let Err(error) = attack.step() {
                attack.check_end(&error);
                return Ok(());
            }
        }
        let error = attack.script.send_bytes(&[0, 0, 0, 0]).unwrap_err();
        attack.check_end(&error);
    }
}
