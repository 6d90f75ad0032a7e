//! The one count of a task's bytes. Every bound on memory counts with it.

use super::{AttemptRecord, ErrorRecord, TaskRecord};

/// Bytes of a task beside its texts, and of the same in an answer.
const TASK_BYTES: usize = 1000;
/// The same of an attempt.
const ATTEMPT_BYTES: usize = 300;

impl TaskRecord {
    /// About how many bytes it takes, of memory or of an answer, with all that it holds now: payloads, attempts and
    /// receipts.
    pub fn bytes(&self) -> usize {
        let texts = [
            self.request.as_ref(),
            self.template.as_ref(),
            self.metadata.as_ref(),
            self.result.as_ref(),
            self.user_id.as_ref(),
            self.name.as_ref(),
            self.description.as_ref(),
            self.result_id.as_ref(),
            self.idempotency_request.as_ref(),
        ];
        let displaced = self.lease.as_ref().and_then(|lease| lease.before.as_ref()?.progress.as_ref());
        let progress = [self.progress.as_ref(), displaced];
        TASK_BYTES
            + texts.into_iter().map(length).sum::<usize>()
            + self.task_type.len()
            + self.tags.iter().map(String::len).sum::<usize>()
            + progress.into_iter().flatten().map(|progress| length(progress.text.as_ref())).sum::<usize>()
            + self.error.as_ref().map_or(0, |error| error.bytes())
            + self.attempts.iter().map(|attempt| attempt.bytes()).sum::<usize>()
    }
}

/// Bytes of a task's input as JSON text: what counts, with its result, towards the 1 MiB that a task may have.
pub fn input_bytes(request: Option<&String>, template: Option<&String>, metadata: Option<&String>) -> usize {
    length(request) + length(template) + length(metadata)
}

impl AttemptRecord {
    /// The same of an attempt.
    pub fn bytes(&self) -> usize {
        ATTEMPT_BYTES
            + length(self.worker_id.as_ref())
            + length(self.result_id.as_ref())
            + self.error.as_ref().map_or(0, |error| error.bytes())
    }
}

impl ErrorRecord {
    /// The same of an error.
    pub fn bytes(&self) -> usize {
        self.message.len() + length(self.code.as_ref()) + length(self.details.as_ref())
    }
}

fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::Uuid;

    use super::*;
    use crate::task::{BeforeClaimRecord, Kept, LeaseRecord, ProgressRecord};

    #[test]
    fn whatever_a_task_holds_counts() {
        let task = TaskRecord::pending(Uuid::nil());
        let bare = task.bytes();
        let text = || Some("x".repeat(5_000));
        let mut holding = [const { None }; 4].map(|_: Option<()>| task.clone());
        holding[0].request = text();
        holding[1].template = text();
        holding[2].metadata = text();
        holding[3].result = text();
        assert_eq!(holding.map(|task| task.bytes() - bare), [5_000; 4]);
        let error = ErrorRecord { message: "m".repeat(100), code: None, details: text() };
        let failed = TaskRecord { error: Some(Kept::from(error)), ..task };
        assert_eq!(failed.bytes() - bare, 5_100);
        let progress = Some(Kept::from(ProgressRecord { value: None, text: text() }));
        let before = BeforeClaimRecord { progress: progress.clone(), ..BeforeClaimRecord::default() };
        let (token, worker_id) = (Uuid::nil(), String::new());
        let before = Some(Box::new(Kept::from(before)));
        let lease = LeaseRecord { token, worker_id, seconds: 60, repeated: false, before };
        let held = TaskRecord { progress, lease: Some(lease.into()), ..TaskRecord::pending(Uuid::nil()) };
        assert_eq!(held.bytes() - bare, 10_000, "also what its claim has displaced");
    }
}
