# Posteriors recomputed from $fits with R's own densities and Bayes' rule: a witness that shares no code with the core.

# ln(p(b) - p(a)) of a standard normal, from the tail in which it is exact.
ln_normal_mass <- function(a, b) {
  upper <- a > 0
  high <- ifelse(upper, stats::pnorm(a, lower.tail = FALSE, log.p = TRUE), stats::pnorm(b, log.p = TRUE))
  low <- ifelse(upper, stats::pnorm(b, lower.tail = FALSE, log.p = TRUE), stats::pnorm(a, log.p = TRUE))
  high + ifelse(low == -Inf, 0, log(-expm1(low - high)))
}

# Share of the last column, from logs. A value that no component explains is signal where it lies above the signal's mean.
bayes <- function(joint, above) {
  top <- apply(joint, 1L, max)
  posterior <- exp(joint[, ncol(joint)] - top) / rowSums(exp(joint - top))
  ifelse(top == -Inf, as.numeric(above), posterior)
}

# The posterior of sorted values, made to fall below the pivot and to rise above it.
monotone <- function(posterior, value, pivot) {
  below <- value <= pivot
  down <- rev(cummin(rev(posterior[below])))
  floor <- if (any(below)) down[length(down)] else 0
  c(down, cummax(c(floor, posterior[!below]))[-1L])
}

# Per guide: posteriors of the stored counts y, for the row of the fit table, depths and batches of their cells.
per_guide <- list(
  poisson_gauss = function(y, fit, depth, batch, all_y) {
    value <- sort(unique(all_y))
    # Counts below the least are judged as none.
    seen <- ifelse(value < fit$least_count, 0, value)
    edge <- function(x) (ifelse(x > 0, log(pmax(x, 0)), -Inf) - fit$mu) / fit$sigma
    joint <- cbind(
      log(fit$share_background) + stats::dpois(seen, fit$lambda, log = TRUE),
      log(fit$share_signal) + ln_normal_mass(edge(seen - 0.5), edge(seen + 0.5))
    )
    posterior <- bayes(joint, value > exp(fit$mu + fit$sigma^2 / 2))
    monotone(posterior, value, max(exp(fit$mu), fit$lambda))[match(y, value)]
  },
  gauss = function(y, fit, depth, batch, all_y) {
    x <- log10(y + 1)
    bayes(
      cbind(
        log(fit$share_background) + stats::dnorm(x, fit$mean_background, fit$sd, log = TRUE),
        log(fit$share_signal) + stats::dnorm(x, fit$mean_signal, fit$sd, log = TRUE)
      ),
      y > fit$mean_signal
    )
  },
  poisson = function(y, fit, depth, batch, all_y) {
    by_rate(fit, batch, function(eta) stats::dpois(y, depth * exp(eta), log = TRUE), y)
  },
  neg_binomial = function(y, fit, depth, batch, all_y) {
    gamma <- if (is.null(batch)) rep(0, length(y)) else unlist(fit[paste0("gamma_", batch)], use.names = FALSE)
    mass <- function(y, mean, theta) stats::dnbinom(y, size = theta, mu = mean, log = TRUE)
    vapply(seq_along(y), function(at) {
      background <- depth[at] * exp(fit$b0 + gamma[at])
      signal <- background * exp(fit$b1)
      odds <- function(y) mass(y, signal, fit$theta_signal) - mass(y, background, fit$theta_background)
      # No count speaks less for the guide than a smaller one: the odds below are the least of all larger counts where the
      # signal is the wider law, those above the greatest of all smaller counts where it is the narrower.
      ln_odds <- if (fit$theta_signal > fit$theta_background) max(odds(0:min(y[at], 1e4)), odds(y[at])) else min(odds(y[at] + 0:1e4))
      stats::plogis(log(fit$share_signal) - log(fit$share_background) + ln_odds)
    }, 0)
  },
  binomial = function(y, fit, depth, batch, all_y) {
    by_rate(fit, batch, function(eta) {
      # dbinom takes 1 - p from p, so the smaller of the two is given.
      few <- rep_len(eta < 0, length(y))
      stats::dbinom(ifelse(few, y, depth - y), depth, stats::plogis(-abs(eta)), log = TRUE)
    }, y)
  }
)

by_rate <- function(fit, batch, ln_density, y) {
  gamma <- if (is.null(batch)) 0 else unlist(fit[paste0("gamma_", batch)], use.names = FALSE)
  bayes(
    cbind(
      log(fit$share_background) + ln_density(fit$b0 + gamma),
      log(fit$share_signal) + ln_density(fit$b0 + fit$b1 + gamma)
    ),
    y > fit$b0 + fit$b1
  )
}

has_posterior <- function(fits) fits$status %in% c("ok", "not_converged", "fewer_components")

# Every cell has a share of the typical depth on top of its own: nine tenths of all UMIs lie in cells of at least that depth.
borrowed_depth <- function(depth, model) {
  share <- c(poisson = 0.12, binomial = 0.1, neg_binomial = 0.03)
  if (!model %in% names(share) || sum(depth) == 0) return(0)
  total <- rowsum(depth, depth)
  typical <- as.numeric(rownames(total))
  total <- total[order(typical)]
  typical <- sort(typical)
  x <- share[[model]] * typical[which(cumsum(total) >= (1 - 0.9) * sum(total))[1L]]
  floor(x + 0.5)
}

witness_per_guide <- function(scores, batch, recompute) {
  counts <- scores$counts
  depth <- Matrix::colSums(counts)
  depth <- depth + borrowed_depth(depth[depth > 0], scores$model)
  expected <- matrix(0, nrow(counts), ncol(counts))
  for (g in which(has_posterior(scores$fits))) {
    y <- counts[g, ]
    at <- which(y > 0)
    expected[g, at] <- recompute(unname(y[at]), as.list(scores$fits[g, ]), unname(depth[at]), batch[at], unname(y))
  }
  expected
}

# The share of the largest guide of each cell is the observation; only that guide, when it is alone at the top, has a score.
witness_per_batch <- function(scores, batch, labels) {
  counts <- as.matrix(scores$counts)
  depth <- colSums(counts)
  expected <- matrix(0, nrow(counts), ncol(counts))
  if (is.null(batch)) batch <- rep("all", ncol(counts))
  for (b in which(has_posterior(scores$fits))) {
    fit <- as.list(scores$fits[b, ])
    cells <- which(batch == fit$batch & depth > 0)
    share <- pmin(apply(counts[, cells, drop = FALSE], 2L, max) / depth[cells], 0.9999)
    value <- sort(unique(share))
    # Components that were not needed have no parameters.
    held <- labels[!is.na(unlist(fit[paste0("alpha_", labels)]))]
    joint <- vapply(held, function(label) {
      log(fit[[paste0("share_", label)]]) +
        stats::dbeta(value, fit[[paste0("alpha_", label)]], fit[[paste0("beta_", label)]], log = TRUE)
    }, numeric(length(value)))
    joint <- matrix(joint, length(value))
    signal <- labels[length(labels)]
    mean <- fit[[paste0("alpha_", signal)]] / (fit[[paste0("alpha_", signal)]] + fit[[paste0("beta_", signal)]])
    posterior <- monotone(bayes(joint, value > mean), value, mean)[match(share, value)]
    for (k in seq_along(cells)) {
      top <- which(counts[, cells[k]] == max(counts[, cells[k]]))
      if (length(top) == 1L) expected[top, cells[k]] <- posterior[k]
    }
  }
  expected
}

beta_labels <- list(beta2 = c("background", "signal"), beta3 = c("low", "middle", "high"))

expect_witness <- function(counts, model, batch = NULL, ...) {
  scores <- score_guides(counts, model, batch = batch, ...)
  expected <- if (model %in% names(per_guide)) {
    witness_per_guide(scores, batch, per_guide[[model]])
  } else {
    witness_per_batch(scores, batch, beta_labels[[model]])
  }
  got <- scores$posterior@x
  guide <- scores$counts@i + 1L
  cell <- rep(seq_len(ncol(counts)), diff(scores$counts@p))
  expect_lt(max(abs(got - expected[cbind(guide, cell)])), 1e-8, label = paste("largest difference of", model))
  invisible(scores)
}

# Signal and background overlap, so that posteriors of every size occur. `ambient` is the mean of the background.
overlapping_screen <- function(seed, ambient = 0.5) {
  with_fixed_seed(seed, {
    n <- 1500L
    batch <- rep(c("x", "y", "z w"), length.out = n)
    depth <- exp(stats::rnorm(n, 0, 0.5)) * c(1, 1.6, 0.6)[match(batch, unique(batch))]
    guide <- sample.int(6L, n, TRUE)
    second <- sample.int(6L, n, TRUE)
    signal <- function(rate) rate * depth
    counts <- matrix(stats::rpois(6L * n, rep(ambient * depth, each = 6L)), 6L)
    add <- function(counts, at, rate) {
      counts[at] <- counts[at] + stats::rnbinom(nrow(at), mu = signal(rate)[at[, 2L]], size = 2)
      counts
    }
    counts <- add(counts, cbind(guide, seq_len(n))[stats::runif(n) < 0.8, ], 9)
    counts <- add(counts, cbind(second, seq_len(n))[stats::runif(n) < 0.25, ], 6)
    list(counts = named_counts(counts), batch = batch)
  })
}

# The posteriors of an ambient fit, from its parameters and the law in vignette("models"). Exposure and capture are summed out on
# a grid that is finer than the core's and the same for all cells.
witness_ambient <- function(scores, n_exposures = 200L, n_captures = 120L) {
  counts <- as.matrix(scores$counts)
  fits <- scores$fits
  all <- as.list(scores$screen)
  cells <- scores$cells
  depth <- colSums(counts)
  library_share <- rowSums(counts) / sum(counts)
  # A guide that no cell has is not fitted and has no count.
  live <- which(fits$status != "gated")
  # Nodes from where the gamma of no cell has anything below, or 1e-4 of its mean, to where none has anything above.
  nodes <- function(mean, shape, n, stray = 0) {
    low <- max(stats::qgamma(1e-12, shape, shape), 1e-4)
    high <- max(stats::qgamma(1e-12, shape, shape, lower.tail = FALSE), 4 * stray * stats::qgamma(1e-12, 2, 2, lower.tail = FALSE))
    exp(seq(log(min(mean) * low), log(max(mean) * high), length.out = n))
  }
  e <- nodes(cells$exposure_expected, all$exposure_shape, n_exposures, stray = 1)
  d <- nodes(cells$capture_expected, all$capture_shape, n_captures)
  # What a gamma has below the first node is there.
  prior <- function(node, shape, mean) {
    step <- log(node[2L] / node[1L])
    mass <- stats::dgamma(node, shape, shape / mean) * node * step
    mass[1L] <- mass[1L] / 2 + stats::pgamma(node[1L], shape, shape / mean)
    mass
  }
  # Masses of 0, 1, ... UMIs by node: of ambient UMIs and of the signal of each guide.
  most <- apply(counts, 1L, max)
  table_of <- function(node, rate, size) lapply(seq_along(rate), function(g) {
    if (!g %in% live) return(NULL)
    outer(node * rate[g], 0:most[g], function(mean, y) stats::dnbinom(y, size = size, mu = mean))
  })
  ambient <- table_of(e, fits$ambient_share, all$ambient_size)
  signal <- table_of(d, fits$efficiency, all$signal_size)
  pi <- fits$prior
  empty_odds <- all$empty_weight - 1
  out <- list(posterior = 0 * counts, log_odds = 0 * counts, exposure = depth, capture = depth)
  # Bursts, by node of exposure: chimeras of the guides with more UMIs, and ambient UMIs.
  bursts <- function(y, others, g) {
    mean <- all$hopping * others * library_share[g] + all$clumping * e * fits$ambient_share[g]
    outer(mean, y, function(mean, y) stats::dnbinom(y, size = mean / all$burst, prob = 1 / (1 + all$burst)))
  }
  for (cell in seq_along(depth)) {
    mean <- cells$exposure_expected[cell]
    # A hundredth of the cells are strays.
    of_e <- 0.99 * prior(e, all$exposure_shape, mean) + 0.01 * prior(e, 2, 4 * mean)
    of_d <- prior(d, all$capture_shape, cells$capture_expected[cell])
    ln_any <- outer(log(of_e), log(of_d), `+`)
    ln_empty <- log(of_e)
    carried <- absent <- list()
    for (g in live) {
      y <- counts[g, cell]
      j <- 0:y
      hop <- bursts(j, sum(counts[counts[, cell] > y, cell]), g)
      # B_j: ambient UMIs and bursts that add up to j.
      background <- vapply(j, function(j) {
        i <- seq_len(j + 1L)
        rowSums(ambient[[g]][, i, drop = FALSE] * hop[, rev(i), drop = FALSE])
      }, numeric(length(e)))
      both <- background %*% t(signal[[g]][, rev(j) + 1L, drop = FALSE])
      without <- (1 - pi[g]) * background[, y + 1L]
      either <- without + pi[g] * both
      ln_any <- ln_any + log(either)
      ln_empty <- ln_empty + log(without)
      if (y > 0) {
        carried[[as.character(g)]] <- ifelse(either > 0, pi[g] * both / either, 0)
        absent[[as.character(g)]] <- ifelse(either > 0, without / either, 0)
      }
    }
    top <- max(ln_any)
    any <- exp(ln_any - top)
    empty <- empty_odds * exp(ln_empty - top)
    total <- sum(any) + sum(empty)
    for (g in names(carried)) {
      with <- sum(any * carried[[g]])
      without <- max(sum(any * absent[[g]]) + sum(empty), 0)
      out$posterior[as.integer(g), cell] <- with / total
      out$log_odds[as.integer(g), cell] <- log(with / without)
    }
    out$exposure[cell] <- sum((rowSums(any) + empty) * e) / total
    # A cell without any guide tells nothing of its capture.
    out$capture[cell] <- (sum(colSums(any) * d) + sum(empty) * sum(of_d * d)) / total
  }
  out
}

# The largest differences of an ambient fit to its witness.
ambient_differences <- function(scores) {
  witness <- witness_ambient(scores)
  at <- cbind(scores$counts@i + 1L, rep(seq_len(ncol(scores$counts)), diff(scores$counts@p)))
  log_odds <- witness$log_odds[at]
  # Far out, the core leaves out nodes where next to nothing of the posterior lies.
  near <- abs(log_odds) < 8
  c(
    posterior = max(abs(scores$posterior@x - witness$posterior[at])),
    # More than 1 is more than .02 and 2 %.
    log_odds = max((abs(scores$log_odds@x - log_odds) / (0.02 + 0.02 * abs(log_odds)))[near]),
    exposure = max(abs(scores$cells$exposure / witness$exposure - 1)),
    capture = max(abs(scores$cells$capture / witness$capture - 1))
  )
}

expect_ambient_witness <- function(scores, label, within = 2e-3) {
  expect_true(all(scores$fits$status %in% c("ok", "gated")), label = label)
  # Posteriors between 0 and 1 are what the witness is about.
  expect_gt(sum(scores$posterior@x > 0.01 & scores$posterior@x < 0.99), 20, label = label)
  off <- ambient_differences(scores)
  expect_lt(off[["posterior"]], within, label = paste("posteriors of", label))
  expect_lt(off[["log_odds"]], within / 1e-3, label = paste("log odds of", label))
  expect_lt(off[["exposure"]], 0.02, label = paste("exposures of", label))
  expect_lt(off[["capture"]], 0.06, label = paste("captures of", label))
}

test_that("the posteriors of ambient are those of its law in R, summed over a finer grid of exposure and capture", {
  sim <- simulate_guides("noisy", n_cells = 300, n_guides = 8, seed = 4)
  rna <- with_fixed_seed(1, sim$cells$ambient * exp(stats::rnorm(300, 0, 0.3)))
  any_lane <- with_fixed_seed(2, sample(c("x", "y", "z w"), 300, TRUE))
  lanes <- simulate_guides("batch_shift", n_cells = 300, n_guides = 8, seed = 4)
  expect_ambient_witness(score_guides(sim$counts, "ambient"), "one batch")
  expect_ambient_witness(score_guides(sim$counts, "ambient", batch = any_lane), "batches that differ in nothing")
  expect_ambient_witness(score_guides(lanes$counts, "ambient", batch = lanes$lane), "lanes that differ")
  with_covariate <- score_guides(sim$counts, "ambient", covariate = rna)
  expect_gt(with_covariate$screen$exposure_slope, 0.3)
  expect_ambient_witness(with_covariate, "a covariate")
})

test_that("and with chimeras in bursts", {
  sim <- simulate_guides("easy", n_cells = 300, n_guides = 8, hopping = 0.15, hopping_burst = 3, signal_mean = 40, seed = 2)
  scores <- score_guides(sim$counts, "ambient")
  expect_gt(scores$screen$hopping, 0.05)
  expect_gt(scores$screen$burst, 1)
  expect_ambient_witness(scores, "bursts")
})

test_that("and where cells without guides are rarer, or more, than independent guides leave them", {
  one <- simulate_guides("overdispersed", n_cells = 300, n_guides = 8, signal_mean = 20, seed = 3)
  scores <- score_guides(one$counts, "ambient")
  expect_lt(scores$screen$empty_weight, 0.3)
  # Where the empty set is unlikely, what is not carried is a small difference.
  expect_ambient_witness(scores, "a small weight", within = 1e-2)
  many <- simulate_guides("high_moi", n_cells = 300, n_guides = 8, share_empty = 0.4, signal_mean = 8, seed = 3)
  scores <- score_guides(many$counts, "ambient")
  expect_gt(scores$screen$empty_weight, 3)
  expect_ambient_witness(scores, "a large weight")
})

test_that("and of cells that were chosen for having UMIs", {
  sim <- simulate_guides("noisy", n_cells = 400, n_guides = 8, seed = 6)
  counts <- sim$counts[, Matrix::colSums(sim$counts) > 0]
  expect_ambient_witness(score_guides(counts, "ambient"), "no cell without UMIs")
})

test_that("the posteriors of every mixture are those of Bayes' rule in R, with one batch and with three", {
  mixtures <- with(guide_models(), model[family == "mixture"])
  witnessed <- c(names(per_guide), names(beta_labels))
  expect_true(all(witnessed %in% mixtures))
  for (seed in 1:2) {
    for (model in witnessed) {
      # Betas on the share see cells of nothing but background as a population only where these hold several UMIs.
      screen <- overlapping_screen(seed, ambient = if (model %in% names(beta_labels)) 3 else 0.5)
      scores <- expect_witness(screen$counts, model)
      expect_true(all(has_posterior(scores$fits)), label = model)
      # Posteriors between 0 and 1 are what the witness is about.
      expect_gt(sum(scores$posterior@x > 0.01 & scores$posterior@x < 0.99), 5, label = model)
      scores <- expect_witness(screen$counts, model, screen$batch)
      expect_true(any(has_posterior(scores$fits)), label = model)
    }
  }
})

test_that("and in screens that are small, separable, without background, all positive, or huge", {
  small <- small_screen()
  all_positive <- named_counts(with_fixed_seed(5, {
    matrix(1 + stats::rpois(1500, 1) + (stats::runif(1500) < 0.3) * stats::rnbinom(1500, mu = 20, size = 2), 5)
  }))
  huge <- replace(as.matrix(separable_screen(400, 3)$counts), 1L, 2^31 - 1)
  screens <- list(
    small$counts, separable_screen(1000, 5)$counts, separable_screen(1000, 5, background = 0)$counts, all_positive,
    named_counts(unname(huge))
  )
  for (model in c(names(per_guide), names(beta_labels))) {
    for (counts in screens) expect_witness(counts, model)
    expect_witness(small$counts, model, small$batch)
  }
})

test_that("and where EM was stopped early", {
  screen <- overlapping_screen(3)
  status <- lapply(c(names(per_guide), names(beta_labels)), function(model) {
    expect_witness(screen$counts, model, screen$batch, control = model_control(iterations = 2))$fits$status
  })
  expect_gt(sum(unlist(status) == "not_converged"), 10)
})
