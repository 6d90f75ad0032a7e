//! JSON Schemas that callers give: which of them are taken, and what misses one.
//!
//! A schema is data of a stranger that decides how much work each check is. So before it is compiled it must stay within
//! itself, lead in no circle and be small with every reference written out ([`check`]), and its patterns run in linear time.
//!
//! | file | what it does |
//! |---|---|
//! | [`schema`] | a schema that was checked and compiled |
//! | [`check`] | refuses schemas that lead outside, in a circle, or to too much |
//! | [`references`] | where a reference of a schema leads |
//! | [`misses`] | says in the service's words what misses a schema |
//! | [`fault`] | why a schema is not taken |

mod check;
mod fault;
mod misses;
mod references;
mod schema;

pub use fault::SchemaFault;
pub use schema::JsonSchema;
