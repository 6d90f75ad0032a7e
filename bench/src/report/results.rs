//! What a whole run found.

use serde::{Deserialize, Serialize};
use task_repo_client::Utc;

use super::figure::Figure;
use super::targets::Target;
use crate::machine::Machine;

/// A whole run, as it is written to a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// When it began.
    pub(crate) at: String,
    /// Less of everything.
    pub(crate) quick: bool,
    /// Where.
    pub(crate) machine: Machine,
    /// The database's version.
    pub(crate) mongodb: String,
    /// What was measured, in order.
    pub(crate) figures: Vec<Figure>,
    /// What could not be.
    pub(crate) failures: Vec<FailedScenario>,
    /// What was aimed at.
    pub(crate) targets: Vec<Target>,
}

/// A scenario that could not be run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailedScenario {
    /// Its name.
    pub(crate) name: String,
    /// Why.
    pub(crate) error: String,
}

impl Report {
    /// Nothing is measured yet.
    pub(crate) fn new(quick: bool, machine: Machine, mongodb: String) -> Self {
        let at = Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        Self { at, quick, machine, mongodb, figures: Vec::new(), failures: Vec::new(), targets: Vec::new() }
    }

    /// The figure of that scenario.
    pub(crate) fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}
