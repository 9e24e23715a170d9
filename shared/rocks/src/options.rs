//! Options: one shared block cache and one write buffer bound for all families of a database.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ChecksumType, DBCompressionType, DBRecoveryMode, LogLevel,
    WriteBufferManager,
};

/// Small files that may wait for compaction where it may be held up by damage.
const MANY_FILES: i32 = 1000;

/// A column family: fixed at the time of writing the code, never one per tenant, shard or window.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Whether blocks are compressed; off where values are compressed already.
    pub compress: bool,
    /// Whether whole keys are put into a Bloom filter, for point reads that mostly miss.
    pub bloom: bool,
    /// Size of a block before compression, in bytes.
    pub block_bytes: usize,
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The families beside RocksDB's own default one.
    pub families: Vec<Family>,
    /// Block cache for all families, in bytes.
    pub block_cache_bytes: usize,
    /// Write buffers for all families, in bytes.
    pub write_buffer_bytes: usize,
    /// Files kept open at once.
    pub max_open_files: i32,
    /// Background write rate, in bytes per second; 0 for no bound.
    pub rate_bytes_per_second: i64,
    /// Whether a database is made where there is none.
    pub create: bool,
    /// Whether it is opened though sorted files are damaged or missing: what needs them fails then, and the rest goes
    /// on. Damage of its logs is not reported then; [`crate::verify_logs`] looks for it.
    pub tolerant: bool,
    /// Whether writes without a sync stay in this process, so that an end without closing loses them as a power cut would.
    /// For tests.
    pub holds_unsynced: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            families: Vec::new(),
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            max_open_files: 4096,
            rate_bytes_per_second: 0,
            create: true,
            tolerant: false,
            holds_unsynced: false,
        }
    }
}

pub(crate) fn build(options: &Options) -> (rocksdb::Options, Vec<(&'static str, rocksdb::Options)>) {
    let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
    let mut db = rocksdb::Options::default();
    db.create_if_missing(options.create);
    db.create_missing_column_families(true);
    db.set_paranoid_checks(!options.tolerant);
    // A crash may leave the end of RocksDB's log half written; anything else is damage and is not passed over.
    db.set_manual_wal_flush(options.holds_unsynced);
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    db.set_max_open_files(options.max_open_files);
    // RocksDB allocates its log in advance up to this size, and the list of files with 4 MiB unless told otherwise.
    db.set_max_total_wal_size((options.write_buffer_bytes as u64 / 4).max(2 << 20));
    db.set_manifest_preallocation_size(64 << 10);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_stats_dump_period_sec(0);
    db.set_skip_stats_update_on_db_open(true);
    // Blocks of neighbouring series lie behind one another: the kernel may read ahead.
    db.set_advise_random_on_open(false);
    db.set_max_background_jobs(2);
    db.set_bytes_per_sync(1 << 20);
    db.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(
        options.write_buffer_bytes,
        false,
    ));
    if options.rate_bytes_per_second > 0 {
        db.set_ratelimiter(options.rate_bytes_per_second, 100_000, 10);
    }
    let families =
        options.families.iter().map(|family| (family.name, family_options(family, &cache, options)));
    (db, families.collect())
}

fn family_options(family: &Family, cache: &Cache, options: &Options) -> rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(family.block_bytes);
    table.set_format_version(5);
    table.set_checksum_type(ChecksumType::XXH3);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_index_type(BlockBasedIndexType::BinarySearch);
    if family.bloom {
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
    }
    let mut own = rocksdb::Options::default();
    own.set_block_based_table_factory(&table);
    own.set_write_buffer_size((options.write_buffer_bytes / 2).max(1 << 20));
    own.set_target_file_size_base(64 << 20);
    own.set_level_compaction_dynamic_level_bytes(true);
    if options.tolerant {
        // What compaction cannot read it tries again and again: writes must not wait for it.
        own.set_level_zero_slowdown_writes_trigger(MANY_FILES);
        own.set_level_zero_stop_writes_trigger(2 * MANY_FILES);
        own.set_soft_pending_compaction_bytes_limit(0);
        own.set_hard_pending_compaction_bytes_limit(0);
    }
    own.set_compression_type(if family.compress { DBCompressionType::Zstd } else { DBCompressionType::None });
    own
}
