//! Who gets which name, and who finds it.

use anyhow::{Result, ensure};
use harness::{Person, World};
use serde_json::{Value, json};

use crate::{
    control_room::answered,
    refusals::release,
    told::{goodbye, times},
};

#[tokio::test]
async fn a_name_is_given_once() -> Result<()> {
    let world = World::start().await?;
    let bot = world.bot()?;
    let (_sam, sams) = world.owner("sam").await?;
    let (kim, zoe) = (world.person("kim").await?, world.person("zoe").await?);
    let kims = world.control_room(&kim).await?;
    let zoes = world.control_room(&zoe).await?;

    answered(&kims, &bot, "claim SAM", "is taken").await?;
    answered(&kims, &bot, "claim sarn", "looks too much like @sam").await?;
    // Sam hears of that.
    let told = sams.sees_part("which looks like your @sam").await?;
    ensure!(told.sender == bot && told.was_encrypted());
    answered(&kims, &bot, "claim admin", "is reserved").await?;
    answered(&kims, &bot, "claim sam-2", "only the letters a to z").await?;
    ensure!(times(&kims, &bot, "is yours") == 0, "{:#?}", kims.texts());

    let (one, other) = tokio::join!(
        kims.asks(&bot, "claim heron"),
        zoes.asks(&bot, "claim heron")
    );
    let said = [one?, other?].map(|seen| seen.text().unwrap_or_default().to_owned());
    let won = said
        .iter()
        .filter(|text| text.contains("@heron is yours"))
        .count();
    let lost = said
        .iter()
        .filter(|text| text.contains("@heron is taken"))
        .count();
    ensure!(won == 1 && lost == 1, "{said:#?}");
    Ok(())
}

#[tokio::test]
async fn a_name_is_given_up_with_a_code_and_kept_for_its_last_owner() -> Result<()> {
    let world = World::start().await?;
    let (bot, ghost) = (world.bot()?, world.ghost("sam")?);
    let (sam, sams) = world.owner("sam").await?;
    let kim = world.person("kim").await?;
    let kims = world.control_room(&kim).await?;

    answered(&sams, &bot, "release sam", "confirm").await?;
    answered(&sams, &bot, "confirm 12345", "isn't the code").await?;
    answered(&sams, &bot, "cancel", "Dropped").await?;
    answered(&sams, &bot, "confirm 1234", "Nothing is waiting").await?;
    answered(&kims, &bot, "release sam", "is not yours").await?;
    found(&world, &kim, "sam", Some(ghost.as_str())).await?;

    release(&sams, &bot, "sam").await?;
    answered(&sams, &bot, "handles", "claim").await?;
    answered(&kims, &bot, "claim sam", "given up not long ago").await?;
    let chat = kim.starts_chat(&[&ghost]).await?;
    goodbye(&chat, &ghost).await?;
    found(&world, &kim, "sam", None).await?;
    world.claims(&sam, &sams, "sam").await?;
    found(&world, &kim, "sam", Some(ghost.as_str())).await
}

#[tokio::test]
async fn clients_find_a_handle_by_its_exact_name() -> Result<()> {
    let world = World::start().await?;
    let (_sam, sams) = world.owner("sam").await?;
    let kim = world.person("kim").await?;
    let ghost = world.ghost("sam")?;
    for typed in ["sam", "SAM", "@sam"] {
        found(&world, &kim, typed, Some(ghost.as_str())).await?;
    }
    for typed in ["sa", "samuel", "nobodyhere", "../etc", "%00", ""] {
        found(&world, &kim, typed, None).await?;
    }
    let protocols = ask(&world, &kim, "protocols", &[]).await?;
    ensure!(
        protocols["stonechat"]["user_fields"] == json!(["handle"]),
        "{protocols}"
    );
    ensure!(times(&sams, &world.bot()?, "is yours") == 1);
    Ok(())
}

/// Looks a handle up as a client does, and wants exactly this ghost, or nobody.
async fn found(world: &World, person: &Person, handle: &str, ghost: Option<&str>) -> Result<()> {
    let answer = ask(world, person, "user/stonechat", &[("handle", handle)]).await?;
    let users = answer.as_array().into_iter().flatten();
    let users: Vec<&str> = users.filter_map(|user| user["userid"].as_str()).collect();
    ensure!(
        answer.is_array() && users == Vec::from_iter(ghost),
        "looking up {handle:?} gave {answer}, wanted {ghost:?}"
    );
    Ok(())
}

/// Asks the homeserver for what it looks up at the service.
pub async fn ask(
    world: &World,
    person: &Person,
    what: &str,
    query: &[(&str, &str)],
) -> Result<Value> {
    let mut url = world.synapse.url();
    url.set_path(&format!("_matrix/client/v3/thirdparty/{what}"));
    url.query_pairs_mut().extend_pairs(query);
    let token = person.client.access_token().unwrap_or_default();
    let answer = reqwest::Client::new()
        .get(url)
        .bearer_auth(token)
        .send()
        .await?;
    let status = answer.status();
    let said: Value = answer.json().await?;
    ensure!(status.is_success(), "{what} {query:?}: {status} {said}");
    Ok(said)
}
