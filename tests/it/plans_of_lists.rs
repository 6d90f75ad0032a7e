//! How many tasks the database looks at for a page of a list, for every combination of filters, in a tenant with many.

use std::collections::BTreeSet;

use bson::{Binary, Bson, DateTime, Document, doc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use task_repo_client::{ListTasks, Status};
use task_repo_tests::{HttpCall, TestServer};
use uuid::Uuid;

use crate::profiler;

const TENANT: &str = "many";
/// Pending tasks, and as many completed ones, that are of the common kind.
const CROWD: usize = 10_500;
const STATUSES: [&str; 6] = ["pending", "scheduled", "processing", "completed", "failed", "cancelled"];
/// How many tasks that somebody works on are sorted.
const MOST_SORTED: usize = 5_000;
/// What a page may look at.
const MOST_LOOKED_AT: i64 = 10_000;
const LIMIT: i64 = 3;

/// A task as the server stores it.
struct Kind<'a> {
    status: &'a str,
    name: &'a str,
    priority: i32,
    created_at: i64,
}

fn stored(model: &Document, kind: &Kind) -> Document {
    let mut task = model.clone();
    let created_at = DateTime::from_millis(kind.created_at);
    task.extend(doc! {
        "_id": Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: Uuid::now_v7().as_bytes().to_vec() },
        "status": kind.status, "task_type": kind.name, "user_id": kind.name, "tags": [format!("kind:{}", kind.name)],
        "priority": kind.priority, "created_at": created_at, "updated_at": created_at, "ready_at": created_at,
    });
    if ["completed", "failed", "cancelled"].contains(&kind.status) {
        task.insert("completed_at", created_at);
    }
    if kind.status == "processing" {
        task.insert("lease_until", DateTime::from_millis(kind.created_at + 86_400_000_000));
    }
    task
}

/// A tenant with a crowd, and behind it, in every order, one rare task in each status. Answers the ids of the rare ones.
async fn populate(server: &TestServer) -> Vec<String> {
    let model = json!({"task_type": "common", "user_id": "common", "tags": {"kind": "common"}});
    server.post("/tasks").tenant(TENANT).json(&model).send().await.ok();
    let tasks = server.database().collection::<Document>("tasks");
    let model =
        tasks.find_one_and_delete(doc! {"tenant": TENANT}).await.expect("an answer").expect("the model");
    let now = DateTime::now().timestamp_millis();
    let rare: Vec<_> = (0..)
        .zip(STATUSES)
        .map(|(n, status)| {
            stored(&model, &Kind { status, name: "rare", priority: 0, created_at: now - 86_400_000 - n })
        })
        .collect();
    let crowd = (0..).take(2 * CROWD).map(|n: i64| {
        let status = if n % 2 == 0 { "pending" } else { "completed" };
        // Many are of the same time, as those of a batch are.
        stored(&model, &Kind { status, name: "common", priority: 50, created_at: now - n / 1000 })
    });
    let id = |task: &Document| match task.get("_id") {
        Some(Bson::Binary(id)) => Uuid::from_slice(&id.bytes).expect("an id").to_string(),
        other => panic!("{other:?} is no id"),
    };
    let ids = rare.iter().map(id).collect();
    let all: Vec<_> = rare.into_iter().chain(crowd).collect();
    for some in all.chunks(5_000) {
        tasks.insert_many(some).await.expect("tasks");
    }
    ids
}

/// Filters as parameters, and what is known of them.
#[derive(Clone)]
struct Filter {
    parameters: Vec<(&'static str, String)>,
    /// Only rare tasks are behind it.
    is_rare: bool,
}

fn filter(parameters: &[(&'static str, &str)]) -> Filter {
    let is_rare = parameters.len() == 1 && parameters[0].1.ends_with("rare");
    Filter {
        parameters: parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        is_rare,
    }
}

impl Filter {
    fn is_set(&self) -> bool {
        !self.parameters.is_empty()
    }

    fn names(&self, start: &str) -> bool {
        self.parameters.iter().any(|(name, _)| name.starts_with(start))
    }
}

/// Whether an index leads to what is asked for, so that little more is looked at than is answered.
fn is_served(status: &Filter, types: &Filter, user: &Filter, tag: &Filter, more: &Filter) -> bool {
    if more.names("id") {
        return true;
    }
    let first = [user, tag, types].into_iter().find(|filter| filter.is_set());
    if first.is_some_and(|filter| filter.is_rare) {
        return true;
    }
    let in_claim_order = match status.parameters.as_slice() {
        [] => !more.names("completed"),
        [(_, status)] => status == "pending",
        _ => false,
    };
    // Behind the index of users tags and types are looked at, behind that of tags other types.
    let is_mixed = [user, tag, types].into_iter().filter(|filter| filter.is_set()).count() > 1;
    let is_any = !in_claim_order && status.parameters.iter().all(|(_, status)| status == "any");
    let by_time = if in_claim_order { more.is_set() } else { more.names("completed") };
    !is_mixed && (is_any || in_claim_order) && !by_time
}

/// Sends a call, and counts what the database looked at for it: documents, keys.
async fn looked_at(server: &TestServer, call: HttpCall) -> (u16, i64, i64) {
    let profile = server.database().collection::<Document>("system.profile");
    let before = profile.estimated_document_count().await.expect("a count");
    let status = call.send().await.status;
    let new = profile.estimated_document_count().await.expect("a count") - before;
    let all = profile.find(doc! {}).sort(doc! {"$natural": -1}).limit(i64::try_from(new).expect("few"));
    let entries: Vec<Document> = all.await.expect("the profile").try_collect().await.expect("the profile");
    // What loops do beside names no tenant, or is about what they have counted.
    let ours = entries.iter().filter(|entry| {
        entry.get_str("ns").is_ok_and(|ns| ns.split('.').next_back() == Some("tasks"))
            && entry.to_string().contains(&format!("\"tenant\": \"{TENANT}\""))
    });
    let number = |entry: &Document, field: &str| match entry.get(field) {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        _ => 0,
    };
    let (documents, keys): (Vec<_>, Vec<_>) =
        ours.map(|entry| (number(entry, "docsExamined"), number(entry, "keysExamined"))).unzip();
    (status, documents.iter().sum(), keys.iter().sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_looks_at_no_more_than_ten_thousand_tasks_whatever_the_filters() {
    let server = TestServer::start().await;
    let rare = populate(&server).await;
    profiler::start(&server).await;
    let statuses = [
        filter(&[]),
        filter(&[("status", "any")]),
        filter(&[("status", "failed")]),
        filter(&[("status", "processing")]),
        filter(&[("status", "pending"), ("status", "processing"), ("status", "scheduled")]),
    ];
    let types = [
        filter(&[]),
        filter(&[("task_type", "rare")]),
        filter(&[("task_type", "common"), ("task_type", "rare")]),
    ];
    let users = [filter(&[]), filter(&[("user_id", "rare")]), filter(&[("user_id", "common")])];
    let tags = [filter(&[]), filter(&[("tag", "kind:rare")]), filter(&[("tag", "kind:common")])];
    let mores = [
        filter(&[]),
        filter(&[("id", &rare[0]), ("id", &rare[4]), ("id", "none")]),
        filter(&[("completed_after", "2001-01-01T00:00:00Z"), ("completed_before", "2001-01-02T00:00:00Z")]),
        filter(&[("created_before", "2001-01-01T00:00:00Z")]),
        filter(&[("created_after", "2001-01-01T00:00:00Z")]),
    ];
    let mut objections = Vec::new();
    let mut count = 0;
    for status in &statuses {
        for (task_type, user) in types.iter().flat_map(|one| users.iter().map(move |other| (one, other))) {
            for (tag, more) in tags.iter().flat_map(|one| mores.iter().map(move |other| (one, other))) {
                let parameters: Vec<_> = [status, task_type, user, tag, more]
                    .into_iter()
                    .flat_map(|filter| filter.parameters.iter().map(|(name, value)| (*name, value.as_str())))
                    .collect();
                let call = server.get("/tasks").tenant(TENANT).query(&parameters).query(&[("limit", "3")]);
                let (answer, documents, keys) = looked_at(&server, call).await;
                let is_served = is_served(status, task_type, user, tag, more);
                let most = if is_served { 10 * LIMIT } else { MOST_LOOKED_AT };
                count += 1;
                if answer != 200 || documents > most || keys > most + 2_000 {
                    objections.push(format!("{answer}: {documents} documents, {keys} keys: {parameters:?}"));
                }
            }
        }
    }
    assert!(objections.is_empty(), "{} of {count}:\n{}", objections.len(), objections.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_of_some_types_makes_the_database_look_at_no_more() {
    let server = TestServer::start().await;
    populate(&server).await;
    profiler::start(&server).await;
    let mut objections = Vec::new();
    for (allowed, is_rare) in [(json!(["rare"]), true), (json!(["common", "rare"]), false)] {
        let key = server.issue_key(&["viewer"], json!({"task_types": allowed, "tenant_id": TENANT})).await;
        for status in ["pending", "any", "failed", "processing"] {
            for filter in [vec![], vec![("user_id", "common")], vec![("tag", "kind:common")]] {
                let call = server.get("/tasks").key(&key).query(&[("status", status), ("limit", "3")]);
                let (answer, documents, _) = looked_at(&server, call.query(&filter)).await;
                let is_served = filter.is_empty() && (is_rare || ["pending", "any"].contains(&status));
                if answer != 200 || documents > if is_served { 10 * LIMIT } else { MOST_LOOKED_AT } {
                    objections
                        .push(format!("{answer}: {documents} documents: {allowed} {status} {filter:?}"));
                }
            }
        }
    }
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

/// The ids of all pages of a list, and whether one of them had no task and yet another behind it.
async fn all_pages(server: &TestServer, query: &[(&str, &str)]) -> (Vec<String>, bool) {
    let (mut found, mut some_page_was_empty) = (Vec::new(), false);
    let mut cursor: Option<String> = None;
    for page in 0.. {
        assert!(page < 10, "{query:?}: the pages never end");
        let call = server.get("/tasks").tenant(TENANT).query(query).query(&[("limit", "2")]);
        let call = cursor.iter().fold(call, |call, cursor| call.query(&[("cursor", cursor)]));
        let page = call.send().await.ok();
        let ids: Vec<_> =
            crate::verbs::tasks(&page).iter().map(|task| crate::verbs::id(task).to_owned()).collect();
        some_page_was_empty |= ids.is_empty() && !page["next_cursor"].is_null();
        found.extend(ids);
        match &page["next_cursor"] {
            Value::Null => break,
            next => cursor = next.as_str().map(str::to_owned),
        }
    }
    (found, some_page_was_empty)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_on_until_there_is_no_cursor_finds_what_is_rare() {
    let server = TestServer::start().await;
    let rare = populate(&server).await;
    let of = |statuses: &[&str]| -> BTreeSet<String> {
        STATUSES
            .iter()
            .zip(&rare)
            .filter(|(status, _)| statuses.contains(status))
            .map(|(_, id)| id.clone())
            .collect()
    };
    let old = "2030-01-01T00:00:00Z";
    let day_ago = (chrono::Utc::now() - chrono::TimeDelta::hours(20)).to_rfc3339();
    let queries = [
        (vec![("status", "failed")], of(&["failed"])),
        (
            vec![("status", "failed"), ("status", "cancelled"), ("user_id", "rare")],
            of(&["failed", "cancelled"]),
        ),
        (vec![("status", "processing")], of(&["processing"])),
        (vec![("status", "any"), ("user_id", "common"), ("task_type", "rare")], of(&[])),
        (vec![("status", "scheduled"), ("created_before", old)], of(&["scheduled"])),
        (vec![("status", "pending"), ("created_before", day_ago.as_str())], of(&["pending"])),
        (vec![("completed_before", day_ago.as_str())], of(&["completed", "failed", "cancelled"])),
        (vec![("completed_before", day_ago.as_str()), ("status", "failed")], of(&["failed"])),
        (vec![("completed_after", old)], of(&[])),
        (vec![("completed_before", old), ("status", "pending")], of(&[])),
        (vec![("task_type", "common"), ("task_type", "rare"), ("status", "cancelled")], of(&["cancelled"])),
    ];
    let mut had_an_empty_page = false;
    for (query, expected) in queries {
        let (found, some_page_was_empty) = all_pages(&server, &query).await;
        had_an_empty_page |= some_page_was_empty;
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{query:?}");
        assert_eq!(found.len(), expected.len(), "{query:?}: a row came twice");
    }
    assert!(had_an_empty_page, "a page without a task leads to the next");

    // The client goes past empty pages by itself.
    let client = server.client().for_tenant(TENANT).expect("a client");
    let failed = client.task_stream(ListTasks::new().status(Status::Failed).limit(2));
    let failed: Vec<_> = failed.try_collect().await.expect("pages");
    assert_eq!(failed.iter().map(|task| task.id.to_string()).collect::<BTreeSet<_>>(), of(&["failed"]));

    // Another tenant works on more tasks than are sorted. Then the tasks of this one are looked at, page by page.
    let tasks = server.database().collection::<Document>("tasks");
    let model = tasks.find_one(doc! {"tenant": TENANT, "status": "processing"}).await;
    let model = model.expect("an answer").expect("the rare one");
    let created_at = DateTime::now().timestamp_millis();
    let kind = Kind { status: "processing", name: "common", priority: 50, created_at };
    let theirs = (0..=MOST_SORTED).map(|_| {
        let mut task = stored(&model, &kind);
        task.insert("tenant", "others");
        task
    });
    tasks.insert_many(theirs.collect::<Vec<_>>()).await.expect("tasks");
    let (found, some_page_was_empty) = all_pages(&server, &[("status", "processing")]).await;
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), of(&["processing"]));
    assert!(some_page_was_empty, "the rare one is behind more tasks than a page looks at");
}
