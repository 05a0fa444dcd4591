// What runs in the browser: a client on matrix-js-sdk that makes classic calls.
//
// `browser.mjs` calls `window.person(…)` with what to do, and hears what happens by `window.say`.

import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { CallErrorCode, CallEvent, CallState } from "matrix-js-sdk/lib/webrtc/call.js";
import { CallEventHandlerEvent } from "matrix-js-sdk/lib/webrtc/callEventHandler.js";

const say = (what, more = {}) => window.say({ what, ...more });
logger.setLevel("warn");

let client;
let call;

async function signIn({ homeserver, user, password }) {
    const login = await sdk.createClient({ baseUrl: homeserver }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user },
        password,
        initial_device_display_name: "Browser",
    });
    client = sdk.createClient({
        baseUrl: homeserver,
        userId: login.user_id,
        deviceId: login.device_id,
        accessToken: login.access_token,
    });
    // Its keys are in IndexedDB, as Element keeps them.
    await client.initRustCrypto();
    client.on(CallEventHandlerEvent.Incoming, (incoming) => {
        follow(incoming);
        say("rings", { call: incoming.callId, room: incoming.roomId, kind: incoming.type });
    });
    await new Promise((resolve) => {
        client.on(sdk.ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
        client.startClient({ initialSyncLimit: 20, lazyLoadMembers: false });
    });
    await client.checkTurnServers();
    say("ready", { user: login.user_id, device: login.device_id, relays: client.getTurnServers().length });
}

// Follows a call to its end.
function follow(one) {
    call = one;
    const id = () => ({ call: one.callId });
    one.on(CallEvent.State, (state) => {
        say("state", { ...id(), state });
        if (state === CallState.Connected) flows(one).catch((error) => failed("stats", error));
    });
    one.on(CallEvent.LocalHoldUnhold, (held) => say("held", { ...id(), held }));
    one.on(CallEvent.Hangup, () => {
        say("ended", { ...id(), by: one.hangupParty, reason: one.hangupReason });
    });
    one.on(CallEvent.Error, (error) => say("call-error", { ...id(), reason: String(error), code: error.code }));
}

const failed = (of, error) => say("failed", { of, reason: String(error?.stack ?? error) });

// Says by which way a call goes, once what is heard (and seen) has grown for a while. Nothing tells
// of statistics but asking for them.
async function flows(one) {
    const video = one.type === "video";
    const seen = { audio: [], video: [] };
    while (!one.callHasEnded()) {
        const stats = [...(await one.peerConn.getStats()).values()];
        const transport = stats.find((it) => it.type === "transport" && it.selectedCandidatePairId);
        const pair = stats.find((it) => it.id === transport?.selectedCandidatePairId);
        const end = (id) => {
            const { candidateType, protocol, address, port } = stats.find((it) => it.id === id) ?? {};
            return { candidateType, protocol, address, port };
        };
        for (const kind of ["audio", "video"]) {
            const inbound = stats.filter((it) => it.type === "inbound-rtp" && it.kind === kind);
            const bytes = inbound.reduce((sum, it) => sum + it.bytesReceived, 0);
            if (bytes > (seen[kind].at(-1) ?? 0)) seen[kind].push(bytes);
        }
        const enough = (kind) => seen[kind].length >= 3;
        if (pair && enough("audio") && (!video || enough("video"))) {
            const ends = { local: end(pair.localCandidateId), remote: end(pair.remoteCandidateId) };
            say("flows", { call: one.callId, ...ends, ...seen });
            return;
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
}

const deeds = {
    "sign-in": signIn,
    // The room may not have come with a sync yet.
    async call({ room, video, number }) {
        while (client.getRoom(room)?.getMyMembership() !== "join") {
            await new Promise((resolve) => client.once(sdk.RoomEvent.MyMembership, resolve));
        }
        const placed = client.createCall(room);
        follow(placed);
        say("calls", { call: placed.callId, number });
        await (video ? placed.placeVideoCall() : placed.placeVoiceCall());
    },
    // As in a network from which no relay can be reached.
    "lose-relays": () => {
        client.getTurnServers().length = 0;
        say("lost-relays");
    },
    answer: () => call.answer(),
    hold: ({ held }) => call.setRemoteOnHold(held),
    reject: () => call.reject(),
    "hang-up": () => call.hangup(CallErrorCode.UserHangup, false),
};

window.person = async ({ deed, ...how }) => {
    try {
        await deeds[deed](how);
    } catch (error) {
        failed(deed, error);
    }
};
