//! The protocol in every order of steps, as it is built and with each injected fault.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};
use task_repo_model::properties::{
    ATTEMPTS_COUNT, CAN_FINISH, COMPLETION_STAYS, FINAL_STAYS, LEASE_HOLDS, LEASE_KEPT, ONE_COMPLETION,
    SAME_RECEIPT, TOKEN_DECIDES,
};
use task_repo_model::{Bounds, InjectedFault, Protocol};

/// Two tasks, without what makes the orders too many: late requests, releases and heartbeats.
const TWO_TASKS: Bounds = Bounds {
    tasks: 2,
    workers: 2,
    servers: 2,
    max_attempts: 2,
    max_losses: 3,
    releases: 0,
    heartbeats: false,
    late_requests: false,
    withdrawals: None,
};

/// One task, and everything that can happen to it.
const ONE_TASK: Bounds = Bounds { tasks: 1, releases: 1, heartbeats: true, late_requests: true, ..TWO_TASKS };

/// One task, claims with ids that arrive whenever they like, and callers that are gone.
const REPEATED_CLAIMS: Bounds = Bounds { tasks: 1, withdrawals: Some(1), ..TWO_TASKS };

fn check(bounds: Bounds) {
    let began = Instant::now();
    let protocol = Protocol { bounds, fault: None };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} steps, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

#[test]
fn nothing_goes_wrong_with_one_task() {
    check(ONE_TASK);
}

#[test]
fn nothing_goes_wrong_when_leases_are_lost_before_attempts_are_used_up() {
    check(Bounds { max_attempts: 3, max_losses: 2, releases: 0, late_requests: false, ..ONE_TASK });
}

#[test]
fn nothing_goes_wrong_with_two_tasks() {
    check(TWO_TASKS);
}

#[test]
fn nothing_goes_wrong_with_claims_that_are_repeated() {
    check(REPEATED_CLAIMS);
}

/// Prints a way to where `property` does not hold with that fault; fails if there is none.
fn caught(fault: InjectedFault, property: &'static str) {
    caught_within(ONE_TASK, fault, property);
}

fn caught_within(bounds: Bounds, fault: InjectedFault, property: &'static str) {
    let protocol = Protocol { bounds, fault: Some(fault) };
    let until = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = protocol.checker().finish_when(until).spawn_bfs().join();
    println!("{}", checker.assert_any_discovery(property));
}

#[test]
fn a_settlement_without_its_token_is_caught() {
    caught(InjectedFault::SettleWithoutToken, TOKEN_DECIDES);
}

#[test]
fn a_claim_without_its_guard_is_caught() {
    caught(InjectedFault::ClaimWithoutGuard, LEASE_HOLDS);
}

#[test]
fn a_sweeper_without_its_guard_is_caught() {
    for property in [FINAL_STAYS, ONE_COMPLETION, LEASE_HOLDS, COMPLETION_STAYS] {
        caught(InjectedFault::SweepWithoutGuard, property);
    }
}

#[test]
fn an_answer_before_its_write_is_caught() {
    caught(InjectedFault::AnswerBeforeWrite, COMPLETION_STAYS);
}

#[test]
fn a_receipt_that_is_not_kept_is_caught() {
    caught(InjectedFault::ReceiptOfCurrentState, SAME_RECEIPT);
}

#[test]
fn a_lost_attempt_that_is_not_counted_is_caught() {
    caught(InjectedFault::LossNotCounted, ATTEMPTS_COUNT);
}

#[test]
fn a_sweeper_that_is_missing_is_caught() {
    caught(InjectedFault::NoSweeper, CAN_FINISH);
}

#[test]
fn a_claim_that_goes_back_though_it_was_repeated_is_caught() {
    caught_within(REPEATED_CLAIMS, InjectedFault::WithdrawThoughKept, LEASE_KEPT);
}

#[test]
fn a_repeated_claim_that_is_not_recorded_is_caught() {
    caught_within(REPEATED_CLAIMS, InjectedFault::RepeatNotRecorded, LEASE_KEPT);
}
