// A bot that holds a handle, for people who write bots.
//
// It uses matrix-js-sdk and the Matrix client-server API, and knows nothing else of Stonechat: it
// signs in to an ordinary account, claims a handle by writing to Stonechat's bot, joins the chats
// that it is invited to, and answers what it is told there.
//
//     node bot.mjs --homeserver http://127.0.0.1:8008 --user echo --password secret \
//                  --stonechat @_dm_.bot:example.org --handle echo
//
// On standard output it writes one JSON object a line, so that other programs can watch it.
//
// What matters for encryption is marked (1) to (4).

import { parseArgs } from "node:util";

// The SDK logs through the console: keep standard output for ourselves.
for (const level of ["log", "info", "debug", "trace"]) console[level] = () => {};
const sdk = await import("matrix-js-sdk");
const { logger } = await import("matrix-js-sdk/lib/logger.js");
logger.setLevel("error");

const { values: options } = parseArgs({
    options: {
        homeserver: { type: "string" },
        user: { type: "string" },
        password: { type: "string" },
        stonechat: { type: "string" },
        handle: { type: "string" },
    },
});
for (const name of ["homeserver", "user", "password"]) {
    if (!options[name]) {
        console.error(`--${name} is missing`);
        process.exit(2);
    }
}

const say = (what, more = {}) =>
    process.stdout.write(JSON.stringify({ what, ...more }) + "\n");
process.on("unhandledRejection", (error) => {
    console.error(error);
    say("failed", { reason: String(error) });
    process.exit(1);
});

// (1) One device, signed in once. A bot that is started again and again keeps its access token,
// its device id and its keys (`initRustCrypto` with a database); this one is new at every start.
const login = await sdk.createClient({ baseUrl: options.homeserver }).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: options.user },
    password: options.password,
    initial_device_display_name: "Example bot",
});
const client = sdk.createClient({
    baseUrl: options.homeserver,
    userId: login.user_id,
    deviceId: login.device_id,
    accessToken: login.access_token,
});
const me = login.user_id;
await client.initRustCrypto({ useIndexedDB: false });
const crypto = client.getCrypto();

// (2) The device has to be signed by its owner, or clients (and Stonechat) refuse its messages.
await crypto.bootstrapCrossSigning({
    authUploadDeviceSigningKeys: async (upload) => {
        try {
            return await upload(null); // allowed without a password while there are no keys yet
        } catch (error) {
            return await upload({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: me },
                password: options.password,
                session: error.data?.session,
            });
        }
    },
});

// What was said before we came is not ours to answer.
const startedAt = Date.now();

client.on(sdk.RoomMemberEvent.Membership, async (_event, member) => {
    if (member.userId !== me || member.membership !== "invite") return;
    say("invited", { room: member.roomId, by: member.events.member?.getSender() });
    await client.joinRoom(member.roomId);
    say("joined", { room: member.roomId });
});

// (3) An event may come before its key: wait for the decryption, and for its second attempt.
client.on(sdk.RoomEvent.Timeline, async (event, room, toStartOfTimeline) => {
    if (toStartOfTimeline || event.isState()) return;
    await client.decryptEventIfNeeded(event);
    if (event.isDecryptionFailure()) {
        say("undecryptable", { room: room.roomId, event: event.getId(), reason: event.decryptionFailureReason });
        event.once(sdk.MatrixEventEvent.Decrypted, () => heard(event, room));
        return;
    }
    await heard(event, room);
});

const waiting = [];
const stonechatSays = () => new Promise((resolve) => waiting.push(resolve));

async function heard(event, room) {
    const sender = event.getSender();
    const text = event.getContent().body;
    if (event.getType() !== "m.room.message" || sender === me || typeof text !== "string") return;
    // A client would show a shield for anything but 0.
    const shield = (await crypto.getEncryptionInfoForEvent(event))?.shieldColour ?? null;
    say("heard", {
        room: room.roomId,
        event: event.getId(),
        sender,
        text,
        encrypted: event.isEncrypted(),
        shield,
    });
    if (sender === options.stonechat) {
        waiting.shift()?.(text);
        return;
    }
    if (event.getTs() < startedAt) return;
    // The first words of somebody who came by handle are passed on by the handle's ghost, as a
    // quote. It leaves within seconds; what we say before that it could read.
    const words = isGhost(sender) ? unquoted(text) : text;
    if (!words) return;
    await ghostsGone(room);
    await answer(room.roomId, `You said: ${words}`);
}

const isGhost = (user) => user.startsWith("@_dm_");
const unquoted = (text) =>
    text
        .split("\n")
        .filter((line) => line.startsWith("> "))
        .map((line) => line.slice(2))
        .join("\n");

async function ghostsGone(room) {
    while (room.getJoinedMembers().some((member) => isGhost(member.userId))) {
        await new Promise((resolve) => client.once(sdk.RoomMemberEvent.Membership, resolve));
    }
}

// (4) An encrypted room or none.
async function answer(room, text) {
    if (!(await crypto.isEncryptionEnabledInRoom(room))) {
        say("refused", { room, reason: "the room is not encrypted" });
        return;
    }
    const { event_id: event } = await client.sendTextMessage(room, text);
    say("said", { room, event, text });
}

await new Promise((resolve) => {
    client.on(sdk.ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
    client.startClient({ initialSyncLimit: 20, lazyLoadMembers: false });
});
say("ready", { user: me, device: login.device_id });

if (options.stonechat && options.handle) {
    // A chat with Stonechat's bot, encrypted from the start, like any chat with a person.
    const greeting = stonechatSays();
    const { room_id: control } = await client.createRoom({
        preset: sdk.Preset.TrustedPrivateChat,
        is_direct: true,
        invite: [options.stonechat],
        initial_state: [
            {
                type: "m.room.encryption",
                state_key: "",
                content: { algorithm: "m.megolm.v1.aes-sha2" },
            },
        ],
    });
    await client.setAccountData("m.direct", { [options.stonechat]: [control] });
    say("control-room", { room: control });
    await greeting;
    const claimed = stonechatSays();
    await answer(control, `claim ${options.handle}`);
    say("claimed", { handle: options.handle, answer: await claimed });
}

const end = () => {
    client.stopClient();
    process.exit(0);
};
process.on("SIGTERM", end);
process.on("SIGINT", end);
// Started by a test, we end with it.
if (process.env.STONECHAT_DIE_WITH_PARENT) process.stdin.on("end", end).resume();
