//! The daemon's configuration.

use hawker_api::units::ByteSize;
use std::path::PathBuf;

/// Where and how much the node keeps.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    pub dir: PathBuf,
    /// 0: no limit but the disk's.
    pub capacity: ByteSize,
}
