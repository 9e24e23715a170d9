//! Copies for backups from primaries and followers, and empty shards that are filled with them.

use super::*;

type Chunks = Vec<pb::SnapshotChunk>;

async fn try_copy(cluster: &Cluster, node: u64, shard: u32, epoch: u64) -> Result<Chunks, Error> {
    let cluster_id = cluster.map().cluster_id.clone();
    let request = pb::BackupRequest { cluster_id, to_node: node, shard, epoch };
    let mut stream = cluster.data_node(NodeId(node))?.backup(request).await?;
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next().await {
        chunks.push(chunk?);
    }
    assert!(chunks.last().is_some_and(|chunk| chunk.last));
    Ok(chunks)
}

/// Tries again until the replica may answer.
async fn copy(cluster: &Cluster, node: u64, shard: u32) -> Chunks {
    let started = Instant::now();
    loop {
        let epoch = cluster.map().shard(ShardId(shard)).unwrap().epoch.0;
        match try_copy(cluster, node, shard, epoch).await {
            Ok(chunks) => return chunks,
            Err(error) => assert!(error.retryable() && started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A copy as it is sent to a node of another cluster.
fn addressed(cluster: &Cluster, mut chunks: Chunks, node: u64) -> Chunks {
    let map = cluster.map();
    let header = chunks[0].header.as_mut().unwrap();
    header.epoch = map.shard(ShardId(header.shard)).unwrap().epoch.0;
    header.to_node = node;
    header.cluster_id = map.cluster_id.clone();
    chunks
}

async fn restore(cluster: &Cluster, node: u64, chunks: Chunks) -> Result<pb::SnapshotResponse, Error> {
    let stream = futures::stream::iter(chunks.into_iter().map(Ok)).boxed();
    cluster.data_node(NodeId(node))?.restore(stream).await
}

async fn three(cluster: &Cluster, dir: &Path) -> Vec<Querier> {
    let mut nodes = Vec::new();
    for node in 1..=3 {
        nodes.push(start(cluster, dir, node).await);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_shard_is_filled_at_its_primary_and_copied_to_the_others() {
    let (dir, other_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let cluster = Cluster::fixed(map(7, &[1, 2, 3], &[], 3, 2));
    let nodes = three(&cluster, dir.path()).await;
    for serial in 0..30 {
        for shard in 0..SHARDS {
            must_write(&cluster, shard, serial).await;
        }
    }
    let stale = try_copy(&cluster, 1, 0, 6).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::StaleEpoch, "{stale}");
    // A follower's copy has what was acknowledged, though it learns late what is committed.
    let mut copies = Vec::new();
    for shard in 0..SHARDS {
        let node = u64::from(shard % 3) + 1;
        must_write(&cluster, shard, 30).await;
        copies.push(copy(&cluster, node, shard).await);
    }

    let other = Cluster::fixed(map(1, &[1, 2, 3], &[], 3, 2));
    let others = three(&other, other_dir.path()).await;
    // Shard 0 has an entry: it is left as it is.
    must_write(&other, 0, 5).await;
    let refused = restore(&other, 1, addressed(&other, copies[0].clone(), 1)).await.unwrap_err();
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("shard 0 has data"), "{refused}");
    let follower = restore(&other, 2, addressed(&other, copies[1].clone(), 2)).await.unwrap_err();
    assert_eq!(follower.kind, ErrorKind::NotServing, "{follower}");
    // Settings and builds that do not fit are found before anything changes.
    type Spoil = fn(&mut pb::SnapshotHeader);
    let spoils: [Spoil; 4] = [
        |header| header.format = u32::MAX,
        |header| header.window_ms += 1,
        |header| header.classes.push("none".to_owned()),
        |header| header.cluster_id = "another".to_owned(),
    ];
    for spoil in spoils {
        let mut chunks = addressed(&other, copies[1].clone(), 1);
        spoil(chunks[0].header.as_mut().unwrap());
        let refused = restore(&other, 1, chunks).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Invalid, "{refused}");
    }
    assert_eq!(other.map().shard(ShardId(1)).unwrap().epoch, Epoch(1), "nothing was changed");

    // One that breaks off leaves an empty shard, which takes writes again.
    let mut cut = addressed(&other, copies[3].clone(), 1);
    cut.last_mut().unwrap().last = false;
    restore(&other, 1, cut).await.unwrap_err();
    must_write(&other, 3, 99).await;

    for shard in 1..3 {
        let chunks = addressed(&other, copies[shard as usize].clone(), 1);
        let restored = restore(&other, 1, chunks).await.unwrap();
        assert_eq!((restored.shard, restored.durable_seq), (shard, 31));
    }
    let complete = |map: &ShardMap| map.shards.iter().all(|config| config.in_sync.len() == 3);
    other.wait_for(DEADLINE, complete).await.unwrap();
    must_write(&other, 2, 31).await;
    let all: Vec<u64> = (0..31).collect();
    let more = [all.as_slice(), &[31]].concat();
    let expected = BTreeMap::from([(0, vec![5]), (1, all), (2, more), (3, vec![99])]);
    for node in 1..=3 {
        assert_eq!(read(&other, node).await, expected, "node {node}");
    }
    let again = restore(&other, 1, addressed(&other, copies[1].clone(), 1)).await.unwrap_err();
    assert!(again.message.contains("shard 1 has data"), "{again}");
    for node in nodes.into_iter().chain(others) {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_may_not_answer_gives_no_copy() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1, 2], &[], 2, 2));
    let mut nodes = three(&cluster, dir.path()).await.into_iter();
    must_write(&cluster, 0, 0).await;
    let strange = try_copy(&cluster, 2, 0, 2).await.unwrap_err();
    assert_eq!(strange.kind, ErrorKind::StaleEpoch, "{strange}");
    let elsewhere = try_copy(&cluster, 3, 0, 1).await.unwrap_err();
    assert_eq!(elsewhere.kind, ErrorKind::NotServing, "{elsewhere}");
    let held = copy(&cluster, 2, 0).await;
    assert_eq!(held[0].header.as_ref().unwrap().last_seq, 1);
    // Without its primary a follower soon cannot know what was acknowledged elsewhere.
    kill(&cluster, nodes.next().unwrap(), 1).await;
    let started = Instant::now();
    while let Ok(copy) = try_copy(&cluster, 2, 0, 1).await {
        assert_eq!(copy[0].header.as_ref().unwrap().last_seq, 1);
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lapsed = try_copy(&cluster, 2, 0, 1).await.unwrap_err();
    assert_eq!(lapsed.kind, ErrorKind::NotServing, "{lapsed}");
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_alone_takes_a_new_epoch_while_another_may_be_added() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1], &[], 1, 1));
    let source = start(&cluster, &dir.path().join("source"), 1).await;
    must_write(&cluster, 0, 0).await;
    let held = copy(&cluster, 1, 0).await;
    for (joining, least) in [(vec![], 1), (vec![2], 3)] {
        let cluster = Cluster::fixed(map(1, &[1], &joining, 2, 1));
        cluster.set_local(NodeId(2), Arc::new(Dead));
        let node = start(&cluster, &dir.path().join(format!("with-{}", joining.len())), 1).await;
        let started = Instant::now();
        while let Err(error) = restore(&cluster, 1, addressed(&cluster, held.clone(), 1)).await {
            assert!(error.retryable() && started.elapsed() < DEADLINE, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        must_write(&cluster, 0, 1).await;
        // One for the restore, and one since the replica begins anew with what it has been given.
        let epoch = cluster.map().shard(ShardId(0)).unwrap().epoch;
        assert!(epoch >= Epoch(least), "epoch {epoch} with {joining:?} joining");
        node.stop().await.unwrap();
    }
    source.stop().await.unwrap();
}
