//! What replication needs: equal replicas, cuts, snapshots, shards that come and go.

use super::*;

/// Hands a node's entries to another one, as replication does.
fn replicate(from: &Node, to: &Node, shard: u32) {
    let shard = ShardId(shard);
    loop {
        let after = to.store().position(shard).seq;
        let entries = from.store().entries(shard, after, 1 << 20).unwrap().expect("not trimmed");
        if entries.is_empty() {
            break;
        }
        to.store().append(entries).blocking_recv().unwrap().unwrap();
    }
    to.store().commit(shard, from.store().committed(shard));
}

fn fill(node: &Node, shard: u32, rounds: std::ops::Range<i64>) {
    for n in rounds {
        let list =
            (0..5).map(|i| series("a", i, &[(T0 + n * 1000, n as f64), (T0 - WINDOW + n, 0.5)])).collect();
        let spans = vec![span(n as u8, 1, T0 + n)];
        node.write(shard, Batch { series: list, spans, ..Batch::default() });
    }
}

#[test]
fn a_follower_equals_its_primary_and_can_take_over() {
    let (primary, follower) = (Node::new(), Node::new());
    primary.store().store_epoch(ShardId(0), Epoch(1)).unwrap();
    fill(&primary, 0, 0..10);
    replicate(&primary, &follower, 0);
    assert_eq!((follower.all(), follower.spans()), (primary.all(), primary.spans()));
    // Written out at other times, they are still equal.
    follower.store().flush().unwrap();
    fill(&primary, 0, 10..20);
    replicate(&primary, &follower, 0);
    primary.store().flush().unwrap();
    assert_eq!(follower.all(), primary.all());
    follower.store().store_epoch(ShardId(0), Epoch(2)).unwrap();
    fill(&follower, 0, 20..25);
    replicate(&follower, &primary, 0);
    assert_eq!(follower.all(), primary.all());
    assert_eq!(primary.store().position(ShardId(0)), follower.store().position(ShardId(0)));
}

#[test]
fn a_cut_takes_the_tail_away_for_good() {
    let mut node = Node::new();
    fill(&node, 0, 0..5);
    let expected = (node.all(), node.spans());
    node.append(0, batch(vec![series("gone", 1, &[(T0, 1.0)]), series("a", 1, &[(T0 + 999, 1.0)])]), NOW);
    node.append(0, Batch { spans: vec![span(99, 1, T0)], ..Batch::default() }, NOW);
    assert_eq!(node.all().len(), 6);
    assert!(matches!(node.store().cut(ShardId(0), Seq(4)), Err(Error::Invalid(_))), "entry 5 is committed");
    node.store().cut(ShardId(0), Seq(5)).unwrap();
    assert_eq!((node.all(), node.spans()), expected);
    assert_eq!(node.store().position(ShardId(0)).seq, Seq(5));
    node.reopen();
    assert_eq!((node.all(), node.spans()), expected);
    node.write(0, batch(vec![series("new", 1, &[(T0, 7.0)])]));
    node.reopen();
    assert_eq!(floats(&node.all()[&labels("new", 1)]), [(T0, 7.0)]);
}

#[test]
fn a_snapshot_makes_an_equal_replica() {
    let (source, mut joiner) = (Node::new(), Node::new());
    source.store().store_epoch(ShardId(1), Epoch(3)).unwrap();
    fill(&source, 1, 0..20);
    source.store().flush().unwrap();
    source.store().maintain(NOW).unwrap();
    fill(&source, 1, 20..30);
    // What the joiner had of the shard is replaced; its other shards stay.
    fill(&joiner, 1, 5..7);
    joiner.store().flush().unwrap();
    fill(&joiner, 1, 7..9);
    joiner.write(0, batch(vec![series("own", 1, &[(T0, 1.0)])]));
    let (position, mut chunks) = source.store().snapshot(ShardId(1)).unwrap();
    assert_eq!(position.seq, Seq(30));
    // Entries of the source that come later do not matter.
    fill(&source, 1, 30..31);
    joiner.store().install(ShardId(1), position, &mut chunks).unwrap();
    drop(chunks);
    assert_eq!(joiner.store().position(ShardId(1)), position);
    for _ in 0..2 {
        replicate(&source, &joiner, 1);
        let mut expected = source.all();
        expected.insert(labels("own", 1), vec![Sample::float(T0, 1.0)]);
        assert_eq!(joiner.all(), expected);
        assert_eq!(joiner.spans(), source.spans());
        joiner.store().flush().unwrap();
        joiner.reopen();
        fill(&source, 1, 31..33);
    }
    joiner.store().store_epoch(ShardId(1), Epoch(9)).unwrap();
    fill(&joiner, 1, 50..51);
}

#[test]
fn a_broken_snapshot_leaves_no_shard() {
    let (source, mut joiner) = (Node::new(), Node::new());
    fill(&source, 1, 0..20);
    source.store().flush().unwrap();
    fill(&source, 1, 20..22);
    let chunks = || source.store().snapshot(ShardId(1)).unwrap();
    let (position, whole) = chunks();
    let bytes: Vec<u8> = whole.flat_map(Result::unwrap).collect();
    for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let mut cut = [Ok(bytes[..len].to_vec())].into_iter();
        assert!(joiner.store().install(ShardId(1), position, &mut cut).is_err(), "cut at {len}");
        assert!(!joiner.store().shards().contains(&ShardId(1)));
    }
    let (position, whole) = chunks();
    let lost = Err(Error::Io("connection lost".into()));
    let mut failing = whole.take(0).chain([Ok(bytes[..200].to_vec()), lost]);
    assert!(joiner.store().install(ShardId(1), position, &mut failing).is_err());
    joiner.reopen();
    assert_eq!(joiner.store().shards(), [ShardId(0), ShardId(2)]);
    let (position, mut whole) = chunks();
    joiner.store().install(ShardId(1), position, &mut whole).unwrap();
    assert_eq!(joiner.all(), source.all());
}

#[test]
fn a_crash_while_a_snapshot_goes_in_leaves_no_shard() {
    let (source, mut joiner) = (Node::new(), Node::new());
    fill(&source, 1, 0..20);
    source.store().flush().unwrap();
    let (position, mut chunks) = source.store().snapshot(ShardId(1)).unwrap();
    joiner.store().install(ShardId(1), position, &mut chunks).unwrap();
    // As if the last step were missing.
    let rocks = &joiner.store().inner.rocks;
    let mut mark = rocks.batch();
    mark.put(keys::STATE, &keys::row(ShardId(1), keys::Row::Installing), &[1]);
    rocks.write(mark, true).unwrap();
    joiner.reopen();
    assert_eq!(joiner.store().shards(), [ShardId(0), ShardId(2)]);
    assert!(joiner.all().is_empty());
    joiner.reopen();
    assert_eq!(joiner.store().shards(), [ShardId(0), ShardId(2)]);
}

#[test]
fn a_dropped_shard_is_gone_and_can_be_made_anew() {
    let mut node = Node::new();
    fill(&node, 0, 0..5);
    fill(&node, 1, 0..5);
    node.store().flush().unwrap();
    fill(&node, 0, 5..8);
    node.store().drop_shard(ShardId(0)).unwrap();
    let expected = node.all();
    assert_eq!(expected.len(), 5);
    node.reopen();
    assert_eq!(node.store().shards(), [ShardId(1), ShardId(2)]);
    node.store().create_shard(ShardId(0)).unwrap();
    assert_eq!(node.store().position(ShardId(0)), Position::default());
    assert_eq!(node.all(), expected);
    node.write(0, batch(vec![series("new", 1, &[(T0, 7.0)])]));
    node.reopen();
    assert_eq!(node.store().position(ShardId(0)).seq, Seq(1));
    assert_eq!(node.all().len(), 6);
}

#[test]
fn epochs_are_kept_and_never_go_back() {
    let mut node = Node::new();
    node.store().store_epoch(ShardId(0), Epoch(7)).unwrap();
    node.store().store_epoch(ShardId(0), Epoch(5)).unwrap();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    assert_eq!(node.store().epoch_at(ShardId(0), Seq(1)), Some(Epoch(7)));
    node.reopen();
    assert_eq!(node.store().stored_epoch(ShardId(0)), Epoch(7));
    assert_eq!(node.store().position(ShardId(0)), Position { seq: Seq(1), epoch: Epoch(7) });
    assert!(matches!(node.store().store_epoch(ShardId(9), Epoch(1)), Err(Error::UnknownShard(_))));
}

#[test]
fn a_backup_is_put_in_place_without_the_epochs_of_its_cluster() {
    let (source, mut other) = (Node::new(), Node::new());
    source.store().store_epoch(ShardId(1), Epoch(37)).unwrap();
    fill(&source, 1, 0..20);
    source.store().flush().unwrap();
    fill(&source, 1, 20..30);
    let (position, mut chunks) = source.store().snapshot(ShardId(1)).unwrap();
    assert_eq!(position, Position { seq: Seq(30), epoch: Epoch(37) });
    other.store().store_epoch(ShardId(1), Epoch(2)).unwrap();
    other.store().install_backup(ShardId(1), position.seq, &mut chunks).unwrap();
    drop(chunks);
    let restored = Position { seq: Seq(30), epoch: Epoch(0) };
    assert_eq!(other.store().committed(ShardId(1)), restored.seq);
    for _ in 0..2 {
        assert_eq!((other.all(), other.spans()), (source.all(), source.spans()));
        assert_eq!(other.store().position(ShardId(1)), restored);
        assert_eq!(other.store().stored_epoch(ShardId(1)), Epoch(2), "what this replica answered under");
        other.reopen();
    }
    // It goes on under epochs of its own, and a replica that follows learns all labels.
    fill(&source, 1, 30..33);
    fill(&other, 1, 30..33);
    let mut joiner = Node::new();
    let (position, mut chunks) = other.store().snapshot(ShardId(1)).unwrap();
    assert_eq!(position, Position { seq: Seq(33), epoch: Epoch(2) });
    joiner.store().install(ShardId(1), position, &mut chunks).unwrap();
    drop(chunks);
    other.store().flush().unwrap();
    for node in [&mut other, &mut joiner] {
        node.reopen();
        assert_eq!((node.all(), node.spans()), (source.all(), source.spans()));
    }

    // One that does not reach as far as it should leaves nothing.
    let (position, mut chunks) = source.store().snapshot(ShardId(1)).unwrap();
    assert!(joiner.store().install_backup(ShardId(1), position.seq.next(), &mut chunks).is_err());
    assert!(!joiner.store().shards().contains(&ShardId(1)));
}

#[test]
fn a_snapshot_of_a_shard_that_goes_away_meanwhile_is_an_error() {
    for (is_written_out, comes_back) in [(true, false), (true, true), (false, false), (false, true)] {
        let (source, joiner) = (Node::new(), Node::new());
        fill(&source, 1, 0..20);
        if is_written_out {
            source.store().flush().unwrap();
        }
        let (position, mut chunks) = source.store().snapshot(ShardId(1)).unwrap();
        source.store().drop_shard(ShardId(1)).unwrap();
        if comes_back {
            source.store().create_shard(ShardId(1)).unwrap();
            fill(&source, 1, 0..30);
        }
        let failed = joiner.store().install(ShardId(1), position, &mut chunks).unwrap_err();
        assert!(matches!(failed, Error::Removed { .. }), "{failed}");
        assert!(chunks.next().is_some_and(|chunk| chunk.is_err()), "it does not end as if it were whole");
    }
}
