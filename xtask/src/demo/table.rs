//! The demo's table. Layer times are the daemon's own: from the first request for the layer to the
//! whole digest matched; the image's time is containerd's, unpacking included.

use std::time::Duration;

pub(crate) struct Row {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) what: String,
    pub(crate) bytes: u64,
    pub(crate) source: String,
    pub(crate) took: Duration,
}

pub(crate) fn render(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.source.len()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<8} {:<10} {:<19} {:>10}  {:<width$} {:>8} {:>8}\n",
        "node", "cluster", "what", "bytes", "source", "seconds", "MB/s"
    );
    for row in rows {
        let seconds = row.took.as_secs_f64();
        let (seconds, rate) = if seconds > 0.0 {
            (format!("{seconds:.3}"), format!("{:.1}", row.bytes as f64 / 1e6 / seconds))
        } else {
            ("-".to_owned(), "-".to_owned())
        };
        text.push_str(&format!(
            "{:<8} {:<10} {:<19} {:>10}  {:<width$} {seconds:>8} {rate:>8}\n",
            row.node, row.cluster, row.what, row.bytes, row.source
        ));
    }
    text
}
