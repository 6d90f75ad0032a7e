//! Every field of a create: its default, both edges of its bounds, and how it is answered.

use chrono::Utc;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, as_shown_later, id_of, unique_type};
use uuid::Uuid;

use crate::create_fields::{keeps, refuses, takes, time_of};

fn text(length: usize) -> String {
    "x".repeat(length)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_which_only_the_type_is_said() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let answer = server.post("/tasks").json(&json!({"task_type": task_type})).send().await;
    assert_eq!(answer.status, 201);
    let mut task = as_shown_later(answer.ok());
    let id: Uuid = id_of(&task).parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(id.to_string(), id_of(&task), "lower case, with hyphens");
    let location = answer.header("location").unwrap();
    assert!(location.ends_with(&format!("/api/v1/tasks/{id}")), "{location}");
    assert_eq!(server.task(id_of(&task)).await, task);

    for moment in ["created_at", "updated_at"] {
        let age = Utc::now() - time_of(&task[moment]);
        assert!(age.num_minutes().abs() < 5, "{moment}: {}", task[moment]);
    }
    let credits = task["usage"]["credits_consumed"].take();
    assert_eq!(credits.as_f64(), Some(0.0));
    let expected = json!({
        "id": id, "tenant_id": "default", "user_id": null, "task_type": task_type, "name": null, "description": null,
        "status": "pending", "reason": null, "priority": 50, "request": null, "template": null, "metadata": {},
        "tags": {}, "attempt": 0, "max_attempts": 3, "losses": 0, "releases": 0, "retention_seconds": 604_800,
        "lease_seconds": 60, "timeout_seconds": 300, "run_at": null, "due_date": null,
        "retry": {"backoff": "exponential", "base_seconds": 5, "cap_seconds": 3600, "jitter": 0.2},
        "reminder_time": null, "lease": null, "progress": null, "cancel_requested_at": null, "result": null,
        "result_id": null, "error": null,
        "usage": {"credits_consumed": null, "tokens_used": 0, "api_calls_made": 0},
        "created_at": task["created_at"], "updated_at": task["updated_at"], "started_at": null, "completed_at": null,
        "version": 1,
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(task.get(member), Some(value), "{member}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_is_as_absent() {
    let server = TestServer::start().await;
    let fields = [
        "user_id",
        "name",
        "description",
        "priority",
        "request",
        "template",
        "metadata",
        "tags",
        "run_at",
        "delay_seconds",
        "max_attempts",
        "retry",
        "lease_seconds",
        "timeout_seconds",
        "retention_seconds",
        "due_date",
        "reminder_time",
    ];
    let plain = server.create(json!({"task_type": "t"})).await;
    let mut all = json!({"task_type": "t"});
    for field in fields {
        all[field] = Value::Null;
        takes(&server, field, &[Value::Null]).await;
    }
    let task = server.create(all).await;
    // The one field of which `null` says something: for ever.
    for field in fields.into_iter().filter(|field| *field != "retention_seconds") {
        assert_eq!(task[field], plain[field], "{field}");
    }
    assert_eq!(task["retention_seconds"], Value::Null);
    assert_eq!(task["status"], "pending");
    let later = server.create(json!({"run_at": null, "delay_seconds": 60})).await;
    assert_eq!(later["status"], "scheduled");
    refuses(&server, "task_type", &[Value::Null]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_fields() {
    let server = TestServer::start().await;
    keeps(&server, "task_type", &[json!("a"), json!("AZaz09._:-"), json!("."), json!("-"), json!(text(128))])
        .await;
    let types = ["", "a b", "a/b", "é", "$a", "a\n", "\u{0}", "a*", "a,b", " a", "a@b"].map(Value::from);
    refuses(&server, "task_type", &types).await;
    refuses(&server, "task_type", &[json!(text(129)), json!(1), json!(["a"]), json!({}), json!(true)]).await;

    keeps(&server, "name", &[json!("n"), json!(text(255)), json!("é".repeat(255)), json!("😀".repeat(255))])
        .await;
    keeps(&server, "name", &[json!(" "), json!("line\nbreak"), json!("\"\\/$.%<b>")]).await;
    refuses(&server, "name", &[json!(""), json!(text(256)), json!("é".repeat(256)), json!(1), json!([])])
        .await;

    keeps(
        &server,
        "description",
        &[json!("d"), json!(text(4096)), json!("ü".repeat(4096)), json!("😀".repeat(4096))],
    )
    .await;
    takes(&server, "description", &[json!("")]).await;
    refuses(&server, "description", &[json!(text(4097)), json!("ü".repeat(4097)), json!(1), json!({})]).await;

    keeps(&server, "user_id", &[json!("u"), json!("!~\"$.%{}"), json!(text(255))]).await;
    let users =
        [json!(""), json!("a b"), json!("é"), json!("a\n"), json!("\u{7f}"), json!(text(256)), json!(1)];
    refuses(&server, "user_id", &users).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_the_call_becomes_the_users_of_its_tasks() {
    let server = TestServer::start().await;
    let create = |user: &str| server.post("/tasks").user(user);
    assert_eq!(create("alice").json(&json!({"task_type": "t"})).send().await.ok()["user_id"], "alice");
    let same = json!({"task_type": "t", "user_id": "alice"});
    assert_eq!(create("alice").json(&same).send().await.ok()["user_id"], "alice");
    let null = json!({"task_type": "t", "user_id": null});
    assert_eq!(create("alice").json(&null).send().await.ok()["user_id"], "alice");
    create("bob").json(&same).send().await.problem(403, "forbidden");
    create("Alice").json(&same).send().await.problem(403, "forbidden");
    let longest = create(&text(255)).json(&json!({"task_type": "t"})).send().await.ok();
    assert_eq!(longest["user_id"], text(255));
    let tenant = server.post("/tasks").tenant(&text(128)).json(&json!({"task_type": "t"})).send().await.ok();
    assert_eq!(tenant["tenant_id"], text(128));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers() {
    let server = TestServer::start().await;
    for (given, kept) in [
        (json!(0), 0),
        (json!(100), 100),
        (json!("low"), 25),
        (json!("medium"), 50),
        (json!("high"), 75),
        (json!("critical"), 100),
        (json!(null), 50),
    ] {
        let task = server.create(json!({"priority": given})).await;
        assert_eq!(task["priority"], kept);
        assert_eq!(server.task(id_of(&task)).await["priority"], kept);
    }
    let words = ["HIGH", "Low", "urgent", "", "50", " high"].map(Value::from);
    refuses(&server, "priority", &words).await;
    refuses(&server, "priority", &[json!(true), json!([50]), json!({}), json!([])]).await;

    // Field, least and most.
    let bounds = [
        ("priority", 0, 100),
        ("max_attempts", 1, 50),
        ("lease_seconds", 1, 86_400),
        ("timeout_seconds", 1, 604_800),
        ("retention_seconds", 0, 31_536_000),
        ("delay_seconds", 0, 31_536_000),
    ];
    for (field, least, most) in bounds {
        takes(&server, field, &[json!(least), json!(most)]).await;
        refuses(
            &server,
            field,
            &[json!(least - 1), json!(most + 1), json!(-1), json!(u64::MAX), json!(i64::MIN)],
        )
        .await;
        refuses(&server, field, &[json!(1.5), json!("1"), json!(true), json!([1]), json!({})]).await;
    }
    keeps(&server, "max_attempts", &[json!(1), json!(50)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retry_policy() {
    let server = TestServer::start().await;
    let right = [
        json!({}),
        json!({"backoff": "exponential"}),
        json!({"backoff": "linear"}),
        json!({"backoff": "fixed"}),
        json!({"base_seconds": 1}),
        json!({"base_seconds": 86_400, "cap_seconds": 86_400}),
        json!({"cap_seconds": 1}),
        json!({"jitter": 0}),
        json!({"jitter": 1}),
        json!({"jitter": 0.333}),
        json!({"backoff": "exponential", "base_seconds": 5, "cap_seconds": 3600, "jitter": 0.2}),
    ];
    takes(&server, "retry", &right).await;
    let wrong = [
        json!("fixed"),
        json!(1),
        json!(true),
        json!({"backoff": "quadratic"}),
        json!({"backoff": "Fixed"}),
        json!({"backoff": 1}),
        json!({"base_seconds": 0}),
        json!({"base_seconds": 86_401}),
        json!({"base_seconds": 1.5}),
        json!({"base_seconds": "5"}),
        json!({"base_seconds": -1}),
        json!({"cap_seconds": 0}),
        json!({"cap_seconds": 86_401}),
        json!({"jitter": -0.01}),
        json!({"jitter": 1.01}),
        json!({"jitter": "0.2"}),
        json!({"nonsense": 1}),
        json!({"max_attempts": 3}),
    ];
    refuses(&server, "retry", &wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags() {
    let server = TestServer::start().await;
    let many =
        |count: usize| (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let one = |key: String, value: String| Value::Object([(key, value.into())].into_iter().collect());
    let right = [
        json!({}),
        json!({"service": "generative-service", "source": "agent-api"}),
        json!({"a": ""}),
        json!({"a": "b:c:d"}),
        json!({"$where": "$x", "a.b": "c.d", ".": "$"}),
        json!({"é 😀": "ü\n"}),
        json!(many(32)),
        one(text(64), text(256)),
    ];
    keeps(&server, "tags", &right).await;
    let wrong = [
        json!(many(33)),
        one(text(65), "v".into()),
        one("k".into(), text(257)),
        json!({"a:b": "c"}),
        json!({":": ""}),
        json!({"a": 1}),
        json!({"a": null}),
        json!({"a": ["b"]}),
        json!({"a": {"b": "c"}}),
        json!("a"),
        json!(1),
        json!([1]),
        json!([null]),
        json!(["a:b"]),
        json!([text(65)]),
        json!([["a"]]),
        json!(many(33).keys().collect::<Vec<_>>()),
    ];
    refuses(&server, "tags", &wrong).await;
    let listed = server.create(json!({"tags": ["a", "b.c", "$d"]})).await;
    assert_eq!(listed["tags"], json!({"a": "", "b.c": "", "$d": ""}));
    assert_eq!(server.task(id_of(&listed)).await["tags"], listed["tags"]);
    let none = server.create(json!({"tags": []})).await;
    assert_eq!(none["tags"], json!({}));
    let most = server.create(json!({"tags": many(32).keys().collect::<Vec<_>>()})).await;
    assert_eq!(most["tags"].as_object().unwrap().len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template() {
    let server = TestServer::start().await;
    let whole = json!({"service_type": "GENERATIVE", "parameters": {"model": "m", "$a.b": [1, null]}});
    keeps(&server, "template", &[whole]).await;
    for parameters in [json!(1), json!("text"), json!([]), json!({}), json!(false)] {
        let task = server.create(json!({"template": {"service_type": "s", "parameters": parameters}})).await;
        assert_eq!(task["template"]["parameters"], parameters);
    }
    let named = server.create(json!({"template": {"service_type": "s"}})).await;
    assert_eq!(server.task(id_of(&named)).await["template"]["service_type"], "s");
    let wrong = [
        json!("s"),
        json!(1),
        json!([]),
        json!({"service_type": 1}),
        json!({"service_type": "s", "nonsense": 1}),
        json!({"service_type": ["s"]}),
    ];
    refuses(&server, "template", &wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_with_every_field() {
    let server = TestServer::start().await;
    let body = json!({
        "task_type": unique_type(), "user_id": "alice", "name": "n", "description": "d", "priority": "high",
        "request": {"content": {"text": "hello"}}, "template": {"service_type": "S", "parameters": {"model": "m"}},
        "metadata": {"a": {"b": [1, 2.5, null, true]}}, "tags": {"service": "x"}, "delay_seconds": 60,
        "max_attempts": 7, "retry": {"backoff": "linear", "base_seconds": 2, "cap_seconds": 9, "jitter": 0},
        "lease_seconds": 30, "timeout_seconds": 600, "retention_seconds": null, "due_date": "2100-01-01T00:00:00.000Z",
        "reminder_time": "2099-01-01T00:00:00.000Z",
    });
    let task = server.create(body.clone()).await;
    for field in [
        "task_type",
        "user_id",
        "name",
        "description",
        "request",
        "template",
        "metadata",
        "tags",
        "max_attempts",
        "due_date",
        "reminder_time",
    ] {
        assert_eq!(task[field], body[field], "{field}");
    }
    assert_eq!((&task["priority"], &task["version"]), (&json!(75), &json!(1)));
    assert_eq!(server.task(id_of(&task)).await, task);
}
