//! poisson_gauss: per guide, all cells, zeros included.
//!
//!   background  y ~ Poisson(lambda)
//!   signal      y = a log-normal(mu, sigma) rounded to whole counts:
//!               P(y) = Phi((ln(y + 1/2) - mu) / sigma) - Phi((ln(y - 1/2) - mu) / sigma),  the lower bound -inf at y = 0
//!
//! Both are masses on the same counts. Replogle et al. 2020 (doi:10.1038/s41587-020-0470-y) fit a Poisson and a Gaussian
//! to log2 counts without zeros; the rounding puts the Gaussian of log counts on the scale of the Poisson.
//!
//! Ambient counts vary more than a Poisson, and a wide log-normal would explain their tail and call it. So the same mixture
//! with a negative binomial background is fitted first, and says from which count on, c, there is signal: counts below c have
//! the posterior of a zero, and the mode of the signal, exp(mu - sigma^2), is at least c.
//!
//! M-step: lambda is the weighted mean; mu and sigma take one EM step for interval-censored normal data (moments of the
//! truncated normal), within the bound, which raises the likelihood.
use super::{ByHistogram, Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Data, Expected, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{ln_1p, ln_factorial, ln_middle, ln_width, normal_interval, LnRising, RisingSlopes};
use crate::Result;

/// Smallest lambda: one background UMI in 10^9 cells. Keeps ln lambda finite where the background is zero.
const LEAST_LAMBDA: f64 = 1e-9;
/// Smallest sigma, in ln UMIs: below it the rounding hides the spread of any count that is seen.
const LEAST_SIGMA: f64 = 0.01;

/// Posterior of the signal before a negative binomial background from which a count may be called.
const LEAST_POSTERIOR: f64 = 0.3;
/// Median and sd of the prior of ln size of that background: few guides have the twos and threes that tell it.
const LN_SIZE: (f64, f64) = (0.0, 0.7);
const SIZE: (f64, f64) = (1e-2, 1e3);
/// Counts that the guard bins, and bins per octave.
const COARSE: f64 = 16.0;
const BINS: f64 = 8.0;
/// Bounds of the search for c.
const MOST_LEAST: u32 = 10_000;

pub struct PoissonGauss;

impl Model for PoissonGauss {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "poisson_gauss",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: false,
            uses_depth: false,
            about: "Poisson background, log-normal signal on whole counts",
            when: "The default: any UMI library in which cells have similar depth.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_counts(self, counts, control, progress)
    }

    fn by_histogram(&self) -> Option<ByHistogram> {
        Some(|histograms, n_cells, control, progress| {
            mixture::score_histograms(&PoissonGauss, histograms, n_cells, control, progress)
        })
    }
}

/// Mean and mean square of a standard normal within an interval.
#[derive(Debug, Clone, Copy, Default)]
pub struct Within {
    mean: f64,
    square: f64,
}

/// A log-normal rounded to whole counts.
#[derive(Debug, Clone, Copy)]
struct LogNormal {
    mu: f64,
    sigma: f64,
}

/// What the masses of a log-normal share.
pub struct Masses {
    mu: f64,
    over_sigma: f64,
    ln_sigma: f64,
}

impl Masses {
    /// ln P(y), and what is expected of ln UMIs, in standard units, where y is seen.
    fn ln_mass(&self, y: f64) -> (f64, Within) {
        let standard = |ln_umis: f64| (ln_umis - self.mu) * self.over_sigma;
        let low = if y > 0.0 { standard(ln_middle(y - 1.0)) } else { f64::NEG_INFINITY };
        let (ln_mass, mean, square) = normal_interval(low, standard(ln_middle(y)), ln_width(y) - self.ln_sigma);
        (ln_mass, Within { mean, square })
    }
}

impl LogNormal {
    fn masses(&self) -> Masses {
        Masses { mu: self.mu, over_sigma: 1.0 / self.sigma, ln_sigma: self.sigma.ln() }
    }

    fn mean(&self) -> f64 {
        (self.mu + 0.5 * self.sigma * self.sigma).exp()
    }

    /// From the cells with the guide.
    fn start(obs: &[Obs]) -> Self {
        let positive = obs.iter().filter(|o| o.y > 0.0);
        let (n, sum) = positive.fold((0.0, 0.0), |(n, sum), o| (n + o.n, sum + o.n * o.y.ln()));
        Self { mu: if n > 0.0 { sum / n } else { 0.0 }, sigma: 1.0 }
    }

    /// Mean and mean square of ln UMIs that are expected where the counts are seen; None without any weight.
    fn expected(&self, weight: &[[f64; MOST]], rows: &[Within]) -> Option<(f64, f64)> {
        let (mut n, mut mean, mut square) = (0.0, 0.0, 0.0);
        for (w, row) in weight.iter().zip(rows) {
            n += w[1];
            mean += w[1] * row.mean;
            square += w[1] * row.square;
        }
        let (mu, sigma) = (self.mu, self.sigma);
        let (mean, square) = (mean / n, square / n);
        (n > 0.0).then_some((mu + sigma * mean, mu * mu + 2.0 * mu * sigma * mean + sigma * sigma * square))
    }

    /// The highest likelihood with the mode at least exp(c), from the mean and mean square of ln UMIs.
    fn maximise(mean: f64, square: f64, c: f64) -> Self {
        let mut variance = (square - mean * mean).max(LEAST_SIGMA * LEAST_SIGMA);
        let mut mu = mean;
        if mean - variance < c {
            // On the bound mu = c + v with v = sigma^2, where v^2 + v = E(x - c)^2.
            let around = (square - 2.0 * c * mean + c * c).max(0.0);
            variance = (0.5 * ((1.0 + 4.0 * around).sqrt() - 1.0)).max(LEAST_SIGMA * LEAST_SIGMA);
            mu = c + variance;
        }
        Self { mu, sigma: variance.sqrt() }
    }

    fn unpack(x: &[f64], c: f64) -> Self {
        Self { mu: x[0], sigma: x[1].exp() }.within(c)
    }

    /// The nearest with the mode at least exp(c).
    fn within(self, c: f64) -> Self {
        Self::maximise(self.mu, self.mu * self.mu + self.sigma * self.sigma, c)
    }
}

/// Weighted sums of cells and UMIs in the background.
fn background_sums(obs: &[Obs], weight: &[[f64; MOST]]) -> (f64, f64) {
    obs.iter().zip(weight).fold((0.0, 0.0), |(n, sum), (o, w)| (n + w[0], sum + w[0] * o.y))
}

#[derive(Debug, Clone)]
pub struct Params {
    lambda: f64,
    signal: LogNormal,
    /// c; from the guard, not fitted here.
    least: f64,
    /// Shares in the guard, if it could be fitted.
    share: Option<[f64; MOST]>,
}

impl Mixture for PoissonGauss {
    type Params = Params;
    type Prepared = ();
    /// ln lambda, and of the signal.
    type Table = (f64, Masses);
    type Row = Within;

    fn components(&self) -> usize {
        2
    }

    fn prepare(&self, _: &[Obs]) {}

    fn start(&self, obs: &[Obs]) -> Params {
        let rough = Control { starts: 4, tolerance: 1e-2, iterations: 100, ..Control::default() };
        match mixture::highest(&Overdispersed, &coarse(obs), &rough) {
            Some((guard, share)) => {
                let least = least_signal(&guard, &share);
                let lambda = guard.mean.max(LEAST_LAMBDA);
                Params { lambda, signal: guard.signal.within(least.ln()), least, share: Some(share) }
            }
            None => Params { lambda: 1.0, signal: LogNormal::start(obs), least: 1.0, share: None },
        }
    }

    fn start_share(&self, first: &Params) -> Option<[f64; MOST]> {
        first.share
    }

    fn ln_const(&self, _: f64, _: f64) -> f64 {
        0.0
    }

    fn table(&self, p: &Params, _: &()) -> Self::Table {
        (p.lambda.ln(), p.signal.masses())
    }

    fn ln_density(
        &self,
        p: &Params,
        (ln_lambda, signal): &Self::Table,
        _: &(),
        _: usize,
        o: &Obs,
    ) -> ([f64; MOST], Within) {
        let (signal, within) = signal.ln_mass(o.y);
        ([o.y * ln_lambda - p.lambda - ln_factorial(o.y), signal, 0.0], within)
    }

    fn m_step(&self, p: &mut Params, data: &Data<Self>, Expected { weight, rows, .. }: &Expected<Self>) {
        let (n, sum) = background_sums(data.obs, weight);
        if n > 0.0 {
            p.lambda = (sum / n).max(LEAST_LAMBDA);
        }
        if let Some((mean, square)) = p.signal.expected(weight, rows) {
            p.signal = LogNormal::maximise(mean, square, p.least.ln());
        }
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        [p.lambda, p.signal.mean()][k]
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        vec![p.lambda.ln(), p.signal.mu, p.signal.sigma.ln()]
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        p.lambda = x[0].exp().max(LEAST_LAMBDA);
        p.signal = LogNormal::unpack(&x[1..], p.least.ln());
    }

    fn log_lik_alone(&self, data: &Data<Self>) -> Option<f64> {
        let obs = data.obs;
        let (n, sum) = obs.iter().fold((0.0, 0.0), |(n, sum), o| (n + o.n, sum + o.n * o.y));
        let lambda = (sum / n).max(LEAST_LAMBDA);
        let ln_factorials: f64 = obs.iter().map(|o| o.n * ln_factorial(o.y)).sum();
        Some(sum * lambda.ln() - n * lambda - ln_factorials)
    }

    fn n_free(&self, components: usize) -> usize {
        [1, 3][components - 1]
    }

    fn names(&self) -> Vec<String> {
        ["lambda", "mu", "sigma", "least_count"].map(String::from).to_vec()
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        vec![p.lambda, p.signal.mu, p.signal.sigma, p.least]
    }

    fn judged_as(&self, p: &Params, o: &Obs) -> Obs {
        Obs { y: if o.y < p.least { 0.0 } else { o.y }, ..*o }
    }

    fn monotone_around(&self, p: &Params) -> Option<f64> {
        // The median of the signal; the mean of a wide log-normal lies beyond most of its cells.
        Some(p.signal.mu.exp().max(p.lambda))
    }
}

/// Large counts of about the same size as one row: the guard asks them for the shape of the signal only.
fn coarse(obs: &[Obs]) -> Vec<Obs> {
    let bin = |y: f64| COARSE as u64 + (BINS * y.log2()) as u64;
    mixture::binned_counts(obs, |o| if o.y < COARSE { o.y as u64 } else { bin(o.y) })
}

/// c: the least count whose posterior is `LEAST_POSTERIOR` before a negative binomial background.
fn least_signal(guard: &Wide, share: &[f64; MOST]) -> f64 {
    let ln_odds = (LEAST_POSTERIOR / (1.0 - LEAST_POSTERIOR)).ln() + share[0].ln() - share[1].ln();
    let table = Overdispersed.table(guard, &());
    let is_signal = |&y: &u32| {
        let o = Obs { y: f64::from(y), depth: 1.0, batch: 0, n: 1.0, ln_const: 0.0 };
        let ([background, signal, _], _) = Overdispersed.ln_density(guard, &table, &(), 0, &o);
        signal - background >= ln_odds
    };
    f64::from((1..MOST_LEAST).find(is_signal).unwrap_or(MOST_LEAST))
}

/// The mixture with a negative binomial background.
struct Overdispersed;

#[derive(Debug, Clone)]
struct Wide {
    mean: f64,
    size: f64,
    signal: LogNormal,
}

impl Mixture for Overdispersed {
    type Params = Wide;
    type Prepared = ();
    /// Of the background: ln of the mass at 0, ln of mean / (size + mean), and ln Gamma(size + y) / Gamma(size) by y; of the signal.
    type Table = (f64, f64, LnRising, Masses);
    type Row = Within;

    fn components(&self) -> usize {
        2
    }

    fn prepare(&self, _: &[Obs]) {}

    fn start(&self, obs: &[Obs]) -> Wide {
        Wide { mean: 1.0, size: LN_SIZE.0.exp(), signal: LogNormal::start(obs) }
    }

    fn ln_const(&self, _: f64, _: f64) -> f64 {
        0.0
    }

    fn table(&self, p: &Wide, _: &()) -> Self::Table {
        let ln_odds = (p.mean / (p.size + p.mean)).ln();
        (-p.size * ln_1p(p.mean / p.size), ln_odds, LnRising::below(p.size, COARSE as usize), p.signal.masses())
    }

    fn ln_density(
        &self,
        _: &Wide,
        (zero, ln_odds, rising, signal): &Self::Table,
        _: &(),
        _: usize,
        o: &Obs,
    ) -> ([f64; MOST], Within) {
        let background = if o.y > 0.0 { zero + o.y * ln_odds + rising.at(o.y) - ln_factorial(o.y) } else { *zero };
        let (signal, within) = signal.ln_mass(o.y);
        ([background, signal, 0.0], within)
    }

    /// The mean is the weighted mean; one safeguarded Newton step on ln size.
    fn m_step(&self, p: &mut Wide, data: &Data<Self>, Expected { weight, rows, .. }: &Expected<Self>) {
        let (n, sum) = background_sums(data.obs, weight);
        if n > 0.0 {
            p.mean = (sum / n).max(LEAST_LAMBDA);
        }
        let total = p.size + p.mean;
        // Over all rows, what stands by n and by the sum of the UMIs.
        let (over, ln_ratio) = (1.0 / total, ln_1p(p.mean / p.size));
        let mut slope = n * (1.0 - p.size * over - ln_ratio) - sum * over;
        let mut second = n * (p.mean / p.size - p.mean * over) * over + sum * over * over;
        let mut rising = RisingSlopes::new(p.size);
        for (o, w) in data.obs.iter().zip(weight) {
            if w[0] > 0.0 {
                let (of_y, second_of_y) = rising.to(o.y);
                slope += w[0] * of_y;
                second += w[0] * second_of_y;
            }
        }
        let precision = 1.0 / (LN_SIZE.1 * LN_SIZE.1);
        let second = p.size * (slope + p.size * second) - precision;
        let slope = p.size * slope - precision * (p.size.ln() - LN_SIZE.0);
        let step = if second < 0.0 { -slope / second } else { slope.signum() }.clamp(-1.0, 1.0);
        p.size = (p.size * step.exp()).clamp(SIZE.0, SIZE.1);
        if let Some((mean, square)) = p.signal.expected(weight, rows) {
            p.signal = LogNormal::maximise(mean, square, f64::NEG_INFINITY);
        }
    }

    fn mean(&self, p: &Wide, k: usize) -> f64 {
        [p.mean, p.signal.mean()][k]
    }

    fn ln_prior(&self, p: &Wide) -> f64 {
        -0.5 * ((p.size.ln() - LN_SIZE.0) / LN_SIZE.1).powi(2)
    }

    fn pack(&self, p: &Wide) -> Vec<f64> {
        vec![p.mean.ln(), p.size.ln(), p.signal.mu, p.signal.sigma.ln()]
    }

    fn unpack(&self, p: &mut Wide, x: &[f64]) {
        p.mean = x[0].exp().max(LEAST_LAMBDA);
        p.size = x[1].exp().clamp(SIZE.0, SIZE.1);
        p.signal = LogNormal::unpack(&x[2..], f64::NEG_INFINITY);
    }

    fn n_free(&self, components: usize) -> usize {
        2 * components
    }

    fn names(&self) -> Vec<String> {
        ["mean", "size", "mu", "sigma"].map(String::from).to_vec()
    }

    fn values(&self, p: &Wide) -> Vec<f64> {
        vec![p.mean, p.size, p.signal.mu, p.signal.sigma]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&PoissonGauss, 1);
        laws::all(&Overdispersed, 1);
    }
}
