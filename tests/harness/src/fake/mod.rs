//! The service as a child process on the [fake homeserver](fake_homeserver), for load and for
//! faults only; everything else is told on a real Synapse.
//!
//! | module | what it is |
//! |---|---|
//! | [`person`] | people on it, who live in this process |
//! | [`World`] | the service on it |

pub mod person;
mod world;

pub use fake_homeserver::{
    Arrival, Draft, Event, Fake, Faults, Mail, Options, Outage, Registration, Restart, Server,
};
pub use person::Person;
pub use world::World;
