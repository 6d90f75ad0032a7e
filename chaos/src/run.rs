//! One run: load, faults, mending, draining, and the check.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use task_repo_client::{Execution, ExecutionStatus, ListTasks, RetryBudget, Status, Task, TaskClient};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::audit::audit;
use crate::checker::{Found, Verdict, check};
use crate::event::Event;
use crate::fault::Fault;
use crate::history::{self, History};
use crate::load::Load;
use crate::make_fault;
use crate::measure::{Growth, Size, growth};
use crate::workload::{LEASE, Phase, STEADY, VANISHED, clients};
use crate::world::{Programs, World};

/// Producers in this process.
const PRODUCERS: u64 = 4;
/// Workers in this process.
const WORKERS: u64 = 6;
/// Readers in this process.
const READERS: u64 = 2;
/// Workers that say all the time that they are alive.
const STEADY_WORKERS: u64 = 3;
/// The longest that an answer may take beyond the time that its call asked the service to wait. The service gives itself
/// 4.5 s (`MONGODB_TIMEOUT_MS`).
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How much longer an answer may take in a run, because callers, servers and database share a machine.
const ALLOWANCE: Duration = Duration::from_millis(500);
/// How long the last caller may be counted after it is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a lost task may take to be back after the end of its lease.
const BACK_LIMIT_MS: i64 = 1000;
/// How many callers that vanished may keep tasks until their leases end, in a run in which nothing else is broken. The
/// connection of such a caller ends while its answer is sent, before the server can know.
const VANISHED_LIMIT: usize = 2;
/// One more such caller is allowed for so many callers that vanished with their answer. Callers vanish at any time within
/// 20 ms, and sending an answer takes a millisecond or two.
const REACHED_PER_VANISHED: usize = 10;
/// How much the memory of a server may grow, in MiB.
const MEMORY_LIMIT_MIB: f64 = 64.0;
/// How many connections of callers may be open when all callers are gone: those of the clients that count them.
const CONNECTIONS_LIMIT: usize = 5;
/// How many more files and connections a server may have when all callers are gone. They are connections to the database,
/// which the server opens when it needs them.
const FILES_LIMIT: u64 = 40;
/// Tasks that are not final yet, beyond which producers wait for the workers.
const BACKLOG_LIMIT: i64 = 500;
/// How often everything is measured.
const MEASURED: Duration = Duration::from_secs(2);
/// How long after a fault a call may still end that the fault has held up.
const HELD_UP: Duration = Duration::from_secs(6);
/// The pause between two looks whether a fault had an effect.
const LOOK: Duration = Duration::from_millis(50);
/// The pause after each fault, times 0.3 to 2.
const CALM: Duration = Duration::from_secs(1);
/// The longest that tasks may take to become final when nothing is broken any more: the longest lease and all its
/// losses are far shorter.
const DRAIN: Duration = Duration::from_secs(90);

/// What a run is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    /// The seed of all random numbers.
    pub(crate) seed: u64,
    /// How long faults are made.
    pub(crate) seconds: u64,
    /// Which.
    pub(crate) faults: Vec<Fault>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) plan: Plan,
    /// The faults in their order.
    pub(crate) made: Vec<MadeFault>,
    /// Those for which there was no time.
    pub(crate) not_made: Vec<Fault>,
    pub(crate) verdict: Verdict,
    pub(crate) growth: Growth,
    /// Measurements, and when each was made, in seconds.
    pub(crate) sizes: Vec<(f64, Size)>,
    pub(crate) violations: Vec<String>,
}

/// A fault that was made.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MadeFault {
    pub(crate) fault: Fault,
    /// When it began, in seconds.
    pub(crate) at: f64,
    /// How often it had an effect: requests or commands that it met, callers that it took part in, or calls that failed
    /// or took long.
    pub(crate) effects: u64,
}

/// Makes a run below `folder`.
pub(crate) async fn run(programs: &Programs, folder: &Path, plan: Plan) -> Result<Outcome> {
    let bar = ProgressBar::new(plan.seconds);
    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} s · {msg}")?;
    bar.set_style(style);
    bar.set_prefix(format!("seed {}", plan.seed));
    bar.set_message("starting");
    let history = Arc::new(History::new(&folder.join("history.jsonl"))?);
    let world = World::start(programs, folder, plan.seed, &plan.faults, &history).await?;
    history.begin();
    let mut sizes = vec![(history.elapsed(), world.measure().await)];
    let (phase, watched) = watch::channel(Phase::Faults);
    let load = Load::new(clients(&world.urls(), world.key())?, plan.seed, Arc::clone(&history), watched);
    let (mut producers, mut workers) = (JoinSet::new(), JoinSet::new());
    for number in 0..PRODUCERS {
        producers.spawn(load.caller(format!("p{number}"), number).produce());
    }
    for number in 0..WORKERS {
        workers.spawn(load.caller(format!("w{number}"), PRODUCERS + number).work());
    }
    for number in 0..STEADY_WORKERS {
        workers.spawn(load.caller(format!("s{number}"), PRODUCERS + WORKERS + number).work_steadily());
    }
    for number in 0..READERS {
        let (seed, watched) = (plan.seed.wrapping_add(number), phase.subscribe());
        workers.spawn(audit(
            clients(&world.direct_urls(), world.key())?,
            seed,
            Arc::clone(&history),
            watched,
        ));
    }
    let made = tokio::select! {
        made = make_faults(&world, &plan, &load, &bar) => made?,
        () = measure(&world, &load, &mut sizes) => Vec::new(),
    };
    bar.set_message("mending");
    world.heal().await?;
    phase.send_replace(Phase::Drain);
    while let Some(ended) = producers.join_next().await {
        ended?;
    }
    bar.set_message("draining");
    let reader = world.direct(0)?.with_retry(RetryBudget::default());
    let (drained, mut empty) = (Instant::now(), 0);
    // Twice: one look may just miss a task that moves from one status to another.
    while empty < 2 && drained.elapsed() < DRAIN {
        empty = if is_drained(&reader).await.unwrap_or(false) { empty + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    phase.send_replace(Phase::Over);
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    world.stop_workers().await?;
    bar.set_message("checking");
    let found = found(&reader).await?;
    let mut record = history.record();
    let mut of_processes = history::of_processes(folder)?;
    if plan.faults.contains(&Fault::WorkersFreeze) {
        // A process that stood still does not know how long its calls took.
        of_processes.retain(|event| !matches!(event, Event::Called { .. }));
    }
    record.events.extend(of_processes);
    let verdict = check(&record, &found, ANSWER_LIMIT + ALLOWANCE);
    let mut violations = verdict.violations();
    drop((load, reader));
    violations.extend(left_behind(&world).await?);
    sizes.push((history.elapsed(), world.measure().await));
    let growth = growth(&sizes);
    violations.extend(world.crashes().await?);
    violations.extend(violations_of_run(&plan, &verdict, &growth));
    violations.extend(without_effect(&made));
    let is_missing = |fault: &Fault| made.iter().all(|made| made.fault != *fault);
    let not_made = plan.faults.iter().copied().filter(is_missing).collect();
    bar.finish_and_clear();
    Ok(Outcome { plan, made, not_made, verdict, growth, sizes: seconds(sizes), violations })
}

/// Of what should be gone with the callers, what is still there after a while.
async fn left_behind(world: &World) -> Result<Option<String>> {
    let gone = Instant::now();
    loop {
        let (waiting, connections) = (world.waiting().await?, world.connections()?);
        if waiting == 0 && connections <= CONNECTIONS_LIMIT {
            return Ok(None);
        }
        if gone.elapsed() > PATIENCE {
            let left =
                format!("{waiting} callers wait and {connections} connections are open, and nobody is there");
            return Ok(Some(left));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Faults that were made and broke nothing: a run shows nothing of them.
fn without_effect(made: &[MadeFault]) -> Vec<String> {
    if made.is_empty() {
        return vec!["nothing was broken".to_owned()];
    }
    let mut effects = BTreeMap::new();
    for fault in made.iter().filter(|made| made.fault != Fault::Calm) {
        *effects.entry(fault.fault).or_insert(0) += fault.effects;
    }
    effects.retain(|_, effects| *effects == 0);
    effects.keys().map(|fault| format!("{fault:?} had no effect")).collect()
}

/// What must not be in a run of these faults, beside what must never be.
fn violations_of_run(plan: &Plan, verdict: &Verdict, growth: &Growth) -> Vec<String> {
    let mut violations = Vec::new();
    // The server that is left takes care of what a dead worker had.
    if plan.faults.iter().all(|fault| fault.spares_database()) && verdict.longest_back_ms > BACK_LIMIT_MS {
        violations.push(format!("a lost task was back {} ms after its lease", verdict.longest_back_ms));
    }
    if plan.faults.iter().all(|fault| fault.spares_database()) && verdict.behind > 0 {
        violations.push(format!("less was read than callers had been told, {} times", verdict.behind));
    }
    if plan.faults.iter().all(|fault| fault.spares_servers()) && verdict.broken > 0 {
        violations.push(format!("connections of readers ended instead of an answer: {}", verdict.broken));
    }
    let limit = VANISHED_LIMIT + verdict.reached / REACHED_PER_VANISHED;
    if plan.faults == [Fault::VanishingCallers] && verdict.lost_by_vanished > limit {
        violations.push(format!("{} callers that were gone kept their tasks", verdict.lost_by_vanished));
    }
    if growth.most_memory_mib > growth.memory_mib_at_first + MEMORY_LIMIT_MIB {
        violations.push(format!("a server grew to {:.0} MiB", growth.most_memory_mib));
    }
    if growth.open_files_at_end > growth.open_files_at_first + FILES_LIMIT {
        violations.push(format!("{} files and connections stay open", growth.open_files_at_end));
    }
    violations
}

/// Measures all the time, until it is dropped.
async fn measure(world: &World, load: &Load, sizes: &mut Vec<(Duration, Size)>) {
    loop {
        let size = world.measure().await;
        load.hold_back(size.open > BACKLOG_LIMIT);
        sizes.push((load.history().elapsed(), size));
        if let Err(error) = world.replace_dead_workers().await {
            eprintln!("a worker cannot be started: {error:#}");
        }
        tokio::time::sleep(MEASURED).await;
    }
}

fn seconds(sizes: Vec<(Duration, Size)>) -> Vec<(f64, Size)> {
    sizes.into_iter().map(|(at, size)| (at.as_secs_f64(), size)).collect()
}

/// Makes one fault after the other, each kind as often as the others and the short ones first, until time is up.
async fn make_faults(world: &World, plan: &Plan, load: &Load, bar: &ProgressBar) -> Result<Vec<MadeFault>> {
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    let (began, until) = (Instant::now(), Duration::from_secs(plan.seconds));
    let (mut made, mut left) = (Vec::new(), Vec::new());
    tokio::time::sleep(CALM).await;
    while began.elapsed() < until {
        if left.is_empty() {
            left.clone_from(&plan.faults);
            left.shuffle(&mut rng);
            // From its end: the short ones first, so that a short run makes as many as it can.
            left.sort_by_key(|fault| fault.is_short());
        }
        let Some(fault) = left.pop() else { bail!("there is no fault to make") };
        let (at, troubled) = (began.elapsed().as_secs_f64(), load.history().troubled());
        bar.set_message(format!("{fault:?} · {} tasks", load.history().accepted()));
        let effects = make_fault::make(fault, world, load, &mut rng).await?;
        bar.set_position(began.elapsed().as_secs().min(plan.seconds));
        let calm = CALM.mul_f64(rng.random_range(0.3..2.0));
        tokio::time::sleep(calm).await;
        let effects = match effects {
            Some(effects) => effects,
            None => trouble_since(load, troubled).await,
        };
        made.push(MadeFault { fault, at, effects });
    }
    Ok(made)
}

/// How many more calls were troubled than `before`. One that is held up says so only when it ends.
async fn trouble_since(load: &Load, before: u64) -> u64 {
    let until = Instant::now() + HELD_UP;
    loop {
        let since = load.history().troubled() - before;
        if since > 0 || Instant::now() >= until {
            return since;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn is_drained(reader: &TaskClient) -> Result<bool> {
    let open = ListTasks::new().status(Status::Pending).status(Status::Processing).status(Status::Scheduled);
    // A page may be empty although there are such tasks behind it: the stream goes on to the end.
    Ok(reader.task_stream(open.limit(1)).try_next().await?.is_none())
}

/// All tasks with their attempts.
async fn found(reader: &TaskClient) -> Result<Vec<Found>> {
    let tasks: Vec<Task> =
        reader.task_stream(ListTasks::new().any_status().limit(100).with_payload()).try_collect().await?;
    stream::iter(tasks)
        .map(|task| async move {
            let executions = reader.get_executions(task.id).await?;
            let is_completed = |status| status == ExecutionStatus::Completed;
            let lost: Vec<_> = executions.iter().filter(|it| it.status == ExecutionStatus::Lost).collect();
            let vanished = |it: &&Execution| it.worker_id.clone().filter(|id| id.starts_with(VANISHED));
            let lease = i64::try_from(LEASE.as_millis()).unwrap_or(0);
            let lost_after = lost.iter().filter(|_| task.task_type != STEADY).filter_map(|it| {
                let lasted = (it.completed_at? - it.started_at).num_milliseconds();
                Some(lasted - lease)
            });
            anyhow::Ok(Found {
                id: task.id,
                name: task.name.unwrap_or_default(),
                status: task.status,
                reason: task.reason,
                attempt: task.attempt,
                max_attempts: task.max_attempts,
                losses: task.losses,
                result: task.result.json().and_then(|json| serde_json::from_str(json.as_str()).ok()),
                executions: executions.len(),
                lost_after: lost_after.collect(),
                lost_by_vanished: lost.iter().filter_map(vanished).collect(),
                completed: executions.iter().filter(|it| is_completed(it.status)).count(),
            })
        })
        .buffer_unordered(8)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_broke_nothing_shows_nothing() {
        let made = |fault, effects| MadeFault { fault, at: 0.0, effects };
        assert_eq!(without_effect(&[]), ["nothing was broken"]);
        let several = [made(Fault::Doubled, 0), made(Fault::CutOff, 0), made(Fault::Doubled, 3)];
        assert_eq!(without_effect(&several), ["CutOff had no effect"]);
        assert_eq!(without_effect(&[made(Fault::Calm, 0)]), Vec::<String>::new());
    }

    #[test]
    fn what_must_not_be_depends_on_what_was_broken() {
        let found = |fault, verdict: Verdict| {
            let plan = Plan { seed: 1, seconds: 1, faults: vec![fault] };
            violations_of_run(&plan, &verdict, &Growth::default()).len()
        };
        let behind = || Verdict { behind: 1, ..Verdict::default() };
        assert_eq!((found(Fault::Doubled, behind()), found(Fault::PrimaryKill, behind())), (1, 0));
        let broken = || Verdict { broken: 1, ..Verdict::default() };
        assert_eq!((found(Fault::PrimaryKill, broken()), found(Fault::ServerKill, broken())), (1, 0));
        let kept = |reached| Verdict { lost_by_vanished: 3, reached, ..Verdict::default() };
        let vanished = |reached| found(Fault::VanishingCallers, kept(reached));
        assert_eq!((vanished(9), vanished(10)), (1, 0));
    }
}
