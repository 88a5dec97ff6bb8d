//! The engine of all mixtures: grouping of equal observations, starts, EM, gates, posterior, fit table.
//!
//! A family states its density, its M-step and its labels through [`Mixture`]; everything that mixtures share is here,
//! once. The whole mixture, not each component, is the unit, because the families with depth share baseline, batch
//! effects and dispersion between components.
use crate::counts::GuideCounts;
use crate::depth::DepthClasses;
use crate::fit::{FitRow, FitTable, Status};
use crate::histogram::{self, PosteriorsOfRows, Rows};
use crate::models::{bounded_log_odds, Control, Scores, MOST_LOG_ODDS};
use crate::run::Progress;
use crate::special::{ln_sum_exp, LnSum};
use crate::Result;
use rayon::prelude::*;

/// Most components of any family.
pub const MOST: usize = 3;

/// Iterations that every start gets before the best go on.
const SHORT_RUN: usize = 6;
/// How many starts go on to convergence.
const FINALISTS: usize = 3;
/// Coarse rows have counts from this on, and depths, in so many bins per octave.
const COARSE_COUNT: f64 = 8.0;
const COARSE_BINS: f64 = 3.0;
/// exp() of less is 0.
const UNDERFLOW: f64 = -745.2;
/// A share of less does not change 1, and no sum that a step of EM is made of.
const NEGLIGIBLE: f64 = -45.0;
/// Rows of a fit that a thread takes at once, where there are many more.
const MANY_ROWS: usize = 1 << 10;
/// Keys from which on they are sorted on all threads.
const PARALLEL_SORT: usize = 1 << 15;
/// Starts are the same when no log odds of a share and no packed parameter differs by more.
const SAME: f64 = 0.02;

/// One distinct observation, seen in `n` cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Obs {
    /// UMIs of the guide, or what the family looks at instead.
    pub y: f64,
    /// Guide UMIs of the cell; 1 where the family does not use it.
    pub depth: f64,
    pub batch: u32,
    pub n: f64,
    /// The part of the log density that no parameter enters.
    pub ln_const: f64,
}

/// A family of mixtures. Component 0 is the background; the last is the signal.
pub trait Mixture: Sync + Sized {
    type Params: Clone + Send + Sync;
    /// What is made of the observations once, whatever the parameters.
    type Prepared: Sync;
    /// What the densities of all observations share.
    type Table: Sync;
    /// What the M-step needs again of the density of an observation.
    type Row: Copy + Default + Send;

    fn components(&self) -> usize;
    /// Where depth is used: the share of a typical cell's depth that every cell has on top of its own, see `models/glm.rs`.
    fn borrowed_depth(&self) -> f64 {
        0.0
    }
    fn prepare(&self, obs: &[Obs]) -> Self::Prepared;
    /// Parameters from which the first M-step of a start begins.
    fn start(&self, obs: &[Obs]) -> Self::Params;
    /// The shares that go with those parameters where they are near the optimum: no other start is needed then.
    fn start_share(&self, _: &Self::Params) -> Option<[f64; MOST]> {
        None
    }
    /// Fewer rows, of about equal observations: enough to tell where starts lead. None where all rows are to be looked at.
    fn coarse(&self, _: &[Obs]) -> Option<Vec<Obs>> {
        None
    }
    /// The part of the log density that no parameter enters.
    fn ln_const(&self, y: f64, depth: f64) -> f64;
    /// Made once for each set of parameters and looked up for every observation.
    fn table(&self, params: &Self::Params, prepared: &Self::Prepared) -> Self::Table;
    /// Log density of observation i under each component: the only place where the density lives.
    fn ln_density(
        &self,
        params: &Self::Params,
        table: &Self::Table,
        prepared: &Self::Prepared,
        i: usize,
        obs: &Obs,
    ) -> ([f64; MOST], Self::Row);
    /// Raises the expected log-likelihood from parameters at which `expected` was taken.
    fn m_step(&self, params: &mut Self::Params, data: &Data<Self>, expected: &Expected<Self>);
    /// Mean of a component, by which components are ordered.
    fn mean(&self, params: &Self::Params, k: usize) -> f64;
    /// Puts component `order[k]` in place k; false where the components are of different families and cannot change places.
    fn reorder(&self, _params: &mut Self::Params, _order: &[usize]) -> bool {
        false
    }
    /// Whether the components mean what their labels say. An optimum that is not is taken only where there is no other.
    fn labelled(&self, params: &Self::Params) -> bool {
        (1..self.components()).all(|k| self.mean(params, k - 1) < self.mean(params, k))
    }
    /// The parameters on unbounded scales (logs of positive ones), in which EM steps are extrapolated.
    fn pack(&self, params: &Self::Params) -> Vec<f64>;
    /// The inverse of `pack`, kept within the bounds of the family.
    fn unpack(&self, params: &mut Self::Params, packed: &[f64]);
    /// Log prior of shrunken parameters, up to a constant.
    fn ln_prior(&self, _params: &Self::Params) -> f64 {
        0.0
    }
    /// The highest log-likelihood of the background alone, where it takes no search.
    fn log_lik_alone(&self, _: &Data<Self>) -> Option<f64> {
        None
    }
    /// Free parameters of the densities with this many components.
    fn n_free(&self, components: usize) -> usize;
    /// Names of the reported parameters.
    fn names(&self) -> Vec<String>;
    fn values(&self, params: &Self::Params) -> Vec<f64>;
    /// The observation whose posterior this one gets, where its own would fall with the count.
    fn judged_as(&self, _params: &Self::Params, obs: &Obs) -> Obs {
        *obs
    }
    /// Where the tails of the components may cross twice, the posterior is made monotone in y around this value.
    fn monotone_around(&self, _params: &Self::Params) -> Option<f64> {
        None
    }
}

/// The observations of a fit, and what the family has prepared of them.
pub struct Data<'a, M: Mixture> {
    pub obs: &'a [Obs],
    pub prepared: M::Prepared,
}

impl<'a, M: Mixture> Data<'a, M> {
    pub fn new(m: &M, obs: &'a [Obs]) -> Self {
        Self { obs, prepared: m.prepare(obs) }
    }

    fn ln_density(&self, m: &M, params: &M::Params, table: &M::Table, i: usize) -> ([f64; MOST], M::Row) {
        m.ln_density(params, table, &self.prepared, i, &self.obs[i])
    }
}

/// What the E-step says of the observations.
pub struct Expected<M: Mixture> {
    /// `weight[i][k]` is the share of observation i in component k times its n.
    pub weight: Vec<[f64; MOST]>,
    pub rows: Vec<M::Row>,
    pub table: M::Table,
}

impl<M: Mixture> Expected<M> {
    /// At these parameters, before the observations are looked at.
    fn new(m: &M, params: &M::Params, data: &Data<M>) -> Self {
        let (n, table) = (data.obs.len(), m.table(params, &data.prepared));
        Self { weight: vec![[0.0; MOST]; n], rows: vec![M::Row::default(); n], table }
    }

    /// At these parameters, with shares that they do not imply.
    pub fn given(m: &M, params: &M::Params, data: &Data<M>, weight: Vec<[f64; MOST]>) -> Self {
        let table = m.table(params, &data.prepared);
        let rows = (0..data.obs.len()).map(|i| data.ln_density(m, params, &table, i).1).collect();
        Self { weight, rows, table }
    }
}

/// A fitted mixture.
#[derive(Debug, Clone)]
pub struct Fit<P> {
    pub params: P,
    /// Shares of the components.
    pub share: [f64; MOST],
    pub log_lik: f64,
    pub iterations: usize,
    pub converged: bool,
    pub bic_gain: f64,
    /// See [`Mixture::labelled`].
    pub labelled: bool,
}

/// A point of the EM path.
#[derive(Clone)]
struct State<P> {
    params: P,
    share: [f64; MOST],
    /// Log-likelihood plus log prior: what EM raises.
    objective: f64,
    iterations: usize,
    converged: bool,
}

impl<P> State<P> {
    fn new(params: P) -> Self {
        State { params, share: [0.0; MOST], objective: f64::NEG_INFINITY, iterations: 0, converged: false }
    }
}

/// The density of a mixture of the first k components, as the ln of its largest term and the sum of all in units of that; and the
/// share of each component in it, 0 where its ln is below `least`.
fn shares(k: usize, mut joint: [f64; MOST], ln_share: &[f64; MOST], least: f64) -> (f64, f64, [f64; MOST]) {
    let top = (0..k).fold(f64::NEG_INFINITY, |top, j| {
        joint[j] += ln_share[j];
        top.max(joint[j])
    });
    let mut share = [0.0; MOST];
    if !top.is_finite() {
        return (top, 1.0, share);
    }
    let mut sum = 0.0;
    for j in 0..k {
        // The largest term is 1; what underflows takes exp() long.
        let below = joint[j] - top;
        share[j] = if below == 0.0 {
            1.0
        } else if below < least {
            0.0
        } else {
            below.exp()
        };
        sum += share[j];
    }
    if sum != 1.0 {
        let over = 1.0 / sum;
        share = share.map(|s| s * over);
    }
    (top, sum, share)
}

fn ln_all(share: &[f64; MOST]) -> [f64; MOST] {
    share.map(f64::ln)
}

/// Fills in what is expected and returns the log-likelihood.
fn e_step<M: Mixture>(m: &M, state: &State<M::Params>, data: &Data<M>, expected: &mut Expected<M>) -> f64 {
    let ln_share = ln_all(&state.share);
    expected.table = m.table(&state.params, &data.prepared);
    let Expected { weight, rows, table } = expected;
    let of_rows = |first: usize, weight: &mut [[f64; MOST]], rows: &mut [M::Row]| {
        let mut log_lik = LnSum::default();
        let places = weight.iter_mut().zip(rows).zip(first..);
        for (o, ((w, row), i)) in data.obs[first..].iter().zip(places) {
            let (density, of_row) = data.ln_density(m, &state.params, table, i);
            let (top, sum, share) = shares(m.components(), density, &ln_share, NEGLIGIBLE);
            *w = share.map(|s| o.n * s);
            *row = of_row;
            log_lik.add(o.n * (top + o.ln_const));
            if sum != 1.0 {
                log_lik.times_power(sum, o.n);
            }
        }
        log_lik.total()
    };
    if weight.len() < 2 * MANY_ROWS {
        return of_rows(0, weight, rows);
    }
    // Added up in the order of the rows, whatever thread has which.
    let pieces = weight.par_chunks_mut(MANY_ROWS).zip(rows.par_chunks_mut(MANY_ROWS)).enumerate();
    let sums: Vec<f64> = pieces.map(|(piece, (weight, rows))| of_rows(piece * MANY_ROWS, weight, rows)).collect();
    sums.iter().sum()
}

fn m_step<M: Mixture>(m: &M, state: &mut State<M::Params>, data: &Data<M>, expected: &Expected<M>) {
    let mut share = [0.0; MOST];
    for w in &expected.weight {
        for k in 0..m.components() {
            share[k] += w[k];
        }
    }
    let total: f64 = share.iter().sum();
    if total > 0.0 {
        state.share = share.map(|s| s / total);
    }
    m.m_step(&mut state.params, data, expected);
}

/// EM until an iteration gains less than the tolerance, for at most `most` iterations in all.
///
/// Every second step is extrapolated along the path of EM (SQUAREM, Varadhan and Roland 2008,
/// doi:10.1111/j.1467-9469.2007.00585.x) and the extrapolation kept only where it lies higher, so the objective never falls.
fn climb<M: Mixture>(
    m: &M,
    state: &mut State<M::Params>,
    data: &Data<M>,
    [expected, far_expected]: &mut [Expected<M>; 2],
    most: usize,
    tolerance: f64,
    mut watch: impl FnMut(f64),
) {
    let objective_at = |state: &State<M::Params>, expected: &mut Expected<M>| {
        let objective = e_step(m, state, data, expected) + m.ln_prior(&state.params);
        if objective.is_nan() {
            f64::NEG_INFINITY
        } else {
            objective
        }
    };
    // Where the path was at the last two steps, in unbounded scales.
    let mut path: Vec<Vec<f64>> = Vec::new();
    loop {
        let objective = objective_at(state, expected);
        let gain = objective - state.objective;
        state.objective = objective;
        watch(objective);
        // NaN where both are -inf: the start is hopeless.
        if gain.is_nan() || gain < tolerance {
            state.converged = objective.is_finite();
            return;
        }
        if state.iterations >= most {
            return;
        }
        path.push(coordinates(m, state));
        if let [x0, x1, x2] = &path[..] {
            if let Some(far) = extrapolate(x0, x1, x2) {
                let mut there = state.clone();
                set_coordinates(m, &mut there, &far);
                there.objective = objective_at(&there, far_expected);
                // Within the tolerance, rounding would decide.
                if there.objective > objective + tolerance {
                    watch(there.objective);
                    *state = there;
                    std::mem::swap(expected, far_expected);
                }
            }
            path.clear();
            path.push(coordinates(m, state));
        }
        m_step(m, state, data, expected);
        state.iterations += 1;
    }
}

/// Log odds of the shares against the last component, then the packed parameters.
fn coordinates<M: Mixture>(m: &M, state: &State<M::Params>) -> Vec<f64> {
    let last = m.components() - 1;
    let mut x: Vec<f64> = (0..last).map(|k| state.share[k].ln() - state.share[last].ln()).collect();
    x.extend(m.pack(&state.params));
    x
}

fn set_coordinates<M: Mixture>(m: &M, state: &mut State<M::Params>, x: &[f64]) {
    let last = m.components() - 1;
    let mut ln_share = [f64::NEG_INFINITY; MOST];
    ln_share[..last].copy_from_slice(&x[..last]);
    ln_share[last] = 0.0;
    let total = ln_sum_exp(&ln_share);
    state.share = ln_share.map(|v| (v - total).exp());
    m.unpack(&mut state.params, &x[last..]);
}

/// SQUAREM's third step length; None where it would not reach beyond the last step of EM.
fn extrapolate(x0: &[f64], x1: &[f64], x2: &[f64]) -> Option<Vec<f64>> {
    let (mut r, mut v) = (0.0, 0.0);
    for i in 0..x0.len() {
        r += (x1[i] - x0[i]).powi(2);
        v += (x2[i] - 2.0 * x1[i] + x0[i]).powi(2);
    }
    let step = (r / v).sqrt();
    if !step.is_finite() || step <= 1.0 {
        return None;
    }
    let far: Vec<f64> = (0..x0.len())
        .map(|i| x0[i] + 2.0 * step * (x1[i] - x0[i]) + step * step * (x2[i] - 2.0 * x1[i] + x0[i]))
        .collect();
    far.iter().all(|value| value.is_finite()).then_some(far)
}

/// Where the starts cut background from signal: geometric steps through the range of the counts and, where depth is
/// used, through the range of the shares y / depth.
fn start_weights<M: Mixture>(m: &M, obs: &[Obs], starts: usize) -> Vec<Vec<[f64; MOST]>> {
    let by_share = obs.iter().any(|o| o.depth != 1.0);
    let keys: &[fn(&Obs) -> f64] = if by_share { &[|o| o.y, |o| o.y / o.depth] } else { &[|o| o.y] };
    let each = starts.div_ceil(keys.len()).max(1);
    let k = m.components();
    let cells = |zero: bool| obs.iter().filter(|o| (o.y == 0.0) == zero).map(|o| o.n).sum::<f64>();
    let (zeros, with_counts) = (cells(true), cells(false));
    let mut all: Vec<Vec<[f64; MOST]>> = Vec::new();
    for key in keys {
        let positive = || obs.iter().map(key).filter(|&v| v > 0.0);
        let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
        if low >= high {
            continue;
        }
        for step in 1..=each {
            // Cuts lie strictly inside the range, so that both sides are occupied.
            let cuts: Vec<f64> = (1..k)
                .map(|part| {
                    let at = (step as f64 - 1.0 + part as f64 / (k - 1) as f64) / each as f64;
                    low * (high / low).powf(at.min(1.0) * 0.98 + 0.01)
                })
                .collect();
            let weight: Vec<[f64; MOST]> = obs
                .iter()
                .map(|o| {
                    let home = cuts.iter().filter(|&&cut| key(o) > cut).count();
                    // A little of everything everywhere keeps every component alive, but a million zeros must not outweigh the
                    // cells with counts.
                    let little = if o.y > 0.0 { 0.001 } else { 0.001 * (with_counts / zeros).min(1.0) };
                    let mut w = [0.0; MOST];
                    for (j, w) in w.iter_mut().enumerate().take(k) {
                        *w = o.n * if j == home { 1.0 - little * (k - 1) as f64 } else { little };
                    }
                    w
                })
                .collect();
            if !all.contains(&weight) {
                all.push(weight);
            }
        }
    }
    all
}

/// One set of observations on which states climb.
struct Slope<'a, M: Mixture> {
    m: &'a M,
    data: &'a Data<'a, M>,
    expected: [Expected<M>; 2],
    control: &'a Control,
}

impl<'a, M: Mixture> Slope<'a, M> {
    fn new(m: &'a M, data: &'a Data<'a, M>, first: &M::Params, control: &'a Control) -> Self {
        let expected = [(); 2].map(|()| Expected::new(m, first, data));
        Self { m, data, expected, control }
    }

    /// A state after one M-step from each start.
    fn starts(&self, first: &M::Params) -> Vec<State<M::Params>> {
        let mut expected = Expected::given(self.m, first, self.data, vec![]);
        start_weights(self.m, self.data.obs, self.control.starts)
            .into_iter()
            .map(|start| {
                let mut state = State::new(first.clone());
                expected.weight = start;
                m_step(self.m, &mut state, self.data, &expected);
                state
            })
            .collect()
    }

    fn climb(&mut self, states: &mut [State<M::Params>], most: usize) {
        let (most, tolerance) = (most.min(self.control.iterations), self.control.tolerance);
        for state in states.iter_mut().filter(|state| !state.converged) {
            state.objective = f64::NEG_INFINITY;
            climb(self.m, state, self.data, &mut self.expected, most, tolerance, |_| ());
            order_components(self.m, state);
        }
        sort_states(self.m, states, tolerance);
    }

    /// Where the starts that lead highest are after a short run, the best first.
    fn candidates(&mut self, first: &M::Params) -> Vec<State<M::Params>> {
        let mut states = self.starts(first);
        self.climb(&mut states, SHORT_RUN);
        drop_same(self.m, &mut states);
        states.truncate(FINALISTS);
        states
    }
}

/// Fits the mixture from several deterministic starts; the best log-likelihood wins. None without two distinct values.
pub fn fit<M: Mixture>(m: &M, data: &Data<M>, control: &Control) -> Option<Fit<M::Params>> {
    fit_from(m, data, control, m.coarse(data.obs).as_deref())
}

fn fit_from<M: Mixture>(m: &M, data: &Data<M>, control: &Control, coarse: Option<&[Obs]>) -> Option<Fit<M::Params>> {
    let k = m.components();
    let first = m.start(data.obs);
    let best = best(m, data, &first, control, coarse)?;
    let log_lik = best.objective - m.ln_prior(&best.params);
    let n: f64 = data.obs.iter().map(|o| o.n).sum();
    let more = m.n_free(k) + k - 1 - m.n_free(1);
    let alone = m.log_lik_alone(data).unwrap_or_else(|| log_lik_of_one(m, first, data));
    let bic_gain = 2.0 * (log_lik - alone) - more as f64 * n.ln();
    Some(Fit {
        labelled: m.labelled(&best.params),
        params: best.params,
        share: best.share,
        log_lik,
        iterations: best.iterations,
        converged: best.converged,
        bic_gain,
    })
}

/// Where the likelihood of observations without depth is highest: parameters and shares.
pub fn highest<M: Mixture>(m: &M, obs: &[Obs], control: &Control) -> Option<(M::Params, [f64; MOST])> {
    best(m, &Data::new(m, obs), &m.start(obs), control, None).map(|best| (best.params, best.share))
}

/// Where there are coarse rows, the starts climb on those, and only what they arrive at goes on.
fn best<M: Mixture>(
    m: &M,
    data: &Data<M>,
    first: &M::Params,
    control: &Control,
    coarse: Option<&[Obs]>,
) -> Option<State<M::Params>> {
    let mut slope = Slope::new(m, data, first, control);
    let mut states = match (m.start_share(first), coarse) {
        (Some(share), _) => vec![State { share, ..State::new(first.clone()) }],
        (None, None) => slope.candidates(first),
        (None, Some(coarse)) => {
            let coarse = Data::new(m, coarse);
            let mut slope = Slope::new(m, &coarse, first, control);
            let mut states = slope.candidates(first);
            slope.climb(&mut states, control.iterations);
            drop_same(m, &mut states);
            let afresh = |state: State<M::Params>| State { share: state.share, ..State::new(state.params) };
            states.into_iter().map(afresh).collect()
        }
    };
    slope.climb(&mut states, control.iterations);
    states.into_iter().next().filter(|best| best.objective.is_finite())
}

/// Counts of about the same size and depth as one row.
pub fn coarse_counts(obs: &[Obs]) -> Vec<Obs> {
    let bin = |value: f64| (COARSE_BINS * value.log2()) as u64;
    let count = |y: f64| if y < COARSE_COUNT { y as u64 } else { COARSE_COUNT as u64 + bin(y) };
    binned_counts(obs, |o| (count(o.y) << 48) | (bin(o.depth) << 32) | u64::from(o.batch))
}

/// As [`binned`], with whole counts.
pub fn binned_counts(obs: &[Obs], bin: impl Fn(&Obs) -> u64) -> Vec<Obs> {
    let mut rows = binned(obs, bin);
    rows.iter_mut().for_each(|o| o.y = o.y.round());
    rows
}

/// The observations of each bin, which are of one batch, as one at their mean; by rising bins.
pub fn binned(obs: &[Obs], bin: impl Fn(&Obs) -> u64) -> Vec<Obs> {
    let bins: Vec<u64> = obs.iter().map(bin).collect();
    let (rows, row_of) = group(&bins);
    let mut binned = vec![Obs { y: 0.0, depth: 0.0, batch: 0, n: 0.0, ln_const: 0.0 }; rows.len()];
    for (o, &row) in obs.iter().zip(&row_of) {
        let all = &mut binned[row as usize];
        all.n += o.n;
        all.y += o.n * o.y;
        all.depth += o.n * o.depth;
        all.ln_const += o.n * o.ln_const;
        all.batch = o.batch;
    }
    for all in &mut binned {
        (all.y, all.depth, all.ln_const) = (all.y / all.n, all.depth / all.n, all.ln_const / all.n);
    }
    binned
}

/// The best first, those whose labels hold before all others. Within the tolerance, where rounding would decide, the order of
/// the starts is kept.
fn sort_states<M: Mixture>(m: &M, states: &mut [State<M::Params>], tolerance: f64) {
    let steps = |state: &State<M::Params>| (state.objective / tolerance).round();
    states.sort_by(|a, b| m.labelled(&b.params).cmp(&m.labelled(&a.params)).then(steps(b).total_cmp(&steps(a))));
}

/// Of states that have come to the same place only the best goes on.
fn drop_same<M: Mixture>(m: &M, states: &mut Vec<State<M::Params>>) {
    let mut kept: Vec<State<M::Params>> = Vec::new();
    for state in states.drain(..) {
        if !kept.iter().any(|better| is_same(m, better, &state)) {
            kept.push(state);
        }
    }
    *states = kept;
}

fn is_same<M: Mixture>(m: &M, a: &State<M::Params>, b: &State<M::Params>) -> bool {
    let (a, b) = (coordinates(m, a), coordinates(m, b));
    a.iter().zip(&b).all(|(a, b)| a == b || (a - b).abs() <= SAME)
}

/// Orders components by their means, shares with them.
fn order_components<M: Mixture>(m: &M, state: &mut State<M::Params>) {
    let k = m.components();
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| m.mean(&state.params, a).total_cmp(&m.mean(&state.params, b)));
    if order.is_sorted() || !m.reorder(&mut state.params, &order) {
        return;
    }
    let old = state.share;
    for (place, &from) in order.iter().enumerate() {
        state.share[place] = old[from];
    }
}

/// Log-likelihood of the background component alone, fitted to everything.
fn log_lik_of_one<M: Mixture>(m: &M, mut params: M::Params, data: &Data<M>) -> f64 {
    let weight = data.obs.iter().map(|o| [o.n, 0.0, 0.0]).collect();
    let mut expected = Expected::given(m, &params, data, weight);
    let mut last = f64::NEG_INFINITY;
    for _ in 0..50 {
        m.m_step(&mut params, data, &expected);
        expected.table = m.table(&params, &data.prepared);
        let mut log_lik = 0.0;
        for (i, (o, row)) in data.obs.iter().zip(&mut expected.rows).enumerate() {
            let (density, of_row) = data.ln_density(m, &params, &expected.table, i);
            *row = of_row;
            log_lik += o.n * (density[0] + o.ln_const);
        }
        if log_lik - last < 1e-6 {
            break;
        }
        last = log_lik;
    }
    last
}

/// Posterior probability of the signal for each observation, and its log odds.
#[derive(Debug, Clone, Default)]
pub struct Posterior {
    pub score: Vec<f64>,
    pub log_odds: Vec<f64>,
}

impl Posterior {
    /// The same for all observations: all are signal.
    pub fn certain(n: usize) -> Self {
        Self { score: vec![1.0; n], log_odds: vec![MOST_LOG_ODDS; n] }
    }
}

impl<P> Fit<P> {
    /// The posterior of the observations, which must be sorted by y where the family asks for a monotone posterior.
    pub fn posterior<M: Mixture<Params = P>>(&self, m: &M, data: &Data<M>) -> Posterior {
        let last = m.components() - 1;
        let ln_share = ln_all(&self.share);
        let table = m.table(&self.params, &data.prepared);
        let of_observation = |(i, o): (usize, &Obs)| {
            let judged = m.judged_as(&self.params, o);
            let (density, _) = m.ln_density(&self.params, &table, &data.prepared, i, &judged);
            let (top, _, share) = shares(m.components(), density, &ln_share, UNDERFLOW);
            let score = if top.is_finite() {
                share[last]
            } else {
                // No component can explain the value: far above everything it is signal.
                f64::from(u8::from(o.y > m.mean(&self.params, last)))
            };
            (score, bounded_log_odds(ln_odds(last, &density, &ln_share), score))
        };
        let (mut score, mut log_odds): (Vec<f64>, Vec<f64>) = data.obs.iter().enumerate().map(of_observation).unzip();
        if let Some(pivot) = m.monotone_around(&self.params) {
            let pivot = data.obs.partition_point(|o| o.y <= pivot);
            make_monotone(&mut score, pivot, 0.0);
            make_monotone(&mut log_odds, pivot, -MOST_LOG_ODDS);
        }
        Posterior { score, log_odds }
    }
}

/// ln of the odds of the last component against those before it. Differences of logs lose nothing where the posterior
/// itself rounds to 0 or 1. NaN where no component explains the value.
fn ln_odds(last: usize, density: &[f64; MOST], ln_share: &[f64; MOST]) -> f64 {
    let joint = |k: usize| density[k] + ln_share[k];
    let mut others = [f64::NEG_INFINITY; MOST];
    (0..last).for_each(|k| others[k] = joint(k));
    let others = if last == 1 { others[0] } else { ln_sum_exp(&others) };
    joint(last) - others
}

/// Below the pivot the running minimum from the pivot down, above it the running maximum from the pivot up: two
/// densities with different tails cross twice, and the outer crossing has no meaning for guides. `least` is the least value there can be.
fn make_monotone(posterior: &mut [f64], pivot: usize, least: f64) {
    let (below, above) = posterior.split_at_mut(pivot);
    for i in (1..below.len()).rev() {
        below[i - 1] = below[i - 1].min(below[i]);
    }
    let mut floor = below.last().copied().unwrap_or(least);
    for value in above {
        floor = floor.max(*value);
        *value = floor;
    }
}

/// The distinct keys, rising, with how often each occurs, and the place of every key among them.
pub fn group(keys: &[u64]) -> (Vec<(u64, u32)>, Vec<u32>) {
    let mut rows: Vec<(u64, u32)> = Vec::new();
    let mut row_of = vec![0; keys.len()];
    let mut put = |key: u64, i: usize| {
        match rows.last_mut() {
            Some(row) if row.0 == key => row.1 += 1,
            _ => rows.push((key, 1)),
        }
        row_of[i] = rows.len() as u32 - 1;
    };
    let places = usize::BITS - keys.len().leading_zeros();
    if keys.iter().fold(0, |all, key| all | key).leading_zeros() >= places {
        // The place goes into the bits that no key has.
        let mut order: Vec<u64> = keys.iter().zip(0..).map(|(key, i)| (key << places) | i).collect();
        sort(&mut order);
        order.into_iter().for_each(|at| put(at >> places, (at & ((1 << places) - 1)) as usize));
    } else {
        let mut order: Vec<(u64, u32)> = keys.iter().copied().zip(0..).collect();
        sort(&mut order);
        order.into_iter().for_each(|(key, i)| put(key, i as usize));
    }
    (rows, row_of)
}

fn sort<T: Ord + Send>(values: &mut [T]) {
    if values.len() < PARALLEL_SORT {
        values.sort_unstable();
    } else {
        values.par_sort_unstable();
    }
}

/// Scores every guide by a mixture of its own, of a family with depth: observations are (count, depth, batch).
pub fn score_per_guide<M: Mixture>(
    m: &M,
    counts: &GuideCounts,
    control: &Control,
    progress: &Progress,
) -> Result<Scores> {
    let classes = DepthClasses::new(counts, m.borrowed_depth());
    let by_guide = classes.by_guide(counts);
    let fitted = progress.map(counts.n_guides(), |guide| {
        let entries = by_guide.guide(guide);
        let n_cells = by_guide.n_cells(guide);
        let gate = gate(n_cells, entries.clone().map(|entry| entry.count).max().unwrap_or(0), control);
        if let Some(row) = gate {
            return (FitRow { unit: guide, ..row }, None);
        }
        let (obs, row_of) = classes.observations(m, entries);
        let (row, posterior) = fit_unit(m, &obs, control);
        let of_counts = |of_rows: &[f64]| row_of.iter().map(|&r| of_rows[r as usize]).collect::<Vec<f64>>();
        let scores = posterior.map(|p| (of_counts(&p.score), control.log_odds.then(|| of_counts(&p.log_odds))));
        (FitRow { unit: guide, n_cells, ..row }, scores)
    })?;
    let (rows, posteriors): (Vec<FitRow>, Vec<_>) = fitted.into_iter().unzip();
    let mut of_guides = PosteriorsOfRows::default();
    for posterior in posteriors {
        let (score, log_odds) = posterior.map_or((None, None), |(score, log_odds)| (Some(score), log_odds));
        of_guides.score.push(score);
        of_guides.log_odds.push(log_odds);
    }
    let score = by_guide.in_cell_order(0.0, &std::mem::take(&mut of_guides.score));
    let log_odds = match control.log_odds {
        true => by_guide.in_cell_order(-MOST_LOG_ODDS, &of_guides.log_odds),
        false => vec![],
    };
    let fits = FitTable::from_rows("guide", &column_names(m), &rows);
    Ok(Scores { score, log_odds, fits, ..Scores::default() })
}

/// The scores of a family without depth.
pub fn score_counts<M: Mixture>(m: &M, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
    let histograms = histogram::of_guides(counts);
    let (posteriors, fits) = score_histograms(m, &histograms, counts.n_cells(), control, progress)?;
    let score = posteriors.scores(&histograms).of(counts.guides(), counts.counts());
    let log_odds = match control.log_odds {
        true => posteriors.log_odds(&histograms).of(counts.guides(), counts.counts()),
        false => vec![],
    };
    Ok(Scores { score, log_odds, fits, ..Scores::default() })
}

/// The posteriors of a family without depth, of the rows of each guide's histogram, and the fits.
pub fn score_histograms<M: Mixture>(
    m: &M,
    histograms: &[Rows],
    n_cells: usize,
    control: &Control,
    progress: &Progress,
) -> Result<(PosteriorsOfRows, FitTable)> {
    let fitted = progress.map(histograms.len(), |guide| {
        let rows = &histograms[guide];
        let with_guide: usize = rows.iter().map(|&(_, n)| n as usize).sum();
        if let Some(row) = gate(with_guide, rows.last().map_or(0, |&(y, _)| y), control) {
            return ((None, None), FitRow { unit: guide, ..row });
        }
        let zeros = (n_cells > with_guide).then_some((0, (n_cells - with_guide) as u32));
        let obs: Vec<Obs> = zeros
            .iter()
            .chain(rows)
            .map(|&(y, n)| {
                let (y, n) = (f64::from(y), f64::from(n));
                Obs { y, depth: 1.0, batch: 0, n, ln_const: m.ln_const(y, 1.0) }
            })
            .collect();
        let (row, mut posterior) = fit_unit(m, &obs, control);
        if let (Some(posterior), Some(_)) = (&mut posterior, zeros) {
            posterior.score.remove(0);
            posterior.log_odds.remove(0);
        }
        let posterior = posterior.map_or((None, None), |p| (Some(p.score), Some(p.log_odds)));
        (posterior, FitRow { unit: guide, n_cells: with_guide, ..row })
    })?;
    let (posteriors, rows): (Vec<_>, Vec<_>) = fitted.into_iter().unzip();
    let (score, log_odds) = posteriors.into_iter().unzip();
    Ok((PosteriorsOfRows { score, log_odds }, FitTable::from_rows("guide", &column_names(m), &rows)))
}

/// The gate of models.md: too little to fit anything.
pub fn gate(n_cells: usize, largest: u32, control: &Control) -> Option<FitRow> {
    let note = if n_cells == 0 {
        "no cell has this guide".to_string()
    } else if n_cells < control.gate_cells {
        format!("only {n_cells} of at least {} cells have this guide", control.gate_cells)
    } else if largest < control.gate_count {
        format!("the largest count is {largest}; at least {} is needed", control.gate_count)
    } else {
        return None;
    };
    Some(FitRow { n_cells, status: Status::Gated, note, ..FitRow::empty() })
}

/// Names of the columns of parameters: those of the family, then the shares.
pub fn column_names<M: Mixture>(m: &M) -> Vec<String> {
    let shares: &[&str] = if m.components() == 2 {
        &["share_background", "share_signal"]
    } else {
        &["share_low", "share_middle", "share_high"]
    };
    m.names().into_iter().chain(shares.iter().map(|s| s.to_string())).collect()
}

/// Fits one guide or batch; the posterior of each observation is missing where there is no signal.
pub fn fit_unit<M: Mixture>(m: &M, obs: &[Obs], control: &Control) -> (FitRow, Option<Posterior>) {
    let data = Data::new(m, obs);
    let Some(fit) = fit(m, &data, control) else {
        let note = "all cells have the same value, so there is nothing to tell apart".to_string();
        return (FitRow { status: Status::NoSignal, note, ..FitRow::empty() }, None);
    };
    let k = m.components();
    let mut values = m.values(&fit.params);
    values.extend(&fit.share[..k]);
    let (status, note) = if !fit.labelled {
        (Status::NoSignal, "no component lies above the background".to_string())
    } else if fit.bic_gain <= 0.0 {
        (Status::NoSignal, "one population explains the counts as well as two (BIC)".to_string())
    } else if !fit.converged {
        (Status::NotConverged, format!("EM had not converged after {} iterations", fit.iterations))
    } else {
        (Status::Ok, String::new())
    };
    let posterior = (status != Status::NoSignal).then(|| fit.posterior(m, &data));
    let row = FitRow {
        status,
        note,
        values,
        log_lik: fit.log_lik,
        bic_gain: fit.bic_gain,
        iterations: Some(fit.iterations),
        converged: Some(fit.converged),
        ..FitRow::empty()
    };
    (row, posterior)
}

/// The objective at every iteration from every start: what the law "the log-likelihood never falls" is checked on.
#[cfg(test)]
pub fn traces<M: Mixture>(m: &M, obs: &[Obs], control: &Control) -> Vec<Vec<f64>> {
    let first = m.start(obs);
    let data = Data::new(m, obs);
    let mut slope = Slope::new(m, &data, &first, control);
    slope
        .starts(&first)
        .iter_mut()
        .map(|state| {
            let mut trace = Vec::new();
            let Slope { data, expected, .. } = &mut slope;
            climb(m, state, data, expected, control.iterations, control.tolerance, |v| trace.push(v));
            trace
        })
        .collect()
}

#[cfg(test)]
pub mod laws {
    use super::*;

    /// Counts with a background and a signal, in two depths and two batches.
    pub fn observations<M: Mixture>(m: &M, batches: u32) -> Vec<Obs> {
        let counts = [
            (0, 900),
            (1, 160),
            (2, 40),
            (3, 9),
            (4, 4),
            (6, 3),
            (9, 8),
            (14, 15),
            (22, 21),
            (35, 14),
            (60, 6),
            (140, 2),
        ];
        let mut obs = Vec::new();
        for (y, n) in counts {
            for (depth, share) in [(150.0, 0.5), (400.0, 0.5)] {
                for batch in 0..batches {
                    let y = f64::from(y);
                    let n = f64::from(n) * share / f64::from(batches) * if batch == 0 { 1.3 } else { 0.7 };
                    obs.push(Obs { y, depth, batch, n, ln_const: m.ln_const(y, depth) });
                }
            }
        }
        obs
    }

    /// The log-likelihood never falls, from any start.
    pub fn never_falls<M: Mixture>(m: &M, obs: &[Obs]) {
        let traces = traces(m, obs, &Control::default());
        assert!(traces.len() > 2);
        for trace in traces {
            assert!(trace.len() > 1);
            for pair in trace.windows(2) {
                assert!(
                    pair[1] >= pair[0] - 1e-7 * pair[0].abs().max(1.0),
                    "{} after {} in {trace:?}",
                    pair[1],
                    pair[0]
                );
            }
        }
    }

    /// An observation of multiplicity n is the same as n observations.
    pub fn multiplicity<M: Mixture>(m: &M, obs: &[Obs]) {
        let whole: Vec<Obs> = obs.iter().map(|o| Obs { n: 3.0, ..*o }).collect();
        let split: Vec<Obs> = obs.iter().flat_map(|o| [Obs { n: 1.0, ..*o }; 3]).collect();
        // Flat optima are told apart only by a sharp tolerance.
        let control = Control { tolerance: 1e-11, iterations: 20_000, ..Control::default() };
        let (Some(a), Some(b)) = (fit(m, &Data::new(m, &whole), &control), fit(m, &Data::new(m, &split), &control))
        else {
            panic!("no fit")
        };
        assert!((a.log_lik - b.log_lik).abs() < 1e-5, "{} {}", a.log_lik, b.log_lik);
        for (x, y) in m.values(&a.params).iter().zip(m.values(&b.params)) {
            assert!((x - y).abs() < 1e-3 * x.abs().max(1.0), "{x} {y}");
        }
    }

    /// Fits to grouped and to single observations give the same posterior.
    pub fn grouping<M: Mixture>(m: &M, obs: &[Obs]) {
        let whole: Vec<Obs> = obs.iter().map(|o| Obs { n: o.n.ceil(), ..*o }).collect();
        let split: Vec<Obs> = whole.iter().flat_map(|o| vec![Obs { n: 1.0, ..*o }; o.n as usize]).collect();
        let control = Control::default();
        let data = Data::new(m, &whole);
        let (Some(a), Some(b)) = (fit(m, &Data::new(m, &whole), &control), fit(m, &Data::new(m, &split), &control))
        else {
            panic!("no fit")
        };
        for (x, y) in a.posterior(m, &data).score.iter().zip(b.posterior(m, &data).score) {
            assert!((x - y).abs() < 1e-9, "{x} {y}");
        }
    }

    /// Starts on coarse rows end where starts on all rows do, as near as the likelihood tells.
    pub fn coarseness<M: Mixture>(m: &M, obs: &[Obs], within: f64) {
        let control = Control { tolerance: 1e-12, iterations: 20_000, ..Control::default() };
        let data = Data::new(m, obs);
        let (Some(a), Some(b)) = (fit(m, &data, &control), fit_from(m, &data, &control, None)) else {
            panic!("no fit")
        };
        for (x, y) in a.posterior(m, &data).score.iter().zip(b.posterior(m, &data).score) {
            assert!((x - y).abs() < within, "{x} {y}");
        }
    }

    /// The background alone is as likely as a search finds it, if the family knows.
    pub fn alone<M: Mixture>(m: &M, obs: &[Obs]) {
        let data = Data::new(m, obs);
        let searched = log_lik_of_one(m, m.start(obs), &data);
        let known = m.log_lik_alone(&data).unwrap_or(searched);
        assert!((known - searched).abs() < 1e-9 * searched.abs(), "{known} {searched}");
    }

    /// pack and unpack are inverse.
    pub fn packing<M: Mixture>(m: &M, obs: &[Obs]) {
        let Some(fit) = fit(m, &Data::new(m, obs), &Control::default()) else { panic!("no fit") };
        let mut params = m.start(obs);
        m.unpack(&mut params, &m.pack(&fit.params));
        for (x, y) in m.values(&fit.params).iter().zip(m.values(&params)) {
            assert!((x - y).abs() < 1e-9 * x.abs().max(1.0), "{x} {y}");
        }
    }

    pub fn all<M: Mixture>(m: &M, batches: u32) {
        let obs = observations(m, batches);
        never_falls(m, &obs);
        multiplicity(m, &obs);
        grouping(m, &obs);
        coarseness(m, &obs, 1e-6);
        alone(m, &obs);
        packing(m, &obs);
    }
}
