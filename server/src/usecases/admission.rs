//! What a task type lets in: requests that fit its schema, and only so many tasks that wait.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use task_repo_protocol::{TaskTypeSettings, Violation};
use tokio::time::timeout_at;

use super::draft::Draft;
use super::failure::Failure;
use super::idempotency::IDEMPOTENCY_KEY_REMEMBERED;
use super::pending::{LetIn, TypeKey};
use super::request_schemas::{MAX_FAULTS, MUCH_WORK};
use super::service::TaskService;
use crate::access::Caller;
use crate::json_schema::{JsonSchema, SchemaFault};
use crate::store::StoreError;
use crate::task::TaskRecord;

impl TaskService {
    /// Refuses drafts that their type does not let in: because of their request, or because so many wait already. One that was
    /// created before is answered again whatever its type says by now.
    pub(super) async fn admit(&self, caller: &Caller, drafts: &mut [Draft]) -> Result<Vec<LetIn>, Failure> {
        let (mut let_in, mut refused) = (Vec::new(), Vec::new());
        for (place, draft) in drafts.iter().enumerate() {
            let Ok(draft) = draft else { continue };
            let fits = self.fits_schema(caller, &draft.task_type, draft.request.as_deref()).await;
            let admitted = match fits {
                Ok(()) => self.let_in(caller, draft).await,
                Err(failure) => Err(failure),
            };
            match admitted {
                Ok(admitted) => let_in.extend(admitted),
                Err(failure) => refused.push((place, draft.idempotency_key.clone(), failure)),
            }
        }
        let keys: HashSet<_> = refused.iter().filter_map(|(_, key, _)| key.clone()).collect();
        if !keys.is_empty() {
            // Boxed: else the future of each create is as large as this look-up (docs/decisions/0009).
            let created = Box::pin(self.created_by(caller, keys)).await?;
            refused.retain(|(_, key, _)| key.as_ref().is_none_or(|key| !created.contains(key)));
        }
        for (place, _, failure) in refused {
            drafts[place] = Err(failure);
        }
        Ok(let_in)
    }

    /// Those of these keys that made a task within the time keys are remembered.
    async fn created_by(&self, caller: &Caller, keys: HashSet<Vec<u8>>) -> Result<HashSet<Vec<u8>>, Failure> {
        let since = self.store.clock().now() - IDEMPOTENCY_KEY_REMEMBERED;
        let strip = |stored: &mut TaskRecord| drop(stored.take_payload());
        let until = caller.deadline.at();
        let stored = self.store.by_idempotency_keys(&caller.scope.tenant, keys, strip, until).await?;
        let is_task = |task: &TaskRecord| task.created_at >= since && !task.only_holds_a_key();
        Ok(stored.into_iter().filter(|(_, task)| is_task(task)).map(|(key, _)| key).collect())
    }

    /// Checks the schema that settings hold, if they hold one. Inside: where it breaks which rule.
    ///
    /// # Errors
    /// When too many are being checked.
    pub async fn check_schema(
        &self,
        caller: &Caller,
        settings: &TaskTypeSettings,
    ) -> Result<Result<(), SchemaFault>, Failure> {
        let Some(schema) = settings.request_schema.clone() else { return Ok(Ok(())) };
        let compile = move || JsonSchema::compile(schema.as_str()).map(drop);
        Ok(self.schemas.beside(caller.deadline.at(), compile).await?)
    }

    /// Refuses a request that does not fit the schema of its type; none counts as `null`.
    ///
    /// # Errors
    /// When it does not fit, or the schema cannot be read.
    pub(super) async fn fits_schema(
        &self,
        caller: &Caller,
        task_type: &str,
        request: Option<&str>,
    ) -> Result<(), Failure> {
        let known = self.types.get(&caller.scope.tenant, task_type);
        let version = known.filter(|known| known.settings.as_ref().is_some_and(|it| it.has_schema));
        let Some(version) = version.map(|known| known.version) else { return Ok(()) };
        // Boxed: else the future of each create is as large as this look-up (docs/decisions/0009).
        let Some(schema) = Box::pin(self.schema(caller, task_type, version)).await? else { return Ok(()) };
        let misses = if schema.work(request.map_or(4, str::len)) <= MUCH_WORK {
            // Between the tasks of a batch others have their turn.
            tokio::task::yield_now().await;
            schema.misses(request, MAX_FAULTS)
        } else {
            let request = request.map(str::to_owned);
            let check = move || schema.misses(request.as_deref(), MAX_FAULTS);
            self.schemas.beside(caller.deadline.at(), check).await?
        };
        if misses.is_empty() {
            return Ok(());
        }
        let placed = |miss: Violation| Violation {
            loc: std::iter::once("request".into()).chain(miss.loc).collect(),
            ..miss
        };
        Err(Failure::RequestUnfit(misses.into_iter().map(placed).collect()))
    }

    /// The schema of a type, compiled. `None`: it has none any more.
    async fn schema(
        &self,
        caller: &Caller,
        task_type: &str,
        version: i64,
    ) -> Result<Option<Arc<JsonSchema>>, Failure> {
        let (tenant, until) = (Arc::clone(&caller.scope.tenant), caller.deadline.at());
        let key = (Arc::clone(&tenant), task_type.to_owned(), version);
        let read = async {
            let record = self.store.task_type(&tenant, task_type, until).await?;
            let given = record.and_then(|record| record.settings).map(|settings| settings.given);
            let Some(given) = given else { return Ok(None) };
            let settings: serde_json::Value = serde_json::from_str(&given).unwrap_or_default();
            let Some(schema) = settings.get("request_schema").map(ToString::to_string) else {
                return Ok(None);
            };
            let compiled = self.schemas.beside(until, move || JsonSchema::compile(&schema)).await?;
            if let Err(fault) = &compiled {
                // A later release may take what this one does not.
                tracing::warn!(
                    task_type,
                    rule = fault.rule,
                    "a schema is not checked: it cannot be compiled"
                );
            }
            Ok(compiled.ok().map(Arc::new))
        };
        // The caller that reads for many may go away; then the next one begins anew.
        let reading = timeout_at(until.into(), self.schemas.compiled.try_get_with(key, read));
        let found = reading.await.map_err(|_| StoreError::Unavailable)?;
        found.map_err(|error: Arc<StoreError>| Failure::Store(*error))
    }

    /// Lets a task in, unless so many of its type wait already. `None`: its type has no limit.
    async fn let_in(&self, caller: &Caller, draft: &TaskRecord) -> Result<Option<LetIn>, Failure> {
        let known = self.types.get(&caller.scope.tenant, &draft.task_type);
        let limit = known.and_then(|known| known.settings.as_ref()?.max_pending);
        let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) else { return Ok(None) };
        let key = (Arc::clone(&caller.scope.tenant), draft.task_type.clone());
        let (is_old, is_to_be_read) = self.pending.age(&key);
        if is_old {
            // Boxed: else the future of each create is as large as this look-up (docs/decisions/0009).
            Box::pin(self.count_pending(&key, caller.deadline.at())).await?;
        } else if is_to_be_read {
            let (store, pending, key) = (self.store.clone(), Arc::clone(&self.pending), key.clone());
            self.background.spawn(async move {
                let (asked, until) = (Instant::now(), store.step_deadline());
                let counted = store.counts_of_types(&key.0, std::slice::from_ref(&key.1), until).await;
                pending.note(&key, &counted, asked);
            });
        }
        let let_in = self.pending.let_in(&key, draft.id, limit);
        let too_many = |current| Failure::LimitExceeded { limit_type: "max_pending", limit, current };
        let_in.map(Some).map_err(too_many)
    }

    async fn count_pending(&self, key: &TypeKey, until: Instant) -> Result<(), StoreError> {
        let asked = Instant::now();
        let counted = self.store.counts_of_types(&key.0, std::slice::from_ref(&key.1), until).await;
        self.pending.note(key, &counted, asked);
        counted.map(drop)
    }
}
