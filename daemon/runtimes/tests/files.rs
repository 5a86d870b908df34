//! The files of real installations, in and out: `fixtures/CASE/in` is a node's tree before, `fixtures/CASE/out`
//! after `init-runtime` with `fixtures/CASE/arguments`, `fixtures/CASE/notes` what it says.
//!
//! `HAWKER_WRITE_FIXTURES=1` writes `out` and `notes` anew; what changed shows in the diff.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hawker_runtimes::{InitOptions, Registry, Runtime, init};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

type Tree = BTreeMap<PathBuf, String>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Files and, with a slash and nothing in them, directories.
fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                tree.insert(name.join(""), String::new());
                dirs.push(path);
            } else {
                tree.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    tree
}

fn write(tree: &Tree, root: &Path) {
    for (name, text) in tree {
        let path = root.join(name);
        if name.to_string_lossy().ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

/// Without Hawker's own memory.
fn visible(root: &Path) -> Tree {
    let mut tree = tree(root);
    tree.retain(|name, _| !name.starts_with("var"));
    tree
}

fn options(case: &Path, root: &Path) -> InitOptions {
    let text = fs::read_to_string(case.join("arguments")).unwrap();
    let mut words = text.split_whitespace();
    let runtime: Runtime = words.next().unwrap().parse().unwrap();
    let version = words.next().unwrap();
    InitOptions {
        root: root.to_owned(),
        runtimes: vec![runtime],
        mirror: "127.0.0.1:4001".parse().unwrap(),
        registries: words.map(|word| word.parse::<Registry>().unwrap()).collect(),
        containerd_config: "/etc/containerd/config.toml".into(),
        containerd_version: (version != "-").then(|| version.parse().unwrap()),
        keep_config_path: false,
        dry_run: false,
        revert: false,
    }
}

#[test]
fn real_installations() {
    let mut cases: Vec<_> = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 15, "{} cases", cases.len());
    for case in cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let before = tree(&case.join("in"));
        let root = tempfile::tempdir().unwrap();
        write(&before, root.path());
        let options = options(&case, root.path());

        let dry = init(&InitOptions { dry_run: true, ..options.clone() }).unwrap();
        assert_eq!(tree(root.path()), before, "{name}: a dry run wrote");
        let first = init(&options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(dry.changes(), first.changes(), "{name}");
        let after = visible(root.path());
        if std::env::var_os("HAWKER_WRITE_FIXTURES").is_some() {
            let _ = fs::remove_dir_all(case.join("out"));
            write(&after, &case.join("out"));
            fs::write(case.join("notes"), first.to_string()).unwrap();
        }
        for (file, text) in tree(&case.join("out")) {
            assert_eq!(after.get(&file), Some(&text), "{name}: {}", file.display());
        }
        assert_eq!(after.len(), tree(&case.join("out")).len(), "{name}: more files than expected");
        assert_eq!(first.to_string(), fs::read_to_string(case.join("notes")).unwrap(), "{name}");

        let second = init(&options).unwrap();
        assert_eq!(second.changes(), 0, "{name}: a second run changes {second}");
        assert_eq!(visible(root.path()), after, "{name}");

        init(&InitOptions { revert: true, ..options.clone() }).unwrap();
        assert_eq!(tree(root.path()), before, "{name}: not as it was after --revert");
        assert_eq!(init(&InitOptions { revert: true, ..options }).unwrap().changes(), 0, "{name}");
    }
}

#[test]
fn containerds_own_file_is_left_where_that_is_asked() {
    let case = fixtures().join("containerd-1.6-config-path-empty");
    let before = tree(&case.join("in"));
    let root = tempfile::tempdir().unwrap();
    write(&before, root.path());
    let options = InitOptions { keep_config_path: true, ..options(&case, root.path()) };

    let said = init(&options).unwrap().to_string();
    let after = visible(root.path());
    let config = Path::new("etc/containerd/config.toml");
    assert_eq!(after.get(config), before.get(config));
    assert!(after.keys().any(|name| name.ends_with("hosts.toml")), "{after:?}");
    assert!(said.contains("left as it is, as asked") && !said.contains("must be restarted"), "{said}");
    // What an earlier run wrote into it goes out again.
    init(&InitOptions { keep_config_path: false, ..options.clone() }).unwrap();
    assert_ne!(visible(root.path()).get(config), before.get(config));
    init(&options).unwrap();
    assert_eq!(visible(root.path()), after);
}
