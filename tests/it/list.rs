//! `GET /tasks`: filters, order, pages.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of, unique_type};

async fn list(server: &TestServer, query: &[(&str, &str)]) -> Value {
    server.get("/tasks").query(query).send().await.ok()
}

fn ids(page: &Value) -> Vec<&str> {
    page["tasks"].as_array().unwrap().iter().map(id_of).collect()
}

/// The ids of every page.
async fn walk(server: &TestServer, query: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..100 {
        let mut query = query.to_vec();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = list(server, &query).await;
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match &page["next_cursor"] {
            Value::Null => return found,
            next => cursor = Some(next.as_str().unwrap().to_owned()),
        }
    }
    panic!("the pages never end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_tasks_come_in_claim_order() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let mut expected: Vec<(i64, String, String)> = Vec::new();
    for (n, priority) in [50, 0, 100, 50, 75, 100, 50, 0].into_iter().enumerate() {
        // A time in the past does not make a task older than its creation.
        let mut fields = json!({"task_type": task_type, "priority": priority});
        if n == 6 {
            fields["run_at"] = "2001-01-01T00:00:00Z".into();
        }
        let task = server.create(fields).await;
        expected.push((-priority, task["created_at"].as_str().unwrap().to_owned(), id_of(&task).to_owned()));
    }
    server.create_in("scheduled", json!({"task_type": task_type, "priority": 100})).await;
    expected.sort();
    let expected: Vec<_> = expected.iter().map(|(_, _, id)| id.as_str()).collect();
    let by_default = list(&server, &[]).await;
    assert_eq!(ids(&by_default), expected);
    assert_eq!(by_default["next_cursor"], Value::Null);
    assert_eq!(ids(&list(&server, &[("status", "pending"), ("task_type", &task_type)]).await), expected);
    assert_eq!(walk(&server, &[("limit", "3")]).await, expected);
    let claim = json!({"task_types": [task_type], "worker_id": "w", "limit": 100});
    let claimed = server.post("/tasks/claim").json(&claim).send().await.ok();
    assert_eq!(ids(&claimed), expected);
    assert_eq!(list(&server, &[]).await["tasks"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_else_comes_newest_first() {
    let server = TestServer::start().await;
    let mut created = Vec::new();
    for status in
        ["pending", "scheduled", "processing", "completed", "failed", "cancelled", "pending", "scheduled"]
    {
        let task = server.create_in(status, json!({"priority": created.len() * 10})).await;
        created.push((task["created_at"].as_str().unwrap().to_owned(), id_of(&task).to_owned(), status));
    }
    created.sort();
    created.reverse();
    let of = |statuses: &[&str]| -> Vec<&str> {
        created.iter().filter(|task| statuses.contains(&task.2)).map(|task| task.1.as_str()).collect()
    };
    let all = ["pending", "scheduled", "processing", "completed", "failed", "cancelled"];
    assert_eq!(ids(&list(&server, &[("status", "any")]).await), of(&all));
    for status in all.iter().filter(|status| **status != "pending") {
        assert_eq!(ids(&list(&server, &[("status", status)]).await), of(&[status]), "{status}");
    }
    let two = [("status", "pending"), ("status", "cancelled")];
    assert_eq!(ids(&list(&server, &two).await), of(&["pending", "cancelled"]));
    let every: Vec<_> = all.iter().map(|status| ("status", *status)).collect();
    assert_eq!(ids(&list(&server, &every).await), of(&all));
    assert_eq!(walk(&server, &[("status", "any"), ("limit", "3")]).await, of(&all));

    let gone = created[0].1.clone();
    assert_eq!(server.delete(&format!("/tasks/{gone}")).send().await.status, 204);
    assert!(
        !ids(&list(&server, &[("status", "any")]).await).contains(&gone.as_str()),
        "deleted tasks are hidden"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_repeat_nothing_while_tasks_are_inserted() {
    let server = TestServer::start().await;
    for order in ["pending", "any"] {
        let task_type = unique_type();
        let mut all = BTreeSet::new();
        for n in 0..20 {
            let fields = json!({"task_type": task_type, "priority": 50 + n % 2});
            all.insert(id_of(&server.create(fields).await).to_owned());
        }
        let query = [("status", order), ("task_type", task_type.as_str()), ("limit", "4")];
        let insert = async || {
            for priority in [100, 50, 0] {
                server.create(json!({"task_type": task_type, "priority": priority})).await;
            }
        };
        // In claim order the end moves on while lower priorities come in: the walk stops once the first ones are seen.
        let mut found = Vec::new();
        let mut cursor = None::<String>;
        while !all.iter().all(|id| found.contains(id)) {
            let mut query = query.to_vec();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = list(&server, &query).await;
            found.extend(ids(&page).into_iter().map(str::to_owned));
            insert().await;
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            assert!(
                cursor.is_some() || all.iter().all(|id| found.contains(id)),
                "{order}: a task was passed over"
            );
        }
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{order}: a row came twice");
        if order == "any" {
            assert_eq!(found.len(), 20, "newer tasks stand before the first page");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_goes_with_its_filters() {
    let server = TestServer::start().await;
    let (ours, other) = (unique_type(), unique_type());
    for _ in 0..5 {
        server.create(json!({"task_type": ours, "tags": {"k": "v"}, "user_id": "alice"})).await;
    }
    let filters = [("task_type", ours.as_str()), ("limit", "2")];
    let page = list(&server, &filters).await;
    let cursor = page["next_cursor"].as_str().expect("there is more").to_owned();
    let with = |query: &[(&str, &str)]| server.get("/tasks").query(query).query(&[("cursor", &cursor)]);
    for query in [
        vec![("task_type", other.as_str())],
        vec![],
        vec![("task_type", &ours), ("task_type", &other)],
        vec![("task_type", &ours), ("status", "any")],
        vec![("task_type", &ours), ("status", "scheduled")],
        vec![("task_type", &ours), ("tag", "k:v")],
        vec![("task_type", &ours), ("user_id", "alice")],
        vec![("task_type", &ours), ("created_after", "2001-01-01T00:00:00Z")],
        vec![("task_type", &ours), ("created_before", "2100-01-01T00:00:00Z")],
    ] {
        with(&query).send().await.problem(400, "invalid_parameter");
    }
    let damaged = [&cursor[1..], &cursor[..cursor.len() - 1], &cursor[..cursor.len() / 2]];
    for damaged in damaged {
        let call = server.get("/tasks").query(&filters).query(&[("cursor", damaged)]);
        call.send().await.problem(400, "invalid_parameter");
    }
    // How many and how much are no filters.
    let rest = with(&[("task_type", &ours), ("limit", "100"), ("include", "payload")]).send().await.ok();
    let mut all: Vec<_> = ids(&page);
    all.extend(ids(&rest));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_come_when_asked_for() {
    let server = TestServer::start().await;
    let task = server.create(json!({"request": {"a": 1}})).await;
    let claimed = server.claim(task["task_type"].as_str().unwrap()).await;
    server.complete(&claimed, json!({"b": 2})).await;
    let plain = list(&server, &[("status", "completed")]).await;
    let plain = plain["tasks"][0].as_object().unwrap();
    assert!(!plain.contains_key("request") && !plain.contains_key("result"), "{plain:?}");
    let with = list(&server, &[("status", "completed"), ("include", "payload")]).await;
    assert_eq!(
        (&with["tasks"][0]["request"], &with["tasks"][0]["result"]),
        (&json!({"a": 1}), &json!({"b": 2}))
    );
    let mut whole = server.task(id_of(&task)).await;
    whole.as_object_mut().unwrap().remove("checkpoint");
    assert_eq!(with["tasks"][0], whole, "but for the checkpoint");
    let members = whole.as_object_mut().unwrap();
    members.remove("request");
    members.remove("result");
    assert_eq!(plain, members, "but for the payload a list shows the whole task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits() {
    let server = TestServer::start().await;
    let tasks: Vec<_> = (0..101).map(|_| json!({"task_type": "many"})).collect();
    server.post("/tasks/batch").json(&json!({"tasks": tasks})).send().await.ok();
    for (query, count) in [(vec![], 10), (vec![("limit", "1")], 1), (vec![("limit", "100")], 100)] {
        for status in ["pending", "any"] {
            let mut query = query.clone();
            query.push(("status", status));
            let page = list(&server, &query).await;
            assert_eq!(ids(&page).len(), count);
            assert!(page["next_cursor"].is_string());
        }
    }
    let first = list(&server, &[("limit", "100")]).await;
    let last = list(&server, &[("limit", "100"), ("cursor", first["next_cursor"].as_str().unwrap())]).await;
    assert_eq!((ids(&last).len(), &last["next_cursor"]), (1, &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_type_and_user() {
    let server = TestServer::start().await;
    let mut by_type = Vec::new();
    for (task_type, user) in [("x.y", "alice"), ("xzy", "bob"), ("x.y.z", "alice"), ("X.Y", "a.ice")] {
        let task = server.create(json!({"task_type": task_type, "user_id": user})).await;
        by_type.push((task_type, id_of(&task).to_owned()));
    }
    server.create(json!({"task_type": "none"})).await;
    for (task_type, id) in &by_type {
        for status in ["pending", "any"] {
            let found = list(&server, &[("task_type", task_type), ("status", status)]).await;
            assert_eq!(ids(&found), [id], "{task_type}");
        }
    }
    let two = list(&server, &[("task_type", "x.y"), ("task_type", "xzy"), ("task_type", "no-such")]).await;
    assert_eq!(ids(&two), [&by_type[0].1, &by_type[1].1]);
    for (user, expected) in
        [("alice", vec![0, 2]), ("bob", vec![1]), ("a.ice", vec![3]), ("$ne", vec![]), (".*", vec![])]
    {
        let expected: Vec<_> = expected.into_iter().map(|n: usize| by_type[n].1.as_str()).collect();
        assert_eq!(ids(&list(&server, &[("user_id", user)]).await), expected, "{user}");
        let newest: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(ids(&list(&server, &[("user_id", user), ("status", "any")]).await), newest, "{user}");
    }
    let both = list(&server, &[("user_id", "alice"), ("task_type", "x.y.z")]).await;
    assert_eq!(ids(&both), [&by_type[2].1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_tags() {
    let server = TestServer::start().await;
    let mut made = Vec::new();
    for tags in [
        json!({"service": "a", "source": "x"}),
        json!({"service": "a", "source": "y:z"}),
        json!(["plain", "$where", "a.b"]),
        json!({"é": "😀 &=+%"}),
    ] {
        made.push(id_of(&server.create(json!({"task_type": "tagged", "tags": tags})).await).to_owned());
    }
    server.create(json!({"task_type": "tagged"})).await;
    for (tags, expected) in [
        (vec!["service:a"], vec![0, 1]),
        (vec!["service:a", "source:x"], vec![0]),
        (vec!["source:y:z"], vec![1]),
        (vec!["source:y"], vec![]),
        (vec!["service:a", "source:no"], vec![]),
        (vec!["plain:"], vec![2]),
        (vec!["plain:", "$where:", "a.b:"], vec![2]),
        (vec!["service:"], vec![]),
        (vec!["é:😀 &=+%"], vec![3]),
        (vec!["service:.*"], vec![]),
        (vec!["Service:a"], vec![]),
        (vec!["service:a", "service:a"], vec![0, 1]),
        (vec!["service:a", "service:b"], vec![]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|n: usize| made[n].as_str()).collect();
        let mut query: Vec<_> = tags.iter().map(|tag| ("tag", *tag)).collect();
        assert_eq!(ids(&list(&server, &query).await), expected, "{tags:?}");
        query.extend([("status", "any"), ("task_type", "tagged")]);
        let newest: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(ids(&list(&server, &query).await), newest, "{tags:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_creation() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let created: chrono::DateTime<chrono::Utc> = task["created_at"].as_str().unwrap().parse().unwrap();
    let moment = |seconds: i64| created + chrono::Duration::seconds(seconds);
    let east = chrono::FixedOffset::east_opt(5 * 3600 + 1800).unwrap();
    for (seconds, is_after) in [(-3600, true), (-1, true), (1, false), (3600, false)] {
        let utc = moment(seconds).to_rfc3339();
        let offset = moment(seconds).with_timezone(&east).to_rfc3339();
        for text in [utc.as_str(), offset.as_str()] {
            for status in ["pending", "any"] {
                let after = list(&server, &[("created_after", text), ("status", status)]).await;
                assert_eq!(ids(&after).len(), usize::from(is_after), "after {text}");
                let before = list(&server, &[("created_before", text), ("status", status)]).await;
                assert_eq!(ids(&before).len(), usize::from(!is_after), "before {text}");
            }
        }
    }
    let (past, future) = (moment(-1).to_rfc3339(), moment(1).to_rfc3339());
    let between = list(&server, &[("created_after", &past), ("created_before", &future)]).await;
    assert_eq!(ids(&between), [id_of(&task)]);
    let never = list(&server, &[("created_after", &future), ("created_before", &past)]).await;
    assert_eq!(never["tasks"], json!([]));
}
