//! The peer protocol: pieces over plain HTTP/1.1, so that curl and nginx can stand on either side.
//!
//! Server and client side. Which piece is fetched from whom is [`crate::swarm`]'s decision, and how
//! bytes get into sockets is [`crate::engine`]'s.
//!
//! Invariant: request and response heads are bounded and parsed by a library.

mod body;
pub mod client;
mod feed;
pub mod flow;
pub mod pass;
pub mod request;
mod server;
pub mod service;

pub use pass::{Pass, PeerKey};
pub use request::{Request, Target};
pub use server::{PeerError as PeerServerError, PeerServer};

/// Algorithm name of a piece's digest in the `Content-Digest` header (RFC 9530 §2).
///
/// BLAKE3 has no entry in the registry of RFC 9530 §7.2; receivers that don't know it ignore it.
pub const PIECE_DIGEST_ALGORITHM: &str = "blake3";
