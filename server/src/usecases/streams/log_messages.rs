//! What the event log tells those who watch a tenant.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::message::{Audience, messages};
use super::watcher::event;
use crate::access::Scope;
use crate::store::LogDocument;
use crate::task::{MoveVerb, TaskMove};

/// The message that something may have been missed.
const GAP: &str = "{\"event_type\":\"stream_gap\"}";

/// A place in the event log. From outside it is opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogPlace {
    /// The number of a document.
    pub(super) number: i64,
    /// How many places of it lie before.
    pub(super) place: usize,
}

/// Which tasks of a tenant are watched.
#[derive(Debug, Clone)]
pub struct StreamFilter {
    /// What the caller can see.
    pub scope: Scope,
    /// Any of these types; empty: all.
    pub task_types: Vec<String>,
    /// Any of these users; empty: all.
    pub user_ids: Vec<String>,
}

/// A document of the event log, and its messages once somebody wants them.
#[derive(Debug)]
pub(super) struct LogMessages {
    document: LogDocument,
    messages: OnceLock<Vec<PlacedMessage>>,
}

#[derive(Debug)]
struct PlacedMessage {
    /// The move that it tells of, by its place among those of the document.
    of: usize,
    /// The place of the document behind it.
    behind: usize,
    text: String,
}

impl LogPlace {
    /// The beginning of a document.
    pub(super) fn before(number: i64) -> Self {
        Self { number, place: 0 }
    }

    /// As a message names it.
    pub(super) fn text(self) -> String {
        format!("{}-{}", self.number, self.place)
    }

    /// `None`: it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, place) = text.split_once('-')?;
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain(number) || !is_plain(place) {
            return None;
        }
        Some(Self { number: number.parse().ok()?, place: place.parse().ok()? })
    }
}

impl StreamFilter {
    fn takes(&self, it: &TaskMove) -> bool {
        let is_of = |wanted: &[String], value: Option<&str>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|one| one == value))
        };
        let user = it.user_id.as_deref();
        it.tenant == *self.scope.tenant
            && self.scope.user.as_deref().is_none_or(|own| user == Some(own))
            && self.scope.may_use(&it.task_type)
            && is_of(&self.task_types, Some(&it.task_type))
            && is_of(&self.user_ids, user)
    }
}

/// That something may have been missed, and where the stream goes on.
pub(super) fn gap(behind: LogPlace) -> Vec<u8> {
    event(Some(&behind.text()), GAP).to_vec()
}

impl LogMessages {
    pub(super) fn new(document: LogDocument) -> Self {
        Self { document, messages: OnceLock::new() }
    }

    pub(super) fn number(&self) -> i64 {
        self.document.number
    }

    /// How many moves it tells of.
    pub(super) fn moves(&self) -> usize {
        self.document.moves.len()
    }

    /// Adds its messages behind that many places to `sent`, as a stream sends them; says how many they are.
    pub(super) fn send_to(&self, filter: &StreamFilter, had: usize, sent: &mut Vec<u8>) -> usize {
        let mut count = 0;
        let number = self.document.number;
        // The first place is that of the gap before the document, if there is one.
        if self.document.gap.is_some() && had == 0 {
            sent.extend(gap(LogPlace { number, place: 1 }));
            count += 1;
        }
        if !self.document.moves.iter().any(|it| filter.takes(it)) {
            return count;
        }
        for message in self.messages.get_or_init(|| placed(&self.document.moves)) {
            if message.behind > had && filter.takes(&self.document.moves[message.of]) {
                let id = LogPlace { number, place: message.behind }.text();
                sent.extend_from_slice(&event(Some(&id), &message.text));
                count += 1;
            }
        }
        count
    }
}

/// The messages of these moves. Of progress that is followed by more of it the latest is told.
fn placed(moves: &[TaskMove]) -> Vec<PlacedMessage> {
    let is_progress = |it: &TaskMove| it.verb == MoveVerb::Heartbeat && it.progress.is_some();
    let mut next = HashMap::<_, &TaskMove>::new();
    let mut placed = Vec::with_capacity(moves.len());
    for (of, it) in moves.iter().enumerate().rev() {
        let is_replaced = is_progress(it) && next.get(&it.task).is_some_and(|next| is_progress(next));
        next.insert(it.task, it);
        if is_replaced {
            continue;
        }
        // A move has two messages at most; the first place is that of a gap.
        let told = messages(it, Audience::OfTenant).into_iter().enumerate().rev();
        placed.extend(told.map(|(index, message)| PlacedMessage {
            of,
            behind: 2 + 2 * of + index,
            text: message.json,
        }));
    }
    placed.reverse();
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for place in [LogPlace::before(1), LogPlace { number: i64::MAX, place: 2001 }] {
            assert_eq!(LogPlace::parse(&place.text()), Some(place));
        }
        for wrong in ["", "1", "-1", "1-", "-", "1-2-3", "+1-2", "1-+2", "a-b", "99999999999999999999-1"] {
            assert_eq!(LogPlace::parse(wrong), None, "{wrong}");
        }
    }
}
