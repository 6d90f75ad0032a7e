//! The `.env` file.

use std::cell::Cell;
use std::io::{Error, ErrorKind, Read, Result as IoResult};
use std::str::SplitInclusive;

use super::error::SettingsError;

/// The variables of the `.env` file of this folder, or of the nearest one above that has one.
pub(super) fn variables() -> Result<Vec<(String, String)>, SettingsError> {
    for folder in std::env::current_dir()?.ancestors() {
        match std::fs::read_to_string(folder.join(".env")) {
            Ok(text) => return parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Vec::new())
}

fn parse(text: &str) -> Result<Vec<(String, String)>, SettingsError> {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = Cell::new(0);
    let mut parsed =
        dotenvy::from_read_iter(Lines { left: text.split_inclusive('\n'), line: b"", read: &read });
    let mut variables = Vec::new();
    loop {
        let line = read.get() + 1;
        match parsed.next() {
            None => return Ok(variables),
            Some(Ok(variable)) => variables.push(variable),
            Some(Err(dotenvy::Error::LineParse(..))) => return Err(SettingsError::EnvLine(line)),
            Some(Err(error)) => return Err(Error::other(error.to_string()).into()),
        }
    }
}

/// Gives away one line at a time, and counts them: the parser does not say which line it refuses.
struct Lines<'a> {
    left: SplitInclusive<'a, char>,
    line: &'a [u8],
    read: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        if self.line.is_empty()
            && let Some(next) = self.left.next()
        {
            self.line = next.as_bytes();
            self.read.set(self.read.get() + 1);
        }
        self.line.read(buffer)
    }
}
