//! One write command and what came of it.
//!
//! A write is journaled on a majority before it counts. A command whose answer is lost is never guessed at: who sent
//! it reads the tasks back and looks for the id or stamp it chose itself.

use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};

use super::store::Store;
use crate::fault_injection::{self, InjectedFault};
use crate::store::error::{DUPLICATE_KEY, StoreError};

/// Most bytes of statements in one command; a single larger statement goes alone.
const MAX_COMMAND_BYTES: usize = 8 << 20;

/// The result of a write command.
#[derive(Debug)]
pub(in crate::store) enum Written {
    /// The server answered and the write is durable: how many statements took effect, and which did not.
    Answered {
        /// Statements that found their document, or documents inserted.
        matched: usize,
        /// Statements that failed.
        errors: Vec<WriteError>,
    },
    /// Whether it was applied, and whether it will stay, must be found out.
    Unknown,
    /// It was not sent: too much is on its way to the database already.
    Unsent,
}

/// Why one statement of many failed.
#[derive(Debug)]
pub(in crate::store) struct WriteError {
    /// Which one.
    pub(in crate::store) index: usize,
    /// The index whose uniqueness it would break, if that is why.
    pub(in crate::store) duplicate_in: Option<String>,
}

impl Store {
    /// `insert` of these documents.
    pub(in crate::store) async fn insert_command(&self, documents: &[&RawDocumentBuf]) -> Written {
        self.write_command("insert", "documents", documents).await
    }

    /// `update` with these statements.
    pub(in crate::store) async fn update_command(&self, statements: &[RawDocumentBuf]) -> Written {
        let statements: Vec<_> = statements.iter().collect();
        self.write_command("update", "updates", &statements).await
    }

    /// `delete` with this statement.
    pub(in crate::store) async fn delete_command(&self, statement: &RawDocumentBuf) -> Written {
        self.write_command("delete", "deletes", &[statement]).await
    }

    /// One command is one document, which may have 16 MiB: more goes in several.
    async fn write_command(
        &self,
        verb: &'static str,
        field: &'static str,
        items: &[&RawDocumentBuf],
    ) -> Written {
        let mut matched = 0;
        let mut errors = Vec::new();
        let mut sent = 0;
        let mut items = items.iter().peekable();
        while items.peek().is_some() {
            let (mut array, mut count, mut bytes) = (RawArrayBuf::new(), 0, 0);
            while let Some(item) =
                items.next_if(|item| count == 0 || bytes + item.as_bytes().len() <= MAX_COMMAND_BYTES)
            {
                bytes += item.as_bytes().len();
                count += 1;
                array.push(&***item);
            }
            match self.write_array(verb, field, array).await {
                Written::Unsent if sent == 0 => return Written::Unsent,
                Written::Unknown | Written::Unsent => return Written::Unknown,
                Written::Answered { matched: here, errors: broken } => {
                    matched += here;
                    errors.extend(broken.into_iter().map(|it| WriteError { index: it.index + sent, ..it }));
                }
            }
            sent += count;
        }
        Written::Answered { matched, errors }
    }

    async fn write_array(&self, verb: &'static str, field: &'static str, array: RawArrayBuf) -> Written {
        let mut command = RawDocumentBuf::new();
        command.append(cstr(verb), self.tasks.name());
        command.append(cstr(field), array);
        // One bad statement must not stop its neighbours.
        command.append(cstr("ordered"), false);
        let timeout = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        let mut concern = rawdoc! { "w": "majority", "j": true, "wtimeout": timeout };
        if fault_injection::is_injected(InjectedFault::LonelyWrite) {
            concern = rawdoc! { "w": 1, "j": true };
        }
        command.append(cstr("writeConcern"), concern);
        let database = self.database.clone();
        match self
            .call(verb, self.step_deadline(), async move { database.run_raw_command(command).await })
            .await
        {
            Ok(reply) => answered(verb, &reply),
            Err(StoreError::Overloaded) => Written::Unsent,
            Err(_) => Written::Unknown,
        }
    }
}

fn answered(verb: &str, reply: &Document) -> Written {
    if let Some(error) = reply.get("writeConcernError") {
        tracing::warn!(verb, %error, "a database write is not known to be durable");
        return Written::Unknown;
    }
    let number = |value: Option<&Bson>| match value {
        Some(Bson::Int32(n)) => usize::try_from(*n).unwrap_or(0),
        Some(Bson::Int64(n)) => usize::try_from(*n).unwrap_or(0),
        _ => 0,
    };
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    Written::Answered {
        matched: number(reply.get("n")),
        errors: errors
            .iter()
            .filter_map(Bson::as_document)
            .map(|error| WriteError {
                index: number(error.get("index")),
                duplicate_in: (error.get_i32("code").ok() == Some(DUPLICATE_KEY))
                    .then(|| broken_index(error)),
            })
            .collect(),
    }
}

/// The first key but `tenant` of the unique index, which tells our indexes apart.
fn broken_index(error: &Document) -> String {
    let keys = error.get_document("keyPattern").ok();
    keys.and_then(|keys| keys.keys().find(|key| *key != "tenant")).cloned().unwrap_or_default()
}

/// A key of a document that we spell ourselves, so it has no NUL in it.
pub(in crate::store) fn cstr(key: &str) -> &bson::raw::CStr {
    key.try_into().unwrap_or(bson::raw::cstr!("?"))
}
