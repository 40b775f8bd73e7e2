//! Numbers in few columns.

/// A number in five characters at most: whole below 10 000, then with a unit and three digits.
pub fn number(value: u64) -> String {
    if value < 10_000 {
        return value.to_string();
    }
    let mut rest = value as f64;
    for unit in ["", "k", "M", "G", "T", "P", "E"] {
        // What rounds to 1000 belongs to the next unit.
        let decimals = match rest {
            ..9.995 => 2,
            ..99.95 => 1,
            ..999.5 => 0,
            _ => {
                rest /= 1000.0;
                continue;
            }
        };
        return format!("{rest:.decimals$}{unit}");
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_change_where_three_digits_end() {
        let cases = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (12_345_678, "12.3M"),
            (u64::MAX, "18.4E"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    proptest! {
        #[test]
        fn numbers_are_short(value: u64) {
            prop_assert!(number(value).len() <= 5);
        }
    }
}
