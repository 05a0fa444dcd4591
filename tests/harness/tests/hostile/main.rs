//! Attacks: homeservers that mean harm, against a real Synapse and the real service. Each story is
//! one attack, while two local people are introduced and two others talk through a mask, and ends
//! with a restart of the service.
//!
//! The stories share a homeserver and the service, one after the other: each measures how long
//! people wait. One that fails leaves the next a new world.
//!
//! | module | what it tells of |
//! |---|---|
//! | `stage` | the world that the stories share, and what each ends with |
//! | `undisturbed` | the people who must not notice |
//! | `pulse` | how late the homeserver is by itself |
//! | `invites` | invites that are too large, lie, or are too many |
//! | `to_device` | to-device messages that are too large |
//! | `stalls` | servers that never answer |
//! | `rooms` | rooms with too much in them |
//! | `devices` | people with too many devices |
//! | `malformed` | events as nobody should send them |

mod devices;
mod invites;
mod malformed;
mod pulse;
mod rooms;
mod stage;
mod stalls;
mod to_device;
mod undisturbed;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use stage::Theatre;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two at once would measure each other.
    arguments.test_threads = Some(1);
    let theatre = match Theatre::new() {
        Ok(theatre) => theatre,
        Err(error) => {
            eprintln!("{error:?}");
            return ExitCode::FAILURE;
        }
    };
    let trials = vec![
        theatre.shows(
            "an_invite_with_too_much_stripped_state_stops_nothing",
            invites::too_much_stripped_state,
        ),
        theatre.shows(
            "a_to_device_message_of_any_size_blinds_nobody",
            to_device::too_large,
        ),
        theatre.shows(
            "nobody_is_charged_for_an_invite_in_their_name",
            invites::in_somebody_elses_name,
        ),
        theatre.shows(
            "ten_servers_that_never_answer_a_join_hold_nobody_up",
            stalls::joins,
        ),
        theatre.shows(
            "a_server_that_never_answers_a_key_query_holds_nobody_up",
            stalls::key_queries,
        ),
        theatre.shows(
            "hundreds_of_invites_to_made_up_names_hold_nobody_up",
            invites::made_up_names,
        ),
        theatre.shows("a_person_with_ten_thousand_devices", devices::ten_thousand),
        theatre.shows(
            "malformed_messages_stop_nothing",
            malformed::messages_and_others,
        ),
        theatre.shows("malformed_state_stops_nothing", malformed::state),
        theatre.shows("malformed_invites_stop_nothing", malformed::invites),
        theatre.shows(
            "a_room_of_five_thousand_members",
            rooms::five_thousand_members,
        ),
        theatre.shows(
            "a_room_with_three_thousand_large_state_events",
            rooms::large_state,
        ),
        theatre.shows_alone(
            "synapses_own_limit_of_invites_touches_no_local_person",
            invites::synapses_own_limit,
        ),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Processes and folders go before the program does.
    drop(theatre);
    conclusion.exit_code()
}
