//! beta2, beta3: per batch, the share of the largest guide of each cell with guide UMIs is a mixture of two or three Betas;
//! the one with the highest mean is the signal.
//!
//! x = min(y / D, 0.9999), as crispat (Braunger and Velten 2024, doi:10.1093/bioinformatics/btae535) has it: the density of
//! a Beta at 1 is 0 or infinite. A cell with a single UMI has share 1 and is called; `min_umi` drops such calls.
//!
//! The score of the largest guide is the posterior of its cell; other guides of the cell, and ties, score 0.
//!
//! M-step: weighted maximum likelihood (not moments) by Newton's method on (alpha, beta), in which the log-likelihood is
//! concave.
use super::{Control, DefaultRule, Model, ModelInfo, Scores, MOST_LOG_ODDS};
use crate::counts::{GuideCounts, BLOCK};
use crate::fit::{FitRow, FitTable, Status};
use crate::mixture::{self, Data, Expected, Mixture, Obs, Posterior, MOST};
use crate::run::Progress;
use crate::special::{digamma, ln_gamma, trigamma};
use crate::Result;
use rayon::prelude::*;

/// Where the share is clipped.
const MOST_SHARE: f64 = 0.9999;
/// Highest mean, and mean and sd together, of a component that is not the signal. Doublets split a cell in halves, and the
/// larger of two guides that split it at random holds 3/4 on average: what reaches further is carriers in a crowd.
const MOST_BACKGROUND: (f64, f64) = (0.6, 0.75);
/// Least mean of the signal where there is nothing beside it: most of the cell.
const LEAST_ALONE: f64 = 0.5;
/// Bins of coarse rows per octave of the odds x / (1 - x).
const COARSE_BINS: f64 = 16.0;
/// Bounds of alpha and beta.
const SHAPE: (f64, f64) = (1e-2, 1e5);

pub struct Beta {
    components: usize,
}

pub static BETA2: Beta = Beta { components: 2 };
pub static BETA3: Beta = Beta { components: 3 };

impl Model for Beta {
    fn info(&self) -> ModelInfo {
        let (name, about, when) = if self.components == 2 {
            (
                "beta2",
                "two Betas on the share of the cell's largest guide",
                "One guide a cell, depth too uneven for counts.",
            )
        } else {
            (
                "beta3",
                "three Betas on the share of the cell's largest guide",
                "As beta2, with doublets or a middle population.",
            )
        };
        ModelInfo {
            name,
            family: "mixture",
            unit: "batch",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.5),
            uses_batch: true,
            uses_depth: true,
            about,
            when,
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        // Of each cell the share of its largest count, and where that count stands (none for a tie or an empty cell).
        let of_cell = |cell: usize| match counts.largest(cell) {
            Some((top, is_alone)) => {
                let share = (counts.counts()[top] / counts.depth()[cell]).min(MOST_SHARE);
                (share, is_alone.then_some(top as u32))
            }
            None => (f64::NAN, None),
        };
        let cells: Vec<(f64, Option<u32>)> =
            (0..counts.n_cells()).into_par_iter().with_min_len(BLOCK).map(of_cell).collect();
        let mut of_batch: Vec<Vec<u32>> = vec![vec![]; counts.n_batches()];
        for (cell, &batch) in (0..).zip(counts.batch()).filter(|&(cell, _)| !cells[cell as usize].0.is_nan()) {
            of_batch[batch as usize].push(cell);
        }
        let fitted = progress.map(counts.n_batches(), |batch| {
            let n_cells = of_batch[batch].len();
            if n_cells < 2 * self.components {
                let note = format!("only {n_cells} cells with guide UMIs in this batch");
                return (FitRow { unit: batch, n_cells, status: Status::Gated, note, ..FitRow::empty() }, None);
            }
            // Positive numbers have the order of their bits.
            let seen: Vec<u64> = of_batch[batch].par_iter().map(|&cell| cells[cell as usize].0.to_bits()).collect();
            let (rows, row_of) = mixture::group(&seen);
            let row = |&(x, n): &(u64, u32)| Obs {
                y: f64::from_bits(x),
                depth: 1.0,
                batch: 0,
                n: f64::from(n),
                ln_const: 0.0,
            };
            let obs: Vec<Obs> = rows.iter().map(row).collect();
            let (row, posterior) = self.fit_batch(&obs, control);
            (FitRow { unit: batch, n_cells, ..row }, posterior.map(|posterior| (posterior, row_of)))
        })?;
        // What belongs to the rows of the batches, for the stored counts.
        let of_counts = |none: f64, of_rows: fn(&Posterior) -> &[f64]| {
            let mut of_cell = vec![none; counts.n_cells()];
            for (row, posterior) in &fitted {
                let Some((posterior, row_of)) = posterior else { continue };
                for (&cell, &at) in of_batch[row.unit].iter().zip(row_of) {
                    of_cell[cell as usize] = of_rows(posterior)[at as usize];
                }
            }
            counts.one_of_each_cell(none, |cell| cells[cell].1.map(|top| (top as usize, of_cell[cell])))
        };
        let score = of_counts(0.0, |posterior| &posterior.score);
        let log_odds = match control.log_odds {
            true => of_counts(-MOST_LOG_ODDS, |posterior| &posterior.log_odds),
            false => vec![],
        };
        let rows: Vec<FitRow> = fitted.into_iter().map(|(row, _)| row).collect();
        let fits = FitTable::from_rows("batch", &mixture::column_names(self), &rows);
        Ok(Scores { score, log_odds, fits, ..Scores::default() })
    }
}

impl Beta {
    /// The mixture, or with fewer components and a status that says so where the shares do not hold that many populations:
    /// clean data has hardly any cell without a dominant guide.
    fn fit_batch(&self, obs: &[Obs], control: &Control) -> (FitRow, Option<Posterior>) {
        let (row, posterior) = mixture::fit_unit(self, obs, control);
        if posterior.is_some() {
            return (row, posterior);
        }
        if self.components == 3 {
            let (mut row, posterior) = BETA2.fit_batch(obs, control);
            // alpha, beta of low, middle, high, then their shares: the middle is missing.
            let missing = f64::NAN;
            if let [a0, b0, a1, b1, s0, s1] = row.values[..] {
                row.values = vec![a0, b0, missing, missing, a1, b1, s0, missing, s1];
            }
            if row.status == Status::Ok {
                row.status = Status::FewerComponents;
                row.note = "no middle population: two Betas were fitted".into();
            }
            return (row, posterior);
        }
        // One population: all of it is signal when its largest guides hold most of the cell.
        let (n, sum) = obs.iter().fold((0.0, 0.0), |(n, sum), o| (n + o.n, sum + o.n * o.y));
        if sum / n < LEAST_ALONE {
            return (row, None);
        }
        let mut params = self.start(obs);
        let data = Data::new(self, obs);
        let all = obs.iter().map(|o| [0.0, o.n, 0.0]).collect();
        let expected = Expected::given(self, &params, &data, all);
        self.m_step(&mut params, &data, &expected);
        let table = self.table(&params, &data.prepared);
        let ln_density = |i| self.ln_density(&params, &table, &data.prepared, i, &obs[i]).0[1];
        let missing = f64::NAN;
        let row = FitRow {
            status: Status::FewerComponents,
            note: "one population, whose largest guide holds most of the cell: all of it is called".into(),
            values: vec![missing, missing, params.0[1].0, params.0[1].1, 0.0, 1.0],
            log_lik: (0..obs.len()).map(|i| obs[i].n * ln_density(i)).sum(),
            ..row
        };
        (row, Some(Posterior::certain(obs.len())))
    }
}

/// alpha and beta of each component.
#[derive(Debug, Clone)]
pub struct Params([(f64, f64); MOST]);

fn sd((a, b): (f64, f64)) -> f64 {
    (a * b / (a + b + 1.0)).sqrt() / (a + b)
}

/// Weighted maximum likelihood from the means of ln x and ln(1 - x).
fn maximise((mut a, mut b): (f64, f64), mean_ln_x: f64, mean_ln_1mx: f64) -> (f64, f64) {
    let value = |a: f64, b: f64| a * mean_ln_x + b * mean_ln_1mx + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    for _ in 0..50 {
        let both = digamma(a + b);
        let (slope_a, slope_b) = (mean_ln_x - digamma(a) + both, mean_ln_1mx - digamma(b) + both);
        let shared = trigamma(a + b);
        let (haa, hbb) = (trigamma(a) - shared, trigamma(b) - shared);
        let determinant = haa * hbb - shared * shared;
        if determinant.is_nan() || determinant <= 0.0 {
            break;
        }
        let step_a = (hbb * slope_a + shared * slope_b) / determinant;
        let step_b = (haa * slope_b + shared * slope_a) / determinant;
        let mut size = 1.0;
        let before = value(a, b);
        let (mut to_a, mut to_b) = (a, b);
        while size > 1e-6 {
            // A step never divides a shape by more than 10.
            to_a = (a + size * step_a).max(0.1 * a).clamp(SHAPE.0, SHAPE.1);
            to_b = (b + size * step_b).max(0.1 * b).clamp(SHAPE.0, SHAPE.1);
            if value(to_a, to_b) >= before {
                break;
            }
            size *= 0.5;
            (to_a, to_b) = (a, b);
        }
        let moved = (to_a / a - 1.0).abs().max((to_b / b - 1.0).abs());
        (a, b) = (to_a, to_b);
        if moved < 1e-9 {
            break;
        }
    }
    (a, b)
}

impl Mixture for Beta {
    type Params = Params;
    /// ln x and ln(1 - x) of each observation.
    type Prepared = Vec<[f64; 2]>;
    /// ln 1 / B(alpha, beta).
    type Table = [f64; MOST];
    type Row = ();

    fn components(&self) -> usize {
        self.components
    }

    fn prepare(&self, obs: &[Obs]) -> Vec<[f64; 2]> {
        obs.iter().map(|o| [o.y.ln(), (-o.y).ln_1p()]).collect()
    }

    fn start(&self, _: &[Obs]) -> Params {
        Params([(1.0, 1.0); MOST])
    }

    /// The shares of many cells are many more numbers than it takes to see their shape.
    fn coarse(&self, obs: &[Obs]) -> Option<Vec<Obs>> {
        // Shares lie from 2^-31 to `MOST_SHARE`.
        let bin = |o: &Obs| (COARSE_BINS * (32.0 + (o.y / (1.0 - o.y)).log2())) as u64;
        Some(mixture::binned(obs, bin))
    }

    fn ln_const(&self, _: f64, _: f64) -> f64 {
        0.0
    }

    fn table(&self, p: &Params, _: &Vec<[f64; 2]>) -> [f64; MOST] {
        p.0.map(|(a, b)| ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b))
    }

    fn ln_density(
        &self,
        p: &Params,
        ln_scale: &[f64; MOST],
        logs: &Vec<[f64; 2]>,
        i: usize,
        _: &Obs,
    ) -> ([f64; MOST], ()) {
        let [ln_x, ln_1mx] = logs[i];
        (std::array::from_fn(|k| (p.0[k].0 - 1.0) * ln_x + (p.0[k].1 - 1.0) * ln_1mx + ln_scale[k]), ())
    }

    fn m_step(&self, p: &mut Params, data: &Data<Self>, expected: &Expected<Self>) {
        let mut sums = [[0.0; 3]; MOST];
        for ([ln_x, ln_1mx], w) in data.prepared.iter().zip(&expected.weight) {
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = [sum[0] + w, sum[1] + w * ln_x, sum[2] + w * ln_1mx];
            }
        }
        for (k, [n, sum_x, sum_1mx]) in sums.into_iter().enumerate().take(self.components) {
            if n > 0.0 {
                p.0[k] = maximise(p.0[k], sum_x / n, sum_1mx / n);
            }
        }
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        p.0[k].0 / (p.0[k].0 + p.0[k].1)
    }

    fn reorder(&self, p: &mut Params, order: &[usize]) -> bool {
        let old = p.0;
        for (place, &from) in order.iter().enumerate() {
            p.0[place] = old[from];
        }
        true
    }

    /// The signal must also dominate towards 1, and the others stay below it: two Betas that share the peak at 1 between
    /// them tell no guides apart.
    fn labelled(&self, p: &Params) -> bool {
        let signal = self.components - 1;
        (0..signal).all(|j| {
            let mean = self.mean(p, j);
            mean < self.mean(p, j + 1)
                && mean <= MOST_BACKGROUND.0
                && mean + sd(p.0[j]) <= MOST_BACKGROUND.1
                && p.0[signal].1 < p.0[j].1
        })
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        p.0[..self.components].iter().flat_map(|&(a, b)| [a.ln(), b.ln()]).collect()
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        for (shapes, to) in p.0.iter_mut().zip(x.chunks(2)) {
            *shapes = (to[0].exp().clamp(SHAPE.0, SHAPE.1), to[1].exp().clamp(SHAPE.0, SHAPE.1));
        }
    }

    fn n_free(&self, components: usize) -> usize {
        2 * components
    }

    fn names(&self) -> Vec<String> {
        let labels: &[&str] = if self.components == 2 { &["background", "signal"] } else { &["low", "middle", "high"] };
        labels.iter().flat_map(|label| [format!("alpha_{label}"), format!("beta_{label}")]).collect()
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        p.0[..self.components].iter().flat_map(|&(a, b)| [a, b]).collect()
    }

    fn monotone_around(&self, p: &Params) -> Option<f64> {
        Some(self.mean(p, self.components - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn maximum_likelihood_solves_the_score_equations() {
        for (a, b) in [(0.5, 0.5), (2.0, 9.0), (80.0, 1.5), (300.0, 700.0)] {
            let (ln_x, ln_1mx) = (digamma(a) - digamma(a + b), digamma(b) - digamma(a + b));
            let (fit_a, fit_b) = maximise((1.0, 1.0), ln_x, ln_1mx);
            assert!((fit_a / a - 1.0).abs() < 1e-6 && (fit_b / b - 1.0).abs() < 1e-6, "{fit_a} {fit_b} for {a} {b}");
        }
    }

    #[test]
    fn keeps_the_laws_of_mixtures() {
        let shares: Vec<Obs> = (1..200)
            .map(|i| {
                let y = f64::from(i) / 200.0;
                let n = 30.0 * (y * (1.0 - y)).powi(4) * 256.0 + 200.0 * y.powi(20);
                Obs { y, depth: 1.0, batch: 0, n, ln_const: 0.0 }
            })
            .collect();
        for family in [&BETA2, &BETA3] {
            laws::never_falls(family, &shares);
            laws::multiplicity(family, &shares);
            laws::coarseness(family, &shares, 1e-4);
            laws::packing(family, &shares);
        }
    }
}
