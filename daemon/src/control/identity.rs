//! Who this node is: an identity kept in the store's directory, and the address others reach it at.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("keep the host id in {path}: {source}", path = .path.display())]
    HostId { path: PathBuf, source: io::Error },
    #[error("find the address peers reach this node at (set host.advertiseIP): {detail}")]
    Address { detail: String },
}

/// The host id in `dir`, made at the first start.
///
/// # Errors
/// The file cannot be read or written.
pub fn host_id(dir: &Path) -> Result<String, IdentityError> {
    let path = dir.join("host-id");
    let failed = |source| IdentityError::HostId { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) if uuid::Uuid::parse_str(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
        Ok(_damaged) => tracing::warn!(path = %path.display(), "the host id is damaged; making a new one"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let id = uuid::Uuid::new_v4().to_string();
    fs::write(&path, &id).map_err(failed)?;
    Ok(id)
}

/// The address of the interface that leads to `manager` (`http://host:port`). Sends nothing.
///
/// # Errors
/// The manager's name does not resolve, or there is no route to it.
pub fn address_towards(manager: &str) -> Result<IpAddr, IdentityError> {
    let failed = |detail: String| IdentityError::Address { detail: format!("towards {manager}: {detail}") };
    let url = url::Url::parse(manager).map_err(|error| failed(error.to_string()))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let mut addrs = (host.as_str(), port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let target = addrs.next().ok_or_else(|| failed("no address".to_owned()))?;
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let routed = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    Ok(routed.map_err(|error| failed(error.to_string()))?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = host_id(dir.path()).unwrap();
        assert_eq!(host_id(dir.path()).unwrap(), first);
        fs::write(dir.path().join("host-id"), "junk").unwrap();
        assert_ne!(host_id(dir.path()).unwrap(), first);
    }

    #[test]
    fn the_address_is_the_one_that_leads_there() {
        assert_eq!(address_towards("http://127.0.0.1:65003").unwrap(), IpAddr::from([127, 0, 0, 1]));
        let error = address_towards("http://no-such-host.invalid:1").unwrap_err().to_string();
        assert!(error.contains("advertiseIP") && error.contains("no-such-host.invalid"), "{error}");
    }
}
