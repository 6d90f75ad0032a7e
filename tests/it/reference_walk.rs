//! Calls to two servers on one database, and what the contract makes of each.

mod owner;

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, unique_type};
use uuid::Uuid;

use crate::reference_task::{Edit, HOUR, Task, Verb, shown};
use crate::verbs::{STRANGE_TOKEN, id, ids, tasks, token, with};

/// How many of the latest claims with an id are repeated: a task remembers the ids of its latest eight.
const REPEATABLE: usize = 4;
/// Of a claim, in seconds: longer than any test.
const LEASE: u32 = 86_400;

/// A call; tasks, tokens and claims are those that the sequence has got so far, counted round and round.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Create {
        priority: u8,
        delayed: bool,
        max_attempts: u8,
    },
    ClaimNext {
        limit: usize,
        has_id: bool,
    },
    /// A claim with an id, once more.
    ClaimAgain(usize),
    Claim(usize),
    /// A claim of one task, of which nothing more is heard.
    ClaimAndDrop(usize),
    Settle(usize, Verb),
    /// All in one call.
    SettleMany([(usize, Verb); 3]),
    Heartbeat {
        token: usize,
        progress: Option<u8>,
    },
    StrangeToken {
        task: usize,
        verb: Verb,
    },
    Cancel(usize),
    Execute(usize),
    Edit(usize, Edit),
    Delete {
        task: usize,
        force: bool,
    },
    /// The lease of one of those that are held.
    RunOut(usize),
    /// By one whose lease ran out.
    CompleteLate(usize),
}

struct Token {
    text: String,
    task: usize,
    /// How it was spent, and the receipt for it.
    spent: Option<(Verb, Value)>,
}

/// A claim with an id.
struct Claim {
    body: Value,
    limit: usize,
    /// What it brought.
    tokens: Vec<usize>,
}

type Outcome = Result<(), TestCaseError>;

/// What came back for one task: a status code, and the body.
type Said = (u16, Value);

fn said(answer: &HttpAnswer) -> Said {
    (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
}

fn is_refused((status, problem): &Said, code: &str, task: &Task) -> Outcome {
    prop_assert_eq!(*status, 409, "{} is expected of {}", code, problem);
    prop_assert_eq!(&problem["code"], code, "{}", problem);
    prop_assert_eq!(&problem["current_status"], task.status, "{}", problem);
    prop_assert!(code != "lease_lost" || problem["attempt"] == task.attempt, "{}", problem);
    Ok(())
}

fn is_gone((status, problem): &Said) -> Outcome {
    prop_assert_eq!((*status, &problem["code"]), (404, &json!("task_not_found")), "{}", problem);
    Ok(())
}

fn is_receipt((status, receipt): &Said, task: &Task) -> Outcome {
    prop_assert_eq!(*status, 200, "{}", receipt);
    // A time that has passed may stay.
    prop_assert!(receipt["run_at"].is_string() || task.status != "scheduled", "{}", receipt);
    let mut receipt = receipt.clone();
    receipt.as_object_mut().unwrap().remove("run_at");
    prop_assert_eq!(receipt, task.receipt());
    Ok(())
}

/// Two servers, and the model that goes along.
pub(crate) struct Walk<'a> {
    servers: &'a [TestServer; 2],
    /// The one that this call goes to.
    at: usize,
    is_swept: bool,
    /// One server alone makes tasks ready: it keeps the order.
    is_ordered: bool,
    queue: String,
    tasks: Vec<Task>,
    tokens: Vec<Token>,
    claims: Vec<Claim>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(servers: &'a [TestServer; 2], is_swept: bool, is_ordered: bool) -> Self {
        let (tasks, tokens, claims) = (Vec::new(), Vec::new(), Vec::new());
        Self { servers, at: 0, is_swept, is_ordered, queue: unique_type(), tasks, tokens, claims }
    }

    pub(crate) async fn step(&mut self, at: usize, call: Call) -> Outcome {
        self.at = at;
        let (tasks, tokens, claims) = (self.tasks.len(), self.tokens.len(), self.claims.len());
        match call {
            Call::Create { priority, delayed, max_attempts } => {
                self.create(priority, delayed, max_attempts).await?;
            }
            Call::ClaimNext { limit, has_id } => self.claim_next(limit, has_id).await?,
            Call::ClaimAgain(claim) if claims > 0 => {
                self.claim_again(claims - 1 - claim % claims.min(REPEATABLE)).await?;
            }
            Call::Settle(token, verb) if tokens > 0 => self.settle(token % tokens, verb).await?,
            Call::SettleMany(outcomes) if tokens > 0 => {
                self.settle_many(outcomes.map(|(token, verb)| (token % tokens, verb))).await?;
            }
            Call::Heartbeat { token, progress } if tokens > 0 => {
                self.heartbeat(token % tokens, progress).await?;
            }
            Call::Claim(task) if tasks > 0 => self.claim(task % tasks).await?,
            Call::StrangeToken { task, verb } if tasks > 0 => {
                let task = task % tasks;
                let answer = self.report(task, STRANGE_TOKEN, verb).await;
                if self.tasks[task].is_deleted {
                    is_gone(&answer)?;
                } else {
                    is_refused(&answer, "lease_lost", &self.tasks[task])?;
                }
            }
            Call::Cancel(task) if tasks > 0 => self.cancel(task % tasks).await?,
            Call::Execute(task) if tasks > 0 => self.execute(task % tasks).await?,
            Call::Edit(task, edit) if tasks > 0 => self.edit(task % tasks, edit).await?,
            Call::Delete { task, force } if tasks > 0 => self.delete(task % tasks, force).await?,
            Call::ClaimAndDrop(task) if tasks > 0 => {
                self.claim(task % tasks).await?;
                if self.tokens.len() > tokens {
                    self.run_out(task % tasks).await;
                }
            }
            Call::RunOut(nth) => {
                if let Some(task) = self.nth(nth, |task| task.holder) {
                    self.run_out(task).await;
                }
            }
            Call::CompleteLate(nth) => {
                let late = self.nth(nth, |task| if task.is_overdue { task.holder } else { task.lost });
                if let Some(task) = late {
                    let token = self.tasks[task].holder.or(self.tasks[task].lost).expect("one that is late");
                    self.settle(token, Verb::Complete).await?;
                }
            }
            _ => {}
        }
        // As the other server has it.
        let reader = &self.servers[1 - self.at];
        for task in &self.tasks {
            let answer = said(&reader.get(&format!("/tasks/{}", task.id)).send().await);
            if task.is_deleted {
                is_gone(&answer)?;
            } else {
                prop_assert_eq!(shown(&answer.1), task.shown(), "after {:?}", call);
            }
        }
        Ok(())
    }

    fn server(&self) -> &TestServer {
        &self.servers[self.at]
    }

    /// One of the tasks that have what is asked for, counted round and round.
    fn nth(&self, nth: usize, asked: impl Fn(&Task) -> Option<usize>) -> Option<usize> {
        let has = |task: &Task| !task.is_deleted && asked(task).is_some();
        let found: Vec<_> = (0..self.tasks.len()).filter(|place| has(&self.tasks[*place])).collect();
        found.get(nth % found.len().max(1)).copied()
    }

    async fn post(&self, task: usize, verb: &str, body: Value) -> Said {
        let path = format!("/tasks/{}/{verb}", self.tasks[task].id);
        said(&self.server().post(&path).json(&body).send().await)
    }

    async fn report(&self, task: usize, token: &str, verb: Verb) -> Said {
        let (name, more) = verb.call();
        self.post(task, name, with(json!({"lease_token": token}), more)).await
    }

    async fn create(&mut self, priority: u8, delayed: bool, max_attempts: u8) -> Outcome {
        let mut fields = json!({"task_type": self.queue, "priority": priority, "max_attempts": max_attempts});
        if delayed {
            fields["delay_seconds"] = HOUR.into();
        }
        let task = self.server().create(fields).await;
        let id = task["id"].as_str().unwrap();
        self.tasks.push(Task::new(id, priority, delayed, max_attempts));
        Ok(())
    }

    /// What is ready: the highest priority first, then the oldest.
    fn ready(&self) -> Vec<usize> {
        let is_ready =
            |place: &usize| self.tasks[*place].status == "pending" && !self.tasks[*place].is_deleted;
        let mut ready: Vec<_> = (0..self.tasks.len()).filter(is_ready).collect();
        ready.sort_by_key(|place| (100 - self.tasks[*place].priority, *place));
        ready
    }

    /// Whether a worker was lost with it before: it comes alone.
    fn is_suspect(&self, place: usize) -> bool {
        self.tasks[place].losses > 0
    }

    async fn claim_next(&mut self, limit: usize, has_id: bool) -> Outcome {
        let mut body = json!({
            "task_types": [self.queue], "worker_id": "w1", "limit": limit, "lease_seconds": LEASE,
        });
        if has_id {
            body["claim_id"] = json!(Uuid::now_v7());
        }
        let tokens = self.take(&body, limit).await?;
        if has_id {
            self.claims.push(Claim { body, limit, tokens });
        }
        Ok(())
    }

    /// A claim that was not answered with anything yet.
    async fn take(&mut self, body: &Value, limit: usize) -> Result<Vec<usize>, TestCaseError> {
        let ready = self.ready();
        let answer = self.server().post("/tasks/claim").json(body).send().await.ok();
        let given = ids(&answer);
        let place = |id: &&str| ready.iter().copied().find(|place| self.tasks[*place].id == **id);
        let places: Vec<_> = given.iter().filter_map(place).collect();
        let first = if self.is_ordered { ready.first() } else { places.first() };
        let expected: Vec<_> = match first {
            Some(first) if self.is_suspect(*first) => vec![*first],
            _ => ready.into_iter().filter(|place| !self.is_suspect(*place)).take(limit).collect(),
        };
        if self.is_ordered {
            prop_assert_eq!(&places, &expected, "in claim order");
        }
        // Several servers keep the order only nearly.
        prop_assert_eq!((places.len(), given.len()), (expected.len(), expected.len()), "ready, and as many");
        prop_assert!(given.iter().collect::<HashSet<_>>().len() == given.len(), "each once");
        let is_alone = places.len() == 1 || !places.iter().any(|place| self.is_suspect(*place));
        prop_assert!(is_alone, "who lost a worker comes alone");
        let begun = self.tokens.len();
        for (task, given) in places.into_iter().zip(tasks(&answer)) {
            self.leased(task, given);
        }
        Ok((begun..self.tokens.len()).collect())
    }

    /// The same tasks and tokens, as far as they are held; an empty answer is not remembered.
    async fn claim_again(&mut self, place: usize) -> Outcome {
        let Claim { body, limit, tokens } = &self.claims[place];
        let (body, limit) = (body.clone(), *limit);
        if tokens.is_empty() {
            self.claims[place].tokens = self.take(&body, limit).await?;
            return Ok(());
        }
        let held = |token: &&usize| {
            let task = &self.tasks[self.tokens[**token].task];
            task.holder == Some(**token) && !task.is_deleted
        };
        let lease = |token: &usize| {
            let Token { text, task, .. } = &self.tokens[*token];
            (&*self.tasks[*task].id, &**text)
        };
        let mut leases: Vec<_> = tokens.iter().filter(held).map(lease).collect();
        leases.sort_unstable();
        let answer = self.server().post("/tasks/claim").json(&body).send().await.ok();
        let mut given: Vec<_> = tasks(&answer).iter().map(|task| (id(task), token(task))).collect();
        given.sort_unstable();
        prop_assert_eq!(given, leases, "the same again");
        Ok(())
    }

    async fn claim(&mut self, task: usize) -> Outcome {
        let answer = self.post(task, "claim", json!({"worker_id": "w2", "lease_seconds": LEASE})).await;
        if self.tasks[task].is_deleted {
            return is_gone(&answer);
        }
        if self.tasks[task].status == "pending" {
            prop_assert_eq!(answer.0, 200, "{}", answer.1);
            self.leased(task, &answer.1);
            return Ok(());
        }
        is_refused(&answer, "task_not_claimable", &self.tasks[task])
    }

    fn leased(&mut self, task: usize, answer: &Value) {
        self.tasks[task].claim(self.tokens.len());
        self.tokens.push(Token { text: token(answer).to_owned(), task, spent: None });
    }

    async fn settle(&mut self, place: usize, verb: Verb) -> Outcome {
        let token = &self.tokens[place];
        let answer = self.report(token.task, &token.text, verb).await;
        self.settled(place, verb, &answer)
    }

    async fn settle_many(&mut self, outcomes: [(usize, Verb); 3]) -> Outcome {
        let outcome = |(place, verb): (usize, Verb)| {
            let token: &Token = &self.tokens[place];
            let base = json!({"id": self.tasks[token.task].id, "lease_token": token.text});
            with(with(base, json!({"outcome": verb.outcome()})), verb.call().1)
        };
        let body = json!({"outcomes": outcomes.map(outcome)});
        let answer = self.server().post("/tasks/outcomes").json(&body).send().await.ok();
        for (n, (place, verb)) in outcomes.into_iter().enumerate() {
            let result = &answer["results"][n];
            let status = result["problem"]["status"].as_u64().unwrap_or(200);
            let status = u16::try_from(status).expect("a status code");
            let said = (status, result.get("receipt").unwrap_or(&result["problem"]).clone());
            self.settled(place, verb, &said)?;
        }
        Ok(())
    }

    fn settled(&mut self, place: usize, verb: Verb, answer: &Said) -> Outcome {
        let token = &mut self.tokens[place];
        let task = &mut self.tasks[token.task];
        if task.is_deleted {
            return is_gone(answer);
        }
        if task.holder == Some(place) || task.takes_late(place, verb) {
            task.settle(verb);
            is_receipt(answer, task)?;
            token.spent = Some((verb, answer.1.clone()));
            return Ok(());
        }
        match &token.spent {
            // Only the verb counts.
            Some((before, receipt)) if std::mem::discriminant(before) == std::mem::discriminant(&verb) => {
                prop_assert_eq!(answer, &(200, receipt.clone()), "the same receipt");
                Ok(())
            }
            _ => is_refused(answer, "lease_lost", task),
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
        if task.is_deleted {
            return is_gone(&answer);
        }
        if task.holder != Some(place) {
            return is_refused(&answer, "lease_lost", task);
        }
        task.is_overdue = false;
        if progress.is_some() && progress != task.progress {
            task.progress = progress;
            task.version += 1;
        }
        prop_assert_eq!(answer.0, 200, "{}", answer.1);
        prop_assert_eq!(&answer.1["cancel_requested"], task.cancel_requested);
        Ok(())
    }
}
