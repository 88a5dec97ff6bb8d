//! The engine of all mixtures: grouping of equal observations, starts, EM, gates, posterior, fit table.
//!
//! A family states its density, its M-step and its labels through [`Mixture`]; everything that mixtures share is here,
//! once. The whole mixture, not each component, is the unit, because the families with depth share baseline, batch
//! effects and dispersion between components.
use crate::counts::GuideCounts;
use crate::fit::{FitRow, FitTable, Status};
use crate::histogram::{self, RowScores, Rows};
use crate::models::{Control, Scores};
use crate::run::Progress;
use crate::special::ln_sum_exp;
use crate::Result;

/// Most components of any family.
pub const MOST: usize = 3;

/// Iterations that every start gets before the best go on.
const SHORT_RUN: usize = 6;
/// How many starts go on to convergence.
const FINALISTS: usize = 3;
/// exp() of less is 0.
const UNDERFLOW: f64 = -745.2;
/// A share of less does not change 1, and no sum that a step of EM is made of.
const NEGLIGIBLE: f64 = -45.0;
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
pub trait Mixture: Sync {
    type Params: Clone + Send;
    /// What the densities of all observations share.
    type Table;
    /// What the M-step needs again of the density of an observation.
    type Row: Copy + Default;

    fn components(&self) -> usize;
    /// Parameters from which the first M-step of a start begins.
    fn start(&self, obs: &[Obs]) -> Self::Params;
    /// The shares that go with those parameters where they are near the optimum: no other start is needed then.
    fn start_share(&self, _: &Self::Params) -> Option<[f64; MOST]> {
        None
    }
    /// The part of the log density that no parameter enters.
    fn ln_const(&self, y: f64, depth: f64) -> f64;
    /// Made once for each set of parameters and looked up for every observation.
    fn table(&self, params: &Self::Params) -> Self::Table;
    /// Log density of an observation under each component: the only place where the density lives.
    fn ln_density(&self, params: &Self::Params, table: &Self::Table, obs: &Obs) -> ([f64; MOST], Self::Row);
    /// Raises the expected log-likelihood. `weight[i][k]` is the share of observation i in component k times its n; the rows are
    /// those of `ln_density` at these parameters.
    fn m_step(&self, params: &mut Self::Params, obs: &[Obs], weight: &[[f64; MOST]], rows: &[Self::Row]);
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

/// ln of the density of a mixture of the first k components, and the share of each in it; 0 where its ln is below `least`.
fn shares(k: usize, mut joint: [f64; MOST], ln_share: &[f64; MOST], least: f64) -> (f64, [f64; MOST]) {
    let top = (0..k).fold(f64::NEG_INFINITY, |top, j| {
        joint[j] += ln_share[j];
        top.max(joint[j])
    });
    let mut share = [0.0; MOST];
    if !top.is_finite() {
        return (top, share);
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
    if sum == 1.0 {
        return (top, share);
    }
    (top + sum.ln(), share.map(|s| s / sum))
}

fn ln_all(share: &[f64; MOST]) -> [f64; MOST] {
    share.map(f64::ln)
}

/// What the E-step says of each observation.
struct Expected<R> {
    weight: Vec<[f64; MOST]>,
    rows: Vec<R>,
}

impl<R: Copy + Default> Expected<R> {
    fn new(n: usize) -> Self {
        Self { weight: vec![[0.0; MOST]; n], rows: vec![R::default(); n] }
    }
}

/// Fills in what is expected and returns the log-likelihood.
fn e_step<M: Mixture>(m: &M, state: &State<M::Params>, obs: &[Obs], expected: &mut Expected<M::Row>) -> f64 {
    let ln_share = ln_all(&state.share);
    let table = m.table(&state.params);
    let mut log_lik = 0.0;
    for ((o, w), row) in obs.iter().zip(&mut expected.weight).zip(&mut expected.rows) {
        let (density, of_row) = m.ln_density(&state.params, &table, o);
        let (total, share) = shares(m.components(), density, &ln_share, NEGLIGIBLE);
        *w = share.map(|s| o.n * s);
        *row = of_row;
        log_lik += o.n * (total + o.ln_const);
    }
    log_lik
}

fn m_step<M: Mixture>(m: &M, state: &mut State<M::Params>, obs: &[Obs], weight: &[[f64; MOST]], rows: &[M::Row]) {
    let mut share = [0.0; MOST];
    for w in weight {
        for k in 0..m.components() {
            share[k] += w[k];
        }
    }
    let total: f64 = share.iter().sum();
    if total > 0.0 {
        state.share = share.map(|s| s / total);
    }
    m.m_step(&mut state.params, obs, weight, rows);
}

/// EM until an iteration gains less than the tolerance, for at most `most` iterations in all.
///
/// Every second step is extrapolated along the path of EM (SQUAREM, Varadhan and Roland 2008,
/// doi:10.1111/j.1467-9469.2007.00585.x) and the extrapolation kept only where it lies higher, so the objective never falls.
fn climb<M: Mixture>(
    m: &M,
    state: &mut State<M::Params>,
    obs: &[Obs],
    [expected, far_expected]: &mut [Expected<M::Row>; 2],
    most: usize,
    tolerance: f64,
    mut watch: impl FnMut(f64),
) {
    let objective_at = |state: &State<M::Params>, expected: &mut Expected<M::Row>| {
        let objective = e_step(m, state, obs, expected) + m.ln_prior(&state.params);
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
        m_step(m, state, obs, &expected.weight, &expected.rows);
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

/// Fits the mixture from several deterministic starts; the best log-likelihood wins. None without two distinct values.
pub fn fit<M: Mixture>(m: &M, obs: &[Obs], control: &Control) -> Option<Fit<M::Params>> {
    let k = m.components();
    let mut expected = [(); 2].map(|()| Expected::new(obs.len()));
    let first = m.start(obs);
    let mut states: Vec<State<M::Params>> = match m.start_share(&first) {
        Some(share) => vec![State { share, ..State::new(first.clone()) }],
        None => {
            let rows = rows_at(m, &first, obs);
            start_weights(m, obs, control.starts)
                .iter()
                .map(|start| {
                    let mut state = State::new(first.clone());
                    m_step(m, &mut state, obs, start, &rows);
                    state
                })
                .collect()
        }
    };
    let mut go_on = |state: &mut State<M::Params>, most: usize| {
        if !state.converged {
            state.objective = f64::NEG_INFINITY;
            climb(m, state, obs, &mut expected, most.min(control.iterations), control.tolerance, |_| ());
            order_components(m, state);
        }
    };
    states.iter_mut().for_each(|state| go_on(state, SHORT_RUN));
    sort_states(m, &mut states, control.tolerance);
    drop_same(m, &mut states);
    states.truncate(FINALISTS);
    states.iter_mut().for_each(|state| go_on(state, control.iterations));
    sort_states(m, &mut states, control.tolerance);
    let best = states.into_iter().next()?;
    if !best.objective.is_finite() {
        return None;
    }
    let log_lik = best.objective - m.ln_prior(&best.params);
    let n: f64 = obs.iter().map(|o| o.n).sum();
    let more = m.n_free(k) + k - 1 - m.n_free(1);
    let bic_gain = 2.0 * (log_lik - log_lik_of_one(m, first, obs)) - more as f64 * n.ln();
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

fn rows_at<M: Mixture>(m: &M, params: &M::Params, obs: &[Obs]) -> Vec<M::Row> {
    let table = m.table(params);
    obs.iter().map(|o| m.ln_density(params, &table, o).1).collect()
}

/// Log-likelihood of the background component alone, fitted to everything.
fn log_lik_of_one<M: Mixture>(m: &M, mut params: M::Params, obs: &[Obs]) -> f64 {
    let weight: Vec<[f64; MOST]> = obs.iter().map(|o| [o.n, 0.0, 0.0]).collect();
    let mut rows = rows_at(m, &params, obs);
    let mut last = f64::NEG_INFINITY;
    for _ in 0..50 {
        m.m_step(&mut params, obs, &weight, &rows);
        let table = m.table(&params);
        let mut log_lik = 0.0;
        for (o, row) in obs.iter().zip(&mut rows) {
            let (density, of_row) = m.ln_density(&params, &table, o);
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

impl<P> Fit<P> {
    /// Posterior probability of the signal for each observation, which must be sorted by y where the family asks for a
    /// monotone posterior.
    pub fn posterior<M: Mixture<Params = P>>(&self, m: &M, obs: &[Obs]) -> Vec<f64> {
        let last = m.components() - 1;
        let ln_share = ln_all(&self.share);
        let table = m.table(&self.params);
        let mut posterior: Vec<f64> = obs
            .iter()
            .map(|o| {
                let judged = m.judged_as(&self.params, o);
                let (density, _) = m.ln_density(&self.params, &table, &judged);
                let (total, share) = shares(m.components(), density, &ln_share, UNDERFLOW);
                if total.is_finite() {
                    share[last]
                } else {
                    // No component can explain the value: far above everything it is signal.
                    f64::from(u8::from(o.y > m.mean(&self.params, last)))
                }
            })
            .collect();
        if let Some(pivot) = m.monotone_around(&self.params) {
            make_monotone(&mut posterior, obs.partition_point(|o| o.y <= pivot));
        }
        posterior
    }
}

/// Below the pivot the running minimum from the pivot down, above it the running maximum from the pivot up: two
/// densities with different tails cross twice, and the outer crossing has no meaning for guides.
fn make_monotone(posterior: &mut [f64], pivot: usize) {
    let (below, above) = posterior.split_at_mut(pivot);
    for i in (1..below.len()).rev() {
        below[i - 1] = below[i - 1].min(below[i]);
    }
    let mut floor = below.last().copied().unwrap_or(0.0);
    for value in above {
        floor = floor.max(*value);
        *value = floor;
    }
}

/// Equal observations as one row each, sorted by y, depth and batch, and the row of every input. Zeros come first.
pub fn group<M: Mixture>(m: &M, zeros: Vec<Obs>, seen: &[(f64, f64, u32)]) -> (Vec<Obs>, Vec<u32>) {
    let mut order: Vec<u32> = (0..seen.len() as u32).collect();
    let key = |i: u32| seen[i as usize];
    order.sort_unstable_by(|&a, &b| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
    });
    let mut obs = zeros;
    let mut row_of = vec![0; seen.len()];
    let mut last = None;
    for i in order {
        let (y, depth, batch) = key(i);
        match obs.last_mut() {
            Some(row) if last == Some((y, depth, batch)) => row.n += 1.0,
            _ => obs.push(Obs { y, depth, batch, n: 1.0, ln_const: m.ln_const(y, depth) }),
        }
        last = Some((y, depth, batch));
        row_of[i as usize] = obs.len() as u32 - 1;
    }
    (obs, row_of)
}

/// Cells grouped by batch and depth, for the zeros of the families with depth: within a bin of an eighth of an octave
/// (wider with many batches) the mean depth stands for all.
struct DepthBins {
    bin_of_cell: Vec<u32>,
    batch: Vec<u32>,
    n: Vec<f64>,
    depth: Vec<f64>,
}

impl DepthBins {
    fn new(counts: &GuideCounts) -> Self {
        let per_octave = (128 / counts.n_batches()).clamp(1, 8) as f64;
        // Cells without guide UMIs say nothing under any rate and are left out.
        let key = |cell: usize| {
            let depth = counts.depth()[cell];
            (depth > 0.0).then(|| (counts.batch()[cell], (depth.log2() * per_octave) as u32))
        };
        let mut keys: Vec<(u32, u32)> = (0..counts.n_cells()).filter_map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut bins = Self {
            bin_of_cell: vec![u32::MAX; counts.n_cells()],
            batch: keys.iter().map(|k| k.0).collect(),
            n: vec![0.0; keys.len()],
            depth: vec![0.0; keys.len()],
        };
        for cell in 0..counts.n_cells() {
            if let Some(bin) = key(cell).and_then(|k| keys.binary_search(&k).ok()) {
                bins.bin_of_cell[cell] = bin as u32;
                bins.n[bin] += 1.0;
                bins.depth[bin] += counts.depth()[cell];
            }
        }
        bins
    }

    /// The zeros of a guide: the bins less the cells that have it.
    fn zeros<M: Mixture>(&self, m: &M, with_guide: &[u32], depth: &[f64]) -> Vec<Obs> {
        let (mut n, mut sum) = (self.n.clone(), self.depth.clone());
        for &cell in with_guide {
            let bin = self.bin_of_cell[cell as usize] as usize;
            n[bin] -= 1.0;
            sum[bin] -= depth[cell as usize];
        }
        (0..n.len())
            .filter(|&bin| n[bin] > 0.0)
            .map(|bin| {
                let depth = sum[bin] / n[bin];
                Obs { y: 0.0, depth, batch: self.batch[bin], n: n[bin], ln_const: m.ln_const(0.0, depth) }
            })
            .collect()
    }
}

/// Scores every guide by a mixture of its own. With `depth`, observations are (count, depth, batch) and zeros are
/// grouped by depth; without, they are counts alone.
pub fn score_per_guide<M: Mixture>(
    m: &M,
    counts: &GuideCounts,
    control: &Control,
    progress: &Progress,
) -> Result<Scores> {
    let by_guide = counts.by_guide();
    let bins = DepthBins::new(counts);
    let fitted = progress.map(counts.n_guides(), |guide| {
        let entries = by_guide.guide(guide);
        let gate = gate(entries.count.len(), entries.count.iter().copied().max().unwrap_or(0), control);
        if let Some(row) = gate {
            return (FitRow { unit: guide, ..row }, None);
        }
        let seen = |(&y, &cell): (&u32, &u32)| {
            let cell = cell as usize;
            (f64::from(y), counts.depth()[cell], counts.batch()[cell])
        };
        let seen: Vec<(f64, f64, u32)> = entries.count.iter().zip(entries.cell).map(seen).collect();
        let (obs, row_of) = group(m, bins.zeros(m, entries.cell, counts.depth()), &seen);
        let (row, posterior) = fit_unit(m, &obs, control);
        let scores = posterior.map(|p| row_of.iter().map(|&r| p[r as usize]).collect::<Vec<f64>>());
        (FitRow { unit: guide, n_cells: seen.len(), ..row }, scores)
    })?;

    let mut score = vec![0.0; counts.n_counts()];
    let mut rows = Vec::with_capacity(fitted.len());
    for (row, scores) in fitted {
        if let Some(scores) = scores {
            for (&position, value) in by_guide.guide(row.unit).position.iter().zip(scores) {
                score[position as usize] = value;
            }
        }
        rows.push(row);
    }
    Ok(Scores { score, fits: FitTable::from_rows("guide", &column_names(m), &rows) })
}

/// The scores of a family without depth.
pub fn score_counts<M: Mixture>(m: &M, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
    let histograms = histogram::of_guides(counts);
    let (scores, fits) = score_histograms(m, &histograms, counts.n_cells(), control, progress)?;
    Ok(Scores { score: RowScores::new(&histograms, &scores).of(counts.guides(), counts.counts()), fits })
}

/// The scores of a family without depth, of the rows of each guide's histogram (none where nothing of it is called), and the fits.
pub fn score_histograms<M: Mixture>(
    m: &M,
    histograms: &[Rows],
    n_cells: usize,
    control: &Control,
    progress: &Progress,
) -> Result<(Vec<Option<Vec<f64>>>, FitTable)> {
    let fitted = progress.map(histograms.len(), |guide| {
        let rows = &histograms[guide];
        let with_guide: usize = rows.iter().map(|&(_, n)| n as usize).sum();
        if let Some(row) = gate(with_guide, rows.last().map_or(0, |&(y, _)| y), control) {
            return (None, FitRow { unit: guide, ..row });
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
            posterior.remove(0);
        }
        (posterior, FitRow { unit: guide, n_cells: with_guide, ..row })
    })?;
    let (scores, rows): (Vec<_>, Vec<_>) = fitted.into_iter().unzip();
    Ok((scores, FitTable::from_rows("guide", &column_names(m), &rows)))
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
pub fn fit_unit<M: Mixture>(m: &M, obs: &[Obs], control: &Control) -> (FitRow, Option<Vec<f64>>) {
    let Some(fit) = fit(m, obs, control) else {
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
    let posterior = (status != Status::NoSignal).then(|| fit.posterior(m, obs));
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
    let mut expected = [(); 2].map(|()| Expected::new(obs.len()));
    let first = m.start(obs);
    let rows = rows_at(m, &first, obs);
    start_weights(m, obs, control.starts)
        .iter()
        .map(|start| {
            let mut state = State::new(first.clone());
            m_step(m, &mut state, obs, start, &rows);
            let mut trace = Vec::new();
            climb(m, &mut state, obs, &mut expected, control.iterations, control.tolerance, |v| trace.push(v));
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
        let (Some(a), Some(b)) = (fit(m, &whole, &control), fit(m, &split, &control)) else { panic!("no fit") };
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
        let (Some(a), Some(b)) = (fit(m, &whole, &control), fit(m, &split, &control)) else { panic!("no fit") };
        for (x, y) in a.posterior(m, &whole).iter().zip(b.posterior(m, &whole)) {
            assert!((x - y).abs() < 1e-9, "{x} {y}");
        }
    }

    /// pack and unpack are inverse.
    pub fn packing<M: Mixture>(m: &M, obs: &[Obs]) {
        let Some(fit) = fit(m, obs, &Control::default()) else { panic!("no fit") };
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
        packing(m, &obs);
    }
}
