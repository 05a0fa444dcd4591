//! Devices of our users, device keys of all users, and to-device messages.

use std::collections::BTreeMap;

use ruma::{
    DeviceId, OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId,
    api::client::{
        device::{delete_device, get_device, get_devices, update_device},
        keys::get_keys,
        to_device::send_event_to_device,
    },
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};

use super::{Actor, Homeserver, MatrixError};

/// Maximum number of users whose keys are asked for in one request.
pub const KEYS_ASKED_MAX: usize = 100;

/// The messages of one send-to-device request: recipient, device, content.
pub type ToDeviceMessages = send_event_to_device::v3::Messages;

impl Homeserver {
    /// Creates a device of one of our users, or renames an existing one.
    ///
    /// `name` is visible to everybody who queries the user's keys.
    pub async fn put_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        name: &str,
    ) -> Result<(), MatrixError> {
        let mut request = update_device::v3::Request::new(device.to_owned());
        request.display_name = Some(name.to_owned());
        self.send(Actor::user(user), request).await.map(drop)
    }

    /// Returns whether one of our users has this device.
    pub async fn has_device(&self, user: &UserId, device: &DeviceId) -> Result<bool, MatrixError> {
        let request = get_device::v3::Request::new(device.to_owned());
        match self.send(Actor::user(user), request).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns whether one of our users has any device.
    pub async fn has_devices(&self, user: &UserId) -> Result<bool, MatrixError> {
        Ok(!self.devices_of(user).await?.is_empty())
    }

    /// Returns the devices of one of our users.
    pub async fn devices_of(&self, user: &UserId) -> Result<Vec<OwnedDeviceId>, MatrixError> {
        let request = get_devices::v3::Request::new();
        let answer = self.send(Actor::user(user), request).await?;
        let devices = answer.devices.into_iter();
        Ok(devices.map(|device| device.device_id).collect())
    }

    /// Deletes a device and its keys. A device that does not exist counts as deleted.
    pub async fn delete_device(&self, user: &UserId, device: &DeviceId) -> Result<(), MatrixError> {
        let request = delete_device::v3::Request::new(device.to_owned());
        match self.send(Actor::user(user), request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_missing() => Ok(()),
            Err(MatrixError::NoSuchUser { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the devices and cross-signing keys of these users, as the homeserver has them now.
    pub async fn query_keys(
        &self,
        who: Actor<'_>,
        users: impl IntoIterator<Item = OwnedUserId>,
    ) -> Result<get_keys::v3::Response, MatrixError> {
        let mut request = get_keys::v3::Request::new();
        request.device_keys = users.into_iter().map(|user| (user, Vec::new())).collect();
        self.send(who, request).await
    }

    /// Sends one unencrypted message to one device.
    ///
    /// All users of the service share their transaction ids: the homeserver ignores a second
    /// request with the same id, from any of them, and answers it with a success.
    pub async fn send_to_device<C>(
        &self,
        who: Actor<'_>,
        to: (&UserId, &DeviceId),
        event_type: &str,
        content: &Raw<C>,
        transaction: OwnedTransactionId,
    ) -> Result<(), MatrixError> {
        let to_device = BTreeMap::from([(
            DeviceIdOrAllDevices::DeviceId(to.1.to_owned()),
            content.clone().cast_unchecked(),
        )]);
        let request = send_event_to_device::v3::Request::new_raw(
            event_type.into(),
            transaction,
            BTreeMap::from([(to.0.to_owned(), to_device)]),
        );
        self.send(who, request).await.map(drop)
    }
}
