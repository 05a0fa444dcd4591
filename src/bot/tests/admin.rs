//! What admins do to handles through the bot.

use super::*;
use crate::{
    directory::{ActingAdmin, audit_log},
    permissions::{Grantee, Permission, Permissions},
};

fn root() -> &'static Person {
    person("@root:example.org")
}

fn talk() -> Talk {
    Talk::with(|settings| permit(settings, Permission::Admin))
}

fn permit(settings: &DirectorySettings, permission: Permission) {
    let root = Grantee::Person((**root()).clone());
    let permissions = Permissions::new(&settings.server_name, [(root, permission)]);
    settings.permissions.replace(permissions);
}

#[tokio::test]
async fn nobody_but_an_admin_finds_the_command() {
    let mut talk = talk();
    talk.ask(sam(), "claim sam").await;
    for text in ["admin", "admin freeze sam", "ADMIN show sam"] {
        let said = talk.ask(sam(), text).await;
        assert!(said.starts_with("I don't know `admin`. "), "{said}");
    }
    for text in ["help", "help admin", "admn", "amdin"] {
        let said = talk.ask(sam(), text).await;
        assert!(!said.contains("`admin"), "{said}");
    }
    assert!(talk.record("sam").unwrap().is_active());
    let help = talk.ask(root(), "help").await;
    assert!(help.contains("`admin freeze sam`"), "{help}");
}

#[tokio::test]
async fn an_admin_freezes_a_handle_and_its_owner_reads_why() {
    let mut talk = talk();
    talk.ask(sam(), "claim Sam").await;
    let done = talk
        .answer(root(), "admin freeze @sam pretends to be <b>Sam</b>")
        .await
        .unwrap();
    assert_eq!(
        done.plain,
        "@Sam is frozen: nobody new reaches @samuel:example.org by it. Masked conversations that \
         have begun go on; `release` ends them. I tell @samuel:example.org."
    );
    let [Effect::Tell { person, notice }] = &done.effects[..] else {
        panic!("{:?}", done.effects)
    };
    assert_eq!(person, sam());
    assert_eq!(
        notice.plain,
        "@Sam was frozen by the admin of this server: it's still yours, and nobody new can reach \
         you by it. If you think that's a mistake, ask the admin.\n\nThe admin says:\n> pretends to be <b>Sam</b>\n\n"
    );
    assert!(!notice.html.contains("<b>"), "{}", notice.html);
    let own = talk.ask(sam(), "handles").await;
    assert!(own.contains("frozen by the admin (pretends to be"), "{own}");
    let shown = talk.ask(root(), "admin show sam").await;
    assert!(
        shown.starts_with(
            "@Sam belongs to @samuel:example.org since 14 November 2023. Mode: open. Policy: \
             everyone. Frozen since 2023-11-14 "
        ),
        "{shown}"
    );
    let log = audit_log(talk.directory.store(), None).unwrap().acts;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].record.by, ActingAdmin::Person(root().clone()));
    assert_eq!(log[0].record.reason, "pretends to be <b>Sam</b>");

    let freed = talk.answer(root(), "admin unfreeze sam").await.unwrap();
    assert!(freed.plain.starts_with("@Sam is no longer frozen."));
    assert!(matches!(&freed.effects[..], [Effect::Tell { .. }]));
}

#[tokio::test]
async fn a_handle_changes_hands_only_with_a_code_and_only_from_who_had_it() {
    let mut talk = talk();
    talk.ask(sam(), "claim sam").await;
    let order = "admin transfer sam @kimberly:example.org he left";
    let said = talk.ask(root(), order).await;
    assert!(
        said.starts_with(
            "This takes @sam from @samuel:example.org and gives it to @kimberly:example.org. Its \
             masked conversations end, and how it's set up is lost. It cannot be taken back. To do \
             it, write `confirm "
        ),
        "{said}"
    );
    assert!(talk.record("sam").unwrap().is_held_by(sam()));
    // Who is no longer an admin gets nothing done with a code from before.
    let code = talk.code(root(), order).await;
    permit(talk.directory.settings(), Permission::Claim);
    let said = talk.ask(root(), &format!("confirm {code}")).await;
    assert_eq!(said, "@sam is not yours.");
    permit(talk.directory.settings(), Permission::Admin);
    // Nor does a code hold for the next owner.
    let code = talk.code(root(), order).await;
    let theirs = talk.code(sam(), "release sam").await;
    talk.ask(sam(), &format!("confirm {theirs}")).await;
    let said = talk.ask(root(), &format!("confirm {code}")).await;
    assert_eq!(said, "Nobody holds @sam.");
    talk.ask(sam(), "claim sam").await;

    let code = talk.code(root(), order).await;
    let done = talk
        .answer(root(), &format!("confirm {code}"))
        .await
        .unwrap();
    assert!(talk.record("sam").unwrap().is_held_by(kim()));
    assert!(
        done.plain
            .starts_with("@sam belongs to @kimberly:example.org now, ")
    );
    let [
        Effect::ReplaceIdentity { .. },
        Effect::Tell {
            person: former,
            notice: lost,
        },
        Effect::Tell {
            person: new,
            notice: won,
        },
    ] = &done.effects[..]
    else {
        panic!("{:?}", done.effects)
    };
    assert_eq!((former, new), (sam(), kim()));
    assert!(
        lost.plain.starts_with("@sam is no longer yours"),
        "{}",
        lost.plain
    );
    assert!(
        won.plain
            .starts_with("The admin of this server gave you @sam.")
    );
    for notice in [lost, won] {
        assert!(notice.plain.ends_with("> he left\n\n"), "{}", notice.plain);
    }

    let code = talk.code(root(), "admin release sam").await;
    let done = talk
        .answer(root(), &format!("confirm {code}"))
        .await
        .unwrap();
    assert!(
        matches!(
            &done.effects[..],
            [
                Effect::RetireGhost { generation: 2, .. },
                Effect::Tell { .. }
            ]
        ),
        "{:?}",
        done.effects
    );
}

#[tokio::test]
async fn what_is_typed_wrongly_is_explained() {
    let mut talk = talk();
    talk.ask(sam(), "claim sam").await;
    for (typed, words) in [
        (
            "admin freeze",
            "Say which handle you mean. For example: `admin freeze sam`",
        ),
        ("admin freeze nobody1", "Nobody holds @nobody1."),
        (
            "admin melt sam",
            "I don't know `admin melt`. `admin` shows what there is.",
        ),
        (
            "admin transfer sam kim",
            "Say who gets it, by their Matrix ID. For example: `admin transfer sam @samuel:example.org`",
        ),
        ("admin unverify sam", "@sam is not verified."),
        (
            "admin freeze @_dm_sam:far.example",
            "That handle belongs to another server, whose admin looks after it. For example: `admin freeze sam`",
        ),
        ("admin release nobody1", "Nobody holds @nobody1."),
    ] {
        let said = talk.answer(root(), typed).await.unwrap();
        assert_eq!(
            (said.plain.as_str(), said.effects.len()),
            (words, 0),
            "{typed}"
        );
    }
    let acts = talk.ask(root(), "admin").await;
    for usage in ["admin show sam", "admin release sam", "admin claim sam @"] {
        assert!(acts.contains(usage), "{acts}");
    }
}

#[tokio::test]
async fn a_reserved_name_is_given_by_the_admin_alone() {
    let mut talk = talk();
    let said = talk.ask(root(), "admin reserve prize").await;
    assert!(said.starts_with("It's reserved"), "{said}");
    let said = talk.ask(sam(), "claim prize").await;
    assert!(said.starts_with("@prize is reserved"), "{said}");
    let given = talk
        .answer(root(), "admin claim prize @samuel:example.org")
        .await;
    assert!(matches!(
        &given.unwrap().effects[..],
        [Effect::MakeGhost { .. }, Effect::Tell { .. }]
    ));
    assert!(talk.record("prize").unwrap().is_held_by(sam()));
    let said = talk.ask(root(), "admin unreserve prize").await;
    assert!(
        said.contains("is no longer reserved. It still belongs to"),
        "{said}"
    );
}

#[tokio::test]
async fn an_admin_bans_people_and_only_owners_are_told() {
    let mut talk = talk();
    talk.ask(sam(), "claim sam").await;
    let done = talk
        .answer(root(), "admin ban @samuel:example.org spam everywhere")
        .await
        .unwrap();
    assert_eq!(
        done.plain,
        "@samuel:example.org is banned: they reach nobody, claim nothing, and nobody new reaches \
         them. Chats and masked conversations that have begun go on. They keep @sam; `release` \
         takes one from them. I tell @samuel:example.org."
    );
    let said = talk.ask(sam(), "claim other").await;
    assert!(said.contains("can't have a handle here"), "{said}");
    // A ban of an admin takes their commands too.
    talk.ask(root(), "admin ban @root:example.org").await;
    let said = talk.ask(root(), "admin unban @samuel:example.org").await;
    assert!(said.starts_with("I don't know `admin`."), "{said}");

    let mut talk = self::talk();
    let done = talk.answer(root(), "admin ban far.example").await.unwrap();
    assert!(
        done.plain.starts_with("far.example is banned"),
        "{}",
        done.plain
    );
    assert_eq!(done.effects, []);
    let wrong = talk.ask(root(), "admin ban").await;
    assert!(wrong.starts_with("Say whom you mean"), "{wrong}");
    let wrong = talk.ask(root(), "admin ban example.org").await;
    assert!(wrong.contains("`permissions`"), "{wrong}");
}

#[tokio::test]
async fn what_an_admin_reads_is_true_of_a_name_that_nobody_holds_any_longer() {
    let mut talk = talk();
    talk.ask(sam(), "claim sam").await;
    let code = talk.code(root(), "admin release sam").await;
    talk.ask(root(), &format!("confirm {code}")).await;
    let done = talk.answer(root(), "admin reserve sam").await.unwrap();
    assert!(done.plain.starts_with("It's reserved"), "{}", done.plain);
    assert_eq!(done.effects, []);
    let done = talk.answer(root(), "admin unreserve sam").await.unwrap();
    assert!(done.plain.starts_with("It's no longer reserved"));
    assert_eq!(done.effects, []);
}

#[tokio::test]
async fn a_handle_that_an_impostor_has_just_given_up_is_kept_from_them_too() {
    let mut talk = talk();
    talk.ask(sam(), "claim sam").await;
    let theirs = talk.code(sam(), "release sam").await;
    let code = talk.code(root(), "admin release sam").await;
    talk.ask(sam(), &format!("confirm {theirs}")).await;
    let done = talk
        .answer(root(), &format!("confirm {code}"))
        .await
        .unwrap();
    assert!(
        done.plain
            .starts_with("@sam was given up already, by @samuel:example.org."),
        "{}",
        done.plain
    );
    assert_eq!(done.effects, []);
    let said = talk.ask(sam(), "claim sam").await;
    assert!(said.contains("was given up not long ago"), "{said}");
    let said = talk.ask(root(), "admin release sam").await;
    assert_eq!(said, "Nobody holds @sam.");
}
