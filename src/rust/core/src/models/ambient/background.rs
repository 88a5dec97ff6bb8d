//! Masses of the background of a count.
/// Most background UMIs whose masses are worked out one by one where signal is certain.
const FAR_OUT: usize = 300;
/// Masses from here on are scaled down.
const LARGE: f64 = 1e200;

/// Masses of 0, 1, 2, ... background UMIs over that of none, at each node of exposure: the sum of two negative binomials, of
/// ambient and of chimeric UMIs. With A, M their sizes and t, w the rates at which their masses fall off,
/// j b_j = A u_j + M v_j, where u_j = t (b_{j-1} + u_{j-1}) and v_j = w (b_{j-1} + v_{j-1}); A u_j is b_j times the ambient UMIs
/// expected among the j.
#[derive(Default)]
pub struct Background {
    pub size: f64,
    pub bursts: Vec<f64>,
    pub of_burst: f64,
    pub theta: Vec<f64>,
    /// What an ambient UMI outside of bursts counts as; and a UMI of a burst: bursts of ambient UMIs per UMI.
    pub of_soup: Vec<f64>,
    pub of_burst_umis: Vec<f64>,
    pub u: Vec<f64>,
    pub v: Vec<f64>,
    pub mass: Vec<f64>,
    pub before: Vec<f64>,
    /// Logarithms of what masses are over, by node, where they are large.
    pub ln_scale: Vec<f64>,
}

impl Background {
    pub fn start(&mut self, size: f64, of_burst: f64) {
        (self.size, self.of_burst) = (size, of_burst);
        let lists = [&mut self.theta, &mut self.bursts, &mut self.of_soup, &mut self.of_burst_umis, &mut self.ln_scale];
        lists.into_iter().for_each(Vec::clear);
    }

    pub fn none(&mut self, n_k: usize) {
        for (values, value) in [(&mut self.u, 0.0), (&mut self.v, 0.0), (&mut self.mass, 1.0)] {
            values.clear();
            values.resize(n_k, value);
        }
    }

    /// To j from j - 1.
    pub fn step(&mut self, j: usize) {
        let by = 1.0 / j as f64;
        let rows =
            self.u.iter_mut().zip(&mut self.v).zip(self.mass.iter_mut().zip(self.theta.iter().zip(&self.bursts)));
        for ((u, v), (mass, (theta, bursts))) in rows {
            *u = theta * (*mass + *u);
            *v = self.of_burst * (*mass + *v);
            *mass = (self.size * *u + bursts * *v) * by;
        }
    }

    /// Keeps masses in the range of doubles, where they have a scale, together with the rows before.
    pub fn scale_down(&mut self, rows: &mut [f64], soup: &mut [f64]) {
        let n_k = self.mass.len();
        for k in 0..self.ln_scale.len() {
            if self.mass[k] > LARGE {
                for value in [&mut self.mass[k], &mut self.u[k], &mut self.v[k]] {
                    *value /= LARGE;
                }
                self.ln_scale[k] += LARGE.ln();
                for rows in [&mut *rows, &mut *soup] {
                    rows.iter_mut().skip(k).step_by(n_k).for_each(|value| *value /= LARGE);
                }
            }
        }
    }

    /// The mass of j times what it says of the soup; the UMIs of a burst are taken as those of an average one.
    pub fn soup(&self, j: usize, k: usize) -> f64 {
        let alone = self.size * self.u[k];
        alone * self.of_soup[k] + (j as f64 * self.mass[k] - alone).max(0.0) * self.of_burst_umis[k]
    }

    /// A guess, rather too high, of the mass at n, from that at j.
    pub fn could_be(&self, n: usize, j: usize) -> f64 {
        let next = |k: usize| (self.theta[k] * (1.0 + self.size / j as f64)).max(self.of_burst).min(1.0);
        (0..self.mass.len()).map(|k| self.mass[k] * next(k).powi((n - j) as i32)).fold(0.0, f64::max)
    }

    /// From j on, as far as n or as masses can be told from nothing; returns how far.
    pub fn go_on(&mut self, mut j: usize, n: usize) -> usize {
        loop {
            self.before.clone_from(&self.mass);
            self.step(j);
            if j >= n.min(FAR_OUT) || self.mass.iter().any(|&mass| mass < 1e-250) {
                return j;
            }
            j += 1;
        }
    }
}
