//! How much may be claimed: slots of the worker, and of each task type.

use task_repo_protocol::claim::MAX_CLAIM;

/// What one claim asks for. The slots it may fill are reserved until it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimPlan {
    /// Task types, by their index in the worker's registrations.
    pub(crate) types: Vec<usize>,
    /// How many tasks at most.
    pub(crate) limit: usize,
}

/// The slots of a worker: how many are held and how many are reserved.
#[derive(Debug)]
pub(crate) struct Slots {
    all: SlotCount,
    types: Vec<SlotCount>,
}

#[derive(Debug)]
struct SlotCount {
    limit: usize,
    /// Tasks whose attempts hold a slot.
    held: usize,
    /// Tasks that claims under way may still bring.
    asked: usize,
}

impl SlotCount {
    fn new(limit: usize) -> Self {
        Self { limit, held: 0, asked: 0 }
    }

    fn free(&self) -> usize {
        self.limit.saturating_sub(self.held + self.asked)
    }
}

impl Slots {
    /// All free: `limit` of the worker, and of each type.
    pub(crate) fn new(limit: usize, types: impl IntoIterator<Item = usize>) -> Self {
        Self { all: SlotCount::new(limit), types: types.into_iter().map(SlotCount::new).collect() }
    }

    /// The next claim, if any: of the types that have free slots and no claim under way.
    ///
    /// All tasks of an answer may be of one type, so a claim asks for no more than the type with the fewest free slots can
    /// take. Further claims fill the rest.
    pub(crate) fn plan(&mut self) -> Option<ClaimPlan> {
        let free = |(type_index, slots): (usize, &SlotCount)| {
            (slots.asked == 0 && slots.free() > 0).then_some(type_index)
        };
        let types: Vec<usize> = self.types.iter().enumerate().filter_map(free).collect();
        let fullest = types.iter().map(|type_index| self.types[*type_index].free()).min()?;
        let limit = fullest.min(self.all.free()).min(usize::try_from(MAX_CLAIM).unwrap_or(usize::MAX));
        if limit == 0 {
            return None;
        }
        self.all.asked += limit;
        for type_index in &types {
            self.types[*type_index].asked += limit;
        }
        Some(ClaimPlan { types, limit })
    }

    /// The next claim where the service settles tasks of these types before it carries the claim out. Their slots count as
    /// free for this claim alone, and stay held for all others until the answer.
    pub(crate) fn plan_after(&mut self, settled: &[usize]) -> Option<ClaimPlan> {
        for type_index in settled {
            self.free(*type_index);
        }
        let plan = self.plan();
        for type_index in settled {
            self.take(*type_index);
        }
        plan
    }

    /// The claim is answered; what it brought is [taken](Self::take) now.
    pub(crate) fn answered(&mut self, plan: &ClaimPlan) {
        self.all.asked = self.all.asked.saturating_sub(plan.limit);
        for type_index in &plan.types {
            self.types[*type_index].asked = self.types[*type_index].asked.saturating_sub(plan.limit);
        }
    }

    /// A task of that type is worked on.
    pub(crate) fn take(&mut self, type_index: usize) {
        self.all.held += 1;
        self.types[type_index].held += 1;
    }

    /// A task of that type is no longer held.
    pub(crate) fn free(&mut self, type_index: usize) {
        self.all.held = self.all.held.saturating_sub(1);
        self.types[type_index].held = self.types[type_index].held.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_type_is_asked_for_all_free_slots() {
        let mut slots = Slots::new(4, [4]);
        assert_eq!(slots.plan(), Some(ClaimPlan { types: vec![0], limit: 4 }));
        assert_eq!(slots.plan(), None, "it is asked for already");
    }

    #[test]
    fn what_came_is_held_until_it_is_freed() {
        let mut slots = Slots::new(4, [4]);
        let plan = slots.plan().expect("free");
        slots.answered(&plan);
        slots.take(0);
        slots.take(0);
        assert_eq!(slots.plan(), Some(ClaimPlan { types: vec![0], limit: 2 }));
        slots.answered(&ClaimPlan { types: vec![0], limit: 2 });
        slots.free(0);
        assert_eq!(slots.plan().map(|plan| plan.limit), Some(3));
    }

    #[test]
    fn the_fullest_type_limits_a_claim_and_a_full_one_is_left_out() {
        let mut slots = Slots::new(8, [1, 8]);
        let plan = slots.plan().expect("free");
        assert_eq!(plan, ClaimPlan { types: vec![0, 1], limit: 1 });
        slots.answered(&plan);
        slots.take(0);
        assert_eq!(slots.plan(), Some(ClaimPlan { types: vec![1], limit: 7 }));
    }

    #[test]
    fn a_type_that_becomes_free_is_asked_for_beside_a_waiting_claim() {
        let mut slots = Slots::new(8, [1, 4]);
        slots.take(0);
        let waiting = slots.plan().expect("free");
        assert_eq!(waiting, ClaimPlan { types: vec![1], limit: 4 });
        slots.free(0);
        assert_eq!(slots.plan(), Some(ClaimPlan { types: vec![0], limit: 1 }));
    }

    #[test]
    fn a_slot_whose_task_is_being_settled_is_free_for_the_claim_that_goes_with_it_alone() {
        let mut slots = Slots::new(4, [4]);
        let waiting = slots.plan().expect("free");
        slots.answered(&waiting);
        (0..4).for_each(|_| slots.take(0));
        // Two tasks are settled together with a claim, whose answer takes long.
        let with = slots.plan_after(&[0, 0]).expect("free by then");
        assert_eq!(with.limit, 2);
        assert_eq!(slots.plan(), None, "four are held");
        // One attempt ends without a delivery.
        slots.free(0);
        assert_eq!(slots.plan(), None, "three are held, and two may come");
        slots.answered(&with);
        slots.free(0);
        slots.free(0);
        assert_eq!(slots.plan().map(|plan| plan.limit), Some(3));
    }

    /// Whatever claims bring, and in whichever order they are answered, no limit is passed.
    #[test]
    fn no_limit_is_ever_passed() {
        let limits = [1, 3, 10];
        let mut random = 7_usize;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut slots = Slots::new(6, limits);
        let (mut claims, mut held) = (Vec::new(), [0_usize; 3]);
        for _ in 0..10_000 {
            while let Some(plan) = slots.plan() {
                claims.push(plan);
            }
            if !claims.is_empty() && next(2) == 0 {
                let plan: ClaimPlan = claims.swap_remove(next(claims.len()));
                slots.answered(&plan);
                for _ in 0..next(plan.limit + 1) {
                    let type_index = plan.types[next(plan.types.len())];
                    slots.take(type_index);
                    held[type_index] += 1;
                }
            } else if let Some(type_index) =
                (0..3).map(|type_index| (type_index + next(3)) % 3).find(|type_index| held[*type_index] > 0)
            {
                slots.free(type_index);
                held[type_index] -= 1;
            }
            assert!(held.iter().sum::<usize>() <= 6);
            assert!(held.iter().zip(limits).all(|(held, limit)| *held <= limit), "{held:?}");
        }
    }
}
