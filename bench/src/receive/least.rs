//! What a received byte costs at least, in two parts that no receiver into files can leave out: TCP's own work, and one copy
//! into pages of a file with a digest beside it. Not ways to receive: neither does the whole.
//!
//! Invariant: no byte is copied that would not have to be, and what is hashed is in the nearest cache.

use super::plain::{self, Connection, create};
use super::{Clock, Hasher, Job, Pieces};
use crate::receive_report::Received;
use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, recv};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::task::JoinSet;

/// Bytes written, or dropped, at once.
const STEP_BYTES: usize = 256 << 10;

/// Everything is asked for and dropped in the kernel.
pub(super) async fn discard(job: &Job) -> Result<Received> {
    let connections = plain::connect(job).await?;
    let clock = Clock::start();
    let pieces = Pieces::of(job.size)?;
    let mut workers = JoinSet::new();
    for connection in connections {
        workers.spawn(drop_pieces(connection, Arc::clone(&pieces)));
    }
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker ended")??;
    }
    Ok(clock.stop(job.size))
}

async fn drop_pieces(mut connection: Connection, pieces: Arc<Pieces>) -> Result<()> {
    // With `MSG_TRUNC` only its length matters; its pages are never touched.
    let mut nowhere = vec![0; STEP_BYTES];
    while let Some((_, range)) = pieces.next() {
        let along = connection.ask(&range).await?;
        let mut left = usize::try_from(range.end - range.start)? - along.len();
        while left > 0 {
            let most = left.min(STEP_BYTES);
            let socket = &connection.socket;
            let taken = socket.async_io(Interest::READABLE, || {
                let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
                recv(socket.as_raw_fd(), &mut nowhere[..most], flags).map_err(io::Error::from)
            });
            let taken = taken.await?;
            ensure!(taken > 0, "the server closed in the middle");
            left -= taken;
        }
    }
    Ok(())
}

/// The blob's size is hashed and written from one small buffer; nobody is asked for anything.
pub(super) fn write(job: &Job) -> Result<Received> {
    let path = job.dir.join("written.data");
    let file = create(&path, job.size)?;
    if job.overwrite {
        write_pieces(&file, job)?;
    }
    let clock = Clock::start();
    write_pieces(&file, job)?;
    let written = clock.stop(job.size);
    std::fs::remove_file(&path)?;
    Ok(written)
}

fn write_pieces(file: &File, job: &Job) -> Result<()> {
    let buffer = vec![7; STEP_BYTES];
    let pieces = Pieces::of(job.size)?;
    while let Some((_, range)) = pieces.next() {
        let mut hasher = Hasher::new(job.digest);
        let mut offset = range.start;
        while offset < range.end {
            let step = &buffer[..usize::try_from(range.end - offset)?.min(STEP_BYTES)];
            hasher.update(step);
            file.write_all_at(step, offset)?;
            offset += step.len() as u64;
        }
        std::hint::black_box(hasher.finish());
    }
    Ok(())
}
