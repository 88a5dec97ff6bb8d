//! gauss: per guide, over all cells, zeros included: x = log10(y + 1) is normal in the background and in the signal, with
//! one variance for both. Cell Ranger's caller in its shape, and crispat's gauss. The shared variance makes the posterior
//! rise with the count.
//!
//! The signal averages 3 UMIs at least (on the scale of x): the middle between it and a background of 0 is then a single UMI.
//! Without that bound a guide in few cells is fitted best by one normal on the zeros and one on everything else, and every
//! single UMI is called.
//!
//! M-step: weighted means, the signal's within its bound, then the variance around them: a maximum.
use super::{ByHistogram, Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Data, Expected, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{ln_normal_density, log10_next};
use crate::Result;

/// Smallest sd in log10 units: below it, equal counts would have an infinite density.
const LEAST_SD: f64 = 1e-3;

/// log10(y + 1) of the least mean signal, 3 UMIs.
const LEAST_SIGNAL: f64 = 2.0 * std::f64::consts::LOG10_2;

pub struct Gauss;

impl Model for Gauss {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "gauss",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: false,
            uses_depth: false,
            about: "two normals with one variance on log10(y + 1)",
            when: "To compare with Cell Ranger, whose family it is.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_counts(self, counts, control, progress)
    }

    fn by_histogram(&self) -> Option<ByHistogram> {
        Some(|histograms, n_cells, control, progress| {
            mixture::score_histograms(&Gauss, histograms, n_cells, control, progress)
        })
    }
}

#[derive(Debug, Clone)]
pub struct Params {
    mean: [f64; 2],
    sd: f64,
}

impl Mixture for Gauss {
    type Params = Params;
    /// x of each observation.
    type Prepared = Vec<f64>;
    /// 1 / sd, and ln of the density at a mean.
    type Table = (f64, f64);
    type Row = ();

    fn components(&self) -> usize {
        2
    }

    fn prepare(&self, obs: &[Obs]) -> Vec<f64> {
        obs.iter().map(|o| log10_next(o.y)).collect()
    }

    fn start(&self, _: &[Obs]) -> Params {
        Params { mean: [0.0, 1.0], sd: 1.0 }
    }

    fn ln_const(&self, _: f64, _: f64) -> f64 {
        0.0
    }

    fn table(&self, p: &Params, _: &Vec<f64>) -> (f64, f64) {
        (1.0 / p.sd, ln_normal_density(0.0) - p.sd.ln())
    }

    fn ln_density(
        &self,
        p: &Params,
        &(over_sd, ln_scale): &(f64, f64),
        x: &Vec<f64>,
        i: usize,
        _: &Obs,
    ) -> ([f64; MOST], ()) {
        let density = |k: usize| {
            let z = (x[i] - p.mean[k]) * over_sd;
            ln_scale - 0.5 * z * z
        };
        ([density(0), density(1), 0.0], ())
    }

    fn m_step(&self, p: &mut Params, data: &Data<Self>, expected: &Expected<Self>) {
        // Around the means before: near the optimum nothing cancels.
        let (mut n, mut sum, mut square) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        for (x, w) in data.prepared.iter().zip(&expected.weight) {
            for k in 0..2 {
                let off = x - p.mean[k];
                n[k] += w[k];
                sum[k] += w[k] * off;
                square[k] += w[k] * off * off;
            }
        }
        let mut variance = 0.0;
        for k in 0..2 {
            let before = p.mean[k];
            if n[k] > 0.0 {
                p.mean[k] += sum[k] / n[k];
            }
            if k == 1 {
                p.mean[k] = p.mean[k].max(LEAST_SIGNAL);
            }
            let moved = p.mean[k] - before;
            variance += square[k] - moved * (2.0 * sum[k] - moved * n[k]);
        }
        p.sd = (variance / (n[0] + n[1])).max(0.0).sqrt().max(LEAST_SD);
    }

    fn log_lik_alone(&self, data: &Data<Self>) -> Option<f64> {
        let rows = || data.obs.iter().map(|o| o.n).zip(&data.prepared);
        let (n, sum) = rows().fold((0.0, 0.0), |(all, sum), (n, x)| (all + n, sum + n * x));
        let mean = sum / n;
        let square: f64 = rows().map(|(n, x)| n * (x - mean) * (x - mean)).sum();
        let sd = (square / n).sqrt().max(LEAST_SD);
        Some(n * (ln_normal_density(0.0) - sd.ln()) - 0.5 * square / (sd * sd))
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        p.mean[k]
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        vec![p.mean[0], p.mean[1], p.sd.ln()]
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        *p = Params { mean: [x[0], x[1].max(LEAST_SIGNAL)], sd: x[2].exp().max(LEAST_SD) };
    }

    fn n_free(&self, components: usize) -> usize {
        components + 1
    }

    fn names(&self) -> Vec<String> {
        ["mean_background", "mean_signal", "sd"].map(String::from).to_vec()
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        vec![p.mean[0], p.mean[1], p.sd]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&Gauss, 1);
    }
}
