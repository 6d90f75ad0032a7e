//! The times of a create: any offset in, UTC out; and the first moment a task may be claimed.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of, in_seconds, unique_type};

use crate::create_fields::{keeps, refuses, time_of, with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_with_any_offset_are_answered_in_utc() {
    let server = TestServer::start().await;
    for field in ["due_date", "reminder_time", "run_at"] {
        for (given, kept) in [
            ("2020-01-31T08:00:00Z", "2020-01-31T08:00:00.000Z"),
            ("2020-01-31T10:00:00+02:00", "2020-01-31T08:00:00.000Z"),
            ("2020-01-31T02:15:00.5-05:45", "2020-01-31T08:00:00.500Z"),
            ("2020-01-01T00:30:00.123+01:00", "2019-12-31T23:30:00.123Z"),
            ("2020-01-31T08:00:00.1231Z", "2020-01-31T08:00:00.123Z"),
        ] {
            let task = server.create(with(field, &json!(given))).await;
            assert_eq!(task[field], kept, "{field} {given}");
            assert_eq!(server.task(id_of(&task)).await[field], kept, "{field} {given}");
        }
        let wrong = [
            "",
            "tomorrow",
            "2100-01-31",
            "2100-01-31T08:00:00",
            "08:00:00Z",
            "2100-02-30T08:00:00Z",
            "2100-01-31T25:00:00Z",
            "4102444800",
            "2100-01-31T08:00:00+25:00",
            "2100-01-31T08:00:00 Z",
        ];
        refuses(&server, field, &wrong.map(Value::from)).await;
        refuses(&server, field, &[json!(4_102_444_800_i64), json!(true), json!([]), json!({})]).await;
        for odd in [
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59-23:59",
            "2016-12-31T23:59:60Z",
            "1969-12-31T23:59:59.999Z",
            "2100-01-31t08:00:00z",
            "-0001-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "2100-01-31T08:00:00.123456789123456789Z",
        ] {
            let answer = server.post("/tasks").json(&with(field, &json!(odd))).send().await;
            assert!(answer.status == 201 || answer.status == 422, "{odd}: {answer:?}");
        }
    }
    keeps(&server, "due_date", &[json!("1999-12-31T23:59:59.000Z")]).await;
    keeps(&server, "reminder_time", &[json!("1970-01-01T00:00:00.000Z")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_moment_it_may_be_claimed() {
    let server = TestServer::start().await;
    for fields in [json!({"run_at": in_seconds(3600)}), json!({"delay_seconds": 3600})] {
        let task_type = unique_type();
        let mut body = fields.clone();
        body["task_type"] = task_type.as_str().into();
        let task = server.create(body).await;
        assert_eq!(task["status"], "scheduled", "{fields}");
        assert_eq!(task["reason"], "delayed", "{fields}");
        assert!((time_of(&task["run_at"]) - Utc::now()).num_minutes() >= 50, "{fields}");
        let claim = json!({"task_types": [task_type], "worker_id": "w"});
        assert_eq!(
            server.post("/tasks/claim").json(&claim).send().await.ok()["tasks"],
            json!([]),
            "{fields}"
        );
        server
            .post(&format!("/tasks/{}/claim", id_of(&task)))
            .json(&json!({"worker_id": "w"}))
            .send()
            .await
            .problem(409, "task_not_claimable");
    }
    for fields in [
        json!({"run_at": "2020-01-01T00:00:00Z"}),
        json!({"run_at": in_seconds(-1)}),
        json!({"delay_seconds": 0}),
    ] {
        let task = server.create(fields.clone()).await;
        assert_eq!(task["status"], "pending", "{fields}");
        assert_eq!(task["reason"], Value::Null, "{fields}");
        server.claim(task["task_type"].as_str().unwrap()).await;
    }
    let delayed = server.create(json!({"delay_seconds": 31_536_000})).await;
    let delay = time_of(&delayed["run_at"]) - time_of(&delayed["created_at"]);
    assert!((delay.num_milliseconds() - 31_536_000_000).abs() <= 1000, "{delayed:#}");
    for both in [
        json!({"task_type": "t", "run_at": in_seconds(60), "delay_seconds": 60}),
        json!({"task_type": "t", "run_at": "2020-01-01T00:00:00Z", "delay_seconds": 0}),
    ] {
        server.post("/tasks").json(&both).send().await.problem(422, "validation_failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_run_is_bounded_as_a_delay_is() {
    let server = TestServer::start().await;
    let ahead = |seconds| (server.now() + TimeDelta::seconds(seconds)).to_rfc3339();
    let (far, near) = (ahead(31_536_100), ahead(31_535_000));
    let task = server.create(json!({"task_type": "t"})).await;
    let (edit, execute) = (format!("/tasks/{}", id_of(&task)), format!("/tasks/{}/execute", id_of(&task)));
    let refused = |problem: &Value, place: &Value| {
        assert_eq!(problem["errors"][0]["loc"], *place, "{problem:#}");
        let rule = problem["errors"][0]["msg"].as_str().unwrap();
        assert!(rule.contains("31536000 seconds") && rule.contains("delay_seconds"), "{rule}");
    };
    let create = async |run_at: &str| {
        server.post("/tasks").json(&json!({"task_type": "t", "run_at": run_at})).send().await
    };
    refused(&create(&far).await.problem(422, "validation_failed"), &json!(["body", "run_at"]));
    create(&near).await.ok();
    create("2001-01-01T00:00:00Z").await.ok();
    let batch = json!({"tasks": [{"task_type": "t"}, {"task_type": "t", "run_at": far}]});
    let answer = server.post("/tasks/batch").json(&batch).send().await.ok();
    assert!(answer["results"][0]["task"].is_object(), "{answer:#}");
    refused(&answer["results"][1]["problem"], &json!(["body", "tasks", 1, "run_at"]));
    let change = async |run_at: &str| server.put(&edit).json(&json!({"run_at": run_at})).send().await;
    refused(&change(&far).await.problem(422, "validation_failed"), &json!(["body", "run_at"]));
    let run = async |run_at: &str| server.post(&execute).json(&json!({"run_at": run_at})).send().await;
    refused(&run(&far).await.problem(422, "validation_failed"), &json!(["body", "run_at"]));
    assert_eq!(server.task(id_of(&task)).await["run_at"], json!(null), "a refused call changes nothing");
    change(&near).await.ok();
    run(&near).await.ok();
    // Dates for the owner are no delays.
    server.create(json!({"task_type": "t", "due_date": "2099-01-01T00:00:00Z"})).await;
    // A task for another user is refused as that.
    let foreign = json!({"task_type": "t", "user_id": "b", "run_at": far});
    server.post("/tasks").user("a").json(&foreign).send().await.problem(403, "forbidden");
}
