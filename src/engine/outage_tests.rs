//! While the homeserver fails at everything, nothing is given up, however long that takes.

use std::time::Duration;

use http::StatusCode;
use ruma::{RoomId, room_id};

use super::{GOOD_FOR, ProbeAnswer};
use crate::{
    engine::{
        Engine, EngineError,
        records::{InboxItem, tests::effects_of_all_kinds},
        retry::Retry,
        room::Room,
    },
    introduction::Refusal,
    matrix::{Fate, MatrixError},
    testing::{self, NOW, Outage, TestEngine},
};

const OUTAGES: [Outage; 5] = [
    Outage::Failing(500),
    Outage::Failing(503),
    Outage::Proxy(502),
    Outage::Proxy(504),
    Outage::Silence,
];
const MINUTE: Duration = Duration::from_secs(60);
const LENGTHS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(11 * 60),
    Duration::from_secs(65 * 60),
    Duration::from_secs(2 * 60 * 60),
];

fn room() -> &'static RoomId {
    room_id!("!room:hs.test")
}

fn failing(status: u16, errcode: Option<&str>) -> EngineError {
    EngineError::Matrix(MatrixError::Failing {
        status: StatusCode::from_u16(status).unwrap(),
        errcode: errcode.map(str::to_owned),
        message: String::new(),
        retry_after: None,
    })
}

/// What any request gets during an outage.
fn answer_during(outage: Outage) -> EngineError {
    match outage {
        Outage::Failing(status) => failing(status, Some("M_UNKNOWN")),
        Outage::Proxy(status) => failing(status, None),
        Outage::Silence => MatrixError::TimedOut.into(),
    }
}

async fn failure(engine: &Engine, outage: Outage) -> EngineError {
    let error = answer_during(outage);
    match outage {
        // Which takes ten seconds to find out.
        Outage::Silence => EngineError::HomeserverDown(Box::new(error)),
        _ => engine.unless_outage(error).await,
    }
}

#[tokio::test]
async fn nothing_is_given_up_while_the_homeserver_fails_at_everything() {
    for outage in OUTAGES {
        let TestEngine {
            engine,
            fake,
            clock,
            ..
        } = testing::engine().build().await;
        fake.begin_outage(outage);
        let items = [
            InboxItem::Event("{}".to_owned()),
            InboxItem::ControlRoomExpired,
        ];
        for length in LENGTHS {
            let mut rooms = Vec::new();
            let load = || Room::load(engine.clone(), room().to_owned()).unwrap();
            for effect in effects_of_all_kinds() {
                let mut room = load();
                let error = failure(&engine, outage).await;
                assert!(room.retries_effect(1, &effect, &error), "{effect:?}");
                rooms.push((room, effect));
            }
            let mut handling = load();
            for (number, item) in (1..).zip(&items) {
                let error = failure(&engine, outage).await;
                assert!(handling.retries(number, Retry::of_arrival(item), &error));
            }
            clock.advance(length);
            for (room, effect) in &mut rooms {
                let error = failure(&engine, outage).await;
                let retried = room.retries_effect(1, effect, &error);
                assert!(retried, "{outage:?} for {length:?}: {effect:?}");
            }
            for (number, item) in (1..).zip(&items) {
                let error = failure(&engine, outage).await;
                assert!(handling.retries(number, Retry::of_arrival(item), &error));
            }
        }
    }
}

#[tokio::test]
async fn the_time_of_an_effect_begins_when_the_homeserver_is_back() {
    let TestEngine {
        engine,
        fake,
        clock,
        ..
    } = testing::engine().build().await;
    for effect in effects_of_all_kinds() {
        let mut room = Room::load(engine.clone(), room().to_owned()).unwrap();
        let poison = || failing(500, Some("M_UNKNOWN"));
        fake.begin_outage(Outage::Failing(500));
        clock.advance(GOOD_FOR);
        let error = engine.unless_outage(poison()).await;
        assert!(room.retries_effect(1, &effect, &error), "{effect:?}");
        clock.advance(120 * MINUTE);
        fake.end_outage();
        let error = engine.unless_outage(poison()).await;
        assert_eq!(error.fate(), Fate::Failing);
        assert!(room.retries_effect(1, &effect, &error), "{effect:?}");
    }
}

#[tokio::test]
async fn rooms_that_fail_at_the_same_time_ask_once() {
    let TestEngine {
        engine,
        fake,
        clock,
        ..
    } = testing::engine().build().await;
    let bot = engine.settings().bot.to_string();
    fake.with(|server| {
        server.account(&bot);
    });
    let asked = || {
        let log = fake.log().into_iter();
        log.filter(|line| line.contains("/whoami")).count()
    };
    let all_fail = async || {
        let failures = (0..20).map(|_| engine.unless_outage(failing(500, Some("M_UNKNOWN"))));
        let errors = futures_util::future::join_all(failures).await;
        let down = |error: &&EngineError| matches!(error, EngineError::HomeserverDown(_));
        errors.iter().filter(down).count()
    };
    assert_eq!((all_fail().await, asked()), (0, 1));
    fake.refuse("/whoami", 500);
    assert_eq!((all_fail().await, asked()), (0, 1), "the answer is new");
    clock.advance(GOOD_FOR);
    assert_eq!((all_fail().await, asked()), (20, 2));
    fake.refuse_nothing();
    clock.advance(GOOD_FOR);
    assert_eq!((all_fail().await, asked()), (0, 3));
}

#[test]
fn a_clock_that_is_set_back_makes_no_answer_last() {
    let answer = ProbeAnswer {
        at: NOW,
        is_down: true,
    };
    assert!(answer.is_good(NOW));
    assert!(!answer.is_good(NOW + GOOD_FOR));
    assert!(!answer.is_good(NOW - 10 * MINUTE));
}

#[tokio::test]
async fn only_what_an_outage_can_explain_makes_us_ask() {
    let TestEngine { engine, fake, .. } = testing::engine().build().await;
    fake.refuse("/whoami", 503);
    let refused = |status: u16, errcode: Option<&str>| {
        EngineError::Matrix(MatrixError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            errcode: errcode.map(str::to_owned),
            message: String::new(),
        })
    };
    for error in [
        refused(403, Some("M_FORBIDDEN")),
        refused(404, Some("M_NOT_FOUND")),
        failing(429, Some("M_LIMIT_EXCEEDED")),
        EngineError::KeyOnItsWay,
        EngineError::Refused(Refusal::Impossible),
    ] {
        let text = error.to_string();
        assert_eq!(engine.unless_outage(error).await.to_string(), text);
    }
    for error in [
        failing(502, Some("M_UNKNOWN")),
        failing(504, None),
        MatrixError::TimedOut.into(),
        MatrixError::MediaUnavailable { retry_after: None }.into(),
        // A proxy that has lost its homeserver, and a token that is not known at the moment.
        refused(404, None),
        refused(401, Some("M_UNKNOWN_TOKEN")),
    ] {
        let error = engine.unless_outage(error).await;
        assert_eq!(error.fate(), Fate::Away, "{error}");
        assert_eq!(error.refusal(), Refusal::Failing);
    }
}
