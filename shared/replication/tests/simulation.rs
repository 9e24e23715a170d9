//! The protocol over a hostile schedule: messages are lost, delayed, doubled and reordered, nodes crash and lose what
//! was not durable, metadata names new primaries at any time. Checked at every step:
//! what was acknowledged is durable on every in-sync replica; at most one node acknowledges in an epoch; a replica
//! that may answer queries has everything that was acknowledged.

mod world;

use world::World;

#[track_caller]
fn run(seed: u64, replicas: usize, min_insync: usize) -> World {
    let mut world = World::new(seed, replicas, min_insync);
    for _ in 0..3_000 {
        world.step(true);
    }
    world.heal();
    for _ in 0..4_000 {
        world.step(false);
    }
    world
}

#[test]
fn three_copies_survive_faults_and_become_healthy() {
    let (mut acknowledged, mut reads, mut epochs) = (0, 0, 0);
    for seed in 0..24 {
        let world = run(seed, 3, 2);
        world.assert_healthy(3);
        acknowledged += world.acknowledged();
        reads += world.reads;
        epochs += world.epoch();
    }
    assert!(acknowledged > 5_000 && reads > 5_000 && epochs > 150, "{acknowledged} {reads} {epochs}");
}

#[test]
fn two_copies_never_shrink_below_the_minimum() {
    for seed in 100..110 {
        run(seed, 2, 2).assert_healthy(2);
    }
}

#[test]
fn five_copies_with_one_needed() {
    for seed in 200..206 {
        run(seed, 5, 1).assert_healthy(5);
    }
}

#[test]
fn one_copy_acknowledges_as_soon_as_it_is_durable() {
    let mut world = World::new(1, 1, 1);
    for _ in 0..100 {
        world.step(false);
    }
    assert!(world.acknowledged() > 10, "no lease and no wait without followers");
}
