//! What `stonechat doctor` finds about the settings of a real Synapse.

use anyhow::{Result, ensure};
use harness::{World, WorldOptions};
use serde_json::{Value, json};

/// Changes Synapse's configuration, and returns whether `doctor` is content then and what it prints.
async fn doctor_with(world: &mut World, changes: &[(&str, Value)]) -> Result<(bool, String)> {
    world.synapse.stop().await?;
    let further = &mut world.synapse.options_mut().further;
    let changes = changes.iter().cloned();
    further.extend(changes.map(|(name, value)| (name.to_owned(), value)));
    world.synapse.start().await?;
    let said = world.service.command_line(&["doctor"]).await?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok((said.status.success(), text))
}

/// Returns the lines of a check in the table.
fn lines_of(table: &str, check: &str) -> String {
    let is_first = |line: &&str| line.starts_with(&format!("│ {check} "));
    let mut lines = table.lines().skip_while(|line| !is_first(line));
    let first = lines.next().into_iter();
    // The lines of a check after its first have no name.
    let rest = lines.take_while(|line| line.starts_with("│  "));
    first.chain(rest).collect::<Vec<&str>>().join("\n")
}

#[tokio::test]
async fn doctor_names_each_setting_that_hurts_and_what_to_set() -> Result<()> {
    let options = WorldOptions {
        turn: true,
        ..WorldOptions::default()
    };
    let mut world = World::start_with(options).await?;
    let search = json!({"search_all_users": true});
    let (is_content, table) = doctor_with(&mut world, &[("user_directory", search)]).await?;
    ensure!(is_content, "{table}");
    for (check, part) in [
        ("version", "Synapse"),
        ("lookups", "profiles and keys"),
        ("auto-accept", "ok"),
        ("search", "by typing"),
        ("calls", "127.0.0.2"),
        ("group calls", "matrix_rtc:"),
        ("deletions", "redaction_allowed_period"),
    ] {
        let lines = lines_of(&table, check);
        ensure!(
            lines.contains(part),
            "{check}: {part:?} is not in {lines:?} of\n{table}"
        );
        let is_advice = lines.contains("advice");
        ensure!(
            is_advice == matches!(check, "group calls" | "deletions"),
            "{table}"
        );
    }
    let of_checks = "user_id LIKE '@\\_dm\\_.%' ESCAPE '\\' AND user_id NOT LIKE '%.bot:%'";
    let left = format!(
        "SELECT user_id, membership, forgotten FROM room_memberships JOIN local_current_membership \
         USING (event_id, user_id, membership) WHERE {of_checks} \
         AND (membership != 'leave' OR forgotten = 0)"
    );
    let left = world.synapse.query(&left).await?;
    ensure!(left.is_empty(), "rooms of the checks are left: {left:?}");

    let search = json!({"search_all_users": false});
    let changes = [
        (
            "limit_profile_requests_to_users_who_share_rooms",
            json!(true),
        ),
        ("require_auth_for_profile_requests", json!(true)),
        ("auto_accept_invites", json!({"enabled": true})),
        ("user_directory", search),
        ("turn_shared_secret", json!("another secret")),
    ];
    let (is_content, table) = doctor_with(&mut world, &changes).await?;
    ensure!(!is_content, "{table}");
    for (check, result, part) in [
        (
            "lookups",
            "FAILED",
            "limit_profile_requests_to_users_who_share_rooms:",
        ),
        ("auto-accept", "FAILED", "auto_accept_invites:"),
        ("search", "advice", "search_all_users:"),
        ("calls", "advice", "credentials"),
    ] {
        let lines = lines_of(&table, check);
        ensure!(
            lines.contains(result) && lines.contains(part),
            "{check}: {lines} of\n{table}"
        );
    }

    let features = json!({
        "msc2409_to_device_messages_enabled": true,
        "msc3202_transaction_extensions": true,
        "msc4263_limit_key_queries_to_users_who_share_rooms": true,
    });
    let changes = [
        (
            "limit_profile_requests_to_users_who_share_rooms",
            json!(false),
        ),
        ("auto_accept_invites", json!({"enabled": false})),
        ("experimental_features", features),
    ];
    let (is_content, table) = doctor_with(&mut world, &changes).await?;
    let lines = lines_of(&table, "lookups");
    let part = "msc4263_limit_key_queries_to_users_who_share_rooms:";
    ensure!(!is_content && lines.contains(part), "{table}");
    ensure!(lines_of(&table, "auto-accept").contains("ok"), "{table}");
    Ok(())
}
