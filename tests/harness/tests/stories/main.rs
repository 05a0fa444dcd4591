//! Stories: each test is one, told with a homeserver of its own.
//!
//! | module | what it tells of |
//! |---|---|
//! | `introductions` | Alice reaches Sam by his handle, and they are alone |
//! | `opening_lines` | what she writes before he is there |
//! | `owners` | what Sam may do, be, or not be able to do meanwhile |
//! | `rooms` | rooms that are not like Element's direct chats: in clear, groups |
//! | `refusals` | who is declined, and that nobody can tell why |
//! | `requests` | an owner who likes to be asked first |
//! | `strict`, `memory` | handles for which nothing passes through the service |
//! | `crashes`, `outages` | kills, restarts and dead networks in between |
//! | `restores`, `healing` | the service comes back from a backup; one side is set back, or loses a part |
//! | `masked`, `masked_kinds`, `masked_kills`, `masked_rooms` | handles whose ghosts carry what is said, and what becomes of their rooms |
//! | `module` | the same with the module in Synapse: no ghost is ever there |
//! | `large_bodies`, `large_files` | a transaction that strangers made as large as they could, and files that people send |
//! | `cost` | what a message and an introduction cost the homeserver |
//! | `federation` | people of another homeserver, and a cut between the two |
//! | `admin` | what an admin does about handles, people and servers |
//! | `service_manager`, `metrics` | what systemd is told, and what Prometheus reads |
//! | `doctor` | which settings of Synapse `doctor` finds fault with |
//! | `control_room`, `names` | what people ask of the bot |
//! | `forgetting` | what is left in files and logs afterwards |
//! | `calls` | voice and video between two real browsers, through a mask |
//! | `harness_itself` | the harness without the service |

mod admin;
mod bots;
mod calls;
mod control_room;
mod cost;
mod crashes;
mod doctor;
mod federation;
mod forgetting;
mod harness_itself;
mod healing;
mod introductions;
mod large_bodies;
mod large_files;
mod masked;
mod masked_kills;
mod masked_kinds;
mod masked_rooms;
mod memory;
mod metrics;
mod module;
mod names;
mod opening_lines;
mod outages;
mod owners;
mod refusals;
mod remains;
mod requests;
mod restores;
mod rooms;
mod service_manager;
mod strict;
mod told;
