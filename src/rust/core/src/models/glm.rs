//! The linear predictor that poisson, neg_binomial and binomial share: eta = b0 + b1 z + gamma_b.
//!
//! poisson and binomial are more alike still: with eta the natural parameter both have ln mass = y eta - D A(eta) + constant,
//! so [`NaturalFamily`] is all of their mixture but the cumulant A.
//!
//! gamma_b ~ normal(0, 1) on the scale of eta (the prior of crispat, Braunger and Velten 2024), which shrinks batches
//! towards each other and leaves an empty batch at 0. With one batch there is no gamma.
//!
//! D is the cell's guide UMIs plus a, a share of the depth of a typical cell (nine tenths of all UMIs lie in cells of at least that
//! depth), in whole UMIs. It is the mean depth under a gamma prior of shape a, but for a factor that b0 takes: the total of a cell of
//! hardly any UMIs says hardly anything of its depth. Without it, one UMI in a cell of one is a share of 1, and called, while a
//! carrier would have had more.
//! Where a guide is all there is in every cell, depth says nothing, and all cells have that of the deepest.
use crate::mixture::{self, Data, Expected, Mixture, Obs, MOST};

/// Bounds of eta: a rate of 1e-10 UMIs per UMI of depth is no background at all.
const BOUNDS: (f64, f64) = (-23.0, 23.0);
/// Longest Newton step: the curvature of exp and of the logistic is local.
const LONGEST_STEP: f64 = 1.0;
const NEWTON_STEPS: usize = 50;
/// After a step this short the next would be its square.
const NEWTON_END: f64 = 1e-4;
/// Rounds over (b, gamma) in one M-step; each raises the likelihood, EM does the rest.
const ROUNDS: usize = 2;

/// Two numbers per batch and component; of slopes, the slope and curvature (minus the second derivative) of the expected
/// log-likelihood in eta.
pub type Slopes = Vec<[[f64; 2]; 2]>;

#[derive(Debug, Clone)]
pub struct Rates {
    /// eta without batch: background, signal.
    pub b: [f64; 2],
    /// Batch effects; empty with one batch.
    pub gamma: Vec<f64>,
}

impl Rates {
    pub fn new(n_batches: usize) -> Self {
        Self { b: [-3.0, 0.0], gamma: if n_batches > 1 { vec![0.0; n_batches] } else { vec![] } }
    }

    pub fn eta(&self, k: usize, batch: u32) -> f64 {
        self.b[k] + self.gamma.get(batch as usize).copied().unwrap_or(0.0)
    }

    /// exp(eta) per batch and component.
    pub fn exp_eta(&self) -> Vec<[f64; 2]> {
        (0..self.n_batches() as u32).map(|batch| [0, 1].map(|k| self.eta(k, batch).exp())).collect()
    }

    /// Where a batch stands in a table.
    pub fn row(&self, batch: u32) -> usize {
        if self.gamma.is_empty() {
            0
        } else {
            batch as usize
        }
    }

    fn n_batches(&self) -> usize {
        self.gamma.len().max(1)
    }

    /// Weighted sums of y and depth per batch and component.
    pub fn sums(&self, obs: &[Obs], weight: &[[f64; MOST]]) -> Slopes {
        let mut sums = vec![[[0.0; 2]; 2]; self.n_batches()];
        for (o, w) in obs.iter().zip(weight) {
            let cell = &mut sums[self.row(o.batch)];
            for k in 0..2 {
                cell[k][0] += w[k] * o.y;
                cell[k][1] += w[k] * o.depth;
            }
        }
        sums
    }

    pub fn table(&self, f: impl Fn(usize, usize) -> [f64; 2]) -> Slopes {
        (0..self.n_batches()).map(|batch| [f(0, batch), f(1, batch)]).collect()
    }

    /// Newton's method on b given gamma and gamma given b, on slopes that fall in every coordinate.
    pub fn ascend(&mut self, slopes: impl Fn(&Self) -> Slopes) {
        let step = |value: &mut f64, slope: f64, curvature: f64| {
            if curvature > 0.0 {
                let to = (*value + (slope / curvature).clamp(-LONGEST_STEP, LONGEST_STEP)).clamp(BOUNDS.0, BOUNDS.1);
                let length = (to - *value).abs();
                *value = to;
                length
            } else {
                0.0
            }
        };
        let rounds = if self.gamma.is_empty() { 1 } else { ROUNDS };
        for _ in 0..rounds {
            for _ in 0..NEWTON_STEPS {
                let table = slopes(self);
                let mut longest: f64 = 0.0;
                for k in 0..2 {
                    let (slope, curvature) =
                        table.iter().fold((0.0, 0.0), |(s, c), row| (s + row[k][0], c + row[k][1]));
                    longest = longest.max(step(&mut self.b[k], slope, curvature));
                }
                if longest < NEWTON_END {
                    break;
                }
            }
            for _ in 0..NEWTON_STEPS {
                if self.gamma.is_empty() {
                    break;
                }
                let table = slopes(self);
                let mut longest: f64 = 0.0;
                for (gamma, row) in self.gamma.iter_mut().zip(&table) {
                    // The normal(0, 1) prior adds -gamma to the slope and 1 to the curvature.
                    let slope = row[0][0] + row[1][0] - *gamma;
                    longest = longest.max(step(gamma, slope, row[0][1] + row[1][1] + 1.0));
                }
                if longest < NEWTON_END {
                    break;
                }
            }
        }
    }

    pub fn pack(&self) -> Vec<f64> {
        self.b.iter().chain(&self.gamma).copied().collect()
    }

    pub fn unpack(&mut self, x: &[f64]) {
        for (value, &to) in self.b.iter_mut().chain(&mut self.gamma).zip(x) {
            *value = to.clamp(BOUNDS.0, BOUNDS.1);
        }
    }

    pub fn ln_prior(&self) -> f64 {
        -0.5 * self.gamma.iter().map(|g| g * g).sum::<f64>()
    }

    pub fn swap(&mut self) {
        self.b.swap(0, 1);
    }

    pub fn names(n_batches: usize) -> Vec<String> {
        let gamma = (0..n_batches).filter(|_| n_batches > 1).map(|batch| format!("gamma_{batch}"));
        ["b0", "b1"].map(String::from).into_iter().chain(gamma).collect()
    }

    /// b0, b1 (the difference) and the batch effects.
    pub fn values(&self) -> Vec<f64> {
        [self.b[0], self.b[1] - self.b[0]].into_iter().chain(self.gamma.iter().copied()).collect()
    }
}

/// A mixture of two members of a natural exponential family with depth as multiplicity.
pub struct NaturalFamily {
    pub n_batches: usize,
    pub borrowed_depth: f64,
    /// The part of the log mass without eta, of y and depth.
    pub ln_const: fn(f64, f64) -> f64,
    /// A, A' and A'' at eta.
    pub cumulant: fn(f64) -> [f64; 3],
}

impl Mixture for NaturalFamily {
    type Params = Rates;
    type Prepared = ();
    /// eta and A(eta) per batch and component.
    type Table = Slopes;
    type Row = ();

    fn components(&self) -> usize {
        2
    }

    fn borrowed_depth(&self) -> f64 {
        self.borrowed_depth
    }

    fn prepare(&self, _: &[Obs]) {}

    fn start(&self, _: &[Obs]) -> Rates {
        Rates::new(self.n_batches)
    }

    fn coarse(&self, obs: &[Obs]) -> Option<Vec<Obs>> {
        Some(mixture::coarse_counts(obs))
    }

    fn ln_const(&self, y: f64, depth: f64) -> f64 {
        (self.ln_const)(y, depth)
    }

    fn table(&self, p: &Rates, _: &()) -> Slopes {
        p.table(|k, batch| {
            let eta = p.eta(k, batch as u32);
            [eta, (self.cumulant)(eta)[0]]
        })
    }

    fn ln_density(&self, p: &Rates, table: &Slopes, _: &(), _: usize, o: &Obs) -> ([f64; MOST], ()) {
        let [background, signal] = table[p.row(o.batch)].map(|[eta, cumulant]| o.y * eta - o.depth * cumulant);
        ([background, signal, 0.0], ())
    }

    /// The sums of y and depth per batch and component are sufficient.
    fn m_step(&self, p: &mut Rates, data: &Data<Self>, expected: &Expected<Self>) {
        let sums = p.sums(data.obs, &expected.weight);
        p.ascend(|p| {
            p.table(|k, batch| {
                let [y, depth] = sums[batch][k];
                let [_, slope, curvature] = (self.cumulant)(p.eta(k, batch as u32));
                [y - depth * slope, depth * curvature]
            })
        });
    }

    fn mean(&self, p: &Rates, k: usize) -> f64 {
        p.b[k]
    }

    fn reorder(&self, p: &mut Rates, _: &[usize]) -> bool {
        p.swap();
        true
    }

    fn ln_prior(&self, p: &Rates) -> f64 {
        p.ln_prior()
    }

    fn pack(&self, p: &Rates) -> Vec<f64> {
        p.pack()
    }

    fn unpack(&self, p: &mut Rates, x: &[f64]) {
        p.unpack(x);
    }

    fn n_free(&self, components: usize) -> usize {
        components
    }

    fn names(&self) -> Vec<String> {
        Rates::names(self.n_batches)
    }

    fn values(&self, p: &Rates) -> Vec<f64> {
        p.values()
    }
}
