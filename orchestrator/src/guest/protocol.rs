//! What guests say to each other over TCP.
//!
//! A request is one line, `send N`. The answer is one line, `NAME saw ADDRESS:PORT`, the server's name and the
//! client's address as the server saw it, followed by `N` bytes of a pattern. A connection takes any number of
//! requests.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Longest line of either side, in bytes, its end included.
pub const MAX_LINE: usize = 256;
/// Most bytes that one request may ask for.
pub const MAX_BYTES: u64 = 1 << 30;

const REQUEST: &str = "send ";
const SAW: &str = " saw ";

/// The request for `bytes` bytes.
pub fn request(bytes: u64) -> String {
    format!("{REQUEST}{bytes}\n")
}

/// The number of bytes that a request, without its line end, asks for.
pub fn parse_request(line: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(line).ok()?.strip_prefix(REQUEST)?;
    number.parse().ok().filter(|bytes| *bytes <= MAX_BYTES)
}

/// The line in front of the bytes.
pub fn answer(name: &str, client: SocketAddr) -> String {
    // What a line can't hold is left out; names in a configuration are far shorter.
    let room = MAX_LINE - 64;
    let mut line: String = name.chars().filter(|c| *c != '\n').collect();
    line.truncate(line.floor_char_boundary(room));
    let _ = writeln!(line, "{SAW}{client}");
    line
}

/// Name and client of an answer's line, without its line end.
pub fn parse_answer(line: &[u8]) -> Option<(String, SocketAddr)> {
    let (name, client) = std::str::from_utf8(line).ok()?.rsplit_once(SAW)?;
    let plain = !name.is_empty() && !name.chars().any(char::is_control);
    plain.then_some(())?;
    Some((name.to_owned(), client.parse().ok()?))
}

/// The pattern's byte at `offset`. No two stretches of 16 bytes are alike within the first 16 MiB, so that bytes
/// that are lost, doubled or swapped show.
pub fn pattern(offset: u64) -> u8 {
    // The 16-byte block's number in its first four bytes, a mix of the offset in the others.
    let block = offset / 16;
    match offset % 16 {
        at @ 0..4 => (block >> (8 * at)) as u8,
        _ => (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8,
    }
}

/// Fills `into` with the pattern from `offset` on.
pub fn fill(offset: u64, into: &mut [u8]) {
    for (at, byte) in (offset..).zip(into) {
        *byte = pattern(at);
    }
}

/// Whether `bytes` are the pattern from `offset` on.
pub fn matches(offset: u64, bytes: &[u8]) -> bool {
    (offset..).zip(bytes).all(|(at, byte)| *byte == pattern(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        for bytes in [0, 1, 20_000, MAX_BYTES] {
            let line = request(bytes);
            assert_eq!(parse_request(line.trim_end().as_bytes()), Some(bytes));
        }
    }

    #[test]
    fn other_requests_are_refused() {
        let too_much = format!("send {}", MAX_BYTES + 1);
        for line in [
            "", "send", "send ", "send -1", "send 1 ", "get 1", &too_much,
        ] {
            assert_eq!(parse_request(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse_request(b"send \xff"), None);
    }

    #[test]
    fn answers_round_trip() {
        for client in ["203.0.113.2:1024", "[2001:db8::1]:80"] {
            let client = client.parse().unwrap();
            let line = answer("web 1", client);
            let parsed = parse_answer(line.trim_end().as_bytes());
            assert_eq!(parsed, Some(("web 1".to_owned(), client)));
        }
        let long = answer(&"ä".repeat(1000), "1.2.3.4:5".parse().unwrap());
        assert!(long.len() <= MAX_LINE && long.ends_with(" saw 1.2.3.4:5\n"));
    }

    #[test]
    fn other_answers_are_refused() {
        for line in [
            "",
            "web1",
            "web1 saw ",
            " saw 1.2.3.4:5",
            "a\x1b[2J saw 1.2.3.4:5",
            "a saw 1.2.3.4",
        ] {
            assert_eq!(parse_answer(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_shifted_or_damaged_pattern_is_seen() {
        let mut bytes = [0; 64];
        fill(1000, &mut bytes);
        assert!(matches(1000, &bytes));
        for shift in [1, 2, 16, 256, 1448, 4096, 65536] {
            assert!(!matches(1000 + shift, &bytes), "{shift}");
        }
        bytes[63] ^= 1;
        assert!(!matches(1000, &bytes));
    }
}
