//! nginx with sendfile in front of a registry: its blobs straight from the registry's files, the rest passed
//! on; and files of a directory. The fastest ordinary way to serve them, to measure against.
//!
//! Invariant: nothing of it is slowed down: sendfile, no logs, files kept open.

use super::processes::Process;
use super::{data_dir, network};
use crate::{http, interrupt, netns};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Beside the registry, whose port is 5000.
pub(crate) const PORT: u16 = 5001;
/// What `/files/private/` wants.
pub(crate) const KEY: &str = "Bearer right";
const START_LIMIT: Duration = Duration::from_secs(15);

pub(crate) struct Nginx {
    process: Process,
}

impl Nginx {
    /// Serves what the registry near `cluster` serves, from the same address.
    pub(crate) fn start_near(cluster: network::Cluster) -> Result<Self> {
        let (name, dir) = (format!("near-{}", cluster.letter()), data_dir("nginx"));
        let private = dir.join("files/private");
        fs::create_dir_all(&private).with_context(|| format!("make {}", private.display()))?;
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(&dir)).with_context(|| format!("write {}", config.display()))?;
        let mut command = netns::command(&netns::name(&name), "nginx");
        command.arg("-p").arg(&dir).arg("-c").arg(&config).args(["-g", "daemon off;"]);
        let mut process = Process::start("nginx", &mut command, &dir.join("nginx.log"))?;
        let url = format!("http://{}:{PORT}/v2/", cluster.near_registry());
        netns::within(&netns::name(&name), || {
            interrupt::poll("nginx answers", START_LIMIT, || {
                process.check()?;
                http::get(&url, &[]).map(drop)
            })
        })?;
        Ok(Self { process })
    }

    /// Where to put a file that is to be at `/files/<name>`.
    pub(crate) fn file(name: &str) -> PathBuf {
        data_dir("nginx").join("files").join(name)
    }

    /// Bodies sent below `/files/`, bytes, by the access log.
    pub(crate) fn sent_files(&self) -> Result<u64> {
        let log = data_dir("nginx").join("files.log");
        let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        text.lines().map(|line| line.parse::<u64>().with_context(|| format!("read `{line}`"))).sum()
    }

    /// Ends it, workers included.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.stop()
    }
}

fn configuration(dir: &std::path::Path) -> String {
    let (dir, storage) = (dir.display(), data_dir("origin").join("storage/docker/registry/v2/blobs/sha256"));
    format!(
        "user root;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  log_format sent '$body_bytes_sent';\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  open_file_cache max=100;\n  \
         keepalive_requests 1000000;\n  client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  \
         fastcgi_temp_path {dir}/fastcgi;\n  scgi_temp_path {dir}/scgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  \
         server {{\n    listen {PORT};\n    \
         location ~ \"^/v2/.*/blobs/sha256:(..)(.*)$\" {{\n      alias {}/$1/$1$2/data;\n      \
         default_type application/octet-stream;\n    }}\n    \
         location /files/ {{ root {dir}; access_log {dir}/files.log sent; }}\n    \
         location /files/private/ {{ root {dir}; access_log {dir}/files.log sent;\n      \
         if ($http_authorization != \"{KEY}\") {{ return 403; }} }}\n    \
         location / {{ proxy_pass http://127.0.0.1:5000; proxy_set_header Host $http_host; }}\n  }}\n}}\n",
        storage.display()
    )
}
