//! Engines against each other: whatever a peer sends, however it is cut, all send the same bytes.

use super::{Bench, Kind, MIB, bench, put, task};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Conversations in one run.
const CONVERSATIONS: usize = 48;
const LIMIT: Duration = Duration::from_secs(20);
const SIZE: u64 = 9 * MIB;

/// One connection's input, in the parts in which it is written.
#[derive(Debug, Clone)]
struct Conversation {
    parts: Vec<Vec<u8>>,
    /// Leaves after reading this many bytes.
    leaves_after: Option<usize>,
    /// The blob's pages are dropped first.
    cold: bool,
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let range = (0..SIZE + 10, 0..2 * MIB).prop_map(|(start, length)| {
        let last = start + length;
        format!("GET /blobs/{} HTTP/1.1\r\nRange: bytes={start}-{last}\r\n\r\n", task()).into_bytes()
    });
    let fixed = prop_oneof![
        Just(format!("HEAD /blobs/{} HTTP/1.1\r\n\r\n", task())),
        Just(format!("GET /blobs/{} HTTP/1.1\r\nRange: bytes=-3\r\n\r\n", task())),
        Just("GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        Just("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        Just("PUT / HTTP/1.1\r\n\r\n".to_owned()),
    ];
    let garbage = proptest::collection::vec(any::<u8>(), 1..40);
    prop_oneof![6 => range, 4 => fixed.prop_map(String::into_bytes), 1 => garbage]
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let messages = proptest::collection::vec(message(), 1..6);
    let cuts = proptest::collection::vec(any::<proptest::sample::Index>(), 0..8);
    let leaves = proptest::option::weighted(0.2, 0usize..3 << 20);
    (messages, cuts, leaves, any::<bool>()).prop_map(|(messages, cuts, leaves_after, cold)| {
        let mut all = messages.concat();
        all.extend_from_slice(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len())).collect();
        places.extend([0, all.len()]);
        places.sort_unstable();
        let parts = places.windows(2).map(|pair| all[pair[0]..pair[1]].to_vec()).collect();
        Conversation { parts, leaves_after, cold }
    })
}

/// All that comes back.
async fn hold(bench: &Bench, conversation: &Conversation) -> Vec<u8> {
    let blob = bench.store.get(&task()).unwrap().unwrap();
    if conversation.cold {
        posix_fadvise(blob.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }
    let (mut reading, mut writing) = TcpStream::connect(bench.addr).await.unwrap().into_split();
    let parts = conversation.parts.clone();
    let asking = tokio::spawn(async move {
        for part in parts {
            // The other side may have closed for good reason.
            if writing.write_all(&part).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        writing
    });
    let mut answer = Vec::new();
    let most = conversation.leaves_after.unwrap_or(usize::MAX);
    while answer.len() < most {
        match tokio::time::timeout(LIMIT, reading.read_buf(&mut answer)).await.unwrap() {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    answer.truncate(most);
    drop(reading);
    drop(asking.await.unwrap());
    answer
}

#[tokio::test]
async fn all_engines_send_the_same_bytes() {
    let mut benches = Vec::new();
    for kind in [Kind::Portable, Kind::Splice, Kind::Copy, Kind::Zc] {
        benches.extend(bench(kind).await.map(|bench| (kind, bench)));
    }
    for (_, bench) in &benches {
        let blob = put(&bench.store, SIZE, &[0, 1, 2]);
        bench.store.seal(&blob).unwrap();
    }
    let mut runner = TestRunner::default();
    for _ in 0..CONVERSATIONS {
        let conversation = conversation().new_tree(&mut runner).unwrap().current();
        let mut first = None;
        for (kind, bench) in &benches {
            let answer = hold(bench, &conversation).await;
            let expected = first.get_or_insert_with(|| answer.clone());
            let at = expected.iter().zip(&answer).position(|(a, b)| a != b);
            assert!(
                *expected == answer,
                "{kind:?}: {} bytes, expected {}, first difference at {at:?}, in {conversation:?}",
                answer.len(),
                expected.len()
            );
        }
    }
}
