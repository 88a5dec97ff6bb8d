//! Where the climb starts: parameters from posteriors of the stored counts.
use super::params::{Params, Shared};
use super::sample::Sample;
use crate::counts::GuideCounts;
use crate::mixture;
use crate::models::poisson_gauss::PoissonGauss;
use crate::models::Control;
use crate::run::Progress;
use crate::Result;

/// Posteriors of each guide by itself.
pub fn each_guide(sample: &Sample, control: &Control, progress: &Progress) -> Result<Vec<f64>> {
    let (mut guides, mut y, mut indptr) = (vec![], vec![], vec![0]);
    for place in 0..sample.cells.len() {
        let cell = sample.cell(place);
        guides.extend_from_slice(cell.guides);
        y.extend_from_slice(cell.umis);
        indptr.push(guides.len() as i32);
    }
    let counts = GuideCounts::new(sample.counts.n_guides(), &indptr, &guides, &y, None)?;
    Ok(mixture::score_counts(&PoissonGauss, &counts, control, progress)?.score)
}

/// By the guide's share of its cell, which must also be more than the other guides let expect.
pub fn by_share(sample: &Sample, library: &[f64]) -> Vec<f64> {
    let mut start = Vec::with_capacity(sample.n_counts);
    for place in 0..sample.cells.len() {
        let cell = sample.cell(place);
        start.extend(cell.guides.iter().zip(cell.umis).map(|(&g, &y)| {
            let share = library[g as usize].min(0.9);
            let expected = (cell.depth - y) * share / (1.0 - share);
            let least = (0.2 * cell.depth).max(expected + 4.0 * expected.sqrt()).max(2.0);
            f64::from(u8::from(y >= least))
        }));
    }
    start
}

pub fn start(sample: &Sample, library: &[f64], posterior: &[f64], live: &[bool], n_batches: usize) -> Params {
    let n_guides = library.len();
    let mut carriers = vec![0.0; n_guides];
    let mut soup = vec![0.0; n_guides];
    let mut signal = vec![0.0; n_guides];
    let mut of_batch = vec![[0.0; 4]; n_batches];
    let mut at = 0;
    for place in 0..sample.cells.len() {
        let cell = sample.cell(place);
        let batch = &mut of_batch[sample.classes[cell.class].batch];
        batch[0] += 1.0;
        for (&g, &y) in cell.guides.iter().zip(cell.umis) {
            let (g, p) = (g as usize, posterior[at]);
            carriers[g] += p;
            soup[g] += (1.0 - p) * y;
            signal[g] += p * y;
            batch[1] += (1.0 - p) * y;
            batch[2] += p * y;
            batch[3] += p;
            at += 1;
        }
    }
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let n: f64 = of_batch.iter().map(|b| b[0]).sum::<f64>().max(1.0);
    let (all_soup, all_signal, all_carriers) = (sum(&soup), sum(&signal), sum(&carriers));
    let mean_signal = (all_signal + 1.0) / (all_carriers + 0.1);
    let lean = 0.5 * n_guides as f64;
    let share: Vec<f64> = (0..n_guides).map(|g| (soup[g] + lean * library[g].max(1e-12)) / (all_soup + lean)).collect();
    let total = sum(&share);
    let mean_soup = (all_soup + 0.5) / n;
    let prior_mean = (all_carriers / live.iter().filter(|&&l| l).count().max(1) as f64 / n).clamp(1e-6, 0.9);
    let mut params = Params {
        shared: Shared::default(),
        prior: (0..n_guides)
            .map(|g| if live[g] { ((carriers[g] + 0.5) / (n + 0.5 / prior_mean)).clamp(1e-9, 0.999) } else { 1e-9 })
            .collect(),
        share: share.iter().map(|q| q / total).collect(),
        efficiency: (0..n_guides).map(|g| (signal[g] + 2.0 * mean_signal) / (carriers[g] + 2.0)).collect(),
        library: library.to_vec(),
        exposure: of_batch.iter().map(|b| ((b[1] + 5.0 * mean_soup) / (b[0] + 5.0)).max(2e-3)).collect(),
        capture: of_batch
            .iter()
            .map(|b| ((b[2] + 5.0 * mean_signal) / (b[3] + 5.0) / mean_signal).clamp(1e-2, 1e2))
            .collect(),
        efficiency_mean: mean_signal,
        efficiency_shape: 2.0,
        prior_mean,
    };
    if n_batches == 1 {
        params.capture[0] = 1.0;
    }
    params
}

/// Of the same screen without carriers: its bursts are as with them.
pub fn without_carriers(sample: &Sample, library: &[f64], n_batches: usize, with: &Params) -> Params {
    let n_guides = library.len();
    let mut params = start(sample, library, &vec![0.0; sample.n_counts], &vec![false; n_guides], n_batches);
    params.shared.ambient_size = with.shared.ambient_size;
    (params.shared.hopping, params.shared.burst) = (with.shared.hopping, with.shared.burst);
    params.shared.clumping = with.shared.clumping;
    params
}
