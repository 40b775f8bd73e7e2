//! QEMU enables the queues of a network card before it has negotiated any feature.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use chainplane_vhost::backend::{Device, DeviceConfig};

/// A message of the vhost-user protocol, version 1, without a wish for a reply.
fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, 1, payload.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

#[test]
fn a_queue_enabled_before_its_features_does_not_end_the_connection() {
    const GET_FEATURES: u32 = 1;
    const SET_VRING_ENABLE: u32 = 18;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let (device, _pairs) = Device::start(DeviceConfig::new(&socket), Box::new(|| {})).unwrap();
    let mut front_end = UnixStream::connect(&socket).unwrap();
    front_end
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();

    let queue_0_on = [0, 0, 0, 0, 1, 0, 0, 0];
    front_end
        .write_all(&message(SET_VRING_ENABLE, &queue_0_on))
        .unwrap();
    front_end.write_all(&message(GET_FEATURES, &[])).unwrap();
    let mut answer = [0; 20];
    front_end.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], GET_FEATURES.to_le_bytes());
    assert_eq!(device.status().last_error, None);
}
