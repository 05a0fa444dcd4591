//! People with very many devices.

use matrix_sdk_crypto::vodozemac::olm;
use ruma::{CanonicalJsonObject, UserId};
use serde_json::{Value, json};

/// Returns the keys of a device that nobody but itself has signed.
pub(crate) fn device_keys(user: &UserId, device: &str) -> Value {
    let account = olm::Account::new();
    let keys = account.identity_keys();
    let mut device_keys = json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{device}"): keys.curve25519.to_base64(),
            format!("ed25519:{device}"): keys.ed25519.to_base64(),
        },
    });
    let canonical: CanonicalJsonObject = serde_json::from_value(device_keys.clone()).unwrap();
    let text = serde_json::to_string(&canonical).unwrap();
    let signature = account.sign(text.as_bytes()).to_base64();
    device_keys["signatures"] = json!({user.as_str(): {format!("ed25519:{device}"): signature}});
    device_keys
}

/// Returns this many devices as a server may make them up: as long as real ones, and no signature
/// is right.
pub(crate) fn claimed_devices(user: &UserId, count: usize) -> Value {
    let key = "A".repeat(43);
    let signature = "A".repeat(86);
    let devices = (0..count).map(|n| {
        let device = format!("CROWD{n:06}");
        let keys = json!({
            "user_id": user, "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {format!("curve25519:{device}"): key, format!("ed25519:{device}"): key},
            "signatures": {user.as_str(): {
                format!("ed25519:{device}"): signature, format!("ed25519:{key}"): signature,
            }},
            "unsigned": {"device_display_name": "app.example.test: Browser on Linux, and so on"},
        });
        (device, keys)
    });
    devices.collect::<serde_json::Map<_, _>>().into()
}
