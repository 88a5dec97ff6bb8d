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

# The posteriors of an ambient fit, from its parameters and the sums of its cells, as the help of score_guides() says.
witness_ambient <- function(scores) {
  counts <- scores$counts
  guide <- counts@i + 1L
  cell <- rep(seq_len(ncol(counts)), diff(counts@p))
  y <- unname(counts@x)
  p <- scores$posterior@x
  all <- as.list(scores$screen)
  pi <- scores$fits$prior[guide]
  q <- scores$fits$ambient_share[guide]
  f <- scores$fits$efficiency[guide]
  of <- scores$cells[cell, ]
  hop <- all$hopping * (Matrix::colSums(counts)[cell] - y) * (Matrix::rowSums(counts) / sum(counts))[guide]
  pair <- function(y, m, a, mu, r) {
    j <- 0:y
    terms <- stats::dnbinom(j, size = a, mu = m) * stats::dnbinom(y - j, size = r, mu = mu)
    c(l0 = stats::dnbinom(y, size = a, mu = m), l1 = sum(terms), b = sum(j * terms) / sum(terms))
  }
  a <- all$ambient_size
  r <- all$signal_size
  m <- of$exposure * q + hop
  b <- 0
  # The background in a count depends on what the other guides say, which depends on it.
  for (round in 1:60) {
    own_background <- ((1 - p) * y + p * b) * of$exposure * q / m * a / (a + m)
    own_signal <- p * (y - b) * r / (r + of$capture * f)
    exposed <- all$exposure_shape + of$background_sum - own_background
    captured <- all$capture_shape + of$signal_sum - own_signal
    e <- exposed / (all$exposure_shape / of$exposure_expected + of$share_sum - q * a / (a + of$exposure * q))
    d <- captured / (all$capture_shape / of$capture_expected + of$efficiency_sum - p * f * r / (r + of$capture * f))
    seen <- mapply(pair, y, e * q + hop, 1 / (1 / a + 1 / exposed), d * f, 1 / (1 / r + 1 / captured))
    change <- max(abs(seen["b", ] - b))
    b <- seen["b", ]
    if (change < 1e-12) break
  }
  share_sum <- vapply(scores$cells$exposure, function(e) {
    sum(scores$fits$ambient_share * a / (a + e * scores$fits$ambient_share))
  }, 0)
  sum_by_cell <- function(own) as.vector(tapply(own, factor(cell, seq_len(ncol(counts))), sum, default = 0))
  list(
    posterior = unname(pmin(pi * seen["l1", ] / ((1 - pi) * seen["l0", ] + pi * seen["l1", ]) / of$empty_scale, 1)),
    background_sum = sum_by_cell(own_background), signal_sum = sum_by_cell(own_signal), share_sum = share_sum
  )
}

test_that("the posteriors of ambient are those that its parameters and cells give in R", {
  sim <- simulate_guides("noisy", n_cells = 600, n_guides = 12, seed = 4)
  rna <- with_fixed_seed(1, sim$cells$ambient * exp(stats::rnorm(600, 0, 0.3)))
  lanes <- simulate_guides("batch_shift", n_cells = 600, n_guides = 12, seed = 4)
  for (scores in list(
    score_guides(sim$counts, "ambient"),
    score_guides(sim$counts, "ambient", covariate = rna),
    score_guides(lanes$counts, "ambient", batch = lanes$lane)
  )) {
    expect_true(all(scores$fits$status == "ok"))
    witness <- witness_ambient(scores)
    expect_lt(max(abs(scores$posterior@x - witness$posterior)), 1e-8)
    expect_gt(sum(scores$posterior@x > 0.01 & scores$posterior@x < 0.99), 100)
    for (sum in c("background_sum", "signal_sum", "share_sum")) {
      expect_lt(max(abs(witness[[sum]] - scores$cells[[sum]]) / (1 + scores$cells[[sum]])), 1e-6, label = sum)
    }
  }
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
