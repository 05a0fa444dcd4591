//! Stories on a homeserver that fails, and tests of that homeserver.
//!
//! | module | what it tells of |
//! |---|---|
//! | `acts` | replies, reactions, edits and deletions find what they are about, whatever fails |
//! | `disk` | a full disk ends the service, and space brings it back whole |
//! | `fake_itself` | the homeserver keeps Matrix's rules and Synapse's traps |
//! | `group` | groups in one round of `seeds` |
//! | `introductions` | nobody's introduction is lost and nothing is said twice, whatever fails |
//! | `masked` | two masked people lose nothing and hear nothing twice, whatever fails |
//! | `oracle` | what somebody waits for in a round, and what they must see |
//! | `plan` | the choices of a run, which its seed repeats |
//! | `round` | what happens in one round of `seeds`, and what must have become of it |
//! | `seeds` | everything at once, by many seeds, with kills and outages in between |
//! | `silence` | pictures that lie on a server which does not answer, beside `seeds` |

mod acts;
mod disk;
mod fake_itself;
mod group;
mod introductions;
mod masked;
mod oracle;
mod plan;
mod round;
mod seeds;
mod silence;
