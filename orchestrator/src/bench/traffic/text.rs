//! Lengths as they are written.

use std::fmt;
use std::str::FromStr;

use super::Sizes;

/// Lengths of the letters of an IMIX genome (RFC 6985, section 3). The `g` there counts the check sequence; it fills an
/// MTU of 1500, which must not become 1504.
const GENOME: [(char, u16); 9] = [
    ('a', 64),
    ('b', 128),
    ('c', 256),
    ('d', 512),
    ('e', 1024),
    ('f', 1280),
    ('g', 1514),
    ('h', 2112),
    ('i', 9000),
];

impl FromStr for Sizes {
    type Err = String;

    /// A number, `imix`, a mix as `64:7,594:4,1514:1`, or an IMIX genome of RFC 6985 as `aaaaaaaddddg`, where a
    /// letter may come after its count, as `7a4d1g`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(size) = text.parse() {
            return Ok(Self::Fixed(size));
        }
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::imix());
        }
        let mix = if text.contains(':') {
            weighted(text)
        } else {
            genome(text)
        };
        mix.map(Self::Mix).ok_or_else(|| {
            format!(
                "`{text}` is no frame length: write a number, `imix`, a mix as `64:7,594:4,1514:1`, or a genome of \
                 RFC 6985 as `7a4d1g`"
            )
        })
    }
}

fn weighted(text: &str) -> Option<Vec<(u16, u32)>> {
    let part = |part: &str| {
        let (size, weight) = part.trim().split_once(':')?;
        Some((size.parse().ok()?, weight.parse().ok()?))
    };
    text.split(',').map(part).collect()
}

fn genome(text: &str) -> Option<Vec<(u16, u32)>> {
    let mut mix: Vec<(u16, u32)> = Vec::new();
    let mut count = None::<u32>;
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            let more = count.unwrap_or(0).checked_mul(10)?.checked_add(digit)?;
            count = Some(more);
            continue;
        }
        let size = GENOME.iter().find(|(known, _)| *known == letter)?.1;
        let weight = count.take().unwrap_or(1);
        match mix.iter_mut().find(|(known, _)| *known == size) {
            Some((_, total)) => *total = total.checked_add(weight)?,
            None => mix.push((size, weight)),
        }
    }
    (!mix.is_empty() && count.is_none()).then_some(mix)
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            mix if *mix == Self::imix() => f.write_str("imix"),
            Self::Mix(mix) => {
                let parts: Vec<_> = mix.iter().map(|(s, w)| format!("{s}:{w}")).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_many_ways() {
        assert_eq!("1518".parse(), Ok(Sizes::Fixed(1518)));
        assert_eq!("imix".parse(), Ok(Sizes::imix()));
        assert_eq!("64:7,594:4,1514:1".parse(), Ok(Sizes::imix()));
        let genome = Sizes::Mix(vec![(64, 7), (512, 4), (1514, 1)]);
        assert_eq!("aaaaaaaddddg".parse(), Ok(genome.clone()));
        assert_eq!("7a4d1g".parse(), Ok(genome));
        for wrong in ["", "x", "7", "64:", "a7", "99999999999a", "64:7;594"] {
            let parsed: Result<Sizes, _> = wrong.parse();
            assert!(wrong == "7" || parsed.is_err(), "{wrong}: {parsed:?}");
        }
        assert!((Sizes::imix().mean() - 361.5).abs() < 0.1);
        assert_eq!(Sizes::imix().to_string(), "imix");
    }
}
