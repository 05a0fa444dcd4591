//! The clocks of other servers: which of their events come late, and when they speak again. Pure.
//!
//! An event's time is its sender's server's, and clocks differ. So an event is late if it took much
//! longer than others of that server did a short while ago, by the difference of the two clocks.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomId, ServerName};

use crate::{clock::Timestamp, ids::host_of};

/// How much longer than others an event takes at most when it arrives without a detour.
const LATE: Duration = Duration::from_secs(10);
/// How long the shortest way of an event counts. A server that sets its clock is believed after
/// twice this time, and until then its events cost a look at the history.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// How long a server is silent before its next event in each room may hide others, however the
/// server dates it.
const SILENCE: Duration = Duration::from_secs(60 * 60);
/// Maximum number of servers whose clocks are known. Beyond it, the one that was silent longest is
/// forgotten.
const SERVERS: usize = 1000;
/// Maximum number of rooms that are known to have been read. Beyond it, all are read again.
const ROOMS: usize = 10_000;

/// The clocks of other servers.
#[derive(Debug, Default)]
pub(in crate::engine) struct ServerClocks {
    clocks: HashMap<String, ServerClock>,
    /// The rooms in which a server was heard since it was last silent.
    heard_in: HashSet<(String, OwnedRoomId)>,
}

/// The clock of one server.
#[derive(Debug)]
struct ServerClock {
    /// When the present window began.
    since: Timestamp,
    /// The shortest time, by both clocks, that an event of this window took, in milliseconds. Less
    /// than nothing if the server's clock is ahead.
    shortest: i128,
    /// The same of the last window in which the server was heard.
    former: Option<i128>,
    heard_at: Timestamp,
}

impl ServerClock {
    /// Notes how long an event took, and returns whether that was much longer than usual.
    fn note(&mut self, took: i128, now: Timestamp) -> bool {
        if now.since(self.since) > WINDOW {
            self.former = Some(self.shortest);
            (self.shortest, self.since) = (took, now);
        }
        self.shortest = self.shortest.min(took);
        self.heard_at = self.heard_at.max(now);
        let usual = self
            .former
            .map_or(self.shortest, |it| it.min(self.shortest));
        took - usual > i128::try_from(LATE.as_millis()).unwrap_or(i128::MAX)
    }
}

impl ServerClocks {
    /// Notes an event of a server in a room. Returns whether others before it may be missing: it is
    /// late, or the first there since the server was silent.
    pub(in crate::engine) fn hear(
        &mut self,
        server: &ServerName,
        room: &RoomId,
        sent_at: Timestamp,
        now: Timestamp,
    ) -> bool {
        let host = host_of(server);
        let took = i128::from(now.0) - i128::from(sent_at.0);
        self.forget_one_for(&host);
        let clock = self
            .clocks
            .entry(host.clone())
            .or_insert_with(|| ServerClock {
                since: now,
                shortest: took,
                former: None,
                heard_at: now,
            });
        let was_silent = now.since(clock.heard_at) > SILENCE;
        let is_late = clock.note(took, now);
        if was_silent {
            self.heard_in.retain(|(silent, _)| *silent != host);
        }
        if self.heard_in.len() >= ROOMS {
            self.heard_in.clear();
        }
        let is_first = self.heard_in.insert((host, room.to_owned()));
        is_late || is_first
    }

    fn forget_one_for(&mut self, host: &str) {
        if self.clocks.len() < SERVERS || self.clocks.contains_key(host) {
            return;
        }
        let silent = self.clocks.iter().min_by_key(|(_, clock)| clock.heard_at);
        if let Some(silent) = silent.map(|(host, _)| host.clone()) {
            self.clocks.remove(&silent);
            self.heard_in.retain(|(host, _)| *host != silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, server_name};

    use super::*;
    use crate::testing::NOW;

    const SECOND: Duration = Duration::from_secs(1);

    /// Hears events of one server in one room: each so many seconds after the start, dated so many
    /// seconds after it.
    fn late(events: &[(u32, i64)]) -> Vec<bool> {
        let mut clocks = ServerClocks::default();
        let hear = |&(at, dated): &(u32, i64)| {
            let sent_at = Timestamp(NOW.0.checked_add_signed(dated * 1000).unwrap());
            let (server, room) = (server_name!("far.org"), room_id!("!room:hs.test"));
            clocks.hear(server, room, sent_at, NOW + SECOND * at)
        };
        events.iter().map(hear).collect()
    }

    #[test]
    fn a_clock_that_is_wrong_makes_nothing_late() {
        for skew in [-300, -15, 0, 15, 300] {
            let events = [0, 5, 60, 600, 1200, 3000].map(|at| (at, i64::from(at) + skew));
            let expected = [true, false, false, false, false, false];
            assert_eq!(late(&events), expected, "a clock that is {skew} s ahead");
        }
    }

    #[test]
    fn what_took_longer_than_usual_is_late_whatever_the_clock_says() {
        for skew in [-300, 0, 300] {
            let sent = |at: i64| at + skew;
            let events = [
                (0, sent(0)),
                // Within ten minutes of the last one, and after half an hour.
                (100, sent(40)),
                (101, sent(41)),
                (102, sent(102)),
                (1900, sent(1840)),
                (1901, sent(1841)),
            ];
            let expected = [true, true, true, false, true, true];
            assert_eq!(late(&events), expected, "a clock that is {skew} s ahead");
        }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_ten_minutes() {
        let set_back = |at: u32| (at, i64::from(at) - 60);
        let mut events = vec![(0, 0)];
        events.extend((1..=20).map(|minute| set_back(minute * 60)));
        let late = late(&events);
        assert!(late[1..=5].iter().all(|it| *it), "{late:?}");
        assert!(late[13..].iter().all(|it| !it), "{late:?}");
    }

    #[test]
    fn after_a_silence_each_room_counts_once() {
        let mut clocks = ServerClocks::default();
        let rooms = [room_id!("!one:hs.test"), room_id!("!two:hs.test")];
        for (after, expected) in [(0, true), (60, false), (3600, false), (7300, true)] {
            let now = NOW + SECOND * after;
            for room in rooms {
                let counts = clocks.hear(server_name!("far.org"), room, now, now);
                assert_eq!(counts, expected, "after {after} s");
            }
        }
    }

    #[test]
    fn few_servers_and_rooms_are_remembered() {
        let mut clocks = ServerClocks::default();
        let mut hear = |server: &str, room: usize, at| {
            let room = format!("!{room}:hs.test");
            let server = <&ServerName>::try_from(server).unwrap();
            clocks.hear(server, <&RoomId>::try_from(&*room).unwrap(), at, at)
        };
        for n in 0..SERVERS + 10 {
            let at = NOW + SECOND * u32::try_from(n).unwrap();
            hear(&format!("s{n}.example"), n, at);
        }
        for n in 0..ROOMS + 10 {
            hear("far.org", n, NOW);
        }
        assert!(hear("s0.example", 0, NOW), "it was forgotten");
        assert_eq!(clocks.clocks.len(), SERVERS);
        assert!(clocks.heard_in.len() <= ROOMS);
    }
}
