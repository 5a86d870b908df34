//! A file while it comes: under another name beside its place, so that a second try goes on with it.
//!
//! The name holds a hash of which version it is a part of; parts of others are left alone.
//!
//! Invariant: the file gets its name by one rename, when all of it is there and matched.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256, Sha512};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Read back in steps of so many bytes.
const STEP_BYTES: usize = 1 << 20;
/// Characters of the hash in the name.
const TAG_CHARS: usize = 16;

pub(super) struct Part {
    path: PathBuf,
    target: PathBuf,
    file: File,
    length: u64,
    /// What the whole must be, and the sum so far.
    digest: Option<(String, Sum)>,
}

impl Part {
    /// What is there of `version`, or an empty file. The sum for `digest` (`sha256:HEX`, `sha512:HEX`) is made as bytes come.
    pub(super) fn open(target: &Path, version: &str, digest: Option<&str>) -> Result<Self> {
        let name = target.file_name().with_context(|| format!("{} is no file name", target.display()))?;
        let tag: String =
            Sha256::digest(version).iter().map(|byte| format!("{byte:02x}")).take(TAG_CHARS / 2).collect();
        let path = target.with_file_name(format!(".{}.{tag}.part", name.to_string_lossy()));
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = opened.with_context(|| format!("open {}", path.display()))?;
        let mut digest = match digest {
            Some(text) => Some((text.to_owned(), Sum::new(text)?)),
            None => None,
        };
        let read = || format!("read {}", path.display());
        let length = match &mut digest {
            Some((_, sum)) => sum.add_all(&mut file).with_context(read)?,
            None => file.metadata().with_context(read)?.len(),
        };
        Ok(Self { path, target: target.to_owned(), file, length, digest })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Starts again.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).with_context(|| format!("shorten {}", self.path.display()))?;
        self.length = 0;
        if let Some((text, sum)) = &mut self.digest {
            *sum = Sum::new(text)?;
        }
        Ok(())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("write {}", self.path.display()))?;
        self.length += bytes.len() as u64;
        if let Some((_, sum)) = &mut self.digest {
            sum.add(bytes);
        }
        Ok(())
    }

    /// Gives the whole its name. What does not match its digest is removed.
    pub(super) fn complete(self) -> Result<()> {
        if let Some((digest, sum)) = self.digest
            && !digest.ends_with(&format!(":{}", sum.hex()))
        {
            std::fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))?;
            bail!("the file is not {digest}");
        }
        std::fs::rename(&self.path, &self.target)
            .with_context(|| format!("rename {} to {}", self.path.display(), self.target.display()))
    }
}

enum Sum {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Sum {
    /// For a digest of its kind.
    fn new(digest: &str) -> Result<Self> {
        match digest.split_once(':') {
            Some(("sha256", _)) => Ok(Self::Sha256(Sha256::new())),
            Some(("sha512", _)) => Ok(Self::Sha512(Sha512::new())),
            _ => bail!("`{digest}` is neither sha256:HEX nor sha512:HEX"),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
        }
    }

    /// Everything there is; how much that was.
    fn add_all(&mut self, file: &mut File) -> std::io::Result<u64> {
        let (mut buffer, mut length) = (vec![0; STEP_BYTES], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(length),
                count => self.add(&buffer[..count]),
            }
            length = file.stream_position()?;
        }
    }

    fn hex(self) -> String {
        let bytes = match self {
            Self::Sha256(sum) => sum.finalize().to_vec(),
            Self::Sha512(sum) => sum.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_on_under_its_version_and_gets_its_name_when_it_matches() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let digest = Some("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut part = Part::open(&target, "v1", digest).unwrap();
        part.append(b"ab").unwrap();
        drop(part);
        assert_eq!(Part::open(&target, "v2", None).unwrap().length(), 0);
        let mut part = Part::open(&target, "v1", digest).unwrap();
        assert_eq!(part.length(), 2);
        part.append(b"c").unwrap();
        part.complete().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"abc");
    }

    #[test]
    fn what_does_not_match_is_removed_and_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let digest = format!("sha512:{}", "0".repeat(128));
        let mut part = Part::open(&target, "v", Some(&digest)).unwrap();
        part.append(b"x").unwrap();
        assert!(part.complete().is_err() && Part::open(&target, "v", Some("md5:0")).is_err());
        assert!(!target.exists());
    }
}
