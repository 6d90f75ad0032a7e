//! The seeds of runs that draw at random: of the commit in CI, so that a change is judged by the same run wherever it is
//! repeated, and yet each commit by another; a new one for runs that search.

use std::hash::{BuildHasher as _, RandomState};

use crate::layout;
use crate::process;

/// The seed where there is no commit, as in an unpacked archive of the sources.
const WITHOUT_COMMIT: u64 = 1;
/// How many hexadecimal digits of a commit make its seed.
const DIGITS: usize = 8;

/// The seed of the commit that is checked out, and where it is from, for people.
pub(crate) async fn of_commit() -> (u64, String) {
    match commit().await.as_deref().and_then(|commit| Some((from_hash(commit)?, commit))) {
        Some((seed, commit)) => (seed, format!("the seed is {seed}: the commit {commit} gives it")),
        None => (WITHOUT_COMMIT, format!("the seed is {WITHOUT_COMMIT}: there is no commit to give one")),
    }
}

/// A new one for each call.
pub(crate) fn drawn() -> u64 {
    // The standard library draws the keys of each such state at random.
    RandomState::new().hash_one(0_u8) & u64::from(u32::MAX)
}

async fn commit() -> Option<String> {
    // Without a `.git` of its own, git would answer for a repository around this folder.
    if !layout::root().join(".git").exists() {
        return None;
    }
    let mut git = tokio::process::Command::new("git");
    git.args(["rev-parse", "--verify", "HEAD"]).current_dir(layout::root());
    Some(process::output(&mut git).await.ok()?.trim().to_owned())
}

fn from_hash(commit: &str) -> Option<u64> {
    u64::from_str_radix(commit.get(..DIGITS)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_gives_its_first_digits() {
        assert_eq!(from_hash("0000001f5a6d4098d2e7"), Some(31));
        assert_eq!(from_hash("ffffffff00"), Some(u64::from(u32::MAX)));
        assert_eq!(from_hash("abc"), None, "that is no commit");
        assert_eq!(from_hash("fatal: no such thing"), None);
    }

    #[tokio::test]
    async fn the_same_commit_gives_the_same_seed() {
        assert_eq!(of_commit().await, of_commit().await);
    }

    #[test]
    fn what_is_drawn_differs() {
        let drawn: std::collections::HashSet<_> = (0..20).map(|_| drawn()).collect();
        assert!(drawn.len() > 10 && drawn.iter().all(|seed| u32::try_from(*seed).is_ok()));
    }
}
