//! Storing a batch of the feed: log document, effects and new position in one transaction.
//!
//! So an effect and its event are there together or not at all, and once, whoever crashes. The transaction touches none of
//! the collections with many indexes.

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use mongodb::error::TRANSIENT_TRANSACTION_ERROR;
use mongodb::options::{ReadConcern, TransactionOptions};
use mongodb::{ClientSession, Database};

use super::position::{FeedPosition, POSITION};
use super::{COUNTS, EVENTS, FAILURES, FEED, HOURS, LogDocument};
use crate::events::{Effects, FailureKey, HourKey, Moves, Standing, TypeKey};
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::task::Status;

/// How often a transaction is tried that others get in the way of.
const TRIES: u32 = 5;

/// What the reader has made of what it read.
#[derive(Debug)]
pub struct FeedBatch {
    /// As it will be.
    pub position: FeedPosition,
    /// What moved, if anything did; its number is that of the new position.
    pub log: Option<LogDocument>,
    /// What that changes in counts and roll-ups.
    pub effects: Effects,
}

impl Store {
    /// Stores a batch, if this server is still the reader and nobody has written since it read `before`.
    /// `false`: another server reads now.
    ///
    /// # Errors
    /// When it is not known whether the batch was stored; the position says.
    pub async fn advance_feed(&self, before: &FeedPosition, batch: &FeedBatch) -> Result<bool, StoreError> {
        let FeedBatch { position, log, effects } = batch;
        let statements = vec![
            (COUNTS, count_statements(effects, position)),
            (HOURS, hour_statements(effects)),
            (FAILURES, failure_statements(effects)),
        ];
        self.advance_with(before, position, statements, log.as_ref()).await
    }

    /// The same with these statements for collections of the feed.
    pub(super) async fn advance_with(
        &self,
        before: &FeedPosition,
        position: &FeedPosition,
        statements: Vec<(&str, Vec<Document>)>,
        log: Option<&LogDocument>,
    ) -> Result<bool, StoreError> {
        let filter =
            doc! { "_id": POSITION, "reader": before.reader, "number": number_filter(before.number) };
        let stored = bson::serialize_to_document(position).map_err(|_| StoreError::Unavailable)?;
        // Not the whole document: a later release may keep more in it.
        let change = doc! { "$set": stored };
        let mut commands = vec![update(&self.beside(FEED), vec![doc! { "q": filter, "u": change }])];
        if let Some(log) = log {
            let log = bson::serialize_to_document(log).map_err(|_| StoreError::Unavailable)?;
            commands.push(doc! { "insert": self.beside(EVENTS), "documents": [log] });
        }
        let statements = statements.into_iter().filter(|(_, statements)| !statements.is_empty());
        commands.extend(statements.map(|(name, statements)| update(&self.beside(name), statements)));
        self.in_one_transaction("advance the feed", commands).await
    }

    /// Carries these commands out, all or none. `false`: the first of them found nothing to change.
    pub(super) async fn in_one_transaction(
        &self,
        what: &'static str,
        mut commands: Vec<Document>,
    ) -> Result<bool, StoreError> {
        let (client, database) = (self.client.clone(), self.database.clone());
        self.call(what, self.step_deadline(), async move {
            if let [alone] = &mut commands[..] {
                alone.insert("writeConcern", doc! { "w": "majority", "j": true });
                return Ok(matched(&database.run_command(alone.clone()).await?) == 1);
            }
            let mut session = client.start_session().await?;
            for _ in 1..TRIES {
                match transact(&database, &mut session, &commands).await {
                    // Somebody else has changed the same counts.
                    Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {}
                    done => return done,
                }
            }
            transact(&database, &mut session, &commands).await
        })
        .await
    }
}

async fn transact(
    database: &Database,
    session: &mut ClientSession,
    commands: &[Document],
) -> mongodb::error::Result<bool> {
    // A collection that somebody has dropped is made again, which no other read concern allows.
    let options = TransactionOptions::builder().read_concern(ReadConcern::local()).build();
    session.start_transaction().with_options(options).await?;
    let is_found = run(database, session, commands).await;
    if !matches!(is_found, Ok(true)) {
        let _ = session.abort_transaction().await;
        return is_found;
    }
    session.commit_transaction().await?;
    Ok(true)
}

/// A position that was never written has no number.
fn number_filter(number: i64) -> Bson {
    if number == 0 { doc! { "$in": [0_i64, Bson::Null] }.into() } else { number.into() }
}

/// Runs the commands; where the first finds nothing, only that one.
async fn run(
    database: &Database,
    session: &mut ClientSession,
    commands: &[Document],
) -> mongodb::error::Result<bool> {
    for (place, command) in commands.iter().enumerate() {
        let reply = database.run_command(command.clone()).session(&mut *session).await?;
        if let Ok([error, ..]) = reply.get_array("writeErrors").map(Vec::as_slice) {
            return Err(mongodb::error::Error::custom(error.to_string()));
        }
        if place == 0 && matched(&reply) != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn matched(reply: &Document) -> i32 {
    reply.get_i32("n").unwrap_or_default()
}

pub(super) fn update(collection: &str, statements: Vec<Document>) -> Document {
    doc! { "update": collection, "updates": statements }
}

fn upsert(id: Document, change: Document) -> Document {
    doc! { "q": { "_id": id }, "u": change, "upsert": true }
}

/// The id of a type's counts.
pub(super) fn type_id(tenant: &str, task_type: &str) -> Document {
    doc! { "tenant": tenant, "task_type": task_type }
}

/// The name under which the minute is kept that begins then: minutes since 1970.
pub(super) fn minute_name(minute: i64) -> String {
    format!("{minute:010}")
}

fn count_statements(effects: &Effects, position: &FeedPosition) -> Vec<Document> {
    let statement = |(key, effect): (&TypeKey, &crate::events::TypeEffect)| {
        let mut increments = Document::new();
        let next = position.recount.as_ref().map(|recount| recount.generation);
        for (generation, standing) in
            [(Some(position.counts), &effect.standing), (next, &effect.standing_anew)]
        {
            let Some(generation) = generation.filter(|generation| *generation > 0) else { continue };
            add_standing(&mut increments, generation, standing);
        }
        for (minute, moves) in &effect.minutes {
            add_moves(&mut increments, &format!("minutes.{}", minute_name(*minute)), moves);
        }
        let mut change = doc! { "$max": { "last_at": bson::DateTime::from_chrono(effect.last_at) } };
        if !increments.is_empty() {
            change.insert("$inc", increments);
        }
        upsert(type_id(&key.tenant, &key.task_type), change)
    };
    effects.types.iter().map(statement).collect()
}

/// Where the counts of a status stand.
pub(super) fn count_field(generation: i64, status: Status) -> String {
    format!("counts.{generation}.{}", status.as_str())
}

pub(super) fn add_standing(increments: &mut Document, generation: i64, standing: &Standing) {
    for (status, change) in standing.iter().filter(|(_, change)| **change != 0) {
        increments.insert(count_field(generation, *status), *change);
    }
}

fn add_moves(increments: &mut Document, place: &str, moves: &Moves) {
    for (name, count) in [
        ("created", moves.created),
        ("completed", moves.completed),
        ("failed", moves.failed),
        ("cancelled", moves.cancelled),
    ] {
        if count != 0 {
            increments.insert(format!("{place}.{name}"), count);
        }
    }
}

fn hour_statements(effects: &Effects) -> Vec<Document> {
    let statement = |(key, effect): (&HourKey, &crate::events::HourEffect)| {
        let mut increments = Document::new();
        add_moves(&mut increments, "moves", &effect.moves);
        for (name, count) in
            [("succeeded", effect.succeeded), ("failed", effect.failed), ("lost", effect.lost)]
        {
            if count != 0 {
                increments.insert(format!("executions.{name}"), count);
            }
        }
        for (name, times) in [("durations", &effect.durations), ("waits", &effect.waits)] {
            if times.sum_ms != 0 {
                increments.insert(format!("{name}.sum_ms"), times.sum_ms);
            }
            for (bucket, count) in &times.buckets {
                increments.insert(format!("{name}.buckets.{bucket}"), *count);
            }
        }
        let used = effect.usage;
        if used.credits_consumed != 0.0 {
            increments.insert("usage.credits_consumed", used.credits_consumed);
        }
        for (name, count) in [("tokens_used", used.tokens_used), ("api_calls_made", used.api_calls_made)] {
            if count != 0 {
                increments.insert(format!("usage.{name}"), count);
            }
        }
        let id = doc! { "tenant": &key.tenant, "hour": hour_of(key.hour), "task_type": &key.task_type };
        upsert(id, doc! { "$inc": increments })
    };
    effects.hours.iter().filter(|(_, effect)| !effect.is_empty()).map(statement).collect()
}

fn hour_of(hour: DateTime<Utc>) -> bson::DateTime {
    bson::DateTime::from_chrono(hour)
}

fn failure_statements(effects: &Effects) -> Vec<Document> {
    let statement = |(key, effect): (&FailureKey, &crate::events::FailureEffect)| {
        let mut change = doc! { "$inc": { "count": effect.count } };
        if let Some(seen) = &effect.seen {
            change.insert("$min", doc! { "first_at": bson::DateTime::from_chrono(seen.first_at) });
            change.insert("$max", doc! { "last_at": bson::DateTime::from_chrono(seen.last_at) });
            change.insert("$set", doc! { "message": seen.message.as_deref() });
            let sample: Vec<_> = seen.sample.iter().map(|id| crate::store::ids::stored_id(*id)).collect();
            change.insert("$push", doc! { "sample": { "$each": sample, "$slice": -3 } });
        }
        let FailureKey { of, code, reason } = key;
        let id = doc! {
            "tenant": &of.tenant, "hour": hour_of(of.hour), "task_type": &of.task_type, "code": code.as_deref(),
            "reason": reason.map(|reason| reason.as_str()),
        };
        upsert(id, change)
    };
    effects.failures.iter().map(statement).collect()
}
