//! Every record of the engine as it is on disk: a name that changes here changes the format.

use ruma::{event_id, room_id, user_id};
use serde::Serialize;
use serde_json::Value;

use super::{
    super::control_room::{Control, ControlPhase, Occasion, Remark},
    *,
};
use crate::{
    bot::{self, NoticeText},
    conversation::{Home, Notice, OnceNotice, Participant, PortalStatus, RoomRole, Secret},
    introduction::{
        Admission, Introduction, IntroductionNotice, Invite, PendingEvent, Phase, Reason, WaitFor,
    },
    matrix::bounds::DeadLetterReason,
    store::BackupInfo,
};

const AT: Timestamp = Timestamp(1_795_376_395_450);

/// What a value is on disk, before it is sealed.
fn stored(value: &impl Serialize) -> Value {
    let bytes = rmp_serde::to_vec_named(value).unwrap();
    rmp_serde::from_slice(&bytes).unwrap()
}

/// The bytes of a value on disk, for one that holds a digest.
fn stored_bytes(value: &impl Serialize) -> String {
    hex::encode(rmp_serde::to_vec_named(value).unwrap())
}

fn all_stored<T: Serialize>(values: impl IntoIterator<Item = T>) -> Vec<Value> {
    values.into_iter().map(|value| stored(&value)).collect()
}

fn room() -> OwnedRoomId {
    room_id!("!room:hs.test").to_owned()
}

fn event() -> OwnedEventId {
    event_id!("$event").to_owned()
}

fn ghost() -> Ghost {
    Ghost::new(user_id!("@_dm_sam:hs.test").to_owned())
}

fn person() -> Person {
    Person::new(user_id!("@alice:hs.test").to_owned())
}

fn talk() -> ConversationId {
    ConversationId::new("talk")
}

fn notice_text() -> NoticeText {
    NoticeText {
        plain: "plain".to_owned(),
        html: "html".to_owned(),
    }
}

#[test]
fn what_waits_in_an_inbox() {
    insta::assert_json_snapshot!(all_stored([
        InboxItem::Event("{}".to_owned()),
        InboxItem::AfterGap("{}".to_owned()),
        InboxItem::Invite {
            user: ghost().into(),
            state: vec!["{}".to_owned()],
        },
        InboxItem::ControlRoomCreated { person: person() },
        InboxItem::ControlRoomExpired,
        InboxItem::RoomKeyArrived {
            user: ghost().into()
        },
        InboxItem::KeyForStrict {
            ghost: ghost(),
            sender: person().into(),
        },
        InboxItem::Answered {
            ghost: ghost(),
            accepted: true,
            masked: true,
        },
        InboxItem::ShowRequest {
            owner: person(),
            number: 7,
        },
        InboxItem::ShowLine {
            owner: person(),
            number: 7,
        },
        InboxItem::ConversationJoined {
            conversation: talk(),
            ghosts: vec![ghost()],
        },
        InboxItem::UpgradePending {
            conversation: talk(),
            ghosts: vec![ghost()],
        },
        InboxItem::UpgradeSeen {
            to: room(),
            by: person(),
        },
        InboxItem::Notify {
            person: person(),
            plain: "plain".to_owned(),
            html: "html".to_owned(),
            source: "source".to_owned(),
        },
    ]));
}

/// Every kind of effect.
pub(in crate::engine) fn effects_of_all_kinds() -> Vec<QueuedEffect> {
    let introduction = |effect| QueuedEffect::Introduction {
        ghost: ghost(),
        effect,
    };
    let relay = |effect| QueuedEffect::Conversation {
        conversation: talk(),
        effect,
    };
    let notice = IntroductionNotice::AskingFirst;
    let introductions = [
        Effect::Decline {
            reason: Some(Reason::NotNow),
        },
        Effect::Join,
        Effect::Look,
        Effect::TurnOnEncryption,
        Effect::ShowAs,
        Effect::AskOwner,
        Effect::ShowLine,
        Effect::WithdrawRequest,
        Effect::OpenConversation,
        Effect::InviteOwner,
        Effect::PassOn {
            event: event(),
            edit: Some(event()),
        },
        Effect::PassOnEdit {
            event: event(),
            of: event(),
        },
        Effect::TakeBack { of: event() },
        Effect::DeclineVerification { event: event() },
        Effect::SendNotice {
            notice: notice.clone(),
        },
        Effect::SendReply {
            to: event(),
            notice: notice.clone(),
        },
        Effect::HandOver,
        Effect::RememberPair,
        Effect::ForgetPair,
        Effect::Leave { reason: None },
        Effect::LookBack,
        Effect::Forget,
        Effect::TellAsker { notice },
        Effect::TellOwner,
    ];
    let conversations = [
        conversation::Effect::EnsurePortal { person: 1 },
        conversation::Effect::ForwardEvent {
            event: event(),
            sender: 0,
            target: RoomRole::Portal(1),
            is_last: true,
        },
        conversation::Effect::RedactCopy {
            event: event(),
            of: event(),
            sender: 0,
            target: RoomRole::Origin,
        },
        conversation::Effect::RedactCopiesOf {
            person: 1,
            target: RoomRole::Portal(2),
        },
        conversation::Effect::SendNotice {
            notice: Notice::Ended,
            cause: "cause".to_owned(),
        },
        conversation::Effect::DeclineVerification {
            event: event(),
            ghost: ghost(),
        },
        conversation::Effect::SetGhostName { person: 1 },
        conversation::Effect::FollowUpgrade {
            to: room(),
            by: person(),
        },
        conversation::Effect::SyncPortalInfo {
            person: 1,
            cause: Some(event()),
        },
        conversation::Effect::RenameOrigin { event: event() },
        conversation::Effect::RemoveGhost { person: 1 },
        conversation::Effect::LeaveRoom,
        conversation::Effect::DeleteGhosts {
            ghosts: vec![ghost()],
        },
    ];
    let (handle, name) = (ghost(), "Sam".to_owned());
    let tasks = [
        bot::Effect::MakeGhost {
            ghost: handle.clone(),
            name: name.clone(),
            generation: 1,
        },
        bot::Effect::ReplaceIdentity {
            ghost: handle.clone(),
            name: name.clone(),
            generation: 2,
        },
        bot::Effect::RetireGhost {
            ghost: handle.clone(),
            generation: 2,
            released_at: AT,
        },
        bot::Effect::EndConversations {
            ghost: handle.clone(),
            blocked_only: true,
            generation: 2,
        },
        bot::Effect::ErasePerson { person: person() },
        bot::Effect::SendExport { person: person() },
        bot::Effect::SetName {
            person: person(),
            ghost: handle.clone(),
            name,
        },
        bot::Effect::AnswerRequest {
            room: room(),
            ghost: handle,
            accepted: true,
            masked: true,
        },
        bot::Effect::Tell {
            person: person(),
            notice: notice_text(),
        },
    ];
    let control = [
        ControlEffect::Invite,
        ControlEffect::Join,
        ControlEffect::Decline {
            inviter: person(),
            reason: "reason".to_owned(),
        },
        ControlEffect::Look,
        ControlEffect::TurnOnEncryption,
        ControlEffect::MoveTo { room: room() },
        ControlEffect::Leave {
            reason: Some("reason".to_owned()),
        },
        ControlEffect::SendNotice {
            notice: notice_text(),
            source: "source".to_owned(),
            occasion: Occasion::Answer,
        },
        ControlEffect::SendNotice {
            notice: notice_text(),
            source: "source".to_owned(),
            occasion: Occasion::News,
        },
        ControlEffect::DeclineVerification { event: event() },
        ControlEffect::ShowRequest { number: 7 },
        ControlEffect::ShowLine { number: 7 },
        ControlEffect::OfferAnswers { to: event() },
        ControlEffect::Forget,
    ];
    let control = control
        .into_iter()
        .chain(tasks.map(ControlEffect::Bot))
        .map(QueuedEffect::Control);
    introductions
        .map(introduction)
        .into_iter()
        .chain(conversations.map(relay))
        .chain(control)
        .collect()
}

#[test]
fn what_waits_in_an_outbox() {
    let all = effects_of_all_kinds().into_iter();
    let due = all.map(|what| (what.kind(), stored(&OutboxItem { since: AT, what })));
    insta::assert_json_snapshot!(due.collect::<Vec<_>>());
}

#[test]
fn what_the_engine_knows_of_a_room() {
    let introduced = Admission::Introduce {
        owner: person(),
        handle: "sam".to_owned(),
        strict: false,
        back_to: Some(room()),
        asks_first: true,
        masked: false,
    };
    let invite = |admission| Invite {
        asker: person().into(),
        admission,
    };
    let mut introduction = Introduction::found(&room(), &ghost(), invite(introduced), AT);
    introduction.pending.push(PendingEvent {
        event: event(),
        edit: Some(event()),
        former_edits: vec![event()],
        quoted_edit: Some(event()),
        done: true,
        unreadable: false,
        by_other: true,
    });
    introduction.passing_on = Some(event());
    introduction.replied_to.push(event());
    introduction.waits_until = Some(AT);
    introduction
        .notices_sent
        .push(IntroductionNotice::BackTo { room: room() });
    let record = RoomRecord {
        introductions: vec![introduction],
        control: Some(Control {
            person: Some(person()),
            phase: ControlPhase::Ready,
            waiting: vec![(event(), AT)],
            encrypted_by_us: true,
            made_at: Some(AT),
            answered: vec![(Remark::NotEncrypted, AT)],
            greeted_at: Some(AT),
            looked_at: Some(AT),
            look_at: Some(AT),
        }),
        conversation: Some(ConversationRoom {
            conversation: talk(),
            ghosts: vec![ghost()],
            upgrade_pending: true,
            waiting_told_at: None,
        }),
    };
    insta::assert_json_snapshot!("room_record", stored(&record));

    let admissions = [
        Admission::NotNow,
        Admission::Unclaimed,
        Admission::Unfit {
            reason: Reason::NotAChat,
        },
        Admission::OwnHandle,
        Admission::GhostAsking,
        Admission::LeaveAlone,
    ];
    insta::assert_json_snapshot!("admissions", all_stored(admissions));
    let waiting = |on| Phase::Waiting {
        on,
        until: AT,
        retry: AT,
    };
    let phases = [
        Phase::Declining { at: AT },
        Phase::Joining,
        Phase::Looking,
        Phase::Listening { until: AT },
        Phase::Asking { until: AT },
        Phase::Inviting,
        Phase::Opening,
        Phase::Lingering,
        waiting(WaitFor::Join),
        waiting(WaitFor::SignedDevice),
        waiting(WaitFor::Keys),
        Phase::Closing,
        Phase::Leaving,
        Phase::Over,
        Phase::Declined,
    ];
    insta::assert_json_snapshot!("phases", all_stored(phases));
    let phases = [
        ControlPhase::Joining,
        ControlPhase::Looking,
        ControlPhase::Left,
    ];
    insta::assert_json_snapshot!("control_phases", all_stored(phases));
    let remarks = [
        Remark::Unreadable,
        Remark::UnsignedDevice,
        Remark::TooManyDevices,
        Remark::Verification,
        Remark::NotUnderstood,
        Remark::TooOld,
        Remark::UnknownDevice,
    ];
    insta::assert_json_snapshot!("remarks", all_stored(remarks));
}

/// With the ids, which stand in transaction ids.
#[test]
fn what_ghosts_say() {
    let sentences = [
        IntroductionNotice::GroupFromInviteOn,
        IntroductionNotice::GroupFromJoinOn,
        IntroductionNotice::BackTo { room: room() },
        IntroductionNotice::BackToPerson { room: room() },
        IntroductionNotice::SendAgainEncrypted,
        IntroductionNotice::SendAgainUnreadable,
        IntroductionNotice::SendAgainAllUnreadable,
        IntroductionNotice::SendAgainOther,
        IntroductionNotice::SendAgainPlainFile,
        IntroductionNotice::TooLarge,
        IntroductionNotice::NotPassedOn,
        IntroductionNotice::NotPassedOnInGroup,
        IntroductionNotice::MoreNotPassedOn,
        IntroductionNotice::NotTakenBack,
        IntroductionNotice::UnsignedDevice,
        IntroductionNotice::TooManyDevices,
        IntroductionNotice::OwnerNotInvitable,
        IntroductionNotice::InvitingLater,
        IntroductionNotice::InviteFailed,
        IntroductionNotice::WaitingForJoin,
        IntroductionNotice::WaitingForDevice,
        IntroductionNotice::WaitingForKeys,
        IntroductionNotice::AskingFirst,
        IntroductionNotice::AskingFirstWithoutLine,
        IntroductionNotice::AskingFirstInGroup,
        IntroductionNotice::AskingFirstStrict,
        IntroductionNotice::EnoughKept,
        IntroductionNotice::NotKept,
        IntroductionNotice::PlainFileNotKept,
        IntroductionNotice::OwnerDidNotCome,
        IntroductionNotice::OwnerCannotRead,
        IntroductionNotice::StrictSendAgain,
        IntroductionNotice::SaidAtTheLast,
    ];
    let with_ids = sentences.map(|sentence| (sentence.id(), stored(&sentence)));
    insta::assert_json_snapshot!("in_introductions", with_ids.to_vec());
    let reasons = [
        Reason::NotNow,
        Reason::OwnerIsHere,
        Reason::NotEncrypted,
        Reason::NotAChat,
        Reason::TooManyMembers,
        Reason::UnsignedDevice,
        Reason::TooManyDevices,
        Reason::MayNotInvite,
    ];
    insta::assert_json_snapshot!("reasons", all_stored(reasons));
    let notices = [
        Notice::Masked {
            handle: "@sam".to_owned(),
            shown_as: "Alice".to_owned(),
        },
        Notice::MaskedInGroup {
            handle: "@sam".to_owned(),
            person: 2,
        },
        Notice::Unencrypted,
        Notice::Verification,
        Notice::MatrixRtc,
        Notice::RoomOnly,
        Notice::NotForwarded {
            text: "text".to_owned(),
        },
        Notice::Waiting,
        Notice::NobodyThere,
        Notice::Full,
        Notice::PersonLeft {
            name: "Alice".to_owned(),
        },
        Notice::UpgradeFailed { by: person() },
        Notice::OthersUpgraded,
        Notice::Ended,
    ];
    insta::assert_json_snapshot!("in_conversations", all_stored(notices));
}

#[test]
fn a_conversation() {
    let portal = |status| Participant {
        user: person(),
        ghost: ghost(),
        name: "@sam".to_owned(),
        is_alias: false,
        home: Home::Portal {
            room: Some(room()),
            status,
        },
        former_names: vec!["Sam".to_owned()],
    };
    let statuses = [
        PortalStatus::NotInvited,
        PortalStatus::InvitePending,
        PortalStatus::Invited,
        PortalStatus::Joined,
        PortalStatus::Left,
        PortalStatus::Closed,
    ];
    let mut people = statuses.map(portal).to_vec();
    people[0].home = Home::Origin { is_present: true };
    let conversation = Conversation {
        id: talk(),
        origin: Some(room()),
        direct: false,
        secret: Secret([7; 32]),
        people,
        started_at: AT,
        last_return_at: Some(AT),
        notices_sent_in: vec![
            (RoomRole::Origin, OnceNotice::MatrixRtc),
            (RoomRole::Portal(1), OnceNotice::RoomOnly),
        ],
        removals: 2,
        ended: false,
    };
    insta::assert_json_snapshot!(stored(&conversation));
}

#[test]
fn the_small_records() {
    let letter = DeadLetterRecord {
        at: AT,
        letter: DeadLetter {
            reason: DeadLetterReason::EventTooLarge,
            room: Some(room()),
            user: Some(ghost().into()),
            event_type: Some("m.room.message".to_owned()),
            size: 200_000,
        },
    };
    let seen = SeenEvent {
        at: AT,
        handled: true,
    };
    let to_device = ToDeviceItem {
        user: ghost().into(),
        json: "{}".to_owned(),
    };
    let restore = RestoreRecord {
        begun_at: AT,
        backup: Some(BackupInfo {
            at: AT,
            version: "0.1.0".to_owned(),
        }),
        done: false,
        new_devices: 3,
        changed: vec![(ghost(), "why".to_owned())],
    };
    let owed = OwedGhost {
        effect: bot::Effect::RetireGhost {
            ghost: ghost(),
            generation: 2,
            released_at: AT,
        },
        number: 3,
    };
    let owed_notice = OwedNotice {
        since: AT,
        person: person(),
        notice: notice_text(),
    };
    let lost = LostSession {
        sender: person().into(),
        told_at: AT,
    };
    let copy = Copy {
        event: event(),
        there: Digest::of("!room:hs.test"),
        copy: event(),
        by: 1,
        at: AT,
    };
    let copies = CopyPack {
        until: 7,
        copies: vec![copy.clone()],
    };
    let arrivals = SeenPack {
        since: AT,
        arrivals: vec![(Digest::of("$event"), 7, true)],
    };
    insta::assert_json_snapshot!([
        ("dead letter", stored(&letter)),
        ("seen event", stored(&seen)),
        ("to-device message", stored(&to_device)),
        ("restore", stored(&restore)),
        ("owed ghost", stored(&owed)),
        ("owed notice", stored(&owed_notice)),
        ("lost session", stored(&lost)),
        ("pending", stored(&("plain", "html"))),
    ]);
    insta::assert_json_snapshot!([
        ("copy", stored_bytes(&copy)),
        ("pack of copies", stored_bytes(&copies)),
        ("pack of arrivals", stored_bytes(&arrivals)),
    ]);
}
