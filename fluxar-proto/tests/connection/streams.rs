//! Streams between two connections: items, ends, cancels, credit.

use fluxar_proto::{
    Connection, Event, Payload, Received, StreamEvent, StreamId, StreamOpening, StreamOptions,
};

use super::support::{A, B, Pair, at, config, one, uint};

/// The streams that were opened, among some events.
fn opened(events: &[Event]) -> Vec<StreamOpening> {
    let opened = events.iter().filter_map(|event| match event {
        Event::Stream(StreamEvent::Opened(opening)) => Some(opening.clone()),
        _ => None,
    });
    opened.collect()
}

/// Takes everything that has come on a stream: the items, and how it ended, if it did.
fn take(connection: &mut Connection, stream: StreamId) -> (Vec<Payload>, Option<Received>) {
    let mut items = Vec::new();
    loop {
        match connection.poll_stream(stream).unwrap() {
            Some(Received::Items(more)) => items.extend(more),
            end => return (items, end),
        }
    }
}

// spec: §11.1, §11.2, §11.3, §11.10
#[test]
fn items_go_both_ways_and_each_side_ends_its_own_direction() {
    let mut pair = Pair::established(&config(|_| ()));
    let stream = pair.side(A).open_stream(at(0), "sum", uint(0), StreamOptions::new()).unwrap();
    for n in 0..1000 {
        pair.side(A).send_item(stream, uint(n)).unwrap();
    }
    pair.drive();
    let opening = one(opened(&pair.events(B)));
    assert_eq!((&*opening.method, &opening.payload), ("sum", &uint(0)));
    let (items, end) = take(pair.side(B), opening.id);
    assert_eq!(items, (0..1000).map(uint).collect::<Vec<_>>());
    assert!(end.is_none());
    pair.side(B).send_item(opening.id, uint(7)).unwrap();
    pair.side(B).end_stream(opening.id, uint(499_500)).unwrap();
    pair.side(A).end_stream(stream, Payload::null()).unwrap();
    pair.drive();
    let (items, end) = take(pair.side(A), stream);
    assert_eq!(items, [uint(7)]);
    assert!(matches!(end, Some(Received::End(last)) if last == uint(499_500)));
    assert!(matches!(take(pair.side(B), opening.id).1, Some(Received::End(last)) if last.is_null()));
    pair.side(A).release_stream(stream);
    pair.side(B).release_stream(opening.id);
    assert_eq!(pair.side(A).stats().streams_open, 0);
    assert_eq!(pair.side(B).stats().streams_serving, 0);
}
