//! Beside the rounds of [`seeds`](crate::seeds): pictures and files that lie on a server which
//! accepts connections and then says nothing. Nothing waits for them longer than is said.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Seen, fake::World};
use serde_json::{Value, json};

use crate::{
    introductions::said_by,
    masked::{Side, introduce_masked},
    oracle::hears,
};

/// The server that does not answer.
const SERVER: &str = "still.test";

/// What is said behind the picture and the file.
const BEHIND: &str = "did you get it?";

/// How long the homeserver waits for what the server knows of keys.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);

/// Two masked people of whom one sends a picture with a thumbnail there, and two of whom one sends a
/// file that is there.
pub struct Pictures {
    picture: [Side; 2],
    file: [Side; 2],
}

fn file(server: &str, id: &str) -> Value {
    let key = json!({
        "kty": "oct", "key_ops": ["encrypt", "decrypt"], "alg": "A256CTR", "ext": true,
        "k": "aWF6-32KGYaC3A_FEUCk1Bt0JA37zP0wrStgmdCaW-0",
    });
    json!({
        "url": format!("mxc://{server}/{id}"), "v": "v2", "key": key,
        "iv": "w+sE15fzSc0AAAAAAAAAAA",
        "hashes": {"sha256": "fdSLu/YkRx3Wyh3KQabP3rd6+SFiKg5lsJZQHtkSAYA"},
    })
}

impl Pictures {
    pub async fn begin(world: &World) -> Result<Self> {
        world.fake.set_silent(SERVER, GIVEN_UP_AFTER);
        let (picture, file) = tokio::try_join!(
            introduce_masked(world, "nan", "pat"),
            introduce_masked(world, "uma", "vic"),
        )?;
        Ok(Self { picture, file })
    }

    pub async fn are_sent(&self, own_server: &str) -> Result<()> {
        let picture = json!({
            "msgtype": "m.image", "body": "a heron.png", "file": file(own_server, "picture"),
            "info": {"mimetype": "image/png", "thumbnail_file": file(SERVER, "thumbnail")},
        });
        let lost = json!({
            "msgtype": "m.file", "body": "herons.pdf", "file": file(SERVER, "file"),
        });
        for ([side, _], what) in [(&self.picture, picture), (&self.file, lost)] {
            side.person
                .sends(&side.room, "m.room.message", &what)
                .await?;
            side.person.says(&side.room, BEHIND).await?;
        }
        Ok(())
    }

    /// The picture has arrived without its thumbnail, and the sender of the file was told. What was
    /// said behind them has arrived.
    pub async fn have_arrived(&self) -> Result<()> {
        let [nan, pat] = &self.picture;
        let log = pat.person.log();
        hears(log, &pat.room, BEHIND).await?;
        let is_picture = |seen: &Seen| seen.content["body"] == "a heron.png";
        let shown = log.events_in(&pat.room);
        let shown = shown.iter().find(|seen| is_picture(seen));
        let info = &shown.context("the picture is lost")?.content["info"];
        ensure!(info["mimetype"] == "image/png", "{info}");
        ensure!(info["thumbnail_file"].is_null(), "{info}");
        pat.sees_nothing_of(nan)?;

        let [uma, vic] = &self.file;
        let (told, log) = ("I couldn't fetch your file", vic.person.log());
        hears(uma.person.log(), &uma.room, told).await?;
        hears(log, &vic.room, BEHIND).await?;
        let times = said_by(uma.person.log(), &uma.room, &uma.ghost, told);
        ensure!(times == 1, "told {times} times");
        let is_file = |seen: &Seen| seen.content["body"] == "herons.pdf";
        ensure!(log.find(is_file).is_none(), "it is there all the same");
        vic.sees_nothing_of(uma)
    }
}
