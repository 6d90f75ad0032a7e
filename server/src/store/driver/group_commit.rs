//! Group commit: callers that arrive while a command is in flight are carried by the next one.
//!
//! A journaled write costs about the same whether it carries one task or hundreds, so nobody pays for it alone: a
//! lone caller goes at once, and under load commands grow by themselves, without a timer. Each caller gets its own
//! results. The queue in front is bounded: who finds it full is told so before memory grows.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::store::error::StoreError;

/// A command that has been under way for so long may have met a connection or a thread that hangs: nobody waits for its
/// end while there is another place. A caller that waits looks for one again each time so much has passed.
const HANGS: Duration = Duration::from_millis(100);

/// How much one command carries, and how much may wait.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Limits {
    /// Commands under way at once; more bring nothing on one disk.
    pub(in crate::store) in_flight: usize,
    /// Items for which another command is worth its cost while one is under way; fewer wait for its end. The
    /// database's journal would make them wait for it anyway.
    pub(in crate::store) enough: usize,
    /// Most items in one command. A caller's own items always stay together.
    pub(in crate::store) items: usize,
    /// Most bytes in one command.
    pub(in crate::store) bytes: usize,
    /// Most items that may wait.
    pub(in crate::store) waiting_items: usize,
    /// Most bytes that may wait.
    pub(in crate::store) waiting_bytes: usize,
}

/// Carries items of one kind, of many callers, by one command after the other.
pub(in crate::store) struct GroupCommit<I, O> {
    queue: Arc<Mutex<Submissions<I, O>>>,
}

/// The submissions that wait, and the commands under way. All that threads share is in here, and each of
/// its functions leaves it whole.
struct Submissions<I, O> {
    limits: Limits,
    waiting: VecDeque<Submission<I, O>>,
    items: usize,
    bytes: usize,
    /// Of the commands that may be under way: since when each is.
    places: Vec<Option<tokio::time::Instant>>,
    /// Of the next caller.
    number: u64,
}

struct Submission<I, O> {
    number: u64,
    items: Vec<I>,
    bytes: usize,
    reply: oneshot::Sender<Vec<O>>,
}

impl<I: Send + 'static, O: Send + 'static> GroupCommit<I, O> {
    pub(in crate::store) fn new(limits: Limits) -> Self {
        Self { queue: Arc::new(Mutex::new(Submissions::new(limits))) }
    }

    /// Has `run` carry these items, perhaps with those of other callers; one result for each, in order.
    ///
    /// The work goes on when the caller goes away.
    ///
    /// # Errors
    /// When too much waits already or nothing has begun by `until` (nothing was applied); when the command broke off or
    /// has not ended by then (it may have been applied).
    pub(in crate::store) async fn submit<F, R>(
        &self,
        items: Vec<I>,
        bytes: usize,
        until: Instant,
        runtime: &Handle,
        run: F,
    ) -> Result<Vec<O>, StoreError>
    where
        F: Fn(Vec<I>) -> R + Send + Sync + 'static,
        R: Future<Output = Vec<O>> + Send,
    {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, mut answer) = oneshot::channel();
        let (number, mut place) = self.queue.lock().admit(items, bytes, reply)?;
        let end = tokio::time::Instant::from(until);
        // Taken by the command that this caller begins: it needs no other.
        let mut run = Some(run);
        loop {
            if let Some(place) = place
                && let Some(run) = run.take()
            {
                self.carry_on(place, runtime, run);
            }
            let look = match run {
                Some(_) => end.min(tokio::time::Instant::now() + HANGS),
                None => end,
            };
            match tokio::time::timeout_at(look, &mut answer).await {
                Ok(Ok(results)) => return Ok(results),
                Err(_) if look < end => place = self.queue.lock().begin(),
                Err(_) if self.queue.lock().withdraw(number) => return Err(StoreError::Unavailable),
                Ok(Err(_)) | Err(_) => return Err(StoreError::OutcomeUnknown),
            }
        }
    }

    /// Runs commands at a place until nobody is left to it.
    fn carry_on<F, R>(&self, place: usize, runtime: &Handle, run: F)
    where
        F: Fn(Vec<I>) -> R + Send + Sync + 'static,
        R: Future<Output = Vec<O>> + Send,
    {
        let queue = Arc::clone(&self.queue);
        runtime.spawn(async move {
            loop {
                let Some(callers) = queue.lock().next(place) else { return };
                // A command that breaks off leaves its own callers without an answer, and nobody else.
                let _ = AssertUnwindSafe(carry(callers, &run)).catch_unwind().await;
            }
        });
    }
}

impl<I, O> Submissions<I, O> {
    fn new(limits: Limits) -> Self {
        let places = vec![None; limits.in_flight];
        Self { limits, waiting: VecDeque::new(), items: 0, bytes: 0, places, number: 0 }
    }

    /// Lets a caller in, under a number. With a place: a command is now under way there, and whoever asked must run it.
    fn admit(
        &mut self,
        items: Vec<I>,
        bytes: usize,
        reply: oneshot::Sender<Vec<O>>,
    ) -> Result<(u64, Option<usize>), StoreError> {
        let Limits { waiting_items, waiting_bytes, .. } = self.limits;
        let is_full = self.items + items.len() > waiting_items || self.bytes + bytes > waiting_bytes;
        if is_full && !self.waiting.is_empty() {
            return Err(StoreError::Overloaded);
        }
        self.items += items.len();
        self.bytes += bytes;
        self.number += 1;
        self.waiting.push_back(Submission { number: self.number, items, bytes, reply });
        Ok((self.number, self.begin()))
    }

    /// With a place: a command is now under way there, and whoever asked must run it.
    fn begin(&mut self) -> Option<usize> {
        let place = self.places.iter().position(Option::is_none).filter(|_| self.is_worth_a_command())?;
        self.places[place] = Some(tokio::time::Instant::now());
        Some(place)
    }

    /// Sends a caller away. `false`: it does not wait any more, since a command carries it or has carried it.
    fn withdraw(&mut self, number: u64) -> bool {
        let place = self.waiting.binary_search_by_key(&number, |caller| caller.number);
        let Some(caller) = place.ok().and_then(|place| self.waiting.remove(place)) else { return false };
        self.items -= caller.items.len();
        self.bytes -= caller.bytes;
        true
    }

    /// Ends the command at a place, and begins the next with the callers that it carries. `None`: nobody waits, or those
    /// who do are left to a command that is still under way.
    fn next(&mut self, place: usize) -> Option<Vec<Submission<I, O>>> {
        self.places[place] = None;
        if !self.is_worth_a_command() {
            return None;
        }
        self.places[place] = Some(tokio::time::Instant::now());
        let (mut items, mut bytes) = (0, 0);
        let mut callers = Vec::new();
        while let Some(caller) = self.waiting.front() {
            let is_full =
                items + caller.items.len() > self.limits.items || bytes + caller.bytes > self.limits.bytes;
            if is_full && !callers.is_empty() {
                break;
            }
            items += caller.items.len();
            bytes += caller.bytes;
            callers.extend(self.waiting.pop_front());
        }
        self.items -= items;
        self.bytes -= bytes;
        Some(callers)
    }

    /// Whether what waits should go now, beside the commands under way, if there is a place.
    fn is_worth_a_command(&self) -> bool {
        let mut under_way = self.places.iter().flatten().peekable();
        !self.waiting.is_empty()
            && (under_way.peek().is_none()
                || self.items >= self.limits.enough
                || under_way.any(|since| since.elapsed() >= HANGS))
    }
}

async fn carry<I, O, R: Future<Output = Vec<O>>>(callers: Vec<Submission<I, O>>, run: impl Fn(Vec<I>) -> R) {
    let mut all = Vec::new();
    let mut shares = Vec::with_capacity(callers.len());
    for caller in callers {
        shares.push((caller.items.len(), caller.reply));
        all.extend(caller.items);
    }
    let mut results = run(all).await.into_iter();
    for (count, reply) in shares {
        // A caller that has gone away does not hear of it; what it asked for is done all the same.
        let _ = reply.send(results.by_ref().take(count).collect());
    }
}

#[cfg(test)]
mod tests;
