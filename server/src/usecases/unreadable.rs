//! What an operator does about stored tasks that this server cannot read: list them, look at one, remove it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use task_repo_protocol::{Json, UnreadableTask as Listed, UnreadableTaskDetail, UnreadableTaskPage, Uuid};

use super::failure::Failure;
use super::query::WrongCursor;
use super::service::TaskService;
use crate::access::Caller;
use crate::store::{ScanPlace, StoreError, StoredId, UnreadableTask};
use crate::task::raw_view;
use crate::telemetry::masked;

/// What begins the text that stands for an id that is no UUID.
const NO_UUID: char = '~';
/// How often a removal is tried of a task that somebody else changes meanwhile.
const TRIES: u32 = 3;

/// Whether tasks are seen of which nobody can tell whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrayTasks(pub bool);

impl TaskService {
    /// The tasks that this server cannot read, a page at a time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unreadable(
        &self,
        caller: &Caller,
        StrayTasks(strays): StrayTasks,
        limit: usize,
        place: Option<ScanPlace>,
    ) -> Result<UnreadableTaskPage, Failure> {
        let (scope, until) = (&caller.scope, caller.deadline.at());
        let scan = self.store.unreadable_tasks(scope, strays, place, limit, until).await?;
        let next_cursor = scan.next.map(|next| URL_SAFE_NO_PAD.encode(next.to_bytes()));
        let listed = |UnreadableTask { id, collection, field, since, .. }: UnreadableTask| Listed {
            id: text_of(&id),
            collection,
            field,
            since,
        };
        Ok(UnreadableTaskPage { tasks: scan.tasks.into_iter().map(listed).collect(), next_cursor })
    }

    /// One of them, as it is stored.
    ///
    /// # Errors
    /// When there is none of that id, or it can be read.
    pub async fn unreadable_task(
        &self,
        caller: &Caller,
        strays: StrayTasks,
        id: &str,
    ) -> Result<UnreadableTaskDetail, Failure> {
        let task = self.find_unreadable(caller, strays, id).await?;
        let document = raw_view(&task.document).and_then(|shown| Json::of(&shown).ok());
        let document = document.ok_or(Failure::Store(StoreError::Unreadable))?;
        let UnreadableTask { id, collection, field, since, .. } = task;
        Ok(UnreadableTaskDetail { id: text_of(&id), collection, field, since, document })
    }

    /// Removes one of them for good.
    ///
    /// # Errors
    /// When there is none of that id, or it can be read.
    pub async fn remove_unreadable(
        &self,
        caller: &Caller,
        strays: StrayTasks,
        id: &str,
    ) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let task = self.find_unreadable(caller, strays, id).await?;
            if self.store.remove_unreadable(&task).await? {
                let (task, field) = (masked(&text_of(&task.id)), task.field);
                tracing::info!(task, field, "a task that cannot be read was removed, as an operator asked");
                return Ok(());
            }
        }
        Err(Failure::Store(StoreError::Unavailable))
    }

    async fn find_unreadable(
        &self,
        caller: &Caller,
        StrayTasks(strays): StrayTasks,
        id: &str,
    ) -> Result<UnreadableTask, Failure> {
        let missing = || Failure::no_task(id);
        let stored = id_of(id).ok_or_else(missing)?;
        match self.store.unreadable_task(&stored, caller.deadline.at()).await?.ok_or_else(missing)? {
            Ok(task) if task.is_in(&caller.scope, strays) => Ok(task),
            Err(task) if task.is_in(&caller.scope) => Err(Failure::NotUnreadable(task.id.to_string())),
            _ => Err(missing()),
        }
    }
}

/// Where a page begins, from the cursor of the page before.
///
/// # Errors
/// When the cursor is none, or leads to what the caller does not see.
pub fn scan_place(
    cursor: &str,
    caller: &Caller,
    StrayTasks(strays): StrayTasks,
) -> Result<ScanPlace, WrongCursor> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| WrongCursor::Garbage)?;
    ScanPlace::from_bytes(&bytes, &caller.scope.tenant, strays).ok_or(WrongCursor::Garbage)
}

/// An id as text: a UUID, or what stands for any other.
fn text_of(id: &StoredId) -> String {
    let encoded = || format!("{NO_UUID}{}", URL_SAFE_NO_PAD.encode(id.to_bytes()));
    id.uuid().map_or_else(encoded, |id| id.to_string())
}

fn id_of(text: &str) -> Option<StoredId> {
    match text.strip_prefix(NO_UUID) {
        Some(encoded) => StoredId::from_bytes(&URL_SAFE_NO_PAD.decode(encoded).ok()?),
        None => Uuid::try_parse(text).ok().map(StoredId::of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_kind_has_a_text() {
        let strange = StoredId::strange(7);
        for id in [StoredId::of(Uuid::from_u128(7)), strange] {
            assert_eq!(id_of(&text_of(&id)), Some(id));
        }
        for none in ["", "~", "~!", "~AAAA", "7"] {
            assert_eq!(id_of(none), None, "{none}");
        }
    }
}
