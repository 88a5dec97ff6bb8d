//! What a look at a cell says of its stored counts.
use super::cell::{Counts, Look};
use super::grid::CAPTURES;
use super::tables::Tables;

/// Log odds are reported up to this.
pub const MOST_LN_ODDS: f64 = 700.0;

/// What is known of a stored count.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pair {
    pub carried: f64,
    pub ln_odds: f64,
}

/// What a stored count says of its guide.
#[derive(Clone, Copy, Default, Debug)]
pub struct Lesson {
    pub carried: f64,
    /// Ambient UMIs, weighted by a / (a + e q), and bursts of them.
    pub soup: f64,
    /// Signal UMIs and the captures that could bring them, weighted by r / (r + d f).
    pub signal: f64,
    pub captured: f64,
    /// What a zero in its place would have hidden: carriers and their weighted capture.
    pub hidden: f64,
    pub hidden_captured: f64,
}

impl Look {
    /// The posterior of each stored count.
    pub fn pairs(&self, tables: &Tables, counts: Counts, mut f: impl FnMut(Pair)) {
        let (ls, n_k) = (self.place.capture, self.place.exposure.len());
        for (span, &guide) in self.spans.iter().zip(counts.guides) {
            let hidden = &tables.signal.hidden[guide as usize * CAPTURES.n..];
            let last = &self.back[span.back + span.rows * n_k..][..n_k];
            let (mut not, mut carried) = (0.0, 0.0);
            for (i, l) in ls.indices().enumerate() {
                let weight = &self.weight[i * n_k..][..n_k];
                let factor = &self.factor[span.factor + i * n_k..][..n_k];
                let mut of_last = 0.0;
                for k in 0..n_k {
                    // Of F, what is b_y.
                    of_last += weight[k] * (last[k] * span.scale / factor[k]).min(1.0);
                }
                let all: f64 = weight.iter().sum();
                not += of_last * (1.0 - hidden[l]);
                carried += (all - of_last).max(0.0) + of_last * hidden[l];
            }
            // Where the empty set is unlikelier than independent guides make it, this cancels.
            let not = (not + self.none).max(1e-15 * self.none.abs());
            let ln_odds = (carried.max(f64::MIN_POSITIVE).ln() - not.max(f64::MIN_POSITIVE).ln())
                .clamp(-MOST_LN_ODDS, MOST_LN_ODDS);
            f(Pair { carried: carried / (carried + not).max(f64::MIN_POSITIVE), ln_odds });
        }
    }

    /// What each stored count says of its guide.
    pub fn lessons(&mut self, tables: &Tables, counts: Counts, mut f: impl FnMut(usize, Lesson)) {
        let ls = self.place.capture;
        let (n_k, n_l) = (self.place.exposure.len(), ls.len());
        let mut ratio = std::mem::take(&mut self.ratio);
        for (span, &guide) in self.spans.iter().zip(counts.guides) {
            let g = guide as usize;
            let (hidden, rate) = (&tables.signal.hidden[g * CAPTURES.n..], &tables.signal.rate[g * CAPTURES.n..]);
            let last = &self.back[span.back + span.rows * n_k..][..n_k];
            let of_last = &self.soup[span.back + span.rows * n_k..][..n_k];
            let mut lesson = Lesson::default();
            for k in 0..n_k {
                if last[k] > 0.0 {
                    lesson.soup += self.beyond * self.empty[k] / last[k] * of_last[k];
                }
            }
            for (i, l) in ls.indices().enumerate() {
                let weight = &self.weight[i * n_k..][..n_k];
                let factor = &self.factor[span.factor + i * n_k..][..n_k];
                ratio.clear();
                ratio.extend(weight.iter().zip(factor).map(|(w, f)| w * span.scale / f));
                let (mut sum, mut soup) = (0.0, 0.0);
                for k in 0..n_k {
                    sum += ratio[k] * last[k];
                    soup += ratio[k] * of_last[k];
                }
                let (mut carried, mut signal) = (hidden[l] * sum, 0.0);
                for j in 0..span.rows {
                    let s = self.fore[span.fore + j * n_l + i];
                    let back = &self.back[span.back + j * n_k..][..n_k];
                    let of_soup = &self.soup[span.back + j * n_k..][..n_k];
                    let (mut sum, mut of_row) = (0.0, 0.0);
                    for k in 0..n_k {
                        sum += ratio[k] * back[k];
                        of_row += ratio[k] * of_soup[k];
                    }
                    carried += s * sum;
                    signal += s * sum * self.signal[span.signal + j];
                    soup += s * of_row;
                }
                let less = 1.0 - rate[l];
                let zero = self.of_capture[i] * hidden[l];
                lesson.carried += carried;
                lesson.soup += soup;
                lesson.signal += signal * less;
                lesson.captured += carried * tables.captures[l] * less;
                lesson.hidden += zero;
                lesson.hidden_captured += zero * tables.captures[l] * less;
            }
            f(g, lesson);
        }
        self.ratio = ratio;
    }
}
