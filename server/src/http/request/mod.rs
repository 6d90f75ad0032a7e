//! One request taken apart, and what is wrong with it.
//!
//! | file | what it does |
//! |---|---|
//! | [`call`] | one request in the order in which the contract refuses |
//! | [`body`] | a body as a wire type, or all its violations |
//! | [`params`] | query parameters |
//! | [`size`] | how large bodies, batches and payloads may be |
//! | [`violations`], [`expected`] | what is wrong with a body, in JSON's words |

pub(super) mod body;
pub(super) mod call;
pub(super) mod expected;
pub(super) mod params;
pub(super) mod size;
mod violations;
