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
        result: Some(result.to_owned()),
        executions: 1,
        completed: 1,
        lost_after: Vec::new(),
    }
}

/// Beside one task with which all is well.
fn violations(mut events: Vec<Event>, found: &[Found]) -> Vec<String> {
    let good = Uuid::from_u128(99);
    events.push(Event::Created { name: "good".to_owned(), said: Said::Accepted, id: Some(good) });
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
            vec![created("a", Said::Accepted), Event::Taken { id: id(1) }],
            vec![task("a", "t")],
        ),
        (
            "tasks that end their workers, and did not fail for it: 1",
            vec![created("poison-a", Said::Accepted)],
            vec![task("poison-a", "t")],
        ),
        ("undocumented answers: 1", vec![Event::Odd { call: "create", answer: "500".to_owned() }], vec![]),
    ];
    for (violation, events, found) in cases {
        assert_eq!(violations(events, &found), [violation]);
    }
}
