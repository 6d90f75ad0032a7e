//! Payloads come back exactly as sent, compared as text: a parsed value would hide what is lost.

use serde_json::{Value, json};
use task_repo_tests::{
    HttpAnswer, TestServer, as_shown_later, assert_problem, encode, id_of, raw, unique_type,
};

const MEBIBYTE: usize = 1 << 20;

/// JSON texts that a parser, a database or a careless copy would change.
const TEXTS: &[&str] = &[
    "null",
    "true",
    "0",
    "-0",
    "1.0",
    "1E+2",
    "1e400",
    "-1.5e-400",
    "\"\"",
    "[]",
    "{}",
    "[ ]",
    "{ }",
    "[1,  2,\t3]",
    "18446744073709551616",
    "-123456789012345678901234567890123456789012345678901234567890",
    "3.14159265358979323846264338327950288419716939937510",
    "9007199254740993",
    "0.10",
    "1.0000000000000000000000",
    r#"{"z":1,"a":2,"m":{"y":1,"b":2}}"#,
    r#"{ "spaced" :  [ 1 ,2 ] }"#,
    "{\n\t\"a\":\r\n 1\n}",
    r#"{"$set":{"a.b":1},"$where":"x","":{"":0},".":1,"$":2,"a.$[]":3}"#,
    r#"{"a":1,"a":2,"a":{"a":3}}"#,
    r#""\u00e9 \u0041 \/ \" \\ \b\f\n\r\t""#,
    "\"é 😀 \u{feff}\u{2028}\u{7f}\"",
    r#""\ud83d\ude00""#,
    r#""\u0000""#,
    r#"{"\u0000":"\u0000","a\u0000b":[{"\u0000":null}]}"#,
    r#""$oid""#,
    r#"{"$oid":"0123456789abcdef01234567"}"#,
    r#"{"$numberLong":"1","$date":{"$numberLong":"0"}}"#,
    r#"{"__proto__":{},"constructor":null}"#,
    r#"{"$serde_json::private::RawValue":"1"}"#,
    r#"{"$serde_json::private::Number":"1"}"#,
];

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

/// A JSON string whose text has that many bytes.
fn text_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

fn path_of(answer: &HttpAnswer) -> String {
    format!("/tasks/{}", answer.raw("id").trim_matches('"'))
}

async fn post(server: &TestServer, path: &str, body: String) -> HttpAnswer {
    server.post(path).json_text(body).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_comes_back_exactly_as_sent() {
    let server = TestServer::start().await;
    for text in TEXTS {
        let task_type = unique_type();
        let template = format!(r#"{{"service_type":"s","parameters":{text}}}"#);
        let body = format!(r#"{{"task_type":"{task_type}","request":{text},"template":{template}}}"#);
        let created = post(&server, "/tasks", body).await;
        let got = server.get(&path_of(created.success())).send().await;
        let query = [("task_type", task_type.as_str()), ("include", "payload")];
        let listed = server.get("/tasks").query(&query).send().await;
        let claim = json!({"task_types": [task_type], "worker_id": "w"});
        let claimed = server.post("/tasks/claim").json(&claim).send().await;
        for (answer, place) in [(created, ""), (got, ""), (listed, "tasks.0."), (claimed, "tasks.0.")] {
            assert_eq!(answer.raw(&format!("{place}request")), *text, "{answer:?}");
            assert_eq!(answer.raw(&format!("{place}template.parameters")), *text, "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_comes_back_exactly_from_edits_and_batches() {
    let server = TestServer::start().await;
    let tasks =
        TEXTS.iter().map(|text| format!(r#"{{"task_type":"b","request":{text}}}"#)).collect::<Vec<_>>();
    let batch = post(&server, "/tasks/batch", format!(r#"{{"tasks":[{}]}}"#, tasks.join(","))).await;
    for (n, text) in TEXTS.iter().enumerate() {
        let task = batch.success().raw(&format!("results.{n}.task"));
        assert_eq!(raw(&task, "request"), *text);
        let path = format!("/tasks/{}", raw(&task, "id").trim_matches('"'));
        assert_eq!(server.get(&path).send().await.raw("request"), *text);
    }
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    for text in TEXTS {
        let edited = server.put(&path).json_text(format!(r#"{{"request":{text}}}"#)).send().await;
        assert_eq!(edited.raw("request"), *text, "{edited:?}");
        assert_eq!(server.get(&path).send().await.raw("request"), *text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_comes_back_exactly_as_sent() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let result_ids = ["status", "claim", "batch", "executions", "$ne", "a.b", "é 😀", "a/b", "%41"];
    for (n, text) in TEXTS.iter().enumerate() {
        let task = server.create(json!({"task_type": task_type})).await;
        let path = format!("/tasks/{}", id_of(&task));
        let claimed = server.claim(&task_type).await;
        let token = &claimed["lease"]["token"];
        let result_id = result_ids.get(n).copied().unwrap_or("other");
        let fields = format!(r#""lease_token":{token},"result":{text},"result_id":"{result_id}""#);
        let answer = if n % 2 == 0 {
            post(&server, &format!("{path}/complete"), format!("{{{fields}}}")).await
        } else {
            let id = &task["id"];
            post(
                &server,
                "/tasks/outcomes",
                format!(r#"{{"outcomes":[{{"id":{id},"outcome":"completed",{fields}}}]}}"#),
            )
            .await
        };
        answer.success();
        let done = server.get(&path).send().await;
        assert_eq!(done.raw("status"), "\"completed\"", "{answer:?}");
        assert_eq!(done.raw("result"), *text);
        let listed = server.get("/tasks?status=completed&limit=1&include=payload").send().await;
        assert_eq!(listed.raw("tasks.0.result"), *text);
        if n < result_ids.len() {
            let found = server.get(&format!("/tasks/by-result/{}", encode(result_id))).send().await;
            assert_eq!(found.raw("result"), *text, "{found:?}");
            assert_eq!(found.raw("id"), task["id"].to_string());
        }
    }
    for text in TEXTS {
        let task = server.create(json!({})).await;
        let path = format!("/tasks/{}", id_of(&task));
        for body in
            [r#"{"status":"processing"}"#.to_owned(), format!(r#"{{"status":"completed","result":{text}}}"#)]
        {
            server.put(&format!("{path}/status")).json_text(body).send().await.success();
        }
        assert_eq!(server.get(&path).send().await.raw("result"), *text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_ends_at_32_levels() {
    let server = TestServer::start().await;
    let create =
        async |fields: String| post(&server, "/tasks", format!(r#"{{"task_type":"t",{fields}}}"#)).await;
    let object = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for (depth, fits) in [(1, true), (31, true), (32, true), (33, false)] {
        let fields = [
            format!(r#""request":{}"#, nested(depth)),
            format!(r#""request":{}"#, object(depth)),
            format!(r#""request":[1,"]]",{}]"#, nested(depth - 1)),
            format!(r#""template":{{"service_type":"s","parameters":{}}}"#, nested(depth)),
            format!(r#""metadata":{}"#, object(depth)),
            format!(r#""metadata":{{"a":{}}}"#, nested(depth - 1)),
        ];
        for field in fields {
            let answer = create(field.clone()).await;
            if fits {
                assert_eq!(answer.status, 201, "{depth}: {field} {answer:?}");
            } else {
                answer.problem(422, "validation_failed");
            }
        }
    }
    let task_type = unique_type();
    server.create(json!({"task_type": task_type})).await;
    let claimed = server.claim(&task_type).await;
    let path = format!("/tasks/{}", id_of(&claimed));
    let complete = async |result: String| {
        let body = format!(r#"{{"lease_token":{},"result":{result}}}"#, claimed["lease"]["token"]);
        post(&server, &format!("{path}/complete"), body).await
    };
    complete(nested(33)).await.problem(422, "validation_failed");
    complete(nested(32)).await.ok();
    assert_eq!(server.get(&path).send().await.raw("result"), nested(32));
    create(format!(r#""request":"{}""#, "[{".repeat(99))).await.ok();
    create(format!(r#""request":[{}[]]"#, "[],".repeat(99))).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mebibyte_fits_and_one_byte_more_does_not() {
    let server = TestServer::start().await;
    let create =
        async |fields: String| post(&server, "/tasks", format!(r#"{{"task_type":"t",{fields}}}"#)).await;
    let exact = create(format!(r#""request":{}"#, text_of(MEBIBYTE))).await;
    assert_eq!(exact.raw("request").len(), MEBIBYTE);
    let got = server.get(&format!("/tasks/{}", id_of(&exact.json()))).send().await;
    assert_eq!(got.raw("request"), text_of(MEBIBYTE));
    let beyond = create(format!(r#""request":{}"#, text_of(MEBIBYTE + 1))).await;
    beyond.problem(413, "payload_too_large");

    // Bytes count, not characters; and names and descriptions do not.
    let wide = |characters: usize| format!(r#""request":"{}""#, "é".repeat(characters));
    create(format!(r#"{},"description":"{}""#, wide(MEBIBYTE / 2 - 1), "d".repeat(4096))).await.ok();
    create(wide(MEBIBYTE / 2)).await.problem(413, "payload_too_large");

    // Request, template and metadata together.
    let (template, metadata) = (r#"{"service_type":"s","parameters":[1]}"#, r#"{"a":"b"}"#);
    let rest = MEBIBYTE - template.len() - metadata.len();
    let together =
        |bytes| format!(r#""template":{template},"metadata":{metadata},"request":{}"#, text_of(bytes));
    create(together(rest)).await.ok();
    create(together(rest + 1)).await.problem(413, "payload_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_or_result_that_passes_a_mebibyte_is_refused() {
    let server = TestServer::start().await;
    let metadata = r#"{"a":"b"}"#;
    let half = MEBIBYTE / 2;
    let task_type = unique_type();
    let body = format!(r#"{{"task_type":"{task_type}","metadata":{metadata},"request":{}}}"#, text_of(half));
    let task = as_shown_later(post(&server, "/tasks", body).await.ok());
    let path = format!("/tasks/{}", id_of(&task));
    let put = async |bytes: usize| {
        server.put(&path).json_text(format!(r#"{{"request":{}}}"#, text_of(bytes))).send().await
    };
    put(MEBIBYTE - metadata.len() + 1).await.problem(413, "payload_too_large");
    assert_eq!(server.task(id_of(&task)).await, task, "a refused edit changes nothing");
    put(MEBIBYTE - metadata.len()).await.ok();
    let more = r#"{"a":"bc"}"#;
    let edit = server.put(&path).json_text(format!(r#"{{"metadata":{more}}}"#)).send().await;
    edit.problem(413, "payload_too_large");
    put(half).await.ok();

    let claimed = server.claim(&task_type).await;
    let room = MEBIBYTE - metadata.len() - half;
    let complete = async |bytes: usize| {
        let body = format!(r#"{{"lease_token":{},"result":{}}}"#, claimed["lease"]["token"], text_of(bytes));
        post(&server, &format!("{path}/complete"), body).await
    };
    complete(room + 1).await.problem(413, "payload_too_large");
    let outcome = format!(
        r#"{{"outcomes":[{{"id":{},"lease_token":{},"outcome":"completed","result":{}}}]}}"#,
        task["id"],
        claimed["lease"]["token"],
        text_of(room + 1)
    );
    let outcome = post(&server, "/tasks/outcomes", outcome).await.ok();
    assert_problem(&outcome["results"][0]["problem"], 413, "payload_too_large");
    assert_eq!(server.task(id_of(&task)).await["status"], "processing");
    complete(room).await.ok();
    assert_eq!(server.get(&path).send().await.raw("result").len(), room);

    let own = server.create(json!({"request": "x".repeat(half - 2)})).await;
    let status = format!("/tasks/{}/status", id_of(&own));
    let set = async |body: String| server.put(&status).json_text(body).send().await;
    set(r#"{"status":"processing"}"#.to_owned()).await.ok();
    let beyond = set(format!(r#"{{"status":"completed","result":{}}}"#, text_of(half + 1))).await;
    beyond.problem(413, "payload_too_large");
    assert_eq!(server.task(id_of(&own)).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_an_object_of_16_kib_and_never_changed_in_silence() {
    let server = TestServer::start().await;
    let create = async |metadata: &str| {
        post(&server, "/tasks", format!(r#"{{"task_type":"t","metadata":{metadata}}}"#)).await
    };
    let sized = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - r#"{"a":""}"#.len()));
    create(&sized(16_384)).await.ok();
    create(&sized(16_385)).await.problem(422, "validation_failed");
    for wrong in ["[]", "[{}]", "1", "\"{}\"", "true"] {
        create(wrong).await.problem(422, "validation_failed");
    }
    for wrong in
        ["18446744073709551616", "-9223372036854775809", "1e309", "-1e309", "123456789012345678901234567890"]
    {
        create(&format!(r#"{{"a":[{wrong}]}}"#)).await.problem(422, "validation_failed");
    }
    let kept = [
        r#"{"max":18446744073709551615,"min":-9223372036854775808,"big":9007199254740993}"#,
        r#"{"a":1e308,"b":0.1,"c":-2.5}"#,
        r#"{"$set":{"a.b":1,"$x":[{"$y":null}]},".":true,"":"","$":"$x"}"#,
        r#"{"z":1,"a":{"m":"é 😀"}}"#,
        r#"{"$oid":"0123456789abcdef01234567","$numberLong":"1"}"#,
        r#"{"_id":1,"ts":{"$date":{"$numberLong":"0"}}}"#,
        r#"{"2147483648":2147483648,"i":-2147483649,"d":0.30000000000000004}"#,
    ];
    for text in kept {
        let created = create(text).await;
        let sent: Value = serde_json::from_str(text).unwrap();
        assert_eq!(created.ok()["metadata"], sent);
        let path = format!("/tasks/{}", id_of(&created.json()));
        assert_eq!(server.get(&path).send().await.ok()["metadata"], sent);
        let listed = server.get("/tasks?status=any&limit=1").send().await;
        assert_eq!(listed.ok()["tasks"][0]["metadata"], sent);
    }
    // The contract leaves open whether these are taken; taken, they are kept.
    for text in [r#"{"a\u0000b":1}"#, r#"{"a":"\u0000"}"#, r#"{"\u0000":{}}"#] {
        let answer = create(text).await;
        if answer.status == 422 {
            answer.problem(422, "validation_failed");
        } else {
            let path = format!("/tasks/{}", id_of(&answer.ok()));
            assert_eq!(
                server.get(&path).send().await.ok()["metadata"],
                serde_json::from_str::<Value>(text).unwrap()
            );
        }
    }
    let digits = "0.12345678901234567890123456789";
    let answer = create(&format!(r#"{{"a":{digits}}}"#)).await;
    if answer.status != 422 {
        let path = format!("/tasks/{}", id_of(&answer.ok()));
        assert_eq!(
            server.get(&path).send().await.raw("metadata.a"),
            digits,
            "digits were dropped in silence"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_with_nul_characters_is_kept_or_refused() {
    let server = TestServer::start().await;
    let fields = [
        r#""name":"a\u0000b""#,
        r#""description":"\u0000""#,
        r#""tags":{"a":"\u0000"}"#,
        r#""tags":{"\u0000":"a"}"#,
        r#""tags":["a\u0000"]"#,
        r#""template":{"service_type":"\u0000"}"#,
    ];
    for field in fields {
        let answer = post(&server, "/tasks", format!(r#"{{"task_type":"t",{field}}}"#)).await;
        if answer.status == 422 {
            answer.problem(422, "validation_failed");
            continue;
        }
        let sent: Value = serde_json::from_str(&format!("{{{field}}}")).unwrap();
        let task = server.task(id_of(&answer.ok())).await;
        for (name, value) in sent.as_object().unwrap() {
            if name == "tags" && value.is_array() {
                assert_eq!(task["tags"], json!({"a\u{0}": ""}));
            } else if name == "template" {
                assert_eq!(task["template"]["service_type"], value["service_type"]);
            } else {
                assert_eq!(task[name], *value);
            }
        }
    }
}
