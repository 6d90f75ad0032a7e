//! The packages that the server is linked from, with the licence texts they bring along.
//!
//! `cargo-about` is the tool for this. It takes minutes to build on every machine that makes a release, and what it
//! adds, templates and looking licences up on the network, is not wanted here: the texts are those that lie in the
//! packages.
//!
//! `cargo tree` says which packages are linked. The graph in `cargo metadata` cannot: it also has optional
//! packages that are only mentioned by somebody's features, for example all of `mongocrypt`. The tree is that of the
//! server alone; the build also turns on what the other members of the workspace ask of shared packages, which adds
//! code to some of them and none to the list.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use walkdir::WalkDir;

use super::notices::Package;
use crate::process;
use crate::server;

/// What files with licences, and with what licences want to be passed on, are named like. Folders too.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "UNLICENSE", "COPYING", "COPYRIGHT", "NOTICE"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    version: String,
    /// None for what is in this workspace.
    source: Option<String>,
    license: Option<String>,
    license_file: Option<PathBuf>,
    repository: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
}

/// The packages of the server for this platform, sorted. Not the workspace's own, and not those that only run while it
/// is built: build scripts' and procedural macros with theirs.
pub(super) async fn linked(platform: &str) -> Result<Vec<Package>> {
    let words = ["metadata", "--format-version", "1", "--locked", "--filter-platform", platform];
    let metadata: Metadata = serde_json::from_str(&process::output(process::cargo().args(words)).await?)
        .context("`cargo metadata` says something else than expected")?;
    let words = ["tree", "--locked", "--package", server::NAME, "--target", platform];
    let shape = ["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
    let tree = process::output(process::cargo().args(words).args(shape)).await?;
    names(&tree).into_iter().filter_map(|name| package(name, &metadata.packages).transpose()).collect()
}

/// Names and versions from lines such as `serde v1.0.2` and `serde v1.0.2 (*)`.
fn names(tree: &str) -> BTreeSet<(&str, &str)> {
    let lines = tree.lines().filter_map(|line| line.split_once(" v"));
    lines.filter_map(|(name, rest)| Some((name, rest.split(' ').next()?))).collect()
}

/// The package of this name and version; none if it is one of our own.
fn package((name, version): (&str, &str), known: &[Described]) -> Result<Option<Package>> {
    let manifest = known.iter().find(|manifest| manifest.name == name && manifest.version == version);
    let manifest = manifest.with_context(|| format!("`cargo metadata` does not know {name} {version}"))?;
    if manifest.source.is_none() {
        return Ok(None);
    }
    Ok(Some(Package {
        name: format!("{name} {version}"),
        licence: manifest.license.clone(),
        repository: manifest.repository.clone(),
        authors: manifest.authors.clone(),
        texts: texts(manifest).with_context(|| format!("cannot read the licences of {name} {version}"))?,
    }))
}

/// All licence texts in the package, at any depth: it may carry code of others, such as jemalloc, under its own terms.
fn texts(manifest: &Described) -> Result<Vec<String>> {
    let folder = manifest.manifest_path.parent().context("a manifest is in a folder")?;
    let declared = manifest.license_file.as_ref().map(|file| folder.join(file));
    let mut texts = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        let is_named_so = || path.strip_prefix(folder).is_ok_and(is_licence);
        if entry.file_type().is_file() && (declared.as_deref() == Some(path) || is_named_so()) {
            texts.push(String::from_utf8_lossy(&fs::read(path)?).into_owned());
        }
    }
    Ok(texts)
}

fn is_licence(path: &Path) -> bool {
    let is_named_so = |part: &str| NAMES.iter().any(|name| part.starts_with(name));
    let is_code = path.extension().is_some_and(|extension| extension == "rs");
    !is_code && path.iter().any(|part| is_named_so(&part.to_string_lossy().to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{notices, platform};

    #[test]
    fn names_come_from_the_tree_once() {
        let tree = "task-repo-server v0.1.0 (folder)\nserde v1.0.2\nserde v1.0.2 (*)\n\nbson v3.1.0+x\n";
        let found: Vec<_> = names(tree).into_iter().collect();
        assert_eq!(found, [("bson", "3.1.0+x"), ("serde", "1.0.2"), ("task-repo-server", "0.1.0")]);
    }

    #[test]
    fn licences_are_known_by_their_names() {
        for path in ["LICENSE", "license-mit.md", "jemalloc/COPYING", "LICENSES/MIT.txt", "NOTICE"] {
            assert!(is_licence(Path::new(path)), "{path}");
        }
        for path in ["README.md", "src/license.rs", "src/notices/mod.rs", "no-license"] {
            assert!(!is_licence(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn an_unknown_package_is_named() {
        let error = package(("serde", "1"), &[]).err().unwrap();
        assert!(error.to_string().contains("serde 1"));
    }

    #[tokio::test]
    async fn the_server_s_packages_have_all_that_notices_need() {
        let packages = linked(&platform().await.unwrap()).await.unwrap();
        let has = |name: &str| packages.iter().any(|package| package.name.split(' ').next() == Some(name));
        assert!(has("mongodb") && has("tikv-jemalloc-sys") && has("rustls"));
        // Our own, for tests, for building, a macro, and one that nothing turns on.
        for name in ["task-repo-protocol", "proptest", "cc", "serde_derive", "mongocrypt"] {
            assert!(!has(name), "{name}");
        }
        let notices = notices::render("name", &packages).unwrap();
        assert!(notices.contains("Jason Evans"), "jemalloc's own licence");
    }
}
