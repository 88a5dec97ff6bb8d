use super::params::{Params, Shared};
use super::pass::{self, Zeros};
use super::sample::Sample;
use super::start;
use crate::counts::GuideCounts;
use crate::run::{on_threads, Progress};
use crate::simulate::{simulate, Screen};
use crate::special::digamma;

/// What a pass learns is the slope of the log-likelihood (Fisher's identity), for parameters of every kind.
#[test]
fn sums_are_slopes_of_the_log_likelihood() {
    for (name, zeros, weight) in [("noisy", Zeros::Counted, 0.3), ("easy", Zeros::Counted, 1.0), ("high_moi", Zeros::Counted, 3.0), ("noisy", Zeros::Unseen, 0.5)] {
        let mut screen = Screen::named(name).unwrap();
        (screen.n_cells, screen.n_guides) = (600, 12);
        on_threads(2, || {
            let progress = Progress::default();
            let sim = simulate(&screen, 5, &progress)?;
            let batch = (0..600).map(|cell| cell % 2).collect();
            let counts = GuideCounts::new(12, &sim.indptr, &sim.guide, &sim.count, Some(batch))?;
            let sample = Sample::new(&counts, 0..600);
            let mut umis = vec![0.0; 12];
            counts.guides().iter().zip(counts.counts()).for_each(|(&g, y)| umis[g as usize] += y);
            let all: f64 = umis.iter().sum();
            let library: Vec<f64> = umis.iter().map(|u| u / all).collect();
            let mut params = start::start(&sample, &library, &start::by_share(&sample), &[true; 12], 2);
            params.shared = Shared { empty_weight: weight, capture_shape: 3.0, ambient_size: 4.0, hopping: 0.02, burst: 0.5, ..params.shared };
            let mut places = vec![None; sample.patterns.len()];
            let sums = pass::pass(&params, &sample, &mut places, zeros, &progress)?;
            let ln_lik = |change: &dyn Fn(&mut Params)| {
                let mut params = params.clone();
                change(&mut params);
                pass::ln_lik(&params, &sample, &places, zeros, 1, &progress).unwrap()
            };
            let h = 1e-3;
            let slope = |change: &dyn Fn(&mut Params, f64)| (ln_lik(&|p| change(p, h)) - ln_lik(&|p| change(p, -h))) / (2.0 * h);
            let n = sums.cells;
            let s = &params.shared;
            let none = params.ln_none().exp();
            let weighted = 1.0 + (s.empty_weight - 1.0) * none;
            let mut checks: Vec<(String, f64, f64)> = vec![];
            for g in [0, 5] {
                let guide = &sums.guides[g];
                let (f, q, pi) = (params.efficiency[g], params.share[g], params.prior[g]);
                checks.push((format!("f{g}"), guide.signal - f * guide.captured, slope(&|p, h| p.efficiency[g] *= h.exp())));
                let e = super::grid::EXPOSURES.nodes();
                let reach: f64 = sums.exposures.iter().zip(&e).map(|(n, e)| n * e * s.ambient_size / (s.ambient_size + e * q)).sum();
                checks.push((format!("q{g}"), guide.soup - q * reach, slope(&|p, h| p.share[g] *= h.exp())));
                let of_pi = guide.carriers - (n - guide.carriers) * pi / (1.0 - pi) + n * (s.empty_weight - 1.0) * none / weighted * pi / (1.0 - pi);
                checks.push((format!("pi{g}"), of_pi, slope(&|p, h| p.prior[g] *= h.exp())));
            }
            checks.push(("w".into(), sums.empty - n * s.empty_weight * none / weighted, slope(&|p, h| p.shared.empty_weight *= h.exp())));
            for b in 0..2 {
                let batch = &sums.batches[b];
                checks.push((format!("A{b}"), s.exposure_shape * (batch.exposure / params.exposure[b] - batch.usual), slope(&|p, h| p.exposure[b] *= h.exp())));
                checks.push((format!("d{b}"), s.capture_shape * (batch.capture / params.capture[b] - batch.cells), slope(&|p, h| p.capture[b] *= h.exp())));
            }
            let of_shape = |k: f64, sums: &dyn Fn(usize) -> (f64, f64, f64, f64)| -> f64 {
                (0..2).map(|b| {
                    let (n, sum, ln, mean) = sums(b);
                    k * (n * (k.ln() + 1.0 - digamma(k) - mean.ln()) - sum / mean + ln)
                }).sum()
            };
            checks.push(("s".into(), of_shape(s.exposure_shape, &|b| { let x = &sums.batches[b]; (x.usual, x.exposure, x.ln_exposure, params.exposure[b]) }), slope(&|p, h| p.shared.exposure_shape *= h.exp())));
            checks.push(("k".into(), of_shape(s.capture_shape, &|b| { let x = &sums.batches[b]; (x.cells, x.capture, x.ln_capture, params.capture[b]) }), slope(&|p, h| p.shared.capture_shape *= h.exp())));
            for (what, learnt, slope) in checks {
                println!("{name} {zeros:?} {what}: {learnt:.3} {slope:.3}");
            }
            Ok(())
        }).unwrap();
    }
}
