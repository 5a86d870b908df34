//! Rebuilds when a migration changes (`sqlx::migrate!` embeds the files at compile time), and lists the console's built files
//! for `manager::console` to embed. Not what builds the console: that needs Node, and `cargo xtask console` does it.
//!
//! Invariant: a build without the console's files succeeds, with an empty list.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where Vite writes to. Its parent is in the repository, so that cargo has something to watch before the first build.
const SITE: &str = "console/dist/site";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-changed=console/dist");
    let site = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(SITE);
    let mut files = Vec::new();
    if site.is_dir() {
        collect(&site, &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files.iter().filter(|file| !is_compressed(file)) {
        list.push_str(&entry(&site, file)?);
    }
    list.push(']');
    fs::write(Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("console_files.rs"), list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "br" || extension == "gz")
}

/// One `File { … }` of the list.
fn entry(site: &Path, file: &Path) -> io::Result<String> {
    let path = file.strip_prefix(site).map_err(io::Error::other)?.display().to_string();
    let mut hasher = DefaultHasher::new();
    fs::read(file)?.hash(&mut hasher);
    let mut text = String::new();
    let embedded = |file: &Path| format!("include_bytes!({:?})", file.display().to_string());
    let variant = |extension: &str| {
        let file = PathBuf::from(format!("{}.{extension}", file.display()));
        if file.is_file() { format!("Some({})", embedded(&file)) } else { "None".to_owned() }
    };
    let _ = writeln!(
        text,
        "    File {{ path: {:?}, tag: \"\\\"{:016x}\\\"\", plain: {}, brotli: {}, gzip: {} }},",
        format!("/{path}"),
        hasher.finish(),
        embedded(file),
        variant("br"),
        variant("gz"),
    );
    Ok(text)
}
