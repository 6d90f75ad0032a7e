//! Whether there is something to release: sources that a commit holds, and a version that the changelog knows.

use std::fs;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::layout;
use crate::process;

const CHANGELOG: &str = "CHANGELOG.md";

/// An error when the work tree is not what the last commit says.
pub(super) async fn committed() -> Result<()> {
    let changes = git(&["status", "--porcelain"]).await?;
    ensure!(
        changes.is_empty(),
        "the work tree has changes that no commit holds; commit them, or add --allow-dirty to try it out:\n{}",
        changes.trim_end()
    );
    Ok(())
}

/// When the last commit was made, in seconds since 1970.
pub(super) async fn last_commit_time() -> Result<String> {
    Ok(git(&["log", "-1", "--format=%ct"]).await?.trim().to_owned())
}

/// An error when the changelog has no section for this version.
pub(super) fn in_changelog(version: &str) -> Result<()> {
    let file = layout::root().join(CHANGELOG);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        has_dated_section(&text, version),
        "{CHANGELOG} has no section headed `## [{version}] - YYYY-MM-DD`; give what is unreleased this heading"
    );
    Ok(())
}

/// With or without the brackets, which Keep a Changelog has for links.
fn has_dated_section(changelog: &str, version: &str) -> bool {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## ")?.trim().split_once(" - "));
    let mut dated = headings.filter(|(_, date)| is_date(date));
    dated.any(|(name, _)| name == version || name == format!("[{version}]"))
}

fn is_date(text: &str) -> bool {
    let fits = |(index, byte): (usize, u8)| {
        if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() }
    };
    text.len() == 10 && text.bytes().enumerate().all(fits)
}

async fn git(words: &[&str]) -> Result<String> {
    let output = process::output(Command::new("git").args(words).current_dir(layout::root())).await;
    output.context("a release is made of a commit, so it needs git and a clone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_counts_as_released_when_its_section_has_a_date() {
        assert!(has_dated_section("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-11-26\n", "0.1.0"));
        assert!(has_dated_section("## 0.1.0 - 2026-11-26", "0.1.0"));
    }

    #[test]
    fn no_other_heading_counts() {
        let others = [
            "## [Unreleased]\n\nBecomes 0.1.0.",
            "## [0.1.0]",
            "## [0.1.0] - soon",
            "## [0.1.0] - 2026-11-2x",
            "## [0.1.0-rc.1] - 2026-11-26",
            "## [10.1.0] - 2026-11-26",
            "### 0.1.0 - 2026-11-26",
            "0.1.0 - 2026-11-26",
        ];
        for text in others {
            assert!(!has_dated_section(text, "0.1.0"), "{text}");
        }
    }

    #[tokio::test]
    async fn the_last_commit_has_a_time() {
        assert!(last_commit_time().await.unwrap().parse::<u64>().unwrap() > 1_700_000_000);
    }
}
