//! What a person can do, what they have, and what is no command.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn help_shows_what_this_person_can_do_now() {
    let mut talk = Talk::with(|settings| settings.handles_per_person = 1);
    assert_eq!(
        talk.ask(sam(), "help").await,
        "You don't have a handle yet. To get one, pick a name and write, for example, `claim \
         sam`.\n\
         • `claim sam` makes a handle yours\n\
         • `dm @sam` gives you a link that starts a chat with someone\n\
         • `whoami` shows what I know about you\n\
         • `my data` sends you all that I keep about you\n\
         • `forget me` deletes what I keep about you\n\
         • `help` shows this"
    );
    talk.ask(sam(), "claim sam").await;
    assert_eq!(
        talk.ask(sam(), "HELP!").await,
        "What you can write to me:\n\
         • `handles` shows your handles and how they are set up\n\
         • `dm @sam` gives you a link that starts a chat with someone\n\
         • `mode sam open|strict|masked` sets how people are introduced to you\n\
         • `policy sam everyone|ask|nobody` sets who may reach you\n\
         • `block @kim` keeps a person out, whichever of their handles they use\n\
         • `release sam` gives one of your handles up\n\
         • `whoami` shows what I know about you\n\
         • `my data` sends you all that I keep about you\n\
         • `forget me` deletes what I keep about you\n\
         • `help` shows this"
    );
    talk.ask(sam(), "block @alice:example.org").await;
    talk.ask(sam(), "release sam").await;
    let help = talk.ask(sam(), "").await;
    for shown in ["`unblock @kim`", "`confirm 1234`", "`cancel`"] {
        assert!(help.contains(shown), "{help}");
    }
    assert_eq!(
        talk.ask(sam(), "help unblock").await,
        "`unblock @kim` takes a block back; without a name it shows whom you blocked."
    );
}

#[tokio::test]
async fn what_is_no_command_gets_the_nearest_one() {
    let mut talk = Talk::new();
    for (typed, expected) in [
        (
            "clam sam",
            "I don't know `clam`. Did you mean `claim sam`? `help` shows all I can do.",
        ),
        (
            "@Kim",
            "I don't know `@Kim`. To write to someone, put `dm` before it: `dm @Kim`. `help` \
             shows all I can do.",
        ),
        (
            "what is this",
            "I don't know `what`. `help` shows all I can do.",
        ),
        ("a`b", "I don't know `a'b`. `help` shows all I can do."),
        (
            "claim sam\nclaim kim",
            "One command per message, please. I haven't done any of these.",
        ),
    ] {
        assert_eq!(talk.ask(sam(), typed).await, expected);
    }
    let long = talk.ask(sam(), &"x".repeat(999)).await;
    assert!(long.chars().count() < 100, "{long}");
    assert_eq!(
        talk.ask(sam(), &"x".repeat(1001)).await,
        "That's longer than any of my commands, so I haven't read it. `help` shows what I \
         understand."
    );
    let html = talk.answer(sam(), "<img/src=x>").await.unwrap().html;
    assert!(
        html.contains("&lt;img/src=x&gt;") && !html.contains("<img"),
        "{html}"
    );
    assert_eq!(talk.directory.handles_of(sam()).unwrap(), []);
}

#[tokio::test]
async fn whoami_says_what_is_kept() {
    let mut talk = Talk::new();
    talk.ask(sam(), "claim sam").await;
    talk.ask(sam(), "claim other").await;
    talk.ask(sam(), "block @kim:example.org all").await;
    assert_eq!(
        talk.ask(sam(), "whoami").await,
        "You're @samuel:example.org. You have @other and @sam. You've blocked one person.\n\n\
         I'm @_dm_.bot:example.org. I keep your Matrix ID, your handles and how they're set up, \
         the name you want to be seen by, whom you've blocked and accepted, who is asking to reach \
         you, your masked conversations (who is in them and what they were called there, and for \
         a time which message is the copy of which), whether you're banned, for 90 days who was \
         introduced to whom, for two days how often you've used me, and for a year what an admin \
         has done to a handle of yours. What you write to each other I keep only while it waits to \
         be passed on, as encrypted as it came."
    );
}

#[test]
fn what_is_not_text_is_answered_in_words() {
    assert_eq!(
        texts::not_text().plain,
        "I only read text. Write `help` to see what I can do."
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every text gets an answer of bounded length with no HTML but ours.
    #[test]
    fn nothing_that_is_typed_breaks_the_bot(
        command in "(claim|release|mode|policy|dm|block|unblock|confirm|help|cancel|handles|x)",
        rest in "\\PC{0,60}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut talk = Talk::new();
            talk.ask(sam(), "claim sam").await;
            let answer = talk.answer(sam(), &format!("{command} {rest}")).await.unwrap();
            assert!(!answer.plain.is_empty() && answer.plain.len() < 2000);
            let mut html = answer.html;
            for ours in ["<strong>", "</strong>", "<code>", "</code>", "<br>", "<ul>", "</ul>", "<li>", "</li>", "</a>", "<a href=\""] {
                html = html.replace(ours, "");
            }
            html = html.replace("\">", "");
            assert!(!html.contains(['<', '>', '"']), "{html}");
            assert!(talk.record("sam").unwrap().is_active());
        });
    }
}

#[tokio::test]
async fn who_says_hello_when_the_bot_has_just_greeted_is_not_greeted_twice() {
    let mut talk = Talk::new();
    talk.greeted_at = Some(NOW);
    for hello in ["hello", "Hi!", "hey", "start"] {
        assert_eq!(talk.answer(sam(), hello).await, None, "{hello}");
    }
    for other in ["help", "hello claim", "?"] {
        assert!(talk.answer(sam(), other).await.is_some(), "{other}");
    }
    talk.now = NOW + Duration::from_secs(60);
    assert!(talk.answer(sam(), "hello").await.is_some());
}
