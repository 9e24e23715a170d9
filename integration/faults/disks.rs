//! A disk on which every sync takes long: the kernel throttles what one process writes. Needs root and a control group for
//! block devices.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tricord_testkit::{LocalCluster, Shape, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::{BINARY, LIMIT, faces, healthy, left_out};

/// Writes a second; a sync takes a few.
const WRITES_PER_S: u32 = 4;

/// A control group whose processes write slowly to one device.
struct SlowDisk {
    group: PathBuf,
    device: String,
}

impl SlowDisk {
    /// For the device under a directory; `None` where this machine cannot do that.
    fn under(dir: &Path) -> Option<Self> {
        let of = fs::metadata(dir).ok()?.dev();
        let device = format!("{}:{}", rustix::fs::major(of), rustix::fs::minor(of));
        let group = Path::new("/sys/fs/cgroup/blkio").join(format!("tricord-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let disk = Self { group, device };
        disk.limit(WRITES_PER_S).and_then(|()| disk.limit(0)).ok()?;
        Some(disk)
    }

    /// Whoever is in the group may write so often per second; 0 is without bound.
    fn limit(&self, writes_per_s: u32) -> Result<()> {
        let line = format!("{} {writes_per_s}", self.device);
        let file = self.group.join("blkio.throttle.write_iops_device");
        fs::write(&file, line).with_context(|| file.display().to_string())
    }

    fn take_in(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.group.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let _ = self.limit(0);
        let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            let _ = fs::write("/sys/fs/cgroup/blkio/cgroup.procs", pid);
        }
        let _ = fs::remove_dir(&self.group);
    }
}

/// A node whose disk takes long for everything does store, and holds up every write as long as it counts: it leads no shard
/// any more, is left out of all in-sync sets, and comes back once its disk is quick again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_slow_disk_is_left_out_until_it_is_quick() -> Result<()> {
    // So few that each of them is written to all the time: where nothing is written, no disk is slow.
    let shape = Shape { shards: 4, ..Shape::default() };
    let cluster = LocalCluster::start(BINARY, &shape).await?;
    let Some(disk) = SlowDisk::under(&cluster.data_dir()) else {
        println!("skipped: slowing a disk down needs root and the blkio control group");
        return Ok(());
    };
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;
    let slow = cluster.member("querier-2")?.clone();
    disk.take_in(slow.pid)?;
    disk.limit(WRITES_PER_S)?;
    eventually(LIMIT, || left_out(&metadata, slow.id)).await?;
    eventually(LIMIT, || acknowledges(&ingester)).await?;

    disk.limit(0)?;
    eventually(LIMIT, || healthy(&metadata)).await.context("after the disk is quick again")?;
    writer.finish().await?.check_kept(&proxy).await
}
