//! Random calls, and what the contract says of each: a small model of the lifecycle goes along with the server, and
//! after every call both must say the same. What fails is made as short as it can be and printed.
//!
//! Time does not pass in here: leases are long, and what is put off is put off for an hour.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use task_repo_tests::{Answer, TestServer, unique_type};

use crate::reference_task::{Edit, HOUR, Task, Verb, shown};
use crate::verbs::{STRANGE_TOKEN, with};

/// How many sequences of calls are tried: about ten seconds.
const SEQUENCES: u32 = 24;
/// Calls of one sequence, at most.
const CALLS: usize = 60;

/// A call; tasks and tokens are those that the sequence has got so far, counted round and round.
#[derive(Debug, Clone, Copy)]
enum Call {
    Create { priority: u8, delayed: bool, max_attempts: u8 },
    ClaimNext,
    Claim(usize),
    Settle(usize, Verb),
    Heartbeat { token: usize, progress: Option<u8> },
    StrangeToken { task: usize, verb: Verb },
    Cancel(usize),
    Execute(usize),
    Edit(usize, Edit),
}

fn verbs() -> impl Strategy<Value = Verb> {
    prop_oneof![
        2 => Just(Verb::Complete),
        3 => any::<bool>().prop_map(|never| Verb::Fail { never }),
        3 => any::<bool>().prop_map(|delayed| Verb::Release { delayed }),
        1 => Just(Verb::Acknowledge),
    ]
}

fn calls() -> impl Strategy<Value = Call> {
    let edits =
        prop_oneof![Just(Edit::Priority), Just(Edit::MaxAttempts), Just(Edit::Later), Just(Edit::Now)];
    // Few tasks, so that much happens to each.
    prop_oneof![
        2 => (0..=100_u8, prop::bool::weighted(0.2), 1..=3_u8)
            .prop_map(|(priority, delayed, max_attempts)| Call::Create { priority, delayed, max_attempts }),
        4 => Just(Call::ClaimNext),
        2 => (0..8_usize).prop_map(Call::Claim),
        8 => (0..16_usize, verbs()).prop_map(|(token, verb)| Call::Settle(token, verb)),
        2 => (0..16_usize, prop::option::of(0..=2_u8))
            .prop_map(|(token, progress)| Call::Heartbeat { token, progress }),
        1 => (0..8_usize, verbs()).prop_map(|(task, verb)| Call::StrangeToken { task, verb }),
        2 => (0..8_usize).prop_map(Call::Cancel),
        3 => (0..8_usize).prop_map(Call::Execute),
        3 => (0..8_usize, edits).prop_map(|(task, edit)| Call::Edit(task, edit)),
    ]
}

struct Token {
    text: String,
    task: usize,
    /// How it was spent, and the receipt for it.
    spent: Option<(Verb, Value)>,
}

type Outcome = Result<(), TestCaseError>;

fn is_refused(answer: &Answer, code: &str, task: &Task) -> Outcome {
    prop_assert_eq!(answer.status, 409, "{} is expected of {:?}", code, answer);
    let problem = answer.json();
    prop_assert_eq!(&problem["code"], code, "{:?}", answer);
    prop_assert_eq!(&problem["current_status"], task.status, "{:?}", answer);
    prop_assert!(code != "lease_lost" || problem["attempt"] == task.attempt, "{:?}", answer);
    Ok(())
}

fn is_receipt(answer: &Answer, task: &Task) -> Outcome {
    prop_assert_eq!(answer.status, 200, "{:?}", answer);
    let mut receipt = answer.json();
    // A time that has passed may stay.
    prop_assert!(receipt["run_at"].is_string() || task.status != "scheduled", "{:?}", answer);
    receipt.as_object_mut().unwrap().remove("run_at");
    prop_assert_eq!(receipt, task.receipt());
    Ok(())
}

/// A server, and the model that goes along.
struct Walk<'a> {
    server: &'a TestServer,
    queue: String,
    tasks: Vec<Task>,
    tokens: Vec<Token>,
}

impl Walk<'_> {
    async fn step(&mut self, call: Call) -> Outcome {
        let (tasks, tokens) = (self.tasks.len(), self.tokens.len());
        match call {
            Call::Create { priority, delayed, max_attempts } => {
                self.create(priority, delayed, max_attempts).await?;
            }
            Call::ClaimNext => self.claim_next().await?,
            Call::Settle(token, verb) if tokens > 0 => self.settle(token % tokens, verb).await?,
            Call::Heartbeat { token, progress } if tokens > 0 => {
                self.heartbeat(token % tokens, progress).await?;
            }
            Call::Claim(task) if tasks > 0 => self.claim(task % tasks).await?,
            Call::StrangeToken { task, verb } if tasks > 0 => {
                let task = task % tasks;
                let answer = self.report(task, STRANGE_TOKEN, verb).await;
                is_refused(&answer, "lease_lost", &self.tasks[task])?;
            }
            Call::Cancel(task) if tasks > 0 => self.cancel(task % tasks).await?,
            Call::Execute(task) if tasks > 0 => self.execute(task % tasks).await?,
            Call::Edit(task, edit) if tasks > 0 => self.edit(task % tasks, edit).await?,
            _ => {}
        }
        for task in &self.tasks {
            let answer = self.server.get(&format!("/tasks/{}", task.id)).send().await;
            prop_assert_eq!(shown(&answer.json()), task.shown(), "after {:?}", call);
        }
        Ok(())
    }

    async fn post(&self, task: usize, verb: &str, body: Value) -> Answer {
        self.server.post(&format!("/tasks/{}/{verb}", self.tasks[task].id)).json(&body).send().await
    }

    async fn report(&self, task: usize, token: &str, verb: Verb) -> Answer {
        let (name, more) = match verb {
            Verb::Complete => ("complete", json!({})),
            Verb::Acknowledge => ("cancel", json!({})),
            Verb::Release { delayed } => ("release", json!({"delay_seconds": u32::from(delayed) * HOUR})),
            Verb::Fail { never } => {
                let retry = if never { "never" } else { "auto" };
                (
                    "fail",
                    json!({"error": {"message": "it broke"}, "retry": retry, "retry_after_seconds": HOUR}),
                )
            }
        };
        self.post(task, name, with(json!({"lease_token": token}), more)).await
    }

    async fn create(&mut self, priority: u8, delayed: bool, max_attempts: u8) -> Outcome {
        let mut fields = json!({"task_type": self.queue, "priority": priority, "max_attempts": max_attempts});
        if delayed {
            fields["delay_seconds"] = HOUR.into();
        }
        let task = self.server.create(fields).await;
        let id = task["id"].as_str().unwrap();
        self.tasks.push(Task::new(id, priority, delayed, max_attempts));
        Ok(())
    }

    /// The highest priority first, then the oldest.
    async fn claim_next(&mut self) -> Outcome {
        let body = json!({"task_types": [self.queue], "worker_id": "w1"});
        let answer = self.server.post("/tasks/claim").json(&body).send().await.ok();
        let ready = self.tasks.iter().enumerate().filter(|(_, task)| task.status == "pending");
        let next = ready.min_by_key(|(place, task)| (100 - task.priority, *place)).map(|(place, _)| place);
        match next {
            None => prop_assert_eq!(&answer["tasks"], &json!([])),
            Some(next) => {
                prop_assert_eq!(&answer["tasks"][0]["id"], &self.tasks[next].id, "in claim order");
                self.leased(next, &answer["tasks"][0]);
            }
        }
        Ok(())
    }

    async fn claim(&mut self, task: usize) -> Outcome {
        let answer = self.post(task, "claim", json!({"worker_id": "w2"})).await;
        if self.tasks[task].status == "pending" {
            prop_assert_eq!(answer.status, 200, "{:?}", answer);
            self.leased(task, &answer.json());
            return Ok(());
        }
        is_refused(&answer, "task_not_claimable", &self.tasks[task])
    }

    fn leased(&mut self, task: usize, answer: &Value) {
        let text = answer["lease"]["token"].as_str().unwrap().to_owned();
        self.tasks[task].claim(self.tokens.len());
        self.tokens.push(Token { text, task, spent: None });
    }

    async fn settle(&mut self, place: usize, verb: Verb) -> Outcome {
        let token = &self.tokens[place];
        let task = token.task;
        let answer = self.report(task, &token.text, verb).await;
        if self.tasks[task].holder == Some(place) {
            self.tasks[task].settle(verb);
            is_receipt(&answer, &self.tasks[task])?;
            self.tokens[place].spent = Some((verb, answer.json()));
            return Ok(());
        }
        match &token.spent {
            // Only the verb counts.
            Some((before, receipt)) if std::mem::discriminant(before) == std::mem::discriminant(&verb) => {
                prop_assert_eq!(answer.status, 200, "{:?}", answer);
                prop_assert_eq!(&answer.json(), receipt, "the same receipt");
                Ok(())
            }
            _ => is_refused(&answer, "lease_lost", &self.tasks[task]),
        }
    }

    async fn heartbeat(&mut self, place: usize, progress: Option<u8>) -> Outcome {
        let Token { text, task, .. } = &self.tokens[place];
        let mut body = json!({"lease_token": text});
        if let Some(progress) = progress {
            body["progress"] = json!({"text": progress.to_string()});
        }
        let answer = self.post(*task, "heartbeat", body).await;
        let task = &mut self.tasks[*task];
        if task.holder != Some(place) {
            return is_refused(&answer, "lease_lost", task);
        }
        if progress.is_some() && progress != task.progress {
            task.progress = progress;
            task.version += 1;
        }
        prop_assert_eq!(answer.status, 200, "{:?}", answer);
        prop_assert_eq!(&answer.json()["cancel_requested"], task.cancel_requested);
        Ok(())
    }

    async fn cancel(&mut self, place: usize) -> Outcome {
        let answer = self.post(place, "cancel", json!({})).await;
        let task = &mut self.tasks[place];
        match &task.cancelled {
            Some((status, receipt)) if *status == task.status => {
                prop_assert_eq!(&answer.json(), receipt, "the same receipt");
                return Ok(());
            }
            _ if ["completed", "failed"].contains(&task.status) => {
                return is_refused(&answer, "invalid_transition", task);
            }
            _ if task.status == "cancelled" => return is_receipt(&answer, task),
            _ => {}
        }
        task.cancel_requested = true;
        task.stand(if task.holder.is_some() { "processing" } else { "cancelled" }, None);
        is_receipt(&answer, task)?;
        task.cancelled = Some((task.status, answer.json()));
        Ok(())
    }

    async fn execute(&mut self, place: usize) -> Outcome {
        let answer = self.post(place, "execute", json!({})).await;
        let task = &mut self.tasks[place];
        if ["pending", "processing"].contains(&task.status) {
            return is_refused(&answer, "invalid_transition", task);
        }
        task.execute();
        is_receipt(&answer, task)
    }

    async fn edit(&mut self, place: usize, edit: Edit) -> Outcome {
        let task = &mut self.tasks[place];
        let path = format!("/tasks/{}", task.id);
        if ["pending", "scheduled"].contains(&task.status) {
            let body = task.edit(edit);
            let answer = self.server.put(&path).json(&body).send().await;
            prop_assert_eq!(answer.status, 200, "{:?}", answer);
            return Ok(());
        }
        let answer = self.server.put(&path).json(&json!({"priority": 1})).send().await;
        is_refused(&answer, "invalid_transition", task)
    }
}

#[test]
fn random_calls_do_what_the_contract_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(TestServer::start());
    let config =
        Config { cases: SEQUENCES, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(calls(), 1..CALLS), |calls| {
        runtime.block_on(async {
            let (tasks, tokens) = (Vec::new(), Vec::new());
            let mut walk = Walk { server: &server, queue: unique_type(), tasks, tokens };
            for call in calls {
                walk.step(call).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
