//! One request taken apart, and what is wrong with it.
//!
//! | file | what it does |
//! |---|---|
//! | [`call`] | one request in the order in which the contract refuses |
//! | [`body`] | a body as a wire type, or all its faults |
//! | [`body_room`] | the bound of all bodies together |
//! | [`params`] | query parameters |
//! | [`faults`], [`expected`] | what is wrong with a body, in JSON's words |

pub(super) mod body;
pub(super) mod body_room;
pub(super) mod call;
pub(super) mod expected;
mod faults;
pub(super) mod params;
