//! What the packages that we build on bring with them: licences and sources, which are ours to choose, and advisories,
//! which others publish at any time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::fingerprint::{self, Fingerprint};
use crate::layout;
use crate::process;
use crate::spinner::Spinner;

/// The `cargo-deny` that `deny.toml` was written for.
const CARGO_DENY: &str = "0.20.2";

/// Where a passed check leaves the fingerprint of what it was about; the file is committed.
pub(crate) const RECORD: &str = "deny-passed.txt";
/// What decides about licences, sources and banned packages, with the manifests of the workspace's packages: a published
/// version of a package never changes.
const SOURCES: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "deny.toml",
    "bench/Cargo.toml",
    "chaos/Cargo.toml",
    "client/Cargo.toml",
    "model/Cargo.toml",
    "protocol/Cargo.toml",
    "server/Cargo.toml",
    "tests/Cargo.toml",
    "xtask/Cargo.toml",
];

/// The fingerprint of what the check is about, and whether the check has passed for it. To build its tool takes most of a
/// minute in a clean checkout.
pub(crate) fn state() -> Result<(String, bool)> {
    let mut fingerprint = Fingerprint::new();
    fingerprint.add(CARGO_DENY.as_bytes());
    for source in SOURCES {
        let text = std::fs::read(layout::root().join(source));
        fingerprint.add(&text.with_context(|| format!("cannot read {source}"))?);
    }
    let fingerprint = fingerprint.to_string();
    let has_passed = fingerprint::has_passed(RECORD, &fingerprint);
    Ok((fingerprint, has_passed))
}

/// Licences, sources and banned packages, as `deny.toml` says.
pub(crate) async fn check(tool: &Path) -> Result<()> {
    // It looks at the packages of all platforms, also those that nothing was built for yet.
    process::run(Command::new("cargo").args(["fetch", "--locked"]).current_dir(layout::root())).await?;
    let words = ["--offline", "check", "licenses", "bans", "sources"];
    process::run(Command::new(tool).args(words).current_dir(layout::root())).await
}

/// Known vulnerabilities of the packages in `Cargo.lock`. Not a step of CI: an advisory that came out today is no fault
/// of the change that is being checked.
pub(crate) async fn audit() -> Result<()> {
    let tool = cargo_deny().await?;
    let deny = |words: &[&str]| {
        let mut command = Command::new(&tool);
        command.args(words).current_dir(layout::root());
        command
    };
    process::run(&mut deny(&["fetch", "db"])).await.context("RustSec's advisories could not be fetched")?;
    process::run(&mut deny(&["--offline", "check", "advisories"])).await
}

/// Builds the tool once: a minute. Without optimisations, which would cost more than one check can win back.
pub(crate) async fn cargo_deny() -> Result<PathBuf> {
    let folder = layout::data().join(format!("cargo-deny-{CARGO_DENY}"));
    let tool = folder.join("bin/cargo-deny");
    if !tool.exists() {
        let spinner = Spinner::new(format!("building cargo-deny {CARGO_DENY}"));
        let mut command = Command::new("cargo");
        let words =
            ["install", "--quiet", "--locked", "--debug", "cargo-deny", "--version", CARGO_DENY, "--root"];
        let target = folder.join("target");
        command.args(words).arg(&folder);
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TARGET_DIR", &target);
        process::output(&mut command).await?;
        std::fs::remove_dir_all(&target)?;
        spinner.done();
    }
    Ok(tool)
}
