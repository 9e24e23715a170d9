//! The shard protocol and the shard map in a hostile world: the real machines of `tricord_replication`, the real state
//! and placement of metadata, and between them a network, disks and clocks that do what they can to break them.
//!
//! Everything follows from a seed. Checked at every step: what was acknowledged is on every in-sync replica and on at
//! least `min_insync` disks; committed entries never change; one node at most acknowledges in an epoch; whoever may
//! answer queries has everything that was acknowledged. What a backup filled a shard with counts as committed. Checked at
//! the end: everything heals.
//!
//! `SIMULATE_SEEDS=1..50000` runs other seeds than the usual ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that cannot go on ends here")]

mod clock;
mod disk;
mod faults;
mod ledger;
mod metadata;
mod mutation;
mod network;
mod node;
mod renew;
mod replica;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use faults::Fault;
use mutation::Mutation;
use world::Tally;

/// Two million steps in some ten seconds.
const USUAL_SEEDS: Range<u64> = 0..2_000;
/// Seeds within which each mutation must be found; most are within a hundred.
const MUTANT_SEEDS: u64 = 4_000;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIMULATE_SEEDS") else { return USUAL_SEEDS };
    let (from, to) = text.split_once("..").expect("SIMULATE_SEEDS is not FROM..TO");
    from.parse().expect("the first seed")..to.parse().expect("the seed after the last")
}

/// Runs seeds on all processors; ends at the first broken invariant.
fn run_all(seeds: Range<u64>, mutation: Option<Mutation>) -> Result<Tally, String> {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Ok(Tally::default()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while total.lock().unwrap().is_ok() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = world::run(seed, mutation);
                    let mut total = total.lock().unwrap();
                    match (&mut *total, result) {
                        (Ok(total), Ok(tally)) => total.add(&tally),
                        (Ok(_), Err(broken)) => *total = Err(broken),
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    total.into_inner().unwrap()
}

#[test]
fn promises_are_kept_and_everything_heals() {
    let seeds = seeds();
    let usual = seeds == USUAL_SEEDS;
    let total = run_all(seeds, None).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{total:#?}");
    if usual {
        assert!(total.steps >= 2_000_000, "{total:?}");
        assert!(total.acknowledged > 100_000 && total.reads > 1_000_000, "{total:?}");
        assert!(total.epochs > 10_000 && total.snapshots > 1_000 && total.cuts > 100, "{total:?}");
        assert!(total.releases > 100 && total.restored > 200, "{total:?}");
        assert!(total.dropped > 100 && total.lost_disks > 100, "{total:?}");
        assert!(total.in_doubt > 500 && total.refused > 50, "{total:?}");
        assert!(total.renewed > 100 && total.asked > 50, "{total:?}");
        let missing = Fault::ALL.iter().find(|fault| !total.faults.contains_key(fault));
        assert_eq!(missing, None, "{total:?}");
    }
}

#[test]
fn bugs_that_are_put_in_on_purpose_are_caught() {
    for mutation in Mutation::ALL {
        let caught = run_all(0..MUTANT_SEEDS, Some(mutation));
        let broken = caught.err().unwrap_or_else(|| panic!("{mutation:?} was not caught"));
        println!("{mutation:?}: {}", broken.lines().next().unwrap_or_default());
    }
}
