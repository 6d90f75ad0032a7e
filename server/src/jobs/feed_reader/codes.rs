//! Which codes of failures are counted by themselves. Codes come from workers, and there may be any number of them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::events::{Effects, HourKey, MAX_CODES};
use crate::store::{Store, StoreError};

/// How many hours of types are remembered at once.
const MAX_HOURS: usize = 10_000;

/// The codes that have a place of their own, by hour and type.
#[derive(Debug, Default)]
pub(super) struct Codes(HashMap<HourKey, HashSet<String>>);

impl Codes {
    /// Gives the codes in `effects` their places, as far as there are any left.
    pub(super) async fn bound(&mut self, effects: &mut Effects, store: &Store) -> Result<(), StoreError> {
        if self.0.len() > MAX_HOURS {
            self.0.clear();
        }
        let hours: HashSet<_> = effects.failures.keys().map(|key| key.of.clone()).collect();
        for hour in hours {
            if let Entry::Vacant(place) = self.0.entry(hour) {
                let codes = store.failure_codes(place.key()).await?;
                place.insert(codes.into_iter().collect());
            }
        }
        effects.bound_codes(|hour, code| {
            let Some(codes) = self.0.get_mut(hour) else { return false };
            codes.contains(code) || (codes.len() < MAX_CODES && codes.insert(code.to_owned()))
        });
        Ok(())
    }
}
