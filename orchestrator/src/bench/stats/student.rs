//! Quantiles of Student's t distribution.

/// The value that a t-distributed variable of `freedom` degrees stays below with probability `p`, for `p` from 0.5
/// up. Found by bisection of the distribution function; exact to some nine digits.
pub fn quantile(p: f64, freedom: usize) -> f64 {
    let freedom = freedom.max(1) as f64;
    let (mut low, mut high) = (0.0, 1.0);
    while cumulative(high, freedom) < p && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if cumulative(middle, freedom) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The distribution function for `t` of 0 or more.
fn cumulative(t: f64, freedom: f64) -> f64 {
    let x = freedom / (freedom + t * t);
    1.0 - 0.5 * incomplete_beta(freedom / 2.0, 0.5, x)
}

/// The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast on one side of the mean; the other side follows by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    front.exp() / a / fraction(a, b, x)
}

/// `1 + d1 / (1 + d2 / (1 + …))`, evaluated from its tail.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let mut value = 1.0;
    for number in (1..=200_u32).rev() {
        let m = f64::from(number / 2);
        let term = if number % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        value = 1.0 + term / value;
    }
    value
}

/// The logarithm of the gamma function, by Stirling's series (DLMF 5.11.1) above 10 and the recurrence below.
fn ln_gamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 10.0 {
        below += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse / 1260.0)) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the tables of textbooks.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [
            (0.975, 1, 12.7062),
            (0.975, 2, 4.3027),
            (0.975, 4, 2.7764),
            (0.975, 9, 2.2622),
            (0.975, 30, 2.0423),
            (0.975, 1000, 1.9623),
            (0.95, 5, 2.0150),
            (0.995, 10, 3.1693),
        ];
        for (p, freedom, expected) in table {
            let found = quantile(p, freedom);
            assert!(
                (found - expected).abs() < 1e-4,
                "{p} {freedom}: {found} is not {expected}"
            );
        }
    }
}
