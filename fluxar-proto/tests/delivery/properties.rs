//! What holds whatever the applications do, and whatever the link does to the bytes.

use proptest::prelude::*;

use crate::support::{A, B, cases};
use crate::world::World;

fn run(seed: u64, operations: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..operations {
        world.operate();
        world.check_bounds();
    }
    world.settle();
    world.check_drops();
    world.finish();
    world
}

proptest! {
    #![proptest_config(cases(100))]

    // spec: §12.4 to §12.14
    #[test]
    fn what_is_sent_arrives_as_its_mode_promises(seed: u64, operations in 1usize..400) {
        run(seed, operations);
    }
}

proptest! {
    #![proptest_config(cases(60))]

    // spec: §12.9, §12.17
    #[test]
    fn messages_go_on_in_a_new_session(seed: u64, sessions in prop::collection::vec(1usize..120, 2..5)) {
        let mut world = World::new(seed);
        for operations in sessions {
            for _ in 0..operations {
                world.operate();
                world.check_bounds();
            }
            world.reconnect();
        }
        world.finish();
    }
}

proptest! {
    #![proptest_config(cases(15))]

    // spec: §5.6
    #[test]
    fn the_same_seed_gives_the_same_bytes(seed: u64, operations in 1usize..100) {
        let [one, two] = [(); 2].map(|()| run(seed, operations));
        for end in [A, B] {
            prop_assert!(one.pair.ends[end].sent == two.pair.ends[end].sent);
        }
    }
}
