//! `hawker get`: what to fetch, where to put it, and what to say about it.

mod part;
mod place;
mod progress;
mod transfer;

use crate::daemon::Daemon;
use crate::source::{self, Item, Wanted};
use anyhow::{Context, Result, bail};
use clap::Args;
use progress::Progress;
use std::path::{Path, PathBuf};
use transfer::Transfer;

/// Standard output, where a file name is expected.
const STDOUT: &str = "-";

#[derive(Args)]
pub(crate) struct GetArguments {
    /// http(s)://, s3://, gs://, az://, oci:// or hf://; with several files behind it, a directory is made of them.
    url: String,
    /// Where to put it: a file, a directory, or - for standard output. Without it, the current directory.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the content must be: sha256:HEX or sha512:HEX.
    #[arg(long)]
    digest: Option<String>,
    /// A header for the file's host, `Name: value`; again for more.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Only these bytes: FIRST-LAST, FIRST- or -COUNT.
    #[arg(long, value_name = "RANGE", value_parser = range, allow_hyphen_values = true)]
    range: Option<String>,
    /// Name and password for an OCI registry, `name:password`.
    #[arg(long, env = "HAWKER_USER", hide_env_values = true)]
    user: Option<String>,
    /// os/architecture of an OCI artifact that has several.
    #[arg(long)]
    platform: Option<String>,
    /// Everything below an s3, gs or az prefix.
    #[arg(short, long)]
    recursive: bool,
    /// Share one copy only with callers that give the same tag.
    #[arg(long)]
    tag: Option<String>,
    /// Query parameters that only say who asks, by comma; signatures are known.
    #[arg(long, value_name = "NAMES")]
    ignore_query: Option<String>,
    /// How the file gets from the daemon's store to its place.
    #[arg(long, value_enum, default_value = "auto")]
    place: place::How,
    /// Only errors.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(daemon: &Daemon, arguments: &GetArguments) -> Result<()> {
    let wanted = Wanted {
        headers: arguments.headers.clone(),
        user: arguments.user.clone(),
        platform: arguments.platform.clone(),
        recursive: arguments.recursive,
    };
    let mut items = source::resolve(&daemon.mirror(), &arguments.url, &wanted)?;
    if let Some(digest) = &arguments.digest {
        let [item] = items.as_mut_slice() else {
            bail!("--digest is for one file, and {} stands for {}", arguments.url, items.len());
        };
        want_digest(item, digest)?;
    }
    for item in &mut items {
        let more = [("hawker-tag", &arguments.tag), ("hawker-ignore-query", &arguments.ignore_query)];
        let given = more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        item.headers.extend(given);
    }
    let output = arguments.output.as_deref().unwrap_or(Path::new("."));
    if output == Path::new(STDOUT) {
        return to_stdout(daemon, arguments, &items);
    }
    let several = items.len() > 1;
    for item in &items {
        let target = target(output, item, several);
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("make directory {}", directory.display()))?;
        }
        let progress = Progress::new(daemon, &target.display().to_string(), arguments.quiet).watch();
        let transfer = Transfer::new(daemon.mirror(), item, arguments.range.clone(), &progress)?;
        let placed = place::into(daemon, &transfer, &target, arguments.place);
        progress.finish(placed.is_ok());
        placed.with_context(|| format!("fetch {}", target.display()))?;
    }
    Ok(())
}

fn to_stdout(daemon: &Daemon, arguments: &GetArguments, items: &[Item]) -> Result<()> {
    let [item] = items else {
        bail!("{} files cannot go to standard output: give a directory with -o", items.len());
    };
    let progress = Progress::new(daemon, "-", arguments.quiet).watch();
    let transfer = Transfer::new(daemon.mirror(), item, arguments.range.clone(), &progress)?;
    let sent = transfer.to_writer(&mut std::io::stdout().lock());
    progress.finish(sent.is_ok());
    sent
}

/// A directory gets the item under its own name; several items make one.
fn target(output: &Path, item: &Item, several: bool) -> PathBuf {
    let is_directory = several || output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_directory { output.join(&item.name) } else { output.to_owned() }
}

fn want_digest(item: &mut Item, digest: &str) -> Result<()> {
    match &item.digest {
        Some(known) if known != digest => bail!("{digest} is wanted, and the source has {known}"),
        Some(_) => {}
        None => {
            item.headers.push(("hawker-digest".to_owned(), digest.to_owned()));
            item.digest = Some(digest.to_owned());
        }
    }
    Ok(())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("`{text}` is not `Name: value`"))?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(legal) {
        return Err(format!("`{name}` is no name of a header"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn range(text: &str) -> Result<String, String> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('-') {
        Some((first, last)) if digits(first) && digits(last) && !(first.is_empty() && last.is_empty()) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is not FIRST-LAST, FIRST- or -COUNT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_ranges() {
        assert_eq!(header("X-Key:  v : w").unwrap(), ("X-Key".to_owned(), "v : w".to_owned()));
        assert!(header("X Key: v").is_err() && header("novalue").is_err() && header(": v").is_err());
        for good in ["0-9", "5-", "-7"] {
            assert_eq!(range(good).unwrap(), good);
        }
        for bad in ["-", "a-b", "5", "1-2,3-4", "--1"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn where_files_go() {
        let item =
            Item { path: String::new(), headers: Vec::new(), digest: None, name: PathBuf::from("a/b") };
        assert_eq!(target(Path::new("."), &item, false), Path::new("./a/b"));
        assert_eq!(target(Path::new("/nowhere/x"), &item, false), Path::new("/nowhere/x"));
        assert_eq!(target(Path::new("/nowhere/x"), &item, true), Path::new("/nowhere/x/a/b"));
        assert_eq!(target(Path::new("/nowhere/x/"), &item, false), Path::new("/nowhere/x/a/b"));
    }
}
