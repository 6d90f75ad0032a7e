//! By when whoever made a request is answered: all steps of a request have one deadline together.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::store::Store;

tokio::task_local! {
    static REQUEST: Request;
}

/// The request that a task of the runtime is busy with.
struct Request {
    /// How much of the time was over before its work began.
    spent: Duration,
    deadline: Cell<Instant>,
}

impl Store {
    /// By when a step that begins now has its answer: the request's deadline, or its own where there is no request.
    pub fn deadline(&self) -> Instant {
        REQUEST.try_with(|request| request.deadline.get()).unwrap_or_else(|_| Instant::now() + self.timeout)
    }

    /// Does the work of a request, for which it took `spent` already to find out whose it is.
    pub async fn with_one_deadline<T>(&self, spent: Duration, work: impl Future<Output = T>) -> T {
        let deadline = Cell::new(Instant::now() + self.timeout.saturating_sub(spent));
        REQUEST.scope(Request { spent, deadline }, work).await
    }

    /// The request's time begins here: its body has come.
    pub fn body_has_come(&self) {
        self.begin(|deadline| deadline);
    }

    /// The request waited, and not for the database. Its time begins again, and ends by `until` all the same.
    pub fn waited(&self, until: Instant) {
        self.begin(|deadline| deadline.min(until));
    }

    fn begin(&self, bound: impl FnOnce(Instant) -> Instant) {
        // Where there is no request, there is no deadline to move.
        let _ = REQUEST.try_with(|request| {
            let deadline = Instant::now() + self.timeout.saturating_sub(request.spent);
            request.deadline.set(bound(deadline));
        });
    }
}
