//! What goes wrong, by a seed.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// How often what goes wrong: shares of all requests, or of all transactions.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The same seed makes the same choices, request by request.
    pub seed: u64,
    /// 500, and nothing was done.
    pub failing: f64,
    /// 500, and all of it was done.
    pub failing_after: f64,
    /// 429 with the time to wait.
    pub limited: f64,
    /// The connection breaks before anything was done.
    pub dropped: f64,
    /// The connection breaks when all was done.
    pub dropped_after: f64,
    /// The answer takes a while.
    pub delayed: f64,
    /// This long at most.
    pub delay: Duration,
    /// A transaction is given up while the service still works on it, and sent again.
    pub given_up: f64,
    /// A transaction never arrives.
    pub lost: f64,
}

impl Faults {
    /// Some of everything.
    pub fn of_all_kinds(seed: u64) -> Self {
        Self {
            seed,
            failing: 0.02,
            failing_after: 0.02,
            limited: 0.004,
            dropped: 0.02,
            dropped_after: 0.02,
            delayed: 0.1,
            delay: Duration::from_millis(60),
            given_up: 0.03,
            lost: 0.03,
        }
    }
}

/// What stands between the service and the homeserver for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// A proxy answers with this status and a page of its own.
    Proxy(u16),
    /// The homeserver answers with this status and `M_UNKNOWN`.
    Failing(u16),
    /// Nothing is answered, and in the end the connection breaks.
    Silence,
}

/// What happens to a request of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Pass,
    /// It is answered with an error, before it is carried out or after.
    Fail {
        /// When.
        after: bool,
    },
    /// It is answered with 429 and has to wait this long.
    Limit(Duration),
    /// The connection breaks, before it is carried out or after.
    Drop {
        /// When.
        after: bool,
    },
    /// It is answered after a while.
    Delay(Duration),
}

/// What happens to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is sent, and the answer counts.
    Pass,
    /// It is given up after this time, whatever becomes of it.
    GiveUp(Duration),
    /// It never arrives.
    Lose,
}

/// The faults of a run, one after the other.
#[derive(Debug, Default)]
pub struct Chance(Option<Running>);

#[derive(Debug)]
struct Running {
    faults: Faults,
    requests: StdRng,
    transactions: StdRng,
    /// What went wrong so far, to assert that anything did.
    counts: [usize; 6],
}

impl Chance {
    /// From now on.
    pub fn begin(&mut self, faults: Faults) {
        self.0 = Some(Running {
            requests: StdRng::seed_from_u64(faults.seed),
            transactions: StdRng::seed_from_u64(!faults.seed),
            faults,
            counts: [0; 6],
        });
    }

    /// Lets nothing go wrong from now on.
    pub fn end(&mut self) {
        self.0 = None;
    }

    /// How many requests failed, were limited, were dropped, were delayed; how many transactions
    /// were given up, and were lost.
    pub fn counts(&self) -> [usize; 6] {
        self.0
            .as_ref()
            .map(|running| running.counts)
            .unwrap_or_default()
    }

    /// The fate of the next request.
    pub fn of_request(&mut self) -> Fate {
        let Some(Running {
            faults,
            requests: rng,
            counts,
            ..
        }) = &mut self.0
        else {
            return Fate::Pass;
        };
        // Always as many draws, so that one choice does not move the next.
        let (mut at, share) = (rng.random::<f64>(), rng.random::<f64>());
        let mut falls = |part: f64| {
            at -= part;
            at < 0.0
        };
        let (fate, kind) = if falls(faults.failing) {
            (Fate::Fail { after: false }, 0)
        } else if falls(faults.failing_after) {
            (Fate::Fail { after: true }, 0)
        } else if falls(faults.limited) {
            (
                Fate::Limit(Duration::from_millis(20).mul_f64(1.0 + 9.0 * share)),
                1,
            )
        } else if falls(faults.dropped) {
            (Fate::Drop { after: false }, 2)
        } else if falls(faults.dropped_after) {
            (Fate::Drop { after: true }, 2)
        } else if falls(faults.delayed) {
            (Fate::Delay(faults.delay.mul_f64(share)), 3)
        } else {
            return Fate::Pass;
        };
        counts[kind] += 1;
        fate
    }

    /// The fate of the next transaction.
    pub fn of_transaction(&mut self) -> Delivery {
        let Some(Running {
            faults,
            transactions: rng,
            counts,
            ..
        }) = &mut self.0
        else {
            return Delivery::Pass;
        };
        let (at, share) = (rng.random::<f64>(), rng.random::<f64>());
        if at < faults.given_up {
            counts[4] += 1;
            Delivery::GiveUp(Duration::from_millis(20).mul_f64(share))
        } else if at < faults.given_up + faults.lost {
            counts[5] += 1;
            Delivery::Lose
        } else {
            Delivery::Pass
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64) -> Vec<Fate> {
        let mut chance = Chance::default();
        chance.begin(Faults::of_all_kinds(seed));
        (0..500).map(|_| chance.of_request()).collect()
    }

    #[test]
    fn a_seed_repeats_its_choices_and_makes_every_kind_of_them() {
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        for after in [false, true] {
            assert!(fates(7).contains(&Fate::Fail { after }));
            assert!(fates(7).contains(&Fate::Drop { after }));
        }
        let kinds = |wanted: fn(&Fate) -> bool| fates(7).iter().filter(|fate| wanted(fate)).count();
        assert!(kinds(|fate| matches!(fate, Fate::Limit(_))) > 0);
        assert!(kinds(|fate| matches!(fate, Fate::Delay(_))) > 20);
        assert!(kinds(|fate| *fate == Fate::Pass) > 300);
    }

    #[test]
    fn without_a_seed_nothing_goes_wrong() {
        let mut chance = Chance::default();
        assert!((0..100).all(|_| chance.of_request() == Fate::Pass));
        assert!((0..100).all(|_| chance.of_transaction() == Delivery::Pass));
    }
}
