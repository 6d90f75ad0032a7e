//! The protocol in every order of steps, as it is built and with each mistake.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};
use task_repo_model::properties::{
    ATTEMPTS_COUNT, CAN_FINISH, COMPLETION_STAYS, FINAL_STAYS, KEPT, LEASE_HOLDS, ONE_COMPLETION,
    SAME_RECEIPT, TOKEN_DECIDES,
};
use task_repo_model::{Bounds, Protocol, Variation};

/// Two tasks, without what makes the orders too many: late requests, releases and heartbeats.
const WIDE: Bounds = Bounds {
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
const DEEP: Bounds = Bounds { tasks: 1, releases: 1, heartbeats: true, late_requests: true, ..WIDE };

/// One task, claims with ids that arrive whenever they like, and callers that are gone.
const REPEATED: Bounds = Bounds { tasks: 1, withdrawals: Some(1), ..WIDE };

fn check(bounds: Bounds) {
    let began = Instant::now();
    let protocol = Protocol { bounds, variation: Variation::AsBuilt };
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
    check(DEEP);
}

#[test]
fn nothing_goes_wrong_when_leases_are_lost_before_attempts_are_used_up() {
    check(Bounds { max_attempts: 3, max_losses: 2, releases: 0, late_requests: false, ..DEEP });
}

#[test]
fn nothing_goes_wrong_with_two_tasks() {
    check(WIDE);
}

#[test]
fn nothing_goes_wrong_with_claims_that_are_repeated() {
    check(REPEATED);
}

/// Prints a way to where `property` does not hold with that mistake; fails if there is none.
fn caught(variation: Variation, property: &'static str) {
    caught_within(DEEP, variation, property);
}

fn caught_within(bounds: Bounds, variation: Variation, property: &'static str) {
    let protocol = Protocol { bounds, variation };
    let until = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = protocol.checker().finish_when(until).spawn_bfs().join();
    println!("{}", checker.assert_any_discovery(property));
}

#[test]
fn a_settlement_without_its_token_is_caught() {
    caught(Variation::SettleWithoutToken, TOKEN_DECIDES);
}

#[test]
fn a_claim_without_its_guard_is_caught() {
    caught(Variation::ClaimWithoutGuard, LEASE_HOLDS);
}

#[test]
fn a_sweeper_without_its_guard_is_caught() {
    for property in [FINAL_STAYS, ONE_COMPLETION, LEASE_HOLDS, COMPLETION_STAYS] {
        caught(Variation::SweepWithoutGuard, property);
    }
}

#[test]
fn an_answer_before_its_write_is_caught() {
    caught(Variation::AnswerBeforeWrite, COMPLETION_STAYS);
}

#[test]
fn a_receipt_that_is_not_kept_is_caught() {
    caught(Variation::ReceiptOfToday, SAME_RECEIPT);
}

#[test]
fn a_lost_attempt_that_is_not_counted_is_caught() {
    caught(Variation::LossGivesAttemptBack, ATTEMPTS_COUNT);
}

#[test]
fn a_sweeper_that_is_missing_is_caught() {
    caught(Variation::NoSweeper, CAN_FINISH);
}

#[test]
fn a_claim_that_goes_back_though_it_was_repeated_is_caught() {
    caught_within(REPEATED, Variation::WithdrawThoughKept, KEPT);
}

#[test]
fn a_repeated_claim_that_leaves_no_mark_is_caught() {
    caught_within(REPEATED, Variation::RepeatWithoutMark, KEPT);
}
