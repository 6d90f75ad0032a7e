//! What a server knows of indexes that are missing, as after a drop or a restore while it runs.

use mongodb::error::ErrorKind;
use parking_lot::Mutex;

/// The code by which MongoDB says, among other things, that there is no index of a hint.
const BAD_VALUE: i32 = 2;

/// What this server knows of indexes that are missing.
#[derive(Default)]
pub struct IndexState {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Their names with those of their collections.
    missing: Vec<String>,
    /// A call named an index that is not there.
    is_suspected: bool,
    /// Called when that happens.
    told: Option<Box<dyn Fn() + Send>>,
}

impl IndexState {
    /// What is missing, for people; `None`: nothing that is known.
    pub fn missing(&self) -> Option<String> {
        let known = self.known.lock();
        let names = match &known.missing[..] {
            [] if !known.is_suspected => return None,
            [] => "a call needed one that is not there".to_owned(),
            missing => missing.join(", "),
        };
        Some(format!("the database has lost indexes, which are being made again: {names}"))
    }

    /// Whether one is missing, as far as is known.
    pub(in crate::store) fn is_incomplete(&self) -> bool {
        let known = self.known.lock();
        known.is_suspected || !known.missing.is_empty()
    }

    /// Has that called whenever a call finds that an index is missing of which it was not known.
    pub fn when_suspected(&self, tell: impl Fn() + Send + 'static) {
        self.known.lock().told = Some(Box::new(tell));
    }

    /// Takes note of why a call failed: reads name their index. Returns whether it was for lack of one.
    pub(in crate::store) fn heed(&self, error: &mongodb::error::Error) -> bool {
        let ErrorKind::Command(command) = &*error.kind else { return false };
        if command.code != BAD_VALUE || !command.message.contains("hint") {
            return false;
        }
        let mut known = self.known.lock();
        if !known.is_suspected
            && let Some(tell) = &known.told
        {
            tell();
        }
        known.is_suspected = true;
        true
    }

    /// Takes note of what the database has said.
    pub(in crate::store) fn found(&self, missing: Vec<String>) {
        let mut known = self.known.lock();
        (known.missing, known.is_suspected) = (missing, false);
    }
}
