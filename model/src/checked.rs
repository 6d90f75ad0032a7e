//! The protocol as the checker sees it: where it begins, its steps and its properties.

use stateright::{Model, Property};

use crate::properties;
use crate::protocol::{Protocol, Step};
use crate::state::State;

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.bounds)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.steps(state, steps);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        self.take(before, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
