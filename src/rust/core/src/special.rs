//! Special functions that statrs lacks, all in log space.
use statrs::function::erf::erfc;
pub use statrs::function::gamma::digamma;
use std::ops::Range;
use std::sync::LazyLock;

/// ln Gamma for x > 0 by Stirling's series (Abramowitz and Stegun 6.1.41), exact to 1e-13 from 10 on; below by recurrence.
pub fn ln_gamma(mut x: f64) -> f64 {
    let mut below = 1.0;
    while x < 10.0 {
        below *= x;
        x += 1.0;
    }
    let i = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - i * (1.0 / 360.0 - i * (1.0 / 1260.0 - i * (1.0 / 1680.0 - i * (1.0 / 1188.0 - i * 691.0 / 360_360.0)))))
        / x;
    let from_10 = (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series;
    if below == 1.0 {
        from_10
    } else {
        from_10 - below.ln()
    }
}

/// Functions of whole numbers that every fit asks for again and again; most counts are small.
struct Counted {
    ln_factorial: Vec<f64>,
    /// ln(y + 1/2).
    ln_middle: Vec<f64>,
    /// log10(y + 1).
    log10_next: Vec<f64>,
    /// ln of the width of the logarithms that round to y.
    ln_width: Vec<f64>,
}

const TABLED: usize = 4096;

static COUNTED: LazyLock<Counted> = LazyLock::new(|| Counted {
    ln_factorial: (0..TABLED).map(|y| ln_gamma(y as f64 + 1.0)).collect(),
    ln_middle: (0..TABLED).map(|y| (y as f64 + 0.5).ln()).collect(),
    log10_next: (0..TABLED).map(|y| (y as f64 + 1.0).log10()).collect(),
    ln_width: (0..TABLED).map(|y| ln_width_of(y as f64)).collect(),
});

/// ln y! of a whole number.
pub fn ln_factorial(y: f64) -> f64 {
    COUNTED.ln_factorial.get(y as usize).copied().unwrap_or_else(|| ln_gamma(y + 1.0))
}

/// ln(y + 1/2) of a whole number, the end of the counts that round to it.
pub fn ln_middle(y: f64) -> f64 {
    COUNTED.ln_middle.get(y as usize).copied().unwrap_or_else(|| (y + 0.5).ln())
}

/// ln(ln(y + 1/2) - ln(y - 1/2)) of a whole number: how wide the logarithms are that round to it; infinite for 0.
pub fn ln_width(y: f64) -> f64 {
    COUNTED.ln_width.get(y as usize).copied().unwrap_or_else(|| ln_width_of(y))
}

fn ln_width_of(y: f64) -> f64 {
    if y > 0.0 {
        // The logarithms of large counts would cancel.
        (1.0 / (y - 0.5)).ln_1p().ln()
    } else {
        f64::INFINITY
    }
}

/// log10(y + 1) of a whole number.
pub fn log10_next(y: f64) -> f64 {
    COUNTED.log10_next.get(y as usize).copied().unwrap_or_else(|| (y + 1.0).log10())
}

/// ln(1 + x), by its series where x is small, else by the logarithm and what rounding took from 1 + x, which is below the last
/// digit where x is above 1: twice as fast as the library's.
pub fn ln_1p(x: f64) -> f64 {
    if x.abs() < 1e-3 {
        x * (1.0 - x * (1.0 / 2.0 - x * (1.0 / 3.0 - x * (1.0 / 4.0 - x * (1.0 / 5.0)))))
    } else if x > 1.0 {
        (1.0 + x).ln()
    } else {
        let next = 1.0 + x;
        let lost = if next > 0.0 { ((next - 1.0) - x) / next } else { 0.0 };
        next.ln() - lost
    }
}

/// exp(x) - 1, by its series where x is small.
pub fn exp_m1(x: f64) -> f64 {
    if x.abs() < 1e-3 {
        x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0))))
    } else {
        x.exp_m1()
    }
}

/// ln(sum(exp(x))), safe when all are -inf.
pub fn ln_sum_exp(x: &[f64]) -> f64 {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top.is_finite() {
        top + x.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
    } else {
        top
    }
}

/// A sum of logarithms, of which most are multiplied first: one logarithm for many factors.
pub struct LnSum {
    ln: f64,
    product: f64,
}

impl Default for LnSum {
    fn default() -> Self {
        Self { ln: 0.0, product: 1.0 }
    }
}

impl LnSum {
    const SAFE: Range<f64> = 1e-150..1e150;
    /// Powers up to this one are multiplied out.
    const FEW_TIMES: f64 = 8.0;

    pub fn add(&mut self, ln: f64) {
        self.ln += ln;
    }

    /// The logarithm of a factor.
    pub fn times(&mut self, factor: f64) {
        if !Self::SAFE.contains(&factor) {
            self.ln += factor.ln();
            return;
        }
        self.product *= factor;
        if !Self::SAFE.contains(&self.product) {
            self.ln += self.product.ln();
            self.product = 1.0;
        }
    }

    /// n times the logarithm of a factor.
    pub fn times_power(&mut self, factor: f64, n: f64) {
        if n > Self::FEW_TIMES || n.fract() != 0.0 {
            self.ln += n * factor.ln();
            return;
        }
        (0..n as u32).for_each(|_| self.times(factor));
    }

    pub fn total(&self) -> f64 {
        self.ln + self.product.ln()
    }
}

/// ln Gamma(size + y) / Gamma(size) for whole y, made as far as it is asked for often.
pub struct LnRising {
    size: f64,
    ln_gamma_size: f64,
    first: Vec<f64>,
}

impl LnRising {
    const FIRST: usize = 128;

    pub fn new(size: f64) -> Self {
        Self::below(size, Self::FIRST)
    }

    /// Made for the counts below n.
    pub fn below(size: f64, n: usize) -> Self {
        let mut first = Vec::with_capacity(n);
        // One logarithm for as many factors as their product allows.
        let (mut sum, mut product) = (0.0, 1.0);
        for y in 0..n {
            first.push(sum + f64::ln(product));
            product *= size + y as f64;
            if product > 1e200 {
                sum += product.ln();
                product = 1.0;
            }
        }
        Self { size, ln_gamma_size: ln_gamma(size), first }
    }

    pub fn at(&self, y: f64) -> f64 {
        self.first.get(y as usize).copied().unwrap_or_else(|| ln_gamma(self.size + y) - self.ln_gamma_size)
    }
}

/// The slope and the second derivative of ln Gamma(size + y) / Gamma(size) in size, for whole y that never fall.
pub struct RisingSlopes {
    size: f64,
    y: f64,
    slope: f64,
    second: f64,
}

impl RisingSlopes {
    /// Counts that are added one by one.
    const NEAR: f64 = 32.0;

    pub fn new(size: f64) -> Self {
        Self { size, y: 0.0, slope: 0.0, second: 0.0 }
    }

    pub fn to(&mut self, y: f64) -> (f64, f64) {
        if y > self.y + Self::NEAR {
            self.slope = digamma(self.size + y) - digamma(self.size);
            self.second = trigamma(self.size + y) - trigamma(self.size);
            self.y = y;
        }
        while self.y < y {
            let over = 1.0 / (self.size + self.y);
            self.slope += over;
            self.second -= over * over;
            self.y += 1.0;
        }
        (self.slope, self.second)
    }
}

/// Second derivative of ln gamma: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.4.12).
pub fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 10.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let i = 1.0 / (x * x);
    sum + 1.0 / x
        + i / 2.0
        + i / x * (1.0 / 6.0 - i * (1.0 / 30.0 - i * (1.0 / 42.0 - i * (1.0 / 30.0 - i * 5.0 / 66.0))))
}

/// ln of the standard normal distribution function.
pub fn ln_normal_cdf(z: f64) -> f64 {
    if z > -25.0 {
        (0.5 * erfc(-z * std::f64::consts::FRAC_1_SQRT_2)).ln()
    } else {
        // erfc leaves the range of f64 at -37; the asymptotic series (A&S 26.2.12) is exact to 1e-16 from -25.
        let i = 1.0 / (z * z);
        let series = 1.0 - i * (1.0 - 3.0 * i * (1.0 - 5.0 * i * (1.0 - 7.0 * i * (1.0 - 9.0 * i))));
        -0.5 * z * z - (-z).ln() - 0.5 * (2.0 * std::f64::consts::PI).ln() + series.ln()
    }
}

/// Within a narrow interval the difference of two cdfs loses its digits; there the density has a short series.
fn is_narrow(middle: f64, half: f64) -> bool {
    half * (middle.abs() + half).max(1.0) < 0.25
}

/// Squares up to this leave terms below 1e-12 only after the first seven.
const VERY_NARROW: f64 = 5e-3;

/// ln of the mean density over a narrow interval, and the mean and mean square of the standard normal within it.
///
/// The density around the middle m is its value there times the sum of He_n(-m) t^n / n!, whose integrals with t and t^2 are
/// polynomials in m and the half width h: exact to 1e-12.
fn narrow_interval(m: f64, h: f64) -> (f64, f64, f64) {
    // He_n(-m) h^n / n!, of odd n less a factor u, are homogeneous in u^2 and q.
    let (u, q) = (-m * h, h * h);
    let (square, q_2, q_3) = (u * u, q * q, q * q * q);
    let powers = [1.0, q, q_2, q_3, q_2 * q_2, q_2 * q_3];
    fn homogeneous<const N: usize>(square: f64, powers: &[f64; 6], factors: [f64; N], over: f64) -> f64 {
        factors.iter().zip(powers).fold(0.0, |sum, (factor, power)| sum * square + factor * power) * (1.0 / over)
    }
    let e2 = homogeneous(square, &powers, [1.0, -1.0], 2.0);
    let e4 = homogeneous(square, &powers, [1.0, -6.0, 3.0], 24.0);
    let e6 = homogeneous(square, &powers, [1.0, -15.0, 45.0, -15.0], 720.0);
    let o3 = homogeneous(square, &powers, [1.0, -3.0], 6.0);
    let o5 = homogeneous(square, &powers, [1.0, -10.0, 15.0], 120.0);
    let o7 = homogeneous(square, &powers, [1.0, -21.0, 105.0, -105.0], 5_040.0);
    // Over the width and the density in the middle: the mass less 1, and the integrals of t / h, less a factor u, and of its square.
    let mut more = e2 * (1.0 / 3.0) + e4 * (1.0 / 5.0) + e6 * (1.0 / 7.0);
    let mut first = 1.0 / 3.0 + o3 * (1.0 / 5.0) + o5 * (1.0 / 7.0) + o7 * (1.0 / 9.0);
    let mut second = 1.0 / 3.0 + e2 * (1.0 / 5.0) + e4 * (1.0 / 7.0) + e6 * (1.0 / 9.0);
    if square.max(q) > VERY_NARROW {
        let e8 = homogeneous(square, &powers, [1.0, -28.0, 210.0, -420.0, 105.0], 40_320.0);
        let e10 = homogeneous(square, &powers, [1.0, -45.0, 630.0, -3_150.0, 4_725.0, -945.0], 3_628_800.0);
        let o9 = homogeneous(square, &powers, [1.0, -36.0, 378.0, -1_260.0, 945.0], 362_880.0);
        let o11 = homogeneous(square, &powers, [1.0, -55.0, 990.0, -6_930.0, 17_325.0, -10_395.0], 39_916_800.0);
        more += e8 * (1.0 / 9.0) + e10 * (1.0 / 11.0);
        first += o9 * (1.0 / 11.0) + o11 * (1.0 / 13.0);
        second += e8 * (1.0 / 11.0) + e10 * (1.0 / 13.0);
    }
    let over = 1.0 / (1.0 + more);
    let (shift, spread) = (h * u * first * over, q * second * over);
    // ln(1 + more) by the series of the inverse hyperbolic tangent; more is below 0.011.
    let z = more / (2.0 + more);
    let zz = z * z;
    let ln_more = 2.0 * z * (1.0 + zz * (1.0 / 3.0 + zz * (1.0 / 5.0 + zz * (1.0 / 7.0))));
    (ln_normal_density(m) + ln_more, m + shift, m * (m + 2.0 * shift) + spread)
}

/// ln(cdf(b) - cdf(a)) of the standard normal for a < b that are not near, taken in the tail where nothing cancels.
fn ln_normal_mass(a: f64, b: f64) -> f64 {
    let (a, b) = if a > 0.0 { (-b, -a) } else { (a, b) };
    if a == f64::NEG_INFINITY {
        return ln_normal_cdf(b);
    }
    if b > 0.0 {
        // The interval holds 0: both tails are parts of 1.
        let outside =
            0.5 * erfc(-a * std::f64::consts::FRAC_1_SQRT_2) + 0.5 * erfc(b * std::f64::consts::FRAC_1_SQRT_2);
        return (-outside).ln_1p();
    }
    let (low, high) = (ln_normal_cdf(a), ln_normal_cdf(b));
    high + (-(low - high).exp()).ln_1p()
}

/// ln density of the standard normal.
pub fn ln_normal_density(z: f64) -> f64 {
    -0.5 * z * z - 0.5 * (2.0 * std::f64::consts::PI).ln()
}

/// ln(cdf(b) - cdf(a)) of the standard normal for a < b, and its mean and mean square within (a, b); `ln_width` is ln(b - a).
pub fn normal_interval(a: f64, b: f64, ln_width: f64) -> (f64, f64, f64) {
    let (middle, half) = (0.5 * (a + b), 0.5 * (b - a));
    if is_narrow(middle, half) {
        let (ln_density, mean, square) = narrow_interval(middle, half);
        return (ln_width + ln_density, mean, square);
    }
    let ln_mass = ln_normal_mass(a, b);
    let density = |z: f64| if z.is_finite() { (ln_normal_density(z) - ln_mass).exp() } else { 0.0 };
    let (at_a, at_b) = (density(a), density(b));
    let edge = if a.is_finite() { a * at_a } else { 0.0 } - b * at_b;
    // Rounding must not leave the interval, nor make the variance negative. Extrapolated bounds may be NaN, which clamp() refuses.
    let mean = (at_a - at_b).max(a).min(b);
    (ln_mass, mean, (1.0 + edge).max(mean * mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reference values from R 4.2: trigamma(), pnorm(log.p = TRUE), log(pnorm(b) - pnorm(a)).
    #[test]
    fn agree_with_r() {
        for (x, want) in [
            (0.1, 101.4332991507927),
            (1.0, 1.644934066848226),
            (7.5, 0.1426158966967038),
            (300.0, 0.003338895061714679),
        ] {
            assert!((trigamma(x) / want - 1.0).abs() < 1e-9, "trigamma({x}) = {}", trigamma(x));
        }
        for (z, want) in [
            (0.0, -std::f64::consts::LN_2),
            (-5.0, -15.064998393988725),
            (-30.0, -454.3212439563432),
            (-60.0, -1805.013560680567),
        ] {
            assert!((ln_normal_cdf(z) / want - 1.0).abs() < 1e-11, "ln_normal_cdf({z}) = {}", ln_normal_cdf(z));
        }
        assert!((ln_normal_mass(-1.0, 1.0) - 0.6826894921370859f64.ln()).abs() < 1e-10);
        assert!((ln_normal_mass(5.0, 6.0) - ln_normal_mass(-6.0, -5.0)).abs() < 1e-13);
        assert!((ln_normal_mass(f64::NEG_INFINITY, -1.0) - ln_normal_cdf(-1.0)).abs() < 1e-14);
    }

    #[test]
    fn series_meet_what_they_stand_for() {
        for x in [0.0f64, 1e-12, 1e-5, 9.99e-4, 1.001e-3, 0.1, 0.7, 2.0, 2.4, 1e9] {
            for x in [x, -0.4 * x.min(2.4)] {
                assert!((ln_1p(x) - x.ln_1p()).abs() <= 4e-16 * x.ln_1p().abs(), "{x}");
                assert!((exp_m1(x) - x.exp_m1()).abs() <= 4e-16 * x.exp_m1().abs() || x > 700.0, "{x}");
            }
        }
        assert!(ln_1p(f64::INFINITY) == f64::INFINITY && ln_1p(-1.0) == f64::NEG_INFINITY && ln_1p(-2.0).is_nan());
    }

    #[test]
    fn sums_of_reciprocals_are_digamma_and_trigamma() {
        for size in [0.01, 1.7, 300.0] {
            let mut slopes = RisingSlopes::new(size);
            for y in [0.0, 1.0, 1.0, 5.0, 30.0, 500.0, 510.0] {
                let (slope, second) = slopes.to(y);
                assert!((slope - (digamma(size + y) - digamma(size))).abs() < 1e-9, "{size} {y}: {slope}");
                let want = trigamma(size + y) - trigamma(size);
                assert!((second - want).abs() < 1e-9 * (1.0 + want.abs()), "{size} {y}: {second}");
            }
        }
    }

    #[test]
    fn cdf_is_continuous_where_the_series_takes_over() {
        assert!((ln_normal_cdf(-25.0 + 1e-12) - ln_normal_cdf(-25.0)).abs() < 1e-9);
    }

    /// Against the recurrence of the Hermite polynomials, and what a count rounds from against its definition.
    #[test]
    fn narrow_intervals_are_their_series() {
        for m in [-40.0f64, -3.0, -0.4, 0.0, 1.1, 7.0, 900.0] {
            for part in [0.01, 0.3, 0.999] {
                let mut h = part * 0.25 / m.abs().max(1.0);
                h *= if is_narrow(m, h) { 1.0 } else { 0.8 };
                assert!(is_narrow(m, h) && !is_narrow(m, 1.3 * h / part));
                let (mut e, mut before) = (1.0, 0.0);
                let mut sums = [0.0; 3];
                for n in 0..40 {
                    let even = f64::from(u8::from(n % 2 == 0));
                    let over = |k: f64| 1.0 / (f64::from(n) + k);
                    sums[0] += even * e * over(1.0);
                    sums[1] += (1.0 - even) * e * over(2.0);
                    sums[2] += even * e * over(3.0);
                    (e, before) = ((-m * h * e - h * h * before) / (f64::from(n) + 1.0), e);
                }
                let (mean, square) = (h * sums[1] / sums[0], h * h * sums[2] / sums[0]);
                let (ln_density, got_mean, got_square) = narrow_interval(m, h);
                assert!((ln_density - ln_normal_density(m) - sums[0].ln()).abs() < 1e-12 * (1.0 + m * m), "{m} {h}");
                assert!((got_mean - m - mean).abs() < 1e-12 * (1.0 + m.abs()), "{m} {h}");
                assert!((got_square - m * m - 2.0 * m * mean - square).abs() < 1e-12 * (1.0 + m * m), "{m} {h}");
            }
        }
        for y in [1.0f64, 2.0, 77.0, 5_000.0, 2e9] {
            let (low, high) = ((y - 0.5).ln(), (y + 0.5).ln());
            // 2 atanh(1 / 2y), by its series where the logarithms cancel.
            let width =
                if y < 10.0 { high - low } else { 1.0 / y + 1.0 / (12.0 * y.powi(3)) + 1.0 / (80.0 * y.powi(5)) };
            assert!((ln_width(y) - width.ln()).abs() < 1e-10, "{y}");
            assert!((ln_middle(y) - high).abs() < 1e-13 && (ln_middle(y - 1.0) - low).abs() < 1e-13, "{y}");
        }
    }

    #[test]
    fn truncated_moments_are_those_of_the_interval() {
        // Simpson's rule on the density is an independent witness.
        for (a, b) in [(-1.0, 2.0), (0.5, 0.6), (3.0, 4.0), (-6.0, -5.5), (7.0, 7.01)] {
            let n = 2000;
            let h = (b - a) / n as f64;
            let (mut m0, mut m1, mut m2) = (0.0, 0.0, 0.0);
            for i in 0..=n {
                let z: f64 = a + i as f64 * h;
                let c = if i == 0 || i == n {
                    1.0
                } else if i % 2 == 1 {
                    4.0
                } else {
                    2.0
                };
                let f = c * ln_normal_density(z).exp();
                m0 += f;
                m1 += f * z;
                m2 += f * z * z;
            }
            let (ln_mass, mean, square) = normal_interval(a, b, f64::ln(b - a));
            assert!((ln_mass - (m0 * h / 3.0).ln()).abs() < 1e-7, "({a}, {b}): {ln_mass}");
            assert!((mean - m1 / m0).abs() < 1e-7 && (square - m2 / m0).abs() < 1e-6, "({a}, {b}): {mean} {square}");
        }
    }
}
