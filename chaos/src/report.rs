//! What came of a run, for people to read.

use crate::run::Outcome;

/// Prints it for people.
pub(crate) fn print(outcome: &Outcome) {
    let verdict = &outcome.verdict;
    println!("seed {}: {} faults in {} s", outcome.plan.seed, outcome.made.len(), outcome.plan.seconds);
    println!(
        "  tasks: {} attempted, {} acknowledged, {} recovered, {} lost, {} duplicated, {} stuck",
        verdict.attempted,
        verdict.acknowledged,
        verdict.recovered,
        verdict.lost.len(),
        verdict.duplicated.len(),
        verdict.stuck.len(),
    );
    println!(
        "  attempts: {}, at most {} of one task; {} settlements refused; {} tasks completed twice",
        verdict.executions,
        verdict.most_executions,
        verdict.refused_settlements,
        verdict.double_completions.len(),
    );
    println!(
        "  calls: {}, the longest {} ms ({}); without an accepted create for {} ms at most",
        verdict.calls, verdict.slowest_ms, verdict.slowest_call, verdict.longest_without_create_ms,
    );
    println!(
        "  attempts lost with their workers: {}; their tasks were back {} ms after the end of the lease at most",
        verdict.losses, verdict.longest_back_ms,
    );
    println!(
        "  tasks held by workers that said so all the time: {}, {} times in all; {} taken; tasks that end their workers: {}",
        verdict.held,
        verdict.heartbeats,
        verdict.taken.len(),
        verdict.poisonous,
    );
    println!(
        "  tasks read meanwhile: {}; behind what callers had been told {} times, to the last {}",
        verdict.read,
        verdict.behind,
        verdict.forgotten.len(),
    );
    if verdict.reached > 0 {
        println!(
            "  callers that vanished with their answer: {}; that kept tasks and had none: {}",
            verdict.reached, verdict.lost_by_vanished,
        );
    }
    if verdict.health_asked > 0 {
        println!(
            "  health, asked {} times: the slowest {} ms, {} over 100 ms",
            verdict.health_asked, verdict.health_slowest_ms, verdict.health_late,
        );
    }
    let growth = &outcome.growth;
    println!(
        "  a server: {:.0} MiB at first, {:.0} at most, growing by {:.2} MiB a minute; {} open files at first, {} at most, {} in the end; indexes: {:.0} bytes a task",
        growth.memory_mib_at_first,
        growth.most_memory_mib,
        growth.memory_mib_per_minute,
        growth.open_files_at_first,
        growth.most_open_files,
        growth.open_files_at_end,
        growth.index_bytes_per_task,
    );
    if !outcome.not_made.is_empty() {
        println!("  not made: {:?}", outcome.not_made);
    }
    for violation in &outcome.violations {
        println!("  VIOLATED: {violation}");
    }
    for answer in verdict.undocumented.iter().take(5) {
        println!("    {answer}");
    }
}
