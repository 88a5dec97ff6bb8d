//! One cell: its likelihood and the posteriors of its counts, summed over nodes of exposure and capture.
//!
//! Given exposure e and capture d the guides of a cell are independent, so its likelihood is a sum over pairs of nodes of a
//! product over guides. The zeros, of which there are most, are tabled for all guides at once. Each stored count then
//! replaces its zero by
//!
//!   F(e, d) = b_y(e) + hidden(d) sum_{j < y} b_j(e) s_{y-j}(d)
//!
//! where b_j is the mass of j background UMIs over that of none, s_i that of i signal UMIs over that of none, and `hidden`
//! the probability that the guide is carried, given a zero. A share hidden(d) of the first term is carried, too.
use super::background::Background;
use super::grid::{CAPTURES, EXPOSURES};
use super::nodes::{better, Grade, Kind, Nodes, Place};
use super::params::Params;
use super::tables::Tables;
use crate::special::{ln_1p, LnSum};
use std::collections::HashMap;

/// The counts of a cell.
#[derive(Clone, Copy)]
pub struct Counts<'a> {
    pub class: usize,
    pub guides: &'a [i32],
    pub umis: &'a [f64],
    pub depth: f64,
}

/// First looks take so many nodes of a range.
const FIRST_NODES: usize = 7;
const LOOKS: usize = 4;
const FEW_LOOKS: usize = 2;
/// A cell is looked at again where it takes this many times fewer nodes.
const WASTE: usize = 4;
/// Up to here, masses are multiplied up from that of a zero, and all terms of the sum are taken one by one.
const MULTIPLIED: usize = 16;
/// Further out, s is taken as straight between terms that are so many standard deviations of the signal apart; the first ones are
/// taken one by one.
const GROUP: f64 = 0.15;
const ONE_BY_ONE: usize = 6;
/// Masses from here on can be multiplied up.
const SAFE: f64 = 1e-250;
/// Counts above this are taken as this: they are certain either way.
const MOST_UMIS: f64 = 10_000.0;
/// Logarithms up to this have no exponential near the end of doubles.
const LARGE_LN: f64 = 500.0;
/// Up to this logarithm masses are over those of a zero.
const FAR: f64 = 600.0;
/// A background of less than this of all changes nothing that is learnt.
const NOTHING: f64 = 1e-12;

/// What a cell is known to be once it was looked at; its arrays hold what the next cell overwrites.
#[derive(Default)]
pub struct Look {
    guesses: HashMap<Kind, Place>,
    pub(super) place: Place,
    next: Place,
    /// Posterior weight of each pair of nodes, capture by capture, all sets of guides taken together.
    pub weight: Vec<f64>,
    /// Of each node of exposure, that of the empty set, of weight 1. `none` is its sum times what the weight of the empty cell
    /// has beyond 1, and may be negative. The weights and `none` sum to 1.
    pub empty: Vec<f64>,
    pub beyond: f64,
    pub none: f64,
    pub ln_lik: f64,
    pub(super) spans: Vec<Span>,
    /// Rows of b_j, or sums of some, by node of exposure; and b_j times what [`Lesson::soup`] is of j.
    pub(super) back: Vec<f64>,
    pub(super) soup: Vec<f64>,
    /// hidden s_{y-j} by node of capture, and y - j, of the same rows.
    pub(super) fore: Vec<f64>,
    pub(super) signal: Vec<f64>,
    /// F of each count at each pair of nodes, over its largest.
    pub(super) factor: Vec<f64>,
    of_exposure: Vec<f64>,
    pub(super) of_capture: Vec<f64>,
    s: Vec<f64>,
    pub(super) ratio: Vec<f64>,
    background: Background,
    /// See [`Look::find_sources`].
    sources: Vec<f64>,
    sorted: Vec<f64>,
    sums: Vec<f64>,
    /// Whether exposures are so large that masses over those of a zero would overflow. Then all are as they are: `zeros` are
    /// the logarithms of those of a zero, by count and node of exposure, `rest` of a zero of all guides without UMIs.
    is_far: bool,
    zeros: Vec<f64>,
    rest: Vec<f64>,
}

/// Where the rows of a count are.
#[derive(Clone, Copy, Default)]
pub struct Span {
    pub(super) back: usize,
    pub(super) fore: usize,
    pub(super) signal: usize,
    pub(super) factor: usize,
    /// Rows of the sum over j < y; b_y follows them.
    pub(super) rows: usize,
    /// F is divided by a bound of it.
    pub(super) scale: f64,
}

impl Look {
    /// Looks at a cell with UMIs, from where its posterior was before, if it was looked at.
    pub fn see(&mut self, params: &Params, tables: &Tables, counts: Counts, before: Option<Place>, grade: Grade) {
        let ranges = (tables.exposure_range, tables.capture_range);
        let fits = |nodes: Nodes, (from, to): (usize, usize)| nodes.at(0) >= from && nodes.at(nodes.len() - 1) < to;
        let fits = |place: &Place| fits(place.exposure, ranges.0) && fits(place.capture, ranges.1);
        let known = before.filter(fits);
        let kind = (known.is_none() && grade.guesses).then(|| Kind::of(params, counts));
        let before = known.or_else(|| kind.and_then(|kind| self.guesses.get(&kind).copied()).filter(fits));
        self.place = before.unwrap_or_else(|| Place {
            exposure: Nodes::covering(ranges.0, FIRST_NODES + 2),
            capture: Nodes::covering(ranges.1, FIRST_NODES),
        });
        let looks = if known.is_some() && !grade.is_final { FEW_LOOKS } else { LOOKS };
        self.find_sources(counts.umis);
        self.looks(params, tables, counts, grade, looks);
        if let (Some(kind), None) = (kind, before) {
            self.guesses.insert(kind, self.next);
        }
    }

    /// Looks again at the cell that was looked at last.
    pub fn see_again(&mut self, params: &Params, tables: &Tables, counts: Counts, grade: Grade) {
        self.place.exposure = better(&self.of_exposure, self.place.exposure, tables.exposure_range, grade).0;
        self.place.capture = better(&self.of_capture, self.place.capture, tables.capture_range, grade).0;
        self.looks(params, tables, counts, grade, LOOKS);
    }

    fn looks(&mut self, params: &Params, tables: &Tables, counts: Counts, grade: Grade, looks: usize) {
        let ranges = (tables.exposure_range, tables.capture_range);
        for look in 0..looks {
            self.look(params, tables, counts, grade);
            self.marginals();
            let (exposure, short_k) = better(&self.of_exposure, self.place.exposure, ranges.0, grade);
            let (capture, short_l) = better(&self.of_capture, self.place.capture, ranges.1, grade);
            self.next = Place { exposure, capture };
            // Nodes that are only more than it takes are for the next look at such a cell to leave out.
            let nodes = |place: &Place| place.exposure.len() * place.capture.len();
            if look + 1 == looks || !(short_k || short_l || nodes(&self.place) > WASTE * nodes(&self.next)) {
                break;
            }
            self.place = self.next;
        }
    }

    /// Where to look at the cell next.
    pub fn next_place(&self) -> Place {
        self.next
    }

    /// Nodes of exposure, the finest nodes that each stands for, and the posterior mass of each.
    pub fn exposures(&self) -> impl Iterator<Item = (usize, (usize, usize), f64)> + '_ {
        let nodes = self.place.exposure;
        self.of_exposure.iter().enumerate().map(move |(i, &mass)| (nodes.at(i), nodes.range(i, EXPOSURES.n), mass))
    }

    pub fn captures(&self) -> impl Iterator<Item = (usize, (usize, usize), f64)> + '_ {
        let nodes = self.place.capture;
        self.of_capture.iter().enumerate().map(move |(i, &mass)| (nodes.at(i), nodes.range(i, CAPTURES.n), mass))
    }

    /// Posterior masses of the nodes: of exposure, and of capture of the cell that may carry guides.
    fn marginals(&mut self) {
        self.of_exposure.clear();
        self.of_exposure.extend(self.empty.iter().map(|w| w * self.beyond));
        self.of_capture.clear();
        for row in self.weight.chunks_exact(self.empty.len()) {
            self.of_exposure.iter_mut().zip(row).for_each(|(sum, w)| *sum += w);
            self.of_capture.push(row.iter().sum::<f64>());
        }
    }

    fn look(&mut self, params: &Params, tables: &Tables, counts: Counts, grade: Grade) {
        let shared = &params.shared;
        let prior = &tables.classes[counts.class];
        let mut ln = LnSum::default();
        // Prior and zeros.
        let (ks, ls) = (self.place.exposure, self.place.capture);
        let (n_k, n_l) = (ks.len(), ls.len());
        let top = |nodes: Nodes, ln: &[f64]| {
            let top = nodes.indices().map(|i| ln[i]).fold(f64::NEG_INFINITY, f64::max);
            // Mostly the exponentials that are tabled do.
            if top > -LARGE_LN {
                0.0
            } else {
                top
            }
        };
        let far = ks.indices().fold(0.0, |far: f64, k| far.max(-tables.ln_zero_ambient[k]));
        self.is_far = far + shared.hopping * counts.depth > FAR;
        self.zeros.clear();
        self.rest.clear();
        self.rest.extend(ks.indices().map(|k| tables.ln_zero_ambient[k]));
        if self.is_far {
            let chimeras = self.own_zeros(params, tables, counts);
            ln.add(-chimeras);
        }
        let top_k = match self.is_far {
            true => self.rest.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            false => top(ks, &tables.ln_zero_ambient),
        };
        let top_l = top(ls, &tables.signal.ln_zero);
        let zero = |ln: f64, tabled: f64, top: f64| if top == 0.0 { tabled } else { (ln - top).exp() };
        self.empty.clear();
        for i in 0..n_k {
            let k = ks.at(i);
            let mass = ks.mass(i, &prior.exposure, &prior.exposure_below, grade);
            let zero = match self.is_far {
                true => (self.rest[i] - top_k).exp(),
                false => zero(tables.ln_zero_ambient[k], tables.zero_ambient[k], top_k),
            };
            self.empty.push(mass.max(0.0) * zero);
        }
        self.weight.clear();
        let mut all_masses = 0.0;
        for i in 0..n_l {
            let l = ls.at(i);
            let mass = ls.mass(i, &prior.capture, &prior.capture_below, grade);
            all_masses += mass;
            let of_l = mass.max(0.0) * zero(tables.signal.ln_zero[l], tables.signal.zero[l], top_l);
            self.weight.extend(self.empty.iter().map(|of_k| of_l * of_k));
        }
        // The empty set, over all captures, in the same scale.
        self.beyond = shared.empty_weight - all_masses;
        let none = (tables.ln_none - top_l).exp();
        self.empty.iter_mut().for_each(|w| *w *= none);
        ln.add(top_k + top_l - tables.ln_weight);
        // A zero of the chimeras of all guides.
        let hopping = shared.hopping * tables.burst_zero;
        ln.add(-hopping * counts.depth);

        self.spans.clear();
        self.back.clear();
        self.soup.clear();
        self.fore.clear();
        self.signal.clear();
        self.factor.clear();
        for (at, (&guide, &y)) in counts.guides.iter().zip(counts.umis).enumerate() {
            let g = guide as usize;
            ln.add(hopping * (counts.depth - self.sources[at]) * params.library[g]);
            let most = self.masses(params, tables, (at, g, y), grade);
            self.multiply(n_k, n_l);
            ln.times(most);
            if at % 8 == 7 {
                let top = self.weight.iter().chain(&self.empty).fold(0.0, |top: f64, w| top.max(*w));
                if top > 0.0 && top < 1e-60 {
                    self.weight.iter_mut().chain(&mut self.empty).for_each(|w| *w /= top);
                    ln.times(top);
                }
            }
        }
        let any: f64 = self.weight.iter().sum();
        let none = self.beyond * self.empty.iter().sum::<f64>();
        let all = (any + none).max(f64::MIN_POSITIVE);
        self.weight.iter_mut().chain(&mut self.empty).for_each(|w| *w /= all);
        self.none = none / all;
        ln.times(all);
        self.ln_lik = ln.total();
    }

    /// The UMIs that chimeras of each count come from: those of larger counts. So each count hangs on larger ones only, zeros on
    /// all, and the product over guides is a likelihood; two counts do not explain one another.
    fn find_sources(&mut self, umis: &[f64]) {
        let (sorted, sums) = (&mut self.sorted, &mut self.sums);
        sorted.clear();
        sorted.extend_from_slice(umis);
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        sums.clear();
        sums.push(0.0);
        sums.extend(sorted.iter().scan(0.0, |sum, y| {
            *sum += y;
            Some(*sum)
        }));
        self.sources.clear();
        self.sources.extend(umis.iter().map(|y| sums[sorted.partition_point(|larger| larger > y)]));
    }

    /// Logarithms of the masses of a zero of the background of each stored count, at each node of exposure, which are taken from
    /// what is left for all others. The sum of those of the chimeras, which are the same at each node, is returned.
    fn own_zeros(&mut self, params: &Params, tables: &Tables, counts: Counts) -> f64 {
        let shared = &params.shared;
        let ks = self.place.exposure;
        let mut of_chimeras = 0.0;
        for (&guide, source) in counts.guides.iter().zip(&self.sources) {
            let g = guide as usize;
            let chimeras = -shared.hopping * source * params.library[g] * tables.burst_zero;
            of_chimeras += chimeras;
            for (k, rest) in ks.indices().zip(&mut self.rest) {
                let ambient = tables.exposures[k] * params.share[g];
                let zero = -shared.ambient_size * ln_1p(ambient / shared.ambient_size)
                    - shared.clumping * ambient * tables.burst_zero;
                *rest -= zero;
                self.zeros.push(zero + chimeras);
            }
        }
        of_chimeras
    }

    /// Masses of background and signal of a count.
    fn masses(&mut self, params: &Params, tables: &Tables, (at, g, y): (usize, usize, f64), grade: Grade) -> f64 {
        let shared = &params.shared;
        let (a, r) = (shared.ambient_size, shared.signal_size);
        let (ks, ls) = (self.place.exposure, self.place.capture);
        let n_k = ks.len();
        let y = y.min(MOST_UMIS);
        let n = y as usize;
        let (hidden, rate) = (&tables.signal.hidden[g * CAPTURES.n..], &tables.signal.rate[g * CAPTURES.n..]);
        let mut span = Span {
            back: self.back.len(),
            fore: self.fore.len(),
            signal: self.signal.len(),
            factor: self.factor.len(),
            rows: 1,
            scale: 1.0,
        };

        // hidden s_y = hidden rate^y Gamma(r + y) / (Gamma(r) y!); by logarithms where the last factor is beyond doubles.
        let s = &mut self.s;
        let rise = tables.signal.ln_rise_of(y);
        let by_ln = rise > LARGE_LN;
        let masses = |s: &mut Vec<f64>, i: f64, rise: f64| {
            s.clear();
            if by_ln {
                s.extend(ls.indices().map(|l| (hidden[l].ln() + i * rate[l].ln() + rise).exp()));
            } else {
                let rise = rise.exp();
                if i == 1.0 {
                    s.extend(ls.indices().map(|l| hidden[l] * rise * rate[l]));
                } else {
                    s.extend(ls.indices().map(|l| hidden[l] * rise * rate[l].powi(i as i32)));
                }
            }
        };
        masses(s, y, rise);
        // From there each mass is had from the one before, unless those of many UMIs underflow.
        let smallest = s.iter().copied().fold(f64::INFINITY, f64::min);
        let mut last_rise = rise;
        self.ratio.clear();
        self.ratio.extend(ls.indices().map(|l| 1.0 / rate[l]));
        let largest = |s: &[f64]| s.iter().copied().fold(0.0, f64::max);
        // Bursts come from larger counts of the cell and from the soup.
        let chimeras = shared.hopping * self.sources[at] * params.library[g];
        let back = &mut self.background;
        back.start(a, shared.burst / (1.0 + shared.burst));
        for k in ks.indices() {
            let ambient = tables.exposures[k] * params.share[g];
            let clumped = shared.clumping * ambient;
            back.bursts.push((chimeras + clumped) / shared.burst);
            back.theta.push(ambient / (a + ambient));
            back.of_soup.push(a / (a + ambient));
            back.of_burst_umis.push(tables.burst_zero * clumped / (chimeras + clumped));
        }
        back.none(n_k);
        // Masses of a zero that are nothing as doubles are a scale.
        let mut is_deep = false;
        if self.is_far {
            let zeros = &self.zeros[at * n_k..][..n_k];
            is_deep = zeros.iter().any(|&zero| zero < -0.5 * FAR);
            if is_deep {
                back.ln_scale.extend_from_slice(zeros);
            } else {
                back.mass.iter_mut().zip(zeros).for_each(|(mass, zero)| *mass = zero.exp());
            }
        }
        self.back.extend_from_slice(&back.mass);
        self.soup.resize(self.soup.len() + n_k, 0.0);
        self.fore.extend_from_slice(s);
        self.signal.push(y);
        let mut sum = largest(s) * largest(&back.mass);
        let tiny = grade.tiny;
        // The last row is that of `anchor`; j is the next to be shared out.
        let (mut anchor, mut j, mut ended) = (0, 1, false);
        while anchor + 1 < n {
            let i = (n - anchor) as f64;
            let mut width = 1;
            if anchor >= ONE_BY_ONE && n > MULTIPLIED {
                width = ((GROUP * (i + i * i / r).sqrt().min(i)) as usize).clamp(1, n - 1 - anchor);
            }
            let next = anchor + width;
            let start = self.back.len();
            self.back.resize(start + n_k, 0.0);
            self.soup.resize(start + n_k, 0.0);
            while j <= next {
                back.step(j);
                back.scale_down(&mut self.back[span.back..], &mut self.soup[span.back..]);
                let part = (j - anchor) as f64 / width as f64;
                for k in 0..n_k {
                    let (mass, soup) = (back.mass[k], back.soup(j, k));
                    self.back[start + k] += part * mass;
                    self.soup[start + k] += part * soup;
                    if width > 1 {
                        self.back[start - n_k + k] += (1.0 - part) * mass;
                        self.soup[start - n_k + k] += (1.0 - part) * soup;
                    }
                }
                j += 1;
            }
            let to = y - next as f64;
            let next_rise = tables.signal.ln_rise_of(to);
            if smallest > SAFE {
                let ratio = (next_rise - last_rise).exp();
                s.iter_mut().zip(&self.ratio).for_each(|(s, by)| *s *= ratio * by.powi(width as i32));
            } else {
                masses(s, to, next_rise);
            }
            last_rise = next_rise;
            self.fore.extend_from_slice(s);
            self.signal.push(to);
            span.rows += 1;
            anchor = next;
            let term = largest(&self.back[start..]) * largest(s);
            sum += term;
            if term < tiny * sum && j > 3 && !is_deep {
                ended = j < n;
                break;
            }
        }
        // b_y.
        if !ended || n <= MULTIPLIED || is_deep {
            for j in j..=n {
                back.step(j);
                back.scale_down(&mut self.back[span.back..], &mut self.soup[span.back..]);
            }
            self.back.extend_from_slice(&back.mass);
            self.soup.extend((0..n_k).map(|k| back.soup(n, k)));
        } else if grade.is_final || back.could_be(n, j - 1) > NOTHING * sum {
            let reached = back.go_on(j, n);
            for k in 0..n_k {
                // Further out each mass is about the same share of the one before.
                let share = back.mass[k] / back.before[k].max(f64::MIN_POSITIVE);
                let mass = back.mass[k] * (share.min(1.0).ln() * (n - reached) as f64).exp();
                self.back.push(mass);
                self.soup.push(y / reached as f64 * back.soup(reached, k) / back.mass[k].max(f64::MIN_POSITIVE) * mass);
            }
        } else {
            self.back.resize(self.back.len() + n_k, 0.0);
            self.soup.resize(self.soup.len() + n_k, 0.0);
        }
        if is_deep {
            for k in 0..n_k {
                let by = back.ln_scale[k].exp();
                for at in (span.back + k..self.back.len()).step_by(n_k) {
                    self.back[at] *= by;
                    self.soup[at] *= by;
                }
            }
            let rows = self.back[span.back..].chunks_exact(n_k).zip(self.fore[span.fore..].chunks_exact(ls.len()));
            sum = rows.map(|(b, s)| largest(b) * largest(s)).sum();
        }
        let most = sum + largest(&self.back[self.back.len() - n_k..]);
        let most = most.clamp(f64::MIN_POSITIVE, f64::MAX);
        span.scale = 1.0 / most;
        self.spans.push(span);
        most
    }

    /// F of the last count at each pair of nodes, over its bound, into the weights.
    fn multiply(&mut self, n_k: usize, n_l: usize) {
        let Some(&span) = self.spans.last() else { return };
        let by = span.scale;
        let last = &self.back[span.back + span.rows * n_k..][..n_k];
        let start = self.factor.len();
        self.factor.resize(start + n_k * n_l, 0.0);
        let rows = self.factor[start..].chunks_exact_mut(n_k).zip(self.weight.chunks_exact_mut(n_k));
        let back = &self.back[span.back..];
        for (l, (factor, weight)) in rows.enumerate() {
            let s = |j: usize| self.fore[span.fore + j * n_l + l];
            if span.rows == 1 {
                let s = s(0);
                for (f, b) in factor.iter_mut().zip(last) {
                    *f = b + s;
                }
            } else {
                let (s0, s1) = (s(0), s(1));
                for (f, (b, one)) in factor.iter_mut().zip(last.iter().zip(&back[n_k..2 * n_k])) {
                    *f = b + s0 + one * s1;
                }
                for j in 2..span.rows {
                    let s = s(j);
                    for (f, b) in factor.iter_mut().zip(&back[j * n_k..(j + 1) * n_k]) {
                        *f += b * s;
                    }
                }
            }
            for (f, w) in factor.iter_mut().zip(weight) {
                *f = (*f * by).max(1e-290);
                *w *= *f;
            }
        }
        self.empty.iter_mut().zip(last).for_each(|(w, b)| *w *= b * by);
    }
}
