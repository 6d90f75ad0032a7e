//! New tasks, one or many, and repeats of the same call.

use std::collections::HashMap;
use std::sync::Arc;

use task_repo_protocol::{NewTask, Uuid};

use super::draft::{Draft, draft, draft_again, limits};
use super::failure::Failure;
use super::idempotency::{IDEMPOTENCY_KEY_REMEMBERED, IdempotencyKey};
use super::service::TaskService;
use crate::access::Caller;
use crate::fault_injection::{self, InjectedFault};
use crate::json_value;
use crate::store::{NotInserted, StoreError};
use crate::task::{Status, TaskRecord};

/// The result of a create.
#[derive(Debug)]
pub struct Created {
    /// Each task as it was created, in order.
    pub tasks: Vec<Result<TaskRecord, Failure>>,
    /// The request that was answered the same before, if one was.
    pub replayed: Option<String>,
}

impl TaskService {
    /// Creates tasks; a bad one does not stop the others.
    ///
    /// # Errors
    /// When the idempotency key was used with another body, or the database does not say how it was used.
    pub async fn create(
        &self,
        caller: &Caller,
        tasks: Vec<NewTask>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created, Failure> {
        let (scope, now) = (&caller.scope, self.store.clock().now());
        let drafts: Vec<_> = tasks
            .iter()
            .enumerate()
            .map(|(place, task)| {
                let mut draft = draft(
                    scope,
                    task,
                    Uuid::now_v7(),
                    now,
                    limits(task, self.types.limits(&scope.tenant, &task.task_type)),
                )?;
                if let Some(key) = &idempotency
                    && !fault_injection::is_injected(InjectedFault::ForgottenKeys)
                {
                    draft.idempotency_key = Some(key.at(scope, place));
                    draft.idempotency_body = Some(key.body.to_vec());
                    draft.idempotency_request = Some(key.request_id.clone());
                    draft.idempotency_limits = Some(draft.limits().into());
                }
                Ok(Arc::new(draft))
            })
            .collect();
        let mut drafts: Vec<Draft> = drafts;
        let _let_in = self.admit(caller, &mut drafts).await?;
        match idempotency {
            None => {
                let inserted = self.insert(caller, &drafts).await.into_iter();
                let tasks =
                    inserted.zip(drafts).map(|(done, draft)| done.and(draft.map(Arc::unwrap_or_clone)));
                Ok(Created { tasks: tasks.collect(), replayed: None })
            }
            Some(key) => self.create_once(caller, &tasks, drafts, &key).await,
        }
    }

    async fn create_once(
        &self,
        caller: &Caller,
        tasks: &[NewTask],
        mut drafts: Vec<Draft>,
        key: &IdempotencyKey,
    ) -> Result<Created, Failure> {
        let Some(accepted) = drafts.iter().find_map(|draft| draft.as_ref().ok()) else {
            let tasks = drafts.into_iter().map(|draft| draft.map(Arc::unwrap_or_clone)).collect();
            return Ok(Created { tasks, replayed: None });
        };
        // The first place is the anchor: whoever gets it in first owns the key, and the others follow. Where the first
        // task is refused, what holds the place is no task, and answers for none.
        let refused = if drafts[0].is_err() {
            let holder = Ok(Arc::new(key.holder(&caller.scope, accepted)));
            std::mem::replace(&mut drafts[0], holder).err()
        } else {
            None
        };
        let rest = drafts.split_off(1);
        let mut answer = self.insert_once(caller, drafts, key).await?;
        let replayed = |answer: &[(Draft, bool)]| {
            answer.iter().find_map(|(stored, replayed)| match stored {
                Ok(task) if *replayed => task.idempotency_request.clone(),
                _ => None,
            })
        };
        let mut first_request = replayed(&answer);
        let is_held = refused.is_some();
        if let (Some(refused), Some(first)) = (refused, answer.first_mut()) {
            if let (Err(failure), _) = first {
                return Err(failure.clone());
            }
            *first = (Err(refused), false);
        }
        if !rest.is_empty() {
            let is_written = answer.iter().any(|(_, replayed)| !replayed);
            let rest = self.insert_once(caller, rest, key).await;
            answer.extend(rest.map_err(|failure| beside_written(failure, is_written))?);
        }
        if is_held {
            // A server of 0.1.0 may have made the others, without a holder.
            first_request = first_request.or_else(|| replayed(&answer));
        }
        let now_as_then = answer.into_iter().zip(tasks).map(|((stored, replayed), task)| {
            let stored = Arc::unwrap_or_clone(stored?);
            if replayed { draft_again(&caller.scope, task, &stored) } else { Ok(stored) }
        });
        Ok(Created { tasks: now_as_then.collect(), replayed: first_request })
    }

    /// Inserts drafts that carry an idempotency key; says of each whether it was there before.
    async fn insert_once(
        &self,
        caller: &Caller,
        drafts: Vec<Draft>,
        key: &IdempotencyKey,
    ) -> Result<Vec<(Draft, bool)>, Failure> {
        let hashes: Vec<_> =
            drafts.iter().map(|draft| draft.as_ref().ok()?.idempotency_key.clone()).collect();
        let inserted = self.insert(caller, &drafts).await;
        if !inserted.contains(&Err(Failure::IdempotencyKeyReused { id: None })) {
            let created = inserted.into_iter().zip(drafts).map(|(done, draft)| (done.and(draft), false));
            return Ok(created.collect());
        }
        let may_be_written =
            |done: &_| matches!(done, Ok(()) | Err(Failure::Store(StoreError::OutcomeUnknown)));
        let is_written = inserted.iter().any(may_be_written);
        let before = self.before(caller, &drafts, &hashes).await;
        let mut before = before.map_err(|failure| beside_written(failure, is_written))?;
        let is_other = |task: &&TaskRecord| task.idempotency_body.as_deref() != Some(&key.body[..]);
        if let Some(task) = before.values().filter(is_other).min_by_key(|task| task.id) {
            return Err(Failure::IdempotencyKeyReused { id: task.is_in(&caller.scope).then_some(task.id) });
        }
        let mut answer = Vec::with_capacity(inserted.len());
        for ((done, draft), hash) in inserted.into_iter().zip(drafts).zip(hashes) {
            let found = hash.and_then(|hash| before.remove(&hash));
            answer.push(match (done, found) {
                (Err(Failure::IdempotencyKeyReused { id: None }), Some(task)) => (Ok(Arc::new(task)), true),
                // The key had had its day and has just been forgotten.
                (Err(Failure::IdempotencyKeyReused { id: None }), None) => {
                    // Another repetition may be faster: then this one has its task.
                    let again = Box::pin(self.insert_once(caller, vec![draft], key)).await;
                    let again = again.map_err(|failure| beside_written(failure, is_written))?.pop();
                    again.unwrap_or((Err(Failure::Store(StoreError::Unavailable)), false))
                }
                (done, _) => (done.and(draft), false),
            });
        }
        Ok(answer)
    }

    /// The tasks that the keys of these drafts made within the time keys are remembered; older ones lose their key, and so
    /// does what only held the place of a task that this caller may create. Of their payloads they have those that the
    /// drafts have too.
    async fn before(
        &self,
        caller: &Caller,
        drafts: &[Draft],
        hashes: &[Option<Vec<u8>>],
    ) -> Result<HashMap<Vec<u8>, TaskRecord>, Failure> {
        let since = self.store.clock().now() - IDEMPOTENCY_KEY_REMEMBERED;
        let by_key: HashMap<_, _> = hashes
            .iter()
            .zip(drafts)
            .filter_map(|(hash, draft)| Some((hash.as_ref()?, draft.as_ref().ok()?)))
            .collect();
        let strip = |stored: &mut TaskRecord| {
            let draft = stored.idempotency_key.as_ref().and_then(|key| by_key.get(key));
            let draft = draft.map(|draft| [&draft.request, &draft.template, &draft.metadata]);
            let of_stored = [&mut stored.request, &mut stored.template, &mut stored.metadata];
            for (place, text) in of_stored.into_iter().enumerate() {
                let wanted = draft.and_then(|draft| draft[place].as_deref());
                text.take_if(|text| wanted.is_none_or(|wanted| !json_value::same(wanted, text)));
            }
        };
        let keys = by_key.keys().map(|key| (*key).clone()).collect();
        let mut before =
            self.store.by_idempotency_keys(&caller.scope.tenant, keys, strip, caller.deadline.at()).await?;
        let is_task = |hash: &Vec<u8>| by_key.get(hash).is_some_and(|draft| !draft.only_holds_a_key());
        let makes_way = |hash: &Vec<u8>, stored: &TaskRecord| {
            let is_same =
                by_key.get(hash).is_some_and(|draft| draft.idempotency_body == stored.idempotency_body);
            stored.created_at < since || stored.only_holds_a_key() && is_same && is_task(hash)
        };
        let old: Vec<_> =
            before.iter().filter(|(hash, task)| makes_way(hash, task)).map(|(_, task)| task.id).collect();
        if !old.is_empty() {
            self.store.forget_idempotency_keys(&caller.scope.tenant, &old, caller.deadline.at()).await?;
            before.retain(|hash, task| !makes_way(hash, task));
        }
        Ok(before)
    }

    /// Inserts the drafts that are tasks; a key that is taken is `IdempotencyKeyReused`.
    async fn insert(&self, caller: &Caller, drafts: &[Draft]) -> Vec<Result<(), Failure>> {
        if let [Ok(draft)] = drafts
            && draft.status == Status::Pending
            && let Some(inserted) = self.dispatch.hand_off(draft, caller.deadline.at()).await
        {
            return vec![inserted.map_err(Failure::from)];
        }
        let tasks: Vec<_> = drafts.iter().filter_map(|draft| draft.as_ref().ok().cloned()).collect();
        let mut results =
            if tasks.is_empty() { Vec::new() } else { self.store.insert(&tasks, caller.deadline.at()).await }
                .into_iter();
        drafts
            .iter()
            .map(|draft| {
                draft.as_ref().map_err(Clone::clone)?;
                results
                    .next()
                    .unwrap_or(Err(NotInserted::Store(StoreError::Unavailable)))
                    .map_err(Failure::from)
            })
            .collect()
    }
}

impl From<NotInserted> for Failure {
    fn from(refused: NotInserted) -> Self {
        match refused {
            NotInserted::Duplicate => Self::IdempotencyKeyReused { id: None },
            NotInserted::Store(error) => Self::Store(error),
        }
    }
}

/// Why a call failed of which something is written already: it cannot say that nothing was applied.
fn beside_written(failure: Failure, is_written: bool) -> Failure {
    match failure {
        Failure::Store(
            StoreError::Unavailable | StoreError::Overloaded | StoreError::Unreadable | StoreError::Unindexed,
        ) if is_written => Failure::Store(StoreError::OutcomeUnknown),
        failure => failure,
    }
}
