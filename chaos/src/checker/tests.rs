use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn created(name: &str, said: Said) -> Event {
    let id = (said == Said::Accepted).then(|| id(1));
    Event::Created { name: name.to_owned(), said, id }
}

fn claimed(token: &str, attempt: u32, version: u64) -> Event {
    Event::Claimed { id: id(1), token: token.to_owned(), attempt, version }
}

fn settled(token: &str, verb: Verb, said: Said, version: u64) -> Event {
    Event::Settled { id: id(1), token: token.to_owned(), verb, said, version: Some(version) }
}

fn task(name: &str, result: &str) -> Found {
    Found {
        id: id(1),
        name: name.to_owned(),
        status: Status::Completed,
        reason: None,
        attempt: 1,
        max_attempts: 50,
        losses: 0,
        result: Some(result.to_owned()),
        executions: 1,
        completed: 1,
        lost_after: Vec::new(),
        lost_by_vanished: Vec::new(),
    }
}

fn failed(name: &str, reason: Reason, attempt: u32, losses: u32) -> Found {
    let task = task(name, "t");
    Found { status: Status::Failed, reason: Some(reason), attempt, losses, completed: 0, ..task }
}

#[test]
fn a_task_may_stay_with_a_caller_that_was_answered_before_it_vanished() {
    let found = [Found { lost_by_vanished: vec!["a".to_owned(), "b".to_owned()], ..task("t", "t") }];
    let events = vec![Event::Reached { worker_id: "b".to_owned() }];
    let record = Record { events, ..Record::default() };
    assert_eq!(check(&record, &found, Duration::from_secs(5)).lost_by_vanished, 1);
}

fn held(was_never_silent: bool, was_taken: bool) -> Event {
    Event::Held { id: id(1), heartbeats: 10, was_never_silent, was_taken }
}

/// Beside one task with which all is well.
fn violations(mut events: Vec<Event>, found: &[Found]) -> Vec<String> {
    let good = Uuid::from_u128(99);
    events.push(Event::Created { name: "good".to_owned(), said: Said::Accepted, id: Some(good) });
    events.push(Event::Read { id: good, behind: 0, is_forgotten: false });
    events.push(Event::Held { id: good, heartbeats: 10, was_never_silent: true, was_taken: false });
    let mut found = found.to_vec();
    found.push(Found { id: good, ..task("good", "t") });
    let record = Record {
        events,
        calls: 0,
        slowest: (Duration::ZERO, "none"),
        longest_without_create: Duration::ZERO,
        health: Vec::new(),
    };
    check(&record, &found, Duration::from_secs(1)).violations()
}

#[test]
fn a_task_that_was_created_claimed_and_completed_is_as_it_should_be() {
    let events = vec![
        created("a", Said::Unknown),
        created("a", Said::Accepted),
        claimed("t1", 1, 2),
        settled("t1", Verb::Release, Said::Accepted, 3),
        claimed("t2", 1, 4),
        claimed("t3", 2, 6),
        settled("t2", Verb::Complete, Said::Refused, 0),
        settled("t3", Verb::Complete, Said::Accepted, 7),
    ];
    assert_eq!(violations(events, &[task("a", "t3")]), Vec::<String>::new());
}

#[test]
fn what_must_not_be_is_found() {
    let cases: Vec<(&str, Vec<Event>, Vec<Found>)> = vec![
        ("lost: 1", vec![created("a", Said::Accepted)], vec![]),
        ("unexpected: 1", vec![], vec![task("a", "t")]),
        ("unexpected: 1", vec![created("a", Said::Refused)], vec![task("a", "t")]),
        ("duplicated: 1", vec![created("a", Said::Unknown)], vec![task("a", "t"), task("a", "t")]),
        (
            "completed twice: 1",
            vec![
                created("a", Said::Accepted),
                settled("t1", Verb::Complete, Said::Accepted, 3),
                settled("t2", Verb::Complete, Said::Accepted, 5),
            ],
            vec![task("a", "t1")],
        ),
        (
            "completed, and later different: 1",
            vec![created("a", Said::Accepted), settled("t1", Verb::Complete, Said::Accepted, 3)],
            vec![task("a", "t2")],
        ),
        (
            "handed out after their completion: 1",
            vec![
                created("a", Said::Accepted),
                claimed("t1", 1, 2),
                settled("t1", Verb::Complete, Said::Accepted, 3),
                claimed("t2", 2, 4),
            ],
            vec![task("a", "t1")],
        ),
        (
            "settled by a lease that somebody else's had replaced: 1",
            vec![
                created("a", Said::Accepted),
                claimed("t1", 1, 2),
                claimed("t2", 2, 4),
                settled("t1", Verb::Complete, Said::Accepted, 5),
            ],
            vec![task("a", "t1")],
        ),
        (
            "attempts out of order: 1",
            vec![created("a", Said::Accepted), claimed("t1", 1, 2), claimed("t2", 1, 4)],
            vec![task("a", "t2")],
        ),
        (
            "stuck: 1",
            vec![created("a", Said::Accepted)],
            vec![Found { status: Status::Processing, result: None, completed: 0, ..task("a", "t") }],
        ),
        (
            "taken from workers that had said that they were alive: 1",
            vec![created("a", Said::Accepted), held(true, true)],
            vec![task("a", "t")],
        ),
        (
            "attempts out of order: 1",
            vec![
                created("a", Said::Accepted),
                claimed("t1", 1, 2),
                settled("t1", Verb::Release, Said::Unknown, 0),
                settled("t1", Verb::Release, Said::Refused, 0),
                claimed("t2", 1, 4),
            ],
            vec![task("a", "t2")],
        ),
        (
            "read as if callers had never been told: 1",
            vec![created("a", Said::Accepted), Event::Read { id: id(1), behind: 20, is_forgotten: true }],
            vec![task("a", "t")],
        ),
        (
            "a call took 1001 ms: settle of a worker process",
            vec![Event::Called { call: "settle".to_owned(), took_ms: 1001, error: None }],
            vec![],
        ),
        (
            "undocumented answers: 1",
            vec![Event::Odd { call: "create".to_owned(), answer: "500".to_owned() }],
            vec![],
        ),
    ];
    for (violation, events, found) in cases {
        assert_eq!(violations(events, &found), [violation]);
    }
}

#[test]
fn tasks_that_ended_wrongly_are_found() {
    let for_nothing = "cancelled or failed, and there was no reason to: 1";
    let unpunished = "tasks that end their workers, and did not fail for it: 1";
    let cases = [
        (unpunished, task("poison-a", "t")),
        (unpunished, failed("poison-a", Reason::Lost, 50, 50)),
        (for_nothing, Found { status: Status::Cancelled, ..task("a", "t") }),
        (for_nothing, failed("a", Reason::Lost, 3, 2)),
        (for_nothing, failed("a", Reason::Exhausted, 49, 3)),
        (for_nothing, failed("a", Reason::Error, 50, 3)),
        ("leases that ended too early: 1", Found { lost_after: vec![-51, -50, 400], ..task("a", "t") }),
    ];
    for (violation, found) in cases {
        let name = found.name.clone();
        assert_eq!(violations(vec![created(&name, Said::Accepted)], &[found]), [violation]);
    }
}

#[test]
fn tasks_may_fail_when_their_attempts_or_losses_are_used_up() {
    let ends =
        [(Reason::Lost, 3, 3), (Reason::Lost, 50, 1), (Reason::Exhausted, 50, 0), (Reason::Timeout, 50, 0)];
    for (reason, attempt, losses) in ends {
        let found = [failed("a", reason, attempt, losses)];
        assert_eq!(violations(vec![created("a", Said::Accepted)], &found), Vec::<String>::new());
    }
    let poison = [failed("poison-a", Reason::Lost, 3, 3)];
    assert_eq!(violations(vec![created("poison-a", Said::Accepted)], &poison), Vec::<String>::new());
}

#[test]
fn a_task_that_is_taken_from_a_silent_worker_is_as_it_should_be() {
    let events = vec![created("a", Said::Accepted), held(false, true)];
    assert_eq!(violations(events, &[task("a", "t")]), Vec::<String>::new());
}

#[test]
fn a_run_in_which_no_worker_was_loud_and_nothing_read_shows_nothing() {
    let good = task("a", "t");
    let record =
        Record { events: vec![created("a", Said::Accepted), held(false, false)], ..Record::default() };
    let violations = check(&record, &[good], Duration::from_secs(1)).violations();
    let expected = ["nothing was read meanwhile", "no worker said all the time that it was alive"];
    assert_eq!(violations, expected);
}

#[test]
fn what_several_processes_noted_may_come_in_any_order() {
    let mut events = vec![
        created("a", Said::Accepted),
        claimed("t1", 1, 2),
        settled("t1", Verb::Release, Said::Accepted, 3),
        claimed("t2", 1, 4),
        settled("t2", Verb::Complete, Said::Accepted, 5),
    ];
    events.reverse();
    assert_eq!(violations(events, &[task("a", "t2")]), Vec::<String>::new());
}
