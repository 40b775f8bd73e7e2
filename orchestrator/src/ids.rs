//! Names of users and groups to numbers, as the system's own files say.

use std::fs;

/// The number of a user, given as a name or a number.
///
/// # Errors
/// When no such user is known; the text says so.
pub fn user(name: &str) -> Result<u32, String> {
    find("/etc/passwd", name).ok_or_else(|| format!("there is no user `{name}`"))
}

/// The number of a group, given as a name or a number.
///
/// # Errors
/// When no such group is known; the text says so.
pub fn group(name: &str) -> Result<u32, String> {
    find("/etc/group", name).ok_or_else(|| format!("there is no group `{name}`"))
}

fn find(file: &str, name: &str) -> Option<u32> {
    name.parse()
        .ok()
        .or_else(|| lookup(&fs::read_to_string(file).ok()?, name))
}

/// passwd(5) and group(5) have name and number at the same places.
fn lookup(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let text = "root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:994::/:/bin/false\n";
        assert_eq!(lookup(text, "libvirt-qemu"), Some(64055));
        assert_eq!(lookup(text, "qemu"), None);
        assert_eq!(user("1234"), Ok(1234));
        assert!(user("no such user").unwrap_err().contains("no such user"));
    }
}
