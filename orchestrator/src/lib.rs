//! YAML to a running chain; command line, control socket, capture.
#![forbid(unsafe_code)]
