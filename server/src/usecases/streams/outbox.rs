//! What waits to be sent to one watcher, within bounds.

use std::collections::VecDeque;

use bytes::Bytes;

/// Most messages that a watcher may be behind.
const MAX_MESSAGES: usize = 1024;
/// Most bytes of messages that a watcher may be behind.
const MAX_BYTES: usize = 4 << 20;

/// The next thing that a stream sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A message, or several.
    Send(Bytes),
    /// The stream is over.
    End,
    /// The watcher is too far behind, and is cut off. It may resume.
    CutOff,
}

/// Messages that wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    is_closed: bool,
    is_cut_off: bool,
}

impl Outbox {
    /// One more. A watcher that falls too far behind loses all that waits: it resumes, or has gone.
    pub(super) fn push(&mut self, message: Bytes) {
        if self.is_closed {
            return;
        }
        self.bytes += message.len();
        self.waiting.push_back(message);
        // One message alone may be of any size.
        if self.waiting.len() > MAX_MESSAGES || (self.bytes > MAX_BYTES && self.waiting.len() > 1) {
            self.cut_off();
        }
    }

    /// Nothing comes after what waits.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// The watcher is to come again.
    pub(super) fn cut_off(&mut self) {
        (self.is_closed, self.is_cut_off) = (true, true);
        self.waiting = VecDeque::new();
        self.bytes = 0;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The next thing to be sent, if there is one.
    pub(super) fn pop(&mut self) -> Option<Next> {
        if let Some(message) = self.waiting.pop_front() {
            self.bytes -= message.len();
            return Some(Next::Send(message));
        }
        match (self.is_cut_off, self.is_closed) {
            (true, _) => Some(Next::CutOff),
            (false, true) => Some(Next::End),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_is_too_far_behind_is_cut_off() {
        let mut outbox = Outbox::default();
        (0..MAX_MESSAGES).for_each(|_| outbox.push(Bytes::from_static(b"m")));
        assert_eq!(outbox.pop(), Some(Next::Send(Bytes::from_static(b"m"))));
        outbox.push(Bytes::from_static(b"m"));
        assert!(!outbox.is_closed());
        outbox.push(Bytes::from_static(b"m"));
        assert_eq!((outbox.pop(), outbox.waiting.len()), (Some(Next::CutOff), 0));
        let mut outbox = Outbox::default();
        outbox.push(vec![0; MAX_BYTES + 1].into());
        assert!(matches!(outbox.pop(), Some(Next::Send(_))), "one alone may be of any size");
        outbox.push(vec![0; MAX_BYTES].into());
        outbox.push(Bytes::from_static(b"m"));
        assert_eq!(outbox.pop(), Some(Next::CutOff));
    }

    #[test]
    fn what_waits_is_sent_before_the_end() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.pop(), None);
        outbox.push(Bytes::from_static(b"m"));
        outbox.close();
        outbox.push(Bytes::from_static(b"late"));
        assert_eq!(
            [outbox.pop(), outbox.pop()],
            [Some(Next::Send(Bytes::from_static(b"m"))), Some(Next::End)]
        );
    }
}
