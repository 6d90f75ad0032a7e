//! What watchers are told of a version of a task. Pure.

use serde::Serialize;
use serde_json::{Value, json};
use task_repo_protocol::{Json, StreamEventType, StreamMessage, timestamp};

use crate::task::{AttemptEnding, AttemptStatus, MoveVerb, Status, TaskMove, ToldError};

/// Who is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Audience<'a> {
    /// Watchers of the task, and the result of its completion: JSON text as sent.
    OfTask(Option<&'a str>),
    /// Watchers of the tenant: where the result is must do.
    OfTenant,
}

/// A message about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) seq: i64,
    pub(super) event_type: StreamEventType,
    /// The JSON of its `data:` line, without line breaks.
    pub(super) json: String,
}

/// The messages that tell of a version: one, or two of a task that was created as claimed, or none.
pub(super) fn messages(it: &TaskMove, audience: Audience<'_>) -> Vec<Message> {
    let kinds = kinds(it);
    kinds.into_iter().map(|kind| message(it, kind, data(it, kind, audience))).collect()
}

/// What happened, by what the version brought rather than by its verb: a later release may have more verbs.
fn kinds(it: &TaskMove) -> Vec<StreamEventType> {
    use StreamEventType as Kind;
    let kind = match (&it.verb, &it.end) {
        (MoveVerb::Create, _) => {
            let started = it.start.as_ref().map(|_| Kind::TaskStarted);
            return [Kind::TaskCreated].into_iter().chain(started).collect();
        }
        (MoveVerb::Delete, _) => Kind::TaskDeleted,
        (_, Some(_)) if it.to == Status::Completed => Kind::TaskCompleted,
        (_, Some(_)) if it.to == Status::Failed => Kind::TaskFailed,
        _ if it.to == Status::Cancelled && it.from != Some(Status::Cancelled) => Kind::TaskCancelled,
        (_, Some(end)) => match end.status {
            AttemptStatus::Released => Kind::TaskReleased,
            AttemptStatus::Lost => Kind::TaskLost,
            _ => Kind::TaskRetrying,
        },
        (MoveVerb::Withdraw, None) if it.undone.is_some() => Kind::TaskReleased,
        (MoveVerb::Cancel, None) => Kind::TaskCancelRequested,
        _ if it.start.is_some() => Kind::TaskStarted,
        _ if it.progress.is_some() => Kind::ProgressUpdate,
        // Progress that a later one has replaced.
        (MoveVerb::Heartbeat, None) => return Vec::new(),
        _ => Kind::TaskUpdated,
    };
    vec![kind]
}

fn data(it: &TaskMove, kind: StreamEventType, audience: Audience<'_>) -> Json {
    use StreamEventType as Kind;
    let attempt = it.end.as_ref().map(|end| end.attempt).or(it.undone);
    let error = |end: &Option<AttemptEnding>| end.as_ref().and_then(|end| end.error.as_ref()).map(error);
    let data = match (kind, audience) {
        (Kind::TaskCompleted, Audience::OfTask(result)) => {
            return Json::known(result.unwrap_or("null").to_owned());
        }
        (Kind::TaskCompleted, Audience::OfTenant) => json!({"attempt": attempt, "result_id": it.result_id}),
        (Kind::TaskFailed, _) => {
            let reason = it.reason.map(task_repo_protocol::Reason::from);
            json!({"attempt": attempt, "reason": reason, "error": error(&it.end)})
        }
        (Kind::TaskRetrying, _) => {
            let run_at = it.run_at.as_ref().map(timestamp::format);
            json!({"attempt": attempt, "error": error(&it.end), "run_at": run_at})
        }
        (Kind::TaskReleased | Kind::TaskLost, _) => json!({"attempt": attempt}),
        (Kind::TaskStarted, _) => {
            let start = it.start.as_ref();
            let worker_id = start.and_then(|start| start.worker_id.as_ref());
            json!({"attempt": start.map(|start| start.attempt), "worker_id": worker_id})
        }
        (Kind::ProgressUpdate, _) => {
            let progress = it.progress.clone().unwrap_or_default();
            json!({"text": progress.text, "value": progress.value})
        }
        _ => json!({}),
    };
    text_of(&data)
}

fn error(told: &ToldError) -> Value {
    json!({"message": told.message, "code": told.code})
}

fn text_of(value: &Value) -> Json {
    Json::known(value.to_string())
}

fn message(it: &TaskMove, event_type: StreamEventType, data: Json) -> Message {
    let message = StreamMessage {
        event_type,
        task_id: it.task,
        task_type: it.task_type.clone(),
        seq: it.version.unsigned_abs(),
        timestamp: it.at,
        data,
    };
    Message { seq: it.version, event_type, json: in_one_line(&message) }
}

/// JSON text in one line. Between the tokens of a payload there may be line breaks, and nowhere else.
pub(super) fn in_one_line(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use task_repo_protocol::Uuid;

    use super::*;
    use crate::task::{AttemptStart, Created, ProgressRecord, Reason};

    fn told(verb: MoveVerb, from: Status, to: Status) -> TaskMove {
        TaskMove {
            task: Uuid::from_u128(1),
            version: 7,
            at: DateTime::from_timestamp_millis(1_700_000_000_000).expect("a time"),
            tenant: "default".to_owned(),
            task_type: "t".to_owned(),
            user_id: None,
            verb,
            from: Some(from),
            to,
            reason: None,
            fields: Vec::new(),
            created: None,
            start: None,
            end: None,
            undone: None,
            progress: None,
            run_at: None,
            result_id: None,
        }
    }

    fn ended(verb: MoveVerb, to: Status, status: AttemptStatus) -> TaskMove {
        let mut it = told(verb, Status::Processing, to);
        let error = (status == AttemptStatus::Failed)
            .then(|| ToldError { message: "it broke".to_owned(), code: Some("e".to_owned()) });
        it.end = Some(AttemptEnding {
            execution_id: Uuid::nil(),
            attempt: 2,
            status,
            started_at: it.at,
            waited_ms: None,
            error,
            usage: None,
            late: false,
            lost_at: None,
        });
        it
    }

    /// Type and data of each message, where the result is that text.
    fn shown(it: &TaskMove) -> Vec<(String, Value)> {
        let shown = messages(it, Audience::OfTask(Some("{\"a\":\r\n1e400}"))).into_iter().map(|message| {
            assert!(!message.json.contains('\n') && message.seq == 7);
            let data = message.json.split_once("\"data\":").expect("data").1.trim_end_matches('}');
            let data = serde_json::from_str(&format!("{data}}}")).unwrap_or_else(|_| Value::from(data));
            (message.event_type.to_string(), data)
        });
        shown.collect()
    }

    #[track_caller]
    fn tells(it: &TaskMove, expected: &[(&str, Value)]) {
        let expected: Vec<_> =
            expected.iter().map(|(kind, data)| ((*kind).to_owned(), data.clone())).collect();
        assert_eq!(shown(it), expected, "{:?} to {:?}", it.verb, it.to);
    }

    #[test]
    fn every_move_is_told_as_the_contract_says() {
        use Status::{Cancelled, Failed, Pending, Processing, Scheduled};
        let mut created = told(MoveVerb::Create, Pending, Processing);
        created.from = None;
        created.created = Some(Created { name: None, priority: 50 });
        tells(&TaskMove { to: Pending, ..created.clone() }, &[("task_created", json!({}))]);
        created.start = Some(AttemptStart { attempt: 1, worker_id: Some("w".to_owned()) });
        let started = ("task_started", json!({"attempt": 1, "worker_id": "w"}));
        tells(&created, &[("task_created", json!({})), started.clone()]);
        let claimed = TaskMove { start: created.start.clone(), ..told(MoveVerb::Claim, Pending, Processing) };
        tells(&claimed, &[started]);
        let own = Some(AttemptStart { attempt: 1, worker_id: None });
        let begun = TaskMove { start: own, ..told(MoveVerb::Begin, Pending, Processing) };
        tells(&begun, &[("task_started", json!({"attempt": 1, "worker_id": null}))]);
        for (verb, from) in
            [(MoveVerb::Edit, Scheduled), (MoveVerb::Promote, Scheduled), (MoveVerb::Execute, Failed)]
        {
            tells(&told(verb, from, Pending), &[("task_updated", json!({}))]);
        }
        let mut progress = told(MoveVerb::Heartbeat, Processing, Processing);
        tells(&progress, &[]);
        progress.progress = Some(ProgressRecord { value: Some(0.7), text: None });
        tells(&progress, &[("progress_update", json!({"text": null, "value": 0.7}))]);
        let asked = told(MoveVerb::Cancel, Processing, Processing);
        tells(&asked, &[("task_cancel_requested", json!({}))]);
        let mut undone = told(MoveVerb::Withdraw, Processing, Pending);
        undone.undone = Some(3);
        tells(&undone, &[("task_released", json!({"attempt": 3}))]);
        let mut retrying = ended(MoveVerb::Fail, Scheduled, AttemptStatus::Failed);
        retrying.run_at = Some(retrying.at);
        let error = json!({"message": "it broke", "code": "e"});
        let data = json!({"attempt": 2, "error": error, "run_at": "2023-11-14T22:13:20.000Z"});
        tells(&retrying, &[("task_retrying", data)]);
        let mut failed = ended(MoveVerb::Fail, Failed, AttemptStatus::Failed);
        failed.reason = Some(Reason::Exhausted);
        tells(&failed, &[("task_failed", json!({"attempt": 2, "reason": "exhausted", "error": error}))]);
        let mut lost = ended(MoveVerb::Expire, Failed, AttemptStatus::Lost);
        lost.reason = Some(Reason::Lost);
        tells(&lost, &[("task_failed", json!({"attempt": 2, "reason": "lost", "error": null}))]);
        let lost = ended(MoveVerb::Expire, Pending, AttemptStatus::Lost);
        tells(&lost, &[("task_lost", json!({"attempt": 2}))]);
        let released = ended(MoveVerb::Release, Pending, AttemptStatus::Released);
        tells(&released, &[("task_released", json!({"attempt": 2}))]);
        for it in [
            ended(MoveVerb::Release, Cancelled, AttemptStatus::Released),
            ended(MoveVerb::Fail, Cancelled, AttemptStatus::Failed),
            ended(MoveVerb::AcknowledgeCancel, Cancelled, AttemptStatus::Cancelled),
            told(MoveVerb::Cancel, Pending, Cancelled),
        ] {
            tells(&it, &[("task_cancelled", json!({}))]);
        }
        tells(&ended(MoveVerb::Delete, Cancelled, AttemptStatus::Cancelled), &[("task_deleted", json!({}))]);
        tells(&told(MoveVerb::Delete, Status::Completed, Status::Completed), &[("task_deleted", json!({}))]);
    }

    #[test]
    fn a_result_stays_as_it_was_sent_but_for_line_breaks_between_its_tokens() {
        let mut completed = ended(MoveVerb::Complete, Status::Completed, AttemptStatus::Completed);
        completed.result_id = Some("r".to_owned());
        let result = "{\"b\" :\t1e400,\r\n\"a\": 12345678901234567890123}";
        let told = &messages(&completed, Audience::OfTask(Some(result)))[0];
        assert!(
            told.json.ends_with("\"data\":{\"b\" :\t1e400,  \"a\": 12345678901234567890123}}"),
            "{}",
            told.json
        );
        assert!(messages(&completed, Audience::OfTask(None))[0].json.ends_with("\"data\":null}"));
        let told = &messages(&completed, Audience::OfTenant)[0];
        assert!(told.json.ends_with("\"data\":{\"attempt\":2,\"result_id\":\"r\"}}"), "{}", told.json);
    }
}
