//! Group commit: callers that arrive while a command is in flight are carried by the next one.
//!
//! A journaled write costs about the same whether it carries one task or hundreds, so nobody pays for it alone: a
//! lone caller goes at once, and under load commands grow by themselves, without a timer. Each caller gets its own
//! results. The queue in front is bounded: who finds it full is told so before memory grows.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::StoreError;

/// How much one command carries, and how much may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Commands under way at once; more bring nothing on one disk.
    pub(super) in_flight: usize,
    /// Items for which another command is worth its cost while one is under way; fewer wait for its end. The
    /// database's journal would make them wait for it anyway.
    pub(super) enough: usize,
    /// Most items in one command. A caller's own items always stay together.
    pub(super) items: usize,
    /// Most bytes in one command.
    pub(super) bytes: usize,
    /// Most items that may wait.
    pub(super) waiting_items: usize,
    /// Most bytes that may wait.
    pub(super) waiting_bytes: usize,
}

/// What one kind of command carries.
pub(super) struct GroupCommit<I, O> {
    queue: Arc<Mutex<Queue<I, O>>>,
}

/// Who waits, and how many commands are under way. All that several threads see of each other is in here, and each of
/// its functions leaves it whole.
struct Queue<I, O> {
    limits: Limits,
    waiting: VecDeque<Caller<I, O>>,
    items: usize,
    bytes: usize,
    in_flight: usize,
}

struct Caller<I, O> {
    items: Vec<I>,
    bytes: usize,
    reply: oneshot::Sender<Vec<O>>,
}

fn lock<I, O>(queue: &Mutex<Queue<I, O>>) -> MutexGuard<'_, Queue<I, O>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<I: Send + 'static, O: Send + 'static> GroupCommit<I, O> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { queue: Arc::new(Mutex::new(Queue::new(limits))) }
    }

    /// Has `run` carry these items, perhaps with those of other callers; one result for each, in order.
    ///
    /// The work goes on when the caller goes away.
    ///
    /// # Errors
    /// When too much waits already (nothing was applied), or the command broke off (it may have been applied).
    pub(super) async fn submit<F, R>(
        &self,
        items: Vec<I>,
        bytes: usize,
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
        let (reply, answer) = oneshot::channel();
        let begins = lock(&self.queue).admit(Caller { items, bytes, reply })?;
        if begins {
            let queue = Arc::clone(&self.queue);
            runtime.spawn(async move {
                loop {
                    let Some(callers) = lock(&queue).next() else { return };
                    // A command that breaks off leaves its own callers without an answer, and nobody else.
                    let _ = AssertUnwindSafe(carry(callers, &run)).catch_unwind().await;
                }
            });
        }
        answer.await.map_err(|_| StoreError::OutcomeUnknown)
    }
}

impl<I, O> Queue<I, O> {
    fn new(limits: Limits) -> Self {
        Self { limits, waiting: VecDeque::new(), items: 0, bytes: 0, in_flight: 0 }
    }

    /// Lets a caller in. `true`: a command is now under way for it, and whoever asked must run it.
    fn admit(&mut self, caller: Caller<I, O>) -> Result<bool, StoreError> {
        let Limits { waiting_items, waiting_bytes, .. } = self.limits;
        let is_full =
            self.items + caller.items.len() > waiting_items || self.bytes + caller.bytes > waiting_bytes;
        if is_full && !self.waiting.is_empty() {
            return Err(StoreError::Overloaded);
        }
        self.items += caller.items.len();
        self.bytes += caller.bytes;
        self.waiting.push_back(caller);
        let begins = self.is_worth_a_command();
        self.in_flight += usize::from(begins);
        Ok(begins)
    }

    /// Ends a command, and begins the next with the callers that it carries. `None`: nobody waits, or those who do are
    /// left to a command that is still under way.
    fn next(&mut self) -> Option<Vec<Caller<I, O>>> {
        self.in_flight -= 1;
        if !self.is_worth_a_command() {
            return None;
        }
        self.in_flight += 1;
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

    /// Whether what waits should go now, beside the commands under way.
    fn is_worth_a_command(&self) -> bool {
        match self.in_flight {
            0 => !self.waiting.is_empty(),
            under_way => under_way < self.limits.in_flight && self.items >= self.limits.enough,
        }
    }
}

async fn carry<I, O, R: Future<Output = Vec<O>>>(callers: Vec<Caller<I, O>>, run: impl Fn(Vec<I>) -> R) {
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const LIMITS: Limits =
        Limits { in_flight: 1, enough: 1, items: 4, bytes: 100, waiting_items: 6, waiting_bytes: 1000 };

    /// A command that doubles numbers, waits for a permit each time, and notes how many items it carried.
    struct Doubler {
        group: Arc<GroupCommit<u32, u32>>,
        permits: Arc<Semaphore>,
        carried: Arc<Mutex<Vec<usize>>>,
    }

    impl Doubler {
        fn new(limits: Limits) -> Self {
            Self {
                group: Arc::new(GroupCommit::new(limits)),
                permits: Arc::new(Semaphore::new(0)),
                carried: Arc::default(),
            }
        }

        fn submit(
            &self,
            items: Vec<u32>,
            bytes: usize,
        ) -> tokio::task::JoinHandle<Result<Vec<u32>, StoreError>> {
            let (group, permits, carried) =
                (Arc::clone(&self.group), Arc::clone(&self.permits), Arc::clone(&self.carried));
            tokio::spawn(async move {
                let run = move |items: Vec<u32>| {
                    let (permits, carried) = (Arc::clone(&permits), Arc::clone(&carried));
                    async move {
                        carried.lock().expect("not poisoned").push(items.len());
                        permits.acquire().await.expect("open").forget();
                        assert!(!items.contains(&13), "a command that breaks off");
                        items.into_iter().map(|item| item * 2).collect()
                    }
                };
                group.submit(items, bytes, &Handle::current(), run).await
            })
        }

        fn carried(&self) -> Vec<usize> {
            self.carried.lock().expect("not poisoned").clone()
        }

        /// Lets all tasks run until none can go on.
        async fn settle(&self) {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_lone_caller_goes_at_once_and_the_next_command_carries_who_came_meanwhile() {
        let doubler = Doubler::new(LIMITS);
        let first = doubler.submit(vec![1], 1);
        doubler.settle().await;
        assert_eq!(doubler.carried(), [1]);
        let others = [doubler.submit(vec![2, 3], 1), doubler.submit(vec![4], 1)];
        doubler.settle().await;
        assert_eq!(doubler.carried(), [1], "one command at a time");
        doubler.permits.add_permits(2);
        assert_eq!(first.await.expect("done"), Ok(vec![2]));
        let [left, right] = others;
        assert_eq!(left.await.expect("done"), Ok(vec![4, 6]));
        assert_eq!(right.await.expect("done"), Ok(vec![8]));
        assert_eq!(doubler.carried(), [1, 3]);
    }

    #[tokio::test]
    async fn a_command_is_bounded_and_a_callers_items_stay_together() {
        let doubler = Doubler::new(LIMITS);
        let first = doubler.submit(vec![0], 1);
        doubler.settle().await;
        let mut others = Vec::new();
        for (items, bytes) in [(vec![1, 2, 3], 1), (vec![4, 5], 99), (vec![6], 2)] {
            others.push(doubler.submit(items, bytes));
            doubler.settle().await;
        }
        doubler.permits.add_permits(9);
        first.await.expect("done").expect("carried");
        for other in others {
            other.await.expect("done").expect("carried");
        }
        // 3 + 2 items are more than 4; 99 + 2 bytes are more than 100.
        assert_eq!(doubler.carried(), [1, 3, 2, 1]);
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_and_nothing_is_applied() {
        let doubler = Doubler::new(LIMITS);
        let first = doubler.submit(vec![0], 1);
        doubler.settle().await;
        let second = doubler.submit(vec![1; 6], 1);
        doubler.settle().await;
        assert_eq!(doubler.submit(vec![7], 1).await.expect("done"), Err(StoreError::Overloaded));
        doubler.permits.add_permits(9);
        first.await.expect("done").expect("carried");
        second.await.expect("done").expect("carried");
        assert_eq!(doubler.carried(), [1, 6]);
        assert_eq!(doubler.submit(vec![7], 1).await.expect("done"), Ok(vec![14]));
    }

    #[tokio::test]
    async fn a_command_that_breaks_off_leaves_its_callers_in_doubt_and_the_next_goes_on() {
        let doubler = Doubler::new(LIMITS);
        doubler.permits.add_permits(9);
        assert_eq!(doubler.submit(vec![13], 1).await.expect("done"), Err(StoreError::OutcomeUnknown));
        assert_eq!(doubler.submit(vec![1], 1).await.expect("done"), Ok(vec![2]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everybody_gets_their_own_results() {
        let group = Arc::new(GroupCommit::<usize, usize>::new(Limits { in_flight: 2, items: 64, ..LIMITS }));
        let commands = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..500_usize)
            .map(|n| {
                let (group, commands) = (Arc::clone(&group), Arc::clone(&commands));
                tokio::spawn(async move {
                    let items = vec![n; n % 3 + 1];
                    loop {
                        let commands = Arc::clone(&commands);
                        let run = move |items: Vec<usize>| {
                            commands.fetch_add(1, Ordering::Relaxed);
                            async move {
                                tokio::task::yield_now().await;
                                items
                            }
                        };
                        match group.submit(items.clone(), 1, &Handle::current(), run).await {
                            Err(StoreError::Overloaded) => tokio::task::yield_now().await,
                            answer => return assert_eq!(answer, Ok(items)),
                        }
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("its own results");
        }
        assert!(commands.load(Ordering::Relaxed) <= 500);
    }

    #[tokio::test]
    async fn a_second_command_goes_only_when_it_carries_enough() {
        let doubler = Doubler::new(Limits { in_flight: 2, enough: 3, ..LIMITS });
        let mut callers = vec![doubler.submit(vec![0], 1)];
        for number in 1..=3 {
            doubler.settle().await;
            assert_eq!(doubler.carried(), [1]);
            callers.push(doubler.submit(vec![number], 1));
        }
        doubler.settle().await;
        assert_eq!(doubler.carried(), [1, 3]);
        doubler.permits.add_permits(9);
        for (number, caller) in (0..).zip(callers) {
            assert_eq!(caller.await.expect("done"), Ok(vec![number * 2]));
        }
    }

    /// Every order in which threads can take turns at the queue.
    #[test]
    fn however_threads_take_turns_nobody_is_left_behind_and_commands_are_few() {
        use loom::sync::atomic::{AtomicUsize, Ordering};
        use loom::sync::{Arc, Mutex};

        let limits = Limits { in_flight: 2, enough: 2, items: 2, ..LIMITS };
        let mut model = loom::model::Builder::new();
        // Every order with up to two interruptions: all that three threads need to meet in every way.
        model.preemption_bound = Some(2);
        model.check(move || {
            let queue = Arc::new(Mutex::new(Queue::<u32, u32>::new(limits)));
            let under_way = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..3)
                .map(|number| {
                    let (queue, under_way) = (Arc::clone(&queue), Arc::clone(&under_way));
                    loom::thread::spawn(move || {
                        let (reply, answer) = oneshot::channel();
                        let caller = Caller { items: vec![number], bytes: 1, reply };
                        if queue.lock().unwrap().admit(caller).unwrap() {
                            loop {
                                let Some(callers) = queue.lock().unwrap().next() else { break };
                                assert!(under_way.fetch_add(1, Ordering::SeqCst) < 2);
                                let items: usize = callers.iter().map(|caller| caller.items.len()).sum();
                                assert!((1..=2).contains(&items));
                                for caller in callers {
                                    caller.reply.send(caller.items).unwrap();
                                }
                                under_way.fetch_sub(1, Ordering::SeqCst);
                            }
                        }
                        answer
                    })
                })
                .collect();
            let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            for (number, mut answer) in (0..).zip(answers) {
                assert_eq!(answer.try_recv(), Ok(vec![number]));
            }
            assert_eq!(queue.lock().unwrap().in_flight, 0);
        });
    }
}
