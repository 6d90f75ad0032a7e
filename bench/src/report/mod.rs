//! What a run found, and the ways to look at it.

pub(crate) mod chart;
pub(crate) mod compare;
mod figure;
mod results;
pub(crate) mod table;
pub(crate) mod targets;

pub(crate) use figure::Figure;
pub(crate) use results::{FailedScenario, Report};
