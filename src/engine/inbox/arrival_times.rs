//! When the items in the inbox arrived, to tell for how long the oldest has been waiting. Pure.
//!
//! Items have numbers that grow, and no time of their own: it would be written with each. This keeps
//! in memory up to which number items had arrived, second by second.

use std::{collections::VecDeque, time::Duration};

use crate::clock::Timestamp;

/// Minimum time between two entries.
const RESOLUTION: Duration = Duration::from_secs(1);
/// Maximum number of entries: more than an hour of constant arrivals. What arrived before counts as
/// arrived with the oldest entry.
const ENTRIES_MAX: usize = 4096;

/// When items arrived, by their numbers.
#[derive(Debug)]
pub(in crate::engine) struct ArrivalTimes(VecDeque<(u64, Timestamp)>);

impl ArrivalTimes {
    /// Begins with the items of earlier processes, those below `until`, which count as arrived now.
    pub(in crate::engine) fn new(until: u64, now: Timestamp) -> Self {
        Self([(until, now)].into())
    }

    /// Notes that the items below this number have arrived.
    pub(in crate::engine) fn note(&mut self, until: u64, now: Timestamp) {
        match self.0.back_mut() {
            Some((last, at)) if now.since(*at) < RESOLUTION => *last = until.max(*last),
            last => {
                let until = last.map_or(until, |(last, _)| until.max(*last));
                self.0.push_back((until, now));
            }
        }
        if self.0.len() > ENTRIES_MAX {
            self.0.pop_front();
        }
    }

    /// Returns when an item arrived, to the second; `None` if it was not noted yet.
    pub(in crate::engine) fn of(&self, number: u64) -> Option<Timestamp> {
        let at = self.0.partition_point(|(until, _)| *until <= number);
        self.0.get(at).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_arrived_when_its_number_was_passed_first() {
        let at = |seconds: u64| Timestamp(seconds * 1000);
        let mut times = ArrivalTimes::new(100, at(50));
        assert_eq!(times.of(3), Some(at(50)));
        assert_eq!(times.of(100), None);
        times.note(110, at(60));
        times.note(120, Timestamp(60_999));
        times.note(130, at(61));
        // What was numbered before may be noted later.
        times.note(125, at(61));
        times.note(115, at(62));
        for (number, expected) in [(99, 50), (100, 60), (119, 60), (120, 61), (129, 61)] {
            assert_eq!(times.of(number), Some(at(expected)), "{number}");
        }
        assert_eq!(times.of(130), None);
    }

    #[test]
    fn a_long_run_takes_no_more_memory() {
        let mut times = ArrivalTimes::new(0, Timestamp(0));
        for second in 1..10_000 {
            times.note(second, Timestamp(second * 1000));
        }
        assert_eq!(times.0.len(), ENTRIES_MAX);
        // Longer ago than is known: at least this long.
        assert_eq!(times.of(7), Some(Timestamp((10_000 - 4096) * 1000)));
    }
}
