//! Reading tasks.
//!
//! | file | what it reads |
//! |---|---|
//! | [`query`] | tasks by id or by result, for whoever may see them |
//! | [`by_id`] | tasks by id before they are changed or called missing |
//! | [`ready`] | ready work in claim order |
//! | [`claimed`] | what a claim has taken |
//! | [`listing`], [`list`] | what a list is asked for, which index has it, and its pages |
//! | [`results`] | the results of tasks that are watched |
//! | [`due`] | what the background jobs scan for |
//! | [`order`], [`projection`] | orders and positions as the database is told them, and which fields are left out |

mod by_id;
mod claimed;
mod due;
mod list;
mod listing;
mod order;
mod projection;
mod query;
mod ready;
mod results;

pub use due::{DuePage, DueTask, DueTasks};
pub use list::ListPage;
pub use listing::Listing;
pub(super) use projection::{as_created, without_payload};
pub use query::TaskQuery;
pub use ready::{Awaited, Ready, ReadyFrom, Selection};
