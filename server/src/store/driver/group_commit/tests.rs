use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;

const LIMITS: Limits =
    Limits { in_flight: 1, enough: 1, items: 4, bytes: 100, waiting_items: 6, waiting_bytes: 1000 };

/// A deadline that no test meets.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

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

    fn submit(&self, items: Vec<u32>, bytes: usize) -> tokio::task::JoinHandle<Result<Vec<u32>, StoreError>> {
        self.submit_until(items, bytes, soon())
    }

    fn submit_until(
        &self,
        items: Vec<u32>,
        bytes: usize,
        until: Instant,
    ) -> tokio::task::JoinHandle<Result<Vec<u32>, StoreError>> {
        let (group, permits, carried) =
            (Arc::clone(&self.group), Arc::clone(&self.permits), Arc::clone(&self.carried));
        tokio::spawn(async move {
            let run = move |items: Vec<u32>| {
                let (permits, carried) = (Arc::clone(&permits), Arc::clone(&carried));
                async move {
                    carried.lock().push(items.len());
                    permits.acquire().await.expect("open").forget();
                    assert!(!items.contains(&13), "a command that breaks off");
                    items.into_iter().map(|item| item * 2).collect()
                }
            };
            group.submit(items, bytes, until, &Handle::current(), run).await
        })
    }

    fn carried(&self) -> Vec<usize> {
        self.carried.lock().clone()
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

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_caller_that_nothing_carries_is_sent_away_and_another_is_in_doubt() {
    let doubler = Doubler::new(LIMITS);
    let until = Instant::now() + Duration::from_secs(1);
    let carried = doubler.submit_until(vec![1], 1, until);
    doubler.settle().await;
    let waiting = doubler.submit_until(vec![2], 1, until);
    assert_eq!(carried.await.expect("done"), Err(StoreError::OutcomeUnknown));
    assert_eq!(waiting.await.expect("done"), Err(StoreError::Unavailable));
    let next = doubler.submit(vec![3], 1);
    doubler.permits.add_permits(9);
    assert_eq!(next.await.expect("done"), Ok(vec![6]));
    assert_eq!(doubler.carried(), [1, 1], "nobody carries who was sent away");
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
                    match group.submit(items.clone(), 1, soon(), &Handle::current(), run).await {
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

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_command_that_hangs_while_there_is_another_place() {
    let doubler = Doubler::new(Limits { in_flight: 2, enough: 3, ..LIMITS });
    let hanging = doubler.submit(vec![0], 1);
    doubler.settle().await;
    tokio::time::advance(HANGS / 2).await;
    let waiting = doubler.submit(vec![1], 1);
    doubler.settle().await;
    assert_eq!(doubler.carried(), [1], "it may end at any moment");
    tokio::time::advance(HANGS + Duration::from_millis(1)).await;
    doubler.settle().await;
    assert_eq!(doubler.carried(), [1, 1], "nobody else had to come");
    let last = doubler.submit(vec![2], 1);
    doubler.permits.add_permits(9);
    for (number, caller) in (0..).zip([hanging, waiting, last]) {
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
        let queue = Arc::new(Mutex::new(Submissions::<u32, u32>::new(limits)));
        let under_way = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let (queue, under_way) = (Arc::clone(&queue), Arc::clone(&under_way));
                loom::thread::spawn(move || {
                    let (reply, answer) = oneshot::channel();
                    let (own, place) = queue.lock().unwrap().admit(vec![number], 1, reply).unwrap();
                    if let Some(place) = place {
                        loop {
                            let Some(callers) = queue.lock().unwrap().next(place) else { break };
                            assert!(under_way.fetch_add(1, Ordering::SeqCst) < 2);
                            let items: usize = callers.iter().map(|caller| caller.items.len()).sum();
                            assert!((1..=2).contains(&items));
                            for caller in callers {
                                caller.reply.send(caller.items).unwrap();
                            }
                            under_way.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                    // The time of one of them is up.
                    let is_away = number == 2 && place.is_none() && queue.lock().unwrap().withdraw(own);
                    (answer, is_away)
                })
            })
            .collect();
        let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        for (number, (mut answer, is_away)) in (0..).zip(answers) {
            assert_eq!(answer.try_recv().ok(), (!is_away).then(|| vec![number]));
        }
        assert!(queue.lock().unwrap().places.iter().all(Option::is_none));
    });
}
