use std::collections::BTreeMap;
use std::ops::Bound;

use rand::SeedableRng as _;
use task_repo_protocol::Uuid;

use super::*;
use crate::access::Scope;

fn cache(seed: u64) -> ReadyCache {
    ReadyCache::new(Arc::default(), SmallRng::seed_from_u64(seed))
}

fn task(id: u128, priority: i32) -> TaskRecord {
    TaskRecord { priority, ..TaskRecord::pending(Uuid::from_u128(id)) }
}

fn selection() -> Selection {
    Selection { scope: Scope::tenant("default"), task_types: vec!["t".to_owned()], tags: Vec::new() }
}

#[test]
fn what_is_ready_again_during_a_read_is_not_overtaken_by_what_is_offered_after_it() {
    let mut cache = cache(1);
    let (from, limit) = cache.next_read(&selection(), 1, 0);
    cache.ready_again(Order::Claim.position(&task(1, 90)));
    cache.add(from, limit, Ready { tasks: Vec::new(), is_cut: false });
    assert!(!cache.is_known_to_be_empty());
    assert!(!cache.offer(&task(2, 10)), "the read did not see what is ready again");

    let (from, limit) = cache.next_read(&selection(), 2, 0);
    cache.ready_again(Order::Claim.position(&task(1, 50)));
    cache.add(from, limit, Ready { tasks: vec![task(2, 50), task(3, 50)], is_cut: false });
    assert_eq!(cache.take(1).len(), 1, "what is wanted at once");
    assert!(cache.tasks.is_empty() && !cache.knows_everything());
}

#[test]
fn what_is_offered_to_a_queue_known_to_be_empty_needs_no_read() {
    let mut cache = cache(1);
    let (from, limit) = cache.next_read(&selection(), 1, 0);
    cache.add(from, limit, Ready { tasks: Vec::new(), is_cut: false });
    assert!(cache.is_known_to_be_empty());
    assert!(cache.offer(&task(2, 10)));
    assert_eq!(cache.take(2).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_servers_soon_keep_out_of_each_other_s_way() {
    let (mut late, mut missed) = (0, 0);
    for seed in 0..5 {
        let rounds = meet(seed).await;
        let later = &rounds[rounds.len() / 4..rounds.len() * 9 / 10];
        late += 2 * EACH * later.len();
        missed += later.iter().sum::<usize>();
    }
    assert!(missed * 100 < late, "{missed} of {late} were missed");
}

/// Tasks that each server wants in a round.
const EACH: usize = 20;

/// Two servers empty a queue. How many tasks they have missed in each round.
async fn meet(seed: u64) -> Vec<usize> {
    let mut queue: BTreeMap<_, _> =
        (0..5_000).map(|id| task(id, 50)).map(|task| ((task.ready_at, task.id), task)).collect();
    let mut servers = [cache(2 * seed), cache(2 * seed + 1)];
    let mut missed = Vec::new();
    while !queue.is_empty() {
        let picks = servers.each_mut().map(|cache| {
            if cache.tasks.is_empty() {
                let (from, limit) = cache.next_read(&selection(), EACH, 0);
                let (first, bit) = match from {
                    ReadyFrom::After(last, bit) => (Bound::Excluded((last.time, last.id)), bit),
                    ReadyFrom::Front | ReadyFrom::Above(_) => (Bound::Unbounded, None),
                };
                let is_wanted =
                    |task: &&TaskRecord| bit.is_none_or(|bit| (task.id.as_u128() & 1 == 1) == bit);
                let range = queue.range((first, Bound::Unbounded)).map(|(_, task)| task);
                let tasks = range.filter(is_wanted).take(limit).cloned().collect();
                cache.add(from, limit, Ready { tasks, is_cut: false });
            }
            cache.take(EACH)
        });
        let mut missed_now = 0;
        for (cache, picked) in servers.iter_mut().zip(picks) {
            let landed =
                picked.iter().filter(|task| queue.remove(&(task.ready_at, task.id)).is_some()).count();
            cache.claimed(picked.len(), landed);
            missed_now += picked.len() - landed;
        }
        missed.push(missed_now);
        tokio::time::advance(Duration::from_millis(2)).await;
    }
    missed
}
