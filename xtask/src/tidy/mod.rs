//! `cargo xtask tidy`: the rules of this repository that no compiler knows.
//!
//! A rule is a function from the repository's files to violations, and is tested on made-up files. Six kinds:
//! [`rust`] about Rust code, [`imports`] about which files need which, [`rooms`] about the order of the server's rooms,
//! [`folders`] about their names, [`text`] about every text, [`documented`] about documents that must keep up with the code.

mod documented;
mod file;
mod folders;
mod imports;
mod markdown;
mod rooms;
mod rust;
mod text;
mod tokens;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::layout;

use file::{File, Violation};

/// Options of `cargo xtask tidy`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Instead, print which folders and files of a package import which
    #[arg(long, value_name = "PACKAGE")]
    imports: Option<String>,
}

/// Checks all rules and prints every violation.
pub(crate) fn run(args: &Args) -> Result<()> {
    let files = files()?;
    ensure!(!files.is_empty(), "git lists no files in {}", layout::root().display());
    if let Some(package) = &args.imports {
        println!("{}", imports::graph(&files, package));
        return Ok(());
    }
    let violations = check(&files);
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("{} files, no rule broken", files.len());
        return Ok(());
    }
    bail!("{} broken rules", violations.len())
}

fn check(files: &[File]) -> Vec<Violation> {
    let per_file = files.iter().flat_map(|file| [rust::check(file), text::check(file)]).flatten();
    let mut violations: Vec<_> = per_file
        .chain(imports::check(files))
        .chain(rooms::check(files))
        .chain(folders::check(files))
        .chain(documented::check(files))
        .collect();
    violations.sort();
    violations
}

/// Everything git tracks or would track, so that a new file is checked before it is added. Binary files are left out.
fn files() -> Result<Vec<File>> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = Command::new("git").args(list).current_dir(layout::root()).output();
    let output = output.context("git is needed to know which files to check")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let paths = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
    let present = paths.split_terminator('\0').filter_map(|path| {
        let text = fs::read_to_string(layout::root().join(path)).ok()?;
        Some(File { path: path.to_owned(), text })
    });
    Ok(present.collect())
}
