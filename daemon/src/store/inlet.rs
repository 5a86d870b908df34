//! One piece on its way into its blob: written as it arrives, and hashed from what was written.
//!
//! Not whether the digest is right, and not who may write: that is its user's to say, by a [`Permit`].
//!
//! Invariant: what [`Inlet::finish`] gives is the digest of what lies in the file, and nobody else wrote there.

use super::BlobFile;
use super::digesting::{Busy, Digesting, PieceHash};
use crate::peer::client::Sink;
use crate::peer::flow::{Flow, Step};
use std::sync::Arc;

/// The right to write one piece.
pub trait Permit: Clone + Send + 'static {
    /// Does `work`, which writes so many bytes, if the right still stands. It is not taken away while that lasts.
    fn under<T>(&self, bytes: u64, work: impl FnOnce() -> T) -> Option<T>;
}

/// Takes the bytes of one piece in order.
pub struct Inlet<H, P> {
    place: Place<P>,
    digesting: Arc<Digesting<H>>,
}

/// Where the next bytes go.
#[derive(Clone)]
struct Place<P> {
    blob: Arc<BlobFile>,
    piece: u32,
    permit: P,
    offset: u64,
}

impl<H: PieceHash, P: Permit> Inlet<H, P> {
    pub fn new(blob: Arc<BlobFile>, piece: u32, permit: P, hasher: H) -> Self {
        let range = blob.geometry().range(piece);
        let digesting = Arc::new(Digesting::new(Arc::clone(&blob), range.clone(), hasher));
        Self { place: Place { blob, piece, permit, offset: range.start }, digesting }
    }

    /// The hasher, with all bytes that were put.
    ///
    /// # Errors
    /// They could not be read back, or the right to write was lost meanwhile: they may be another's.
    pub async fn finish(self) -> Result<H, String> {
        let (digesting, offset) = (self.digesting, self.place.offset);
        let hasher = match digesting.take_if_at(offset) {
            Some(hasher) => hasher,
            None => {
                let hashing = tokio::task::spawn_blocking(move || digesting.finish(offset));
                hashing.await.map_err(|_| "shutting down".to_owned())??
            }
        };
        self.place.permit.under(0, || ()).ok_or_else(taken_over)?;
        Ok(hasher)
    }

    /// Runs `step` on a thread that may block.
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut Place<P>, &Arc<Digesting<H>>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (mut place, digesting) = (self.place.clone(), Arc::clone(&self.digesting));
        let stepped = tokio::task::spawn_blocking(move || {
            let _busy = Busy::enter();
            let stepped = step(&mut place, &digesting);
            if stepped.is_ok() && place.is_at_end() {
                place.blob.begin_write_back();
            }
            (stepped, place.offset)
        });
        let (stepped, offset) = stepped.await.map_err(|_| "shutting down".to_owned())?;
        self.place.offset = offset;
        stepped
    }
}

impl<P: Permit> Place<P> {
    fn is_at_end(&self) -> bool {
        self.offset == self.blob.geometry().range(self.piece).end
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.permit.under(bytes.len() as u64, || {
            if self.blob.has(self.piece) {
                return Err(taken_over());
            }
            self.blob.write(bytes, self.offset).map_err(|error| error.to_string())
        });
        written.ok_or_else(taken_over)??;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Writes what is in the flow's pipe.
    fn write_from(&mut self, flow: &mut Flow) -> Result<(), String> {
        let bytes = flow.pipe().held() as u64;
        let written = self.permit.under(bytes, || {
            if self.blob.has(self.piece) {
                return Err(taken_over());
            }
            self.blob.write_from(flow.pipe(), self.offset).map_err(|error| error.to_string())
        });
        written.ok_or_else(taken_over)??;
        self.offset += bytes;
        Ok(())
    }
}

impl<H: PieceHash, P: Permit> Sink for Inlet<H, P> {
    async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        self.step(move |place, digesting| {
            let offset = place.offset;
            place.write(&bytes)?;
            digesting.add(offset, &bytes)?;
            Ok(bytes)
        })
        .await
    }

    async fn pump(&mut self, mut flow: Flow) -> Result<Flow, String> {
        self.step(move |place, digesting| {
            loop {
                place.write_from(&mut flow)?;
                // The next bytes are taken before these are hashed: the sender goes on.
                let more = flow.fill() == Step::Filled;
                digesting.go_on(place.offset, more)?;
                if !more {
                    return Ok(flow);
                }
            }
        })
        .await
    }
}

fn taken_over() -> String {
    "another source took the piece over".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StorageConfig;
    use crate::store::Store;
    use hawker_api::task::{Algorithm, TaskId};
    use hawker_api::units::ByteSize;
    use parking_lot::Mutex;

    /// A right that can be taken away.
    #[derive(Clone)]
    struct Right(Arc<Mutex<bool>>);

    impl Permit for Right {
        fn under<T>(&self, _bytes: u64, work: impl FnOnce() -> T) -> Option<T> {
            let stands = self.0.lock();
            if *stands { Some(work()) } else { None }
        }
    }

    fn blob(dir: &std::path::Path, size: u64) -> Arc<BlobFile> {
        let store = Store::open(&StorageConfig { dir: dir.to_owned(), capacity: ByteSize(0) }).unwrap();
        store.create(&TaskId::from_digest(Algorithm::Sha256, &[7; 32]).unwrap(), size).unwrap()
    }

    fn inlet(blob: &Arc<BlobFile>, right: &Right) -> Inlet<blake3::Hasher, Right> {
        Inlet::new(Arc::clone(blob), 0, right.clone(), blake3::Hasher::new())
    }

    fn content() -> Vec<u8> {
        (0..3_000_000u32).flat_map(|at| [(at % 251) as u8]).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_behind_the_writer_is_hashed_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (content, right) = (content(), Right(Arc::new(Mutex::new(true))));
        let blob = blob(dir.path(), content.len() as u64);
        let mut inlet = inlet(&blob, &right);
        // In turns from memory and read back, the latter with and without more to come.
        for (number, part) in content.chunks(300_017).enumerate() {
            if number % 3 == 0 {
                inlet.put(part.to_vec()).await.unwrap();
            } else {
                inlet.place.write(part).unwrap();
                inlet.digesting.go_on(inlet.place.offset, number % 3 == 1).unwrap();
            }
        }
        assert_eq!(inlet.finish().await.unwrap().finalize(), blake3::hash(&content));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_cut_short_under_the_digest_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (content, right) = (content(), Right(Arc::new(Mutex::new(true))));
        let blob = blob(dir.path(), content.len() as u64);
        let mut inlet = inlet(&blob, &right);
        inlet.place.write(&content).unwrap();
        inlet.digesting.go_on(100_000, false).unwrap();
        blob.file().set_len(200_000).unwrap();
        assert!(inlet.finish().await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_lost_the_right_writes_nothing_and_has_no_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (content, right) = (content(), Right(Arc::new(Mutex::new(true))));
        let blob = blob(dir.path(), content.len() as u64);
        let (mut first, second) = (inlet(&blob, &right), inlet(&blob, &right));
        first.put(content[..1000].to_vec()).await.unwrap();
        *right.0.lock() = false;
        assert!(first.put(vec![1; 1000]).await.is_err());
        let mut after = vec![9; 1000];
        blob.read(&mut after, 1000).unwrap();
        assert_eq!(after, vec![0; 1000]);
        assert!(first.finish().await.is_err() && second.finish().await.is_err());
    }
}
