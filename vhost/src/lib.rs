//! vhost-user protocol and virtqueues, device and driver side; knows no packets and no functions.
