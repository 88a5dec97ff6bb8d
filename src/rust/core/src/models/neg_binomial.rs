//! neg_binomial: per guide, y ~ NB(mean mu, size theta), variance mu + mu^2 / theta, with ln mu = b0 + b1 z + gamma_b + ln D
//! over all cells with guide UMIs, zeros included (grouped by batch and depth). Background and signal have a theta each.
//!
//! Poisson's model with overdispersion, as in crispat; gamma_b and D as in `glm`.
//!
//! M-step: for each component one safeguarded Newton step on ln theta, then Newton on the means given theta (concave in the
//! linear predictor).
//!
//! One UMI more changes the log odds of the signal by ln((y + theta1) p1) - ln((y + theta0) p0) with p = mu / (theta + mu),
//! which changes its sign once at most. Beyond that count the odds are held.
use super::glm::{Rates, Slopes};
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Data, Expected, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{ln_1p, ln_factorial, LnRising, RisingSlopes};
use crate::Result;

/// Bounds of the thetas. Below, hardly any cell has counts at all; above, the law is Poisson to six digits. The signal is
/// held wider: a guide's count is most of its own depth, so that cells of one guide look alike in y / D, and those of two guides
/// would seem to have too few.
const THETA: [(f64, f64); 2] = [(1e-3, 1e6), (1e-3, 3.0)];

/// Less than that of poisson: a wide signal loses more faint carriers by it, from 0.04 on noticeably on `overdispersed`.
const BORROWED_DEPTH: f64 = 0.03;

/// A Newton step on ln theta that is this short needs no look at whether the likelihood rose.
const SURE_STEP: f64 = 0.2;

pub struct NegBinomial;

impl Model for NegBinomial {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "neg_binomial",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: true,
            uses_depth: true,
            about: "Negative binomial mixture with depth and batch effects",
            when: "Counts of cells with the guide spread over orders of magnitude, or much ambient signal.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_per_guide(&Family { n_batches: counts.n_batches() }, counts, control, progress)
    }
}

struct Family {
    n_batches: usize,
}

#[derive(Debug, Clone)]
pub struct Params {
    rates: Rates,
    theta: [f64; 2],
}

/// Depths in a batch, and the counts, that occur; and which of them each observation has.
///
/// All of the M-step but the sums of the weights is done once for each of these.
struct Levels {
    depth: Vec<(f64, u32)>,
    count: Vec<f64>,
    of_obs: Vec<(u32, u32)>,
}

/// The distinct keys, rising, and the place of each key among them.
fn levels<K: Copy + Ord>(keys: impl Iterator<Item = K> + Clone) -> (Vec<K>, Vec<u32>) {
    let mut levels: Vec<K> = keys.clone().collect();
    levels.sort_unstable();
    levels.dedup();
    let places = keys.map(|key| levels.partition_point(|level| *level < key) as u32).collect();
    (levels, places)
}

impl Levels {
    fn new(obs: &[Obs]) -> Self {
        // Numbers of at least 0 have the order of their bits.
        let (depth, depth_of) = levels(obs.iter().map(|o| (o.batch, o.depth.to_bits())));
        let (count, count_of) = levels(obs.iter().map(|o| o.y.to_bits()));
        Self {
            depth: depth.into_iter().map(|(batch, depth)| (f64::from_bits(depth), batch)).collect(),
            count: count.into_iter().map(f64::from_bits).collect(),
            of_obs: depth_of.into_iter().zip(count_of).collect(),
        }
    }
}

/// Weights of a component by level: of depths the cells and their UMIs, of counts the cells.
struct Sums {
    depth: Vec<[f64; 2]>,
    count: Vec<f64>,
}

impl Sums {
    fn new(levels: &Levels, obs: &[Obs], weight: &[[f64; MOST]]) -> [Self; 2] {
        let mut sums =
            [(); 2].map(|()| Self { depth: vec![[0.0; 2]; levels.depth.len()], count: vec![0.0; levels.count.len()] });
        for ((o, w), &(depth, count)) in obs.iter().zip(weight).zip(&levels.of_obs) {
            for (sums, w) in sums.iter_mut().zip(w) {
                let at = &mut sums.depth[depth as usize];
                at[0] += w;
                at[1] += w * o.y;
                sums.count[count as usize] += w;
            }
        }
        sums
    }
}

impl Family {
    /// Expected log-likelihood of component k in its theta.
    fn value_in_theta(&self, p: &Params, k: usize, theta: f64, levels: &Levels, sums: &Sums) -> f64 {
        let rates = p.rates.exp_eta();
        let rising = LnRising::new(theta);
        let ln_theta = theta.ln();
        let of_depth = |(&(depth, batch), [n, y]): (&(f64, u32), &[f64; 2])| {
            y * ln_theta + (theta * n + y) * ln_1p(depth * rates[p.rates.row(batch)][k] / theta)
        };
        let of_count = |(&y, n): (&f64, &f64)| n * rising.at(y);
        levels.count.iter().zip(&sums.count).map(of_count).sum::<f64>()
            - levels.depth.iter().zip(&sums.depth).map(of_depth).sum::<f64>()
    }

    /// Its slope and second derivative in ln theta.
    fn slopes_in_theta(&self, p: &Params, k: usize, levels: &Levels, sums: &Sums, ln_ratio: &[[f64; 2]]) -> (f64, f64) {
        let (mut slope, mut second) = (0.0, 0.0);
        let rates = p.rates.exp_eta();
        let theta = p.theta[k];
        let over_theta = 1.0 / theta;
        for ((&(depth, batch), [n, y]), ln_ratio) in levels.depth.iter().zip(&sums.depth).zip(ln_ratio) {
            let mu = depth * rates[p.rates.row(batch)][k];
            let over = 1.0 / (theta + mu);
            let off = (mu * n - y) * over;
            slope += off - n * ln_ratio[k];
            second += (n * mu * over_theta - off) * over;
        }
        let mut rising = RisingSlopes::new(theta);
        for (&y, n) in levels.count.iter().zip(&sums.count) {
            let (of_y, second_of_y) = rising.to(y);
            slope += n * of_y;
            second += n * second_of_y;
        }
        (theta * slope, theta * slope + theta * theta * second)
    }

    fn step_theta(&self, p: &mut Params, k: usize, levels: &Levels, sums: &Sums, ln_ratio: &[[f64; 2]]) {
        let here = p.theta[k];
        let (slope, second) = self.slopes_in_theta(p, k, levels, sums, ln_ratio);
        let mut step = if second < 0.0 { -slope / second } else { slope.signum() }.clamp(-1.5, 1.5);
        // Where no cell is in the component, there is nothing to step by.
        if step.is_nan() {
            return;
        }
        let to = |step: f64| (here * step.exp()).clamp(THETA[k].0, THETA[k].1);
        if step.abs() > SURE_STEP && to(step) != here {
            let value = |theta| self.value_in_theta(p, k, theta, levels, sums);
            let before = value(here);
            while step.abs() > SURE_STEP && value(to(step)) < before {
                step *= 0.25;
            }
        }
        p.theta[k] = to(step);
    }
}

/// What the parameters make of the levels.
struct Table {
    /// eta - ln theta per batch and component.
    ln_odds: Slopes,
    /// ln(1 + mu / theta) by depth and component.
    ln_ratio: Vec<[f64; 2]>,
    /// ln Gamma(theta + y) / Gamma(theta).
    rising: [LnRising; 2],
}

impl Mixture for Family {
    type Params = Params;
    type Prepared = Levels;
    type Table = Table;
    type Row = ();

    fn components(&self) -> usize {
        2
    }

    fn borrowed_depth(&self) -> f64 {
        BORROWED_DEPTH
    }

    fn prepare(&self, obs: &[Obs]) -> Levels {
        Levels::new(obs)
    }

    fn start(&self, _: &[Obs]) -> Params {
        Params { rates: Rates::new(self.n_batches), theta: [2.0, 2.0] }
    }

    fn coarse(&self, obs: &[Obs]) -> Option<Vec<Obs>> {
        Some(mixture::coarse_counts(obs))
    }

    fn ln_const(&self, y: f64, depth: f64) -> f64 {
        y * depth.ln() - ln_factorial(y)
    }

    fn table(&self, p: &Params, levels: &Levels) -> Table {
        let ln_theta = p.theta.map(f64::ln);
        let rates = p.rates.exp_eta();
        let ln_ratio = |&(depth, batch): &(f64, u32)| {
            let rates = rates[p.rates.row(batch)];
            [0, 1].map(|k| ln_1p(depth * rates[k] / p.theta[k]))
        };
        Table {
            ln_odds: p.rates.table(|k, batch| [p.rates.eta(k, batch as u32) - ln_theta[k], 0.0]),
            ln_ratio: levels.depth.iter().map(ln_ratio).collect(),
            rising: p.theta.map(LnRising::new),
        }
    }

    fn ln_density(&self, p: &Params, table: &Table, levels: &Levels, i: usize, o: &Obs) -> ([f64; MOST], ()) {
        let (ln_odds, ln_ratio) = (table.ln_odds[p.rates.row(o.batch)], table.ln_ratio[levels.of_obs[i].0 as usize]);
        let ln_mass = |k: usize| table.rising[k].at(o.y) + o.y * ln_odds[k][0] - (p.theta[k] + o.y) * ln_ratio[k];
        ([ln_mass(0), ln_mass(1), 0.0], ())
    }

    fn judged_as(&self, p: &Params, o: &Obs) -> Obs {
        let odds = |k: usize| {
            let mu = o.depth * p.rates.eta(k, o.batch).exp();
            (p.theta[k], mu / (p.theta[k] + mu))
        };
        let ((t0, p0), (t1, p1)) = (odds(0), odds(1));
        let turn = ((t0 * p0 - t1 * p1) / (p1 - p0)).ceil();
        let y = if t1 > t0 && p1 < p0 {
            o.y.min(turn)
        } else if t1 < t0 && t1 * p1 < t0 * p0 {
            o.y.max(turn)
        } else {
            o.y
        };
        Obs { y, ..*o }
    }

    fn m_step(&self, p: &mut Params, data: &Data<Self>, expected: &Expected<Self>) {
        let levels = &data.prepared;
        let sums = Sums::new(levels, data.obs, &expected.weight);
        // First the thetas, while the table holds.
        for k in 0..2 {
            self.step_theta(p, k, levels, &sums[k], &expected.table.ln_ratio);
        }
        let theta = p.theta;
        p.rates.ascend(|rates| {
            let exp_eta = rates.exp_eta();
            let mut slopes = vec![[[0.0; 2]; 2]; exp_eta.len()];
            for (at, &(depth, batch)) in levels.depth.iter().enumerate() {
                let row = rates.row(batch);
                for k in 0..2 {
                    let [n, y] = sums[k].depth[at];
                    let mu = depth * exp_eta[row][k];
                    let over = 1.0 / (theta[k] + mu);
                    let ratio = theta[k] * over;
                    slopes[row][k][0] += (y - mu * n) * ratio;
                    slopes[row][k][1] += mu * ratio * (y + theta[k] * n) * over;
                }
            }
            slopes
        });
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        p.rates.b[k]
    }

    fn reorder(&self, p: &mut Params, _: &[usize]) -> bool {
        p.rates.swap();
        p.theta.swap(0, 1);
        true
    }

    fn ln_prior(&self, p: &Params) -> f64 {
        p.rates.ln_prior()
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        let mut x = p.rates.pack();
        x.extend(p.theta.map(f64::ln));
        x
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        let (rates, theta) = x.split_at(x.len() - 2);
        p.rates.unpack(rates);
        for k in 0..2 {
            p.theta[k] = theta[k].exp().clamp(THETA[k].0, THETA[k].1);
        }
    }

    /// The theta of the signal is not counted: only the carriers tell of it, and in most guides it lies at its bound.
    fn n_free(&self, components: usize) -> usize {
        components + 1
    }

    fn names(&self) -> Vec<String> {
        let mut names = Rates::names(self.n_batches);
        names.insert(2, "theta_background".into());
        names.insert(3, "theta_signal".into());
        names
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        let mut values = p.rates.values();
        values.insert(2, p.theta[0]);
        values.insert(3, p.theta[1]);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&Family { n_batches: 1 }, 1);
        laws::all(&Family { n_batches: 2 }, 2);
    }
}
