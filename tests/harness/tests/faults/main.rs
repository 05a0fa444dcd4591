//! Stories on a homeserver that fails, and tests of that homeserver.
//!
//! | module | what it tells of |
//! |---|---|
//! | `fake_itself` | the homeserver keeps Matrix's rules and Synapse's traps |
//! | `introductions` | nobody's introduction is lost and nothing is said twice, whatever fails |
//! | `plan` | the choices of a run, which its seed repeats |

mod fake_itself;
mod introductions;
mod plan;
