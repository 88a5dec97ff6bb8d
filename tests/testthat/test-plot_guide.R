skip_if_not_installed("ggplot2")

# What is drawn: the data of the layers, in counts, before scales.
layers_of <- function(plot) lapply(plot$layers, function(layer) if (is.data.frame(layer$data)) layer$data)

bars_of <- function(plot) {
  found <- Filter(function(data) !is.null(data) && all(c("low", "high", "cells") %in% names(data)), layers_of(plot))
  found[[1L]]
}

curves_of <- function(plot) {
  found <- Filter(function(data) !is.null(data) && all(c("umi", "what") %in% names(data)), layers_of(plot))
  if (length(found) > 0L) found[[1L]]
}

expect_drawn <- function(plot) {
  expect_s3_class(plot, "ggplot")
  # Without a warning of values out of the scales.
  expect_silent(built <- ggplot2::ggplot_build(plot))
  expect_s3_class(ggplot2::ggplotGrob(plot), "gtable")
  invisible(built)
}

# Every single count of a bin, counted one by one.
expect_bars <- function(bars, y, what) {
  bars <- bars[bars$what == what, ]
  expect_equal(sum(bars$cells), length(y))
  for (k in seq_len(nrow(bars))) expect_equal(bars$cells[k], sum(y > bars$low[k] & y <= bars$high[k]))
}

test_that("bars are the cells by their UMIs, all and called, and the line is the smallest count called", {
  for (model in c("poisson_gauss", "poisson", "umi", "max")) {
    calls <- assign_guides(small_screen()$counts, model)
    plot <- plot_guide(calls, "guide-2")
    expect_drawn(plot)
    y <- calls$counts["guide-2", ]
    called <- calls$assigned["guide-2", ] == 1
    expect_bars(bars_of(plot), y, "all cells")
    expect_bars(bars_of(plot), y[called], "called")
    cut <- Filter(function(data) "at" %in% names(data), layers_of(plot))[[1L]]
    expect_identical(cut$at, min(y[called]) - 0.5, label = model)
    drawn <- ggplot2::layer_data(plot, 1L)
    expect_equal(drawn$ymax, log1p(bars_of(plot)$cells))
    expect_equal(drawn$xmin, log1p(bars_of(plot)$low + 0.55))
  }
})

# The cells that a component has at every count from 0 to `most`, cell by cell and count by count.
naive_component <- list(
  poisson_gauss = function(fit, name, most, depth, batch) {
    y <- 0:most
    mass <- if (name == "background") stats::dpois(y, fit$lambda) else {
      stats::plnorm(y + 0.5, fit$mu, fit$sigma) - ifelse(y > 0, stats::plnorm(y - 0.5, fit$mu, fit$sigma), 0)
    }
    length(depth) * mass
  },
  gauss = function(fit, name, most, depth, batch) {
    edge <- c(-Inf, log10(0:most + 1.5))
    length(depth) * diff(stats::pnorm(edge, fit[[paste0("mean_", name)]], fit$sd))
  },
  poisson = function(fit, name, most, depth, batch) {
    rowSums(vapply(seq_along(depth), function(cell) stats::dpois(0:most, depth[cell] * naive_rate(fit, name, batch[cell])), numeric(most + 1)))
  },
  neg_binomial = function(fit, name, most, depth, batch) {
    size <- fit[[paste0("theta_", name)]]
    rowSums(vapply(seq_along(depth), function(cell) {
      stats::dnbinom(0:most, size = size, mu = depth[cell] * naive_rate(fit, name, batch[cell]))
    }, numeric(most + 1)))
  },
  binomial = function(fit, name, most, depth, batch) {
    rowSums(vapply(seq_along(depth), function(cell) {
      odds <- naive_rate(fit, name, batch[cell])
      stats::dbinom(0:most, depth[cell], odds / (1 + odds))
    }, numeric(most + 1)))
  }
)

naive_rate <- function(fit, name, batch) {
  exp(fit$b0 + (if (name == "signal") fit$b1 else 0) + if (is.null(batch) || is.na(batch)) 0 else fit[[paste0("gamma_", batch)]])
}

expect_curves <- function(plot, calls, guide, batch = NULL) {
  fit <- as.list(calls$fits[calls$fits$guide_id == guide, ])
  depth <- Matrix::colSums(calls$counts)
  curves <- curves_of(plot)
  bins <- umi_bins(max(calls$counts[guide, ]))
  for (name in c("background", "signal")) {
    naive <- fit[[paste0("share_", name)]] * naive_component[[calls$model]](fit, name, max(bins$high), depth, batch)
    expected <- mapply(function(low, high) sum(naive[(low + 2):(high + 1)]), bins$low, bins$high)
    drawn <- curves[curves$what == name, ]
    expect_equal(drawn$cells, expected[expected > 0.01], tolerance = 1e-8, label = paste(calls$model, name))
    expect_gt(nrow(drawn), 2L)
  }
}

test_that("curves are the cells that the components account for, by sums over single cells and counts", {
  screen <- small_screen()
  for (model in names(naive_component)) {
    calls <- assign_guides(screen$counts, model)
    expect_curves(plot_guide(calls, "guide-1"), calls, "guide-1")
  }
  for (model in c("poisson", "neg_binomial", "binomial")) {
    calls <- assign_guides(screen$counts, model, batch = screen$batch)
    expect_curves(plot_guide(calls, "guide-1", batch = screen$batch), calls, "guide-1", screen$batch)
    # Without the batches of the cells, all cells count a third in each.
    parts <- lapply(c("a", "b", "c"), function(b) curves_of(plot_guide(calls, "guide-1", batch = rep(b, 300))))
    alike <- curves_of(plot_guide(calls, "guide-1"))
    of <- function(curves) curves$cells[match(paste(alike$umi, alike$what), paste(curves$umi, curves$what))]
    mean <- Reduce(`+`, lapply(parts, function(part) ifelse(is.na(of(part)), 0, of(part)))) / 3
    expect_lt(max(abs(mean - alike$cells)), 0.01)
  }
})

test_that("the curves of ambient add up to the cells", {
  sim <- simulate_guides("noisy", n_cells = 1000, n_guides = 10)
  scores <- score_guides(sim$counts, "ambient")
  plot <- plot_guide(scores, "guide_03")
  expect_drawn(plot)
  curves <- curves_of(plot)
  expect_equal(sum(curves$cells), 1000, tolerance = 0.02)
  expect_equal(sum(curves$cells[curves$what == "signal"]), sum(scores$posterior["guide_03", ]), tolerance = 0.1)
  # Scores of earlier versions have what all guides share in each row of the fits.
  old <- scores
  old$fits <- cbind(scores$fits, scores$screen)
  old$screen <- NULL
  expect_identical(curves_of(plot_guide(old, "guide_03")), curves)
  # And follow the bars, which the fit was made from.
  bars <- bars_of(plot)
  together <- tapply(curves$cells, round(curves$umi, 6), sum)
  expect_gt(stats::cor(log1p(as.vector(together[as.character(round(bin_middle(bars), 6))])), log1p(bars$cells), use = "complete.obs"), 0.95)
})

test_that("the curves of ambient are sums of ambient UMIs, bursts of chimeras and signal, cell by cell", {
  sim <- simulate_guides("noisy", n_cells = 200, n_guides = 5, hopping = 0.1, hopping_burst = 2, seed = 2)
  scores <- score_guides(sim$counts, "ambient")
  fit <- c(as.list(scores$fits[2L, ]), as.list(scores$screen))
  curves <- curves_of(plot_guide(scores, scores$fits$guide_id[2L]))
  y <- sim$counts[2L, ]
  bins <- umi_bins(max(y))
  n <- max(bins$high) + 1
  both <- function(a, b) vapply(seq_len(n), function(j) sum(a[seq_len(j)] * b[j:1L]), 0)
  parts <- lapply(seq_along(y), function(cell) {
    others <- sum(sim$counts[sim$counts[, cell] > y[cell], cell])
    mean <- fit$hopping * others * sum(y) / sum(sim$counts) + fit$clumping * scores$cells$exposure[cell] * fit$ambient_share
    background <- both(
      stats::dnbinom(seq_len(n) - 1, size = fit$ambient_size, mu = scores$cells$exposure[cell] * fit$ambient_share),
      if (mean > 0) stats::dnbinom(seq_len(n) - 1, size = mean / fit$burst, mu = mean) else c(1, numeric(n - 1L))
    )
    signal <- stats::dnbinom(seq_len(n) - 1, size = fit$signal_size, mu = scores$cells$capture[cell] * fit$efficiency)
    list(background = background, signal = both(background, signal))
  })
  carriers <- sum(scores$posterior[2L, ])
  height <- c(background = 1 - carriers / 200, signal = carriers / 200)
  for (name in names(height)) {
    mass <- height[[name]] * Reduce(`+`, lapply(parts, `[[`, name))
    expected <- mapply(function(low, high) sum(mass[(low + 2):(high + 1)]), bins$low, bins$high)
    expect_equal(curves$cells[curves$what == name], expected[expected > 0.01], tolerance = 1e-5, label = name)
  }
})

test_that("every model is drawn, with all its guides and with none named", {
  screen <- small_screen()
  for (model in all_models()) {
    calls <- assign_guides(screen$counts, model)
    expect_drawn(plot_guide(calls))
    expect_drawn(plot_guide(calls, rownames(calls$counts)))
  }
  for (model in two_stage_models()) expect_drawn(plot_guide(score_guides(screen$counts, model)))
})

test_that("the shares of beta2 and beta3 are those of the cells' largest guides, and of their Betas", {
  screen <- small_screen()
  for (model in c("beta2", "beta3")) {
    calls <- assign_guides(screen$counts, model, batch = screen$batch)
    plot <- plot_guide(calls)
    bars <- Filter(function(data) "from" %in% names(data), layers_of(plot))[[1L]]
    counts <- as.matrix(calls$counts)[, Matrix::colSums(calls$counts) > 0]
    share <- pmin(apply(counts, 2L, max) / colSums(counts), 0.9999)
    all <- bars[bars$what == "all cells", ]
    expect_equal(sum(all$cells), length(share))
    for (k in seq_len(nrow(all))) expect_equal(all$cells[k], sum(floor(share / 0.025) == round(all$from[k] / 0.025)))
    expect_equal(sum(bars$cells[bars$what == "called"]), sum(!calls$cells$is_unassigned))
    curves <- Filter(function(data) all(c("share", "what") %in% names(data)), layers_of(plot))[[1L]]
    expect_equal(sum(curves$cells), sum(calls$fits$n_cells), tolerance = 1e-6)
  }
})

test_that("without names, the guides are from those with the most called cells to those with the fewest", {
  calls <- assign_guides(small_screen()$counts)
  n <- sort(calls$fits$n_cells_called, decreasing = TRUE)
  shown <- levels(bars_of(plot_guide(calls))$panel)
  expect_length(shown, 4L)
  expect_identical(calls$fits$n_cells_called[match(shown, calls$fits$guide_id)], n[c(1, 4, 7, 10)])
  expect_s3_class(bars_of(plot_guide(calls, c("guide-8", "guide-9"))), "data.frame")
})

test_that("what cannot be drawn is an error that says what to give", {
  calls <- assign_guides(small_screen()$counts, "poisson", batch = small_screen()$batch)
  expect_snapshot({
    error_text("argument", plot_guide(1))
    error_text("names", plot_guide(calls, c("guide-1", "guide_2")))
    error_text("argument", plot_guide(calls, character()))
    error_text("argument", plot_guide(calls, rep("guide-1", 37)))
    error_text("argument", plot_guide(calls, 2))
    error_text("batch", plot_guide(calls, batch = "a"))
    error_text("argument", plot_guide(calls, batch = rep("z", 300)))
    error_text("argument", plot_guide(assign_guides(small_screen()$counts), batch = small_screen()$batch))
  })
})
