test_that("scores and a decision at the same cut are the calls of assign_guides()", {
  screen <- small_screen()
  for (model in two_stage_models()) {
    scores <- score_guides(screen$counts, model, batch = screen$batch)
    for (cut in c(0, 0.5, 0.9, 1)) {
      for (min_umi in c(0, 3)) {
        two_steps <- decide_guides(scores, min_confidence = cut, min_umi = min_umi)
        one_step <- assign_guides(screen$counts, model, min_confidence = cut, min_umi = min_umi, batch = screen$batch)
        expect_identical(two_steps, one_step, label = paste(model, cut, min_umi))
      }
    }
    expect_calls(decide_guides(scores), screen$counts, model)
    # The same words, the same calls.
    expect_identical(decide_guides(scores), assign_guides(screen$counts, model, batch = screen$batch), label = model)
  }
  scores <- score_guides(screen$counts, "quantiles")
  for (quantile in c(0, 0.05, 0.5, 1)) {
    expect_identical(decide_guides(scores, quantile = quantile), assign_guides(screen$counts, "quantiles", quantile = quantile))
  }
})

test_that("the calls are the pairs at or above the cut", {
  counts <- small_screen()$counts
  scores <- score_guides(counts, "poisson")
  # A cut that is a score: pairs at the cut are called.
  cut <- stats::median(scores$posterior@x[scores$posterior@x > 0.01 & scores$posterior@x < 0.99])
  at <- scores$posterior@x[which.min(abs(scores$posterior@x - cut))]
  calls <- decide_guides(scores, min_confidence = at)
  expect_identical(nrow(calls$pairs), sum(scores$posterior@x >= at))
  expect_identical(min(calls$pairs$assignment_confidence), at)
  expect_identical(as.matrix(calls$assigned), (as.matrix(scores$posterior) >= at) * 1)
})

test_that("ties go to more UMIs, then to the earlier guide", {
  counts <- named_counts(matrix(c(4, 9, 9, 2, 2, 0, 0, 3, 8), 3))
  scores <- score_guides(counts, "quantiles")
  scores$posterior@x[] <- 0.7
  expect_identical(decide_guides(scores, 0.5)$cells$guide_id, c("guide-2", "guide-1", "guide-3"))
  scores$posterior@x[1L] <- 0.8
  expect_identical(decide_guides(scores, 0.5)$cells$guide_id, c("guide-1", "guide-1", "guide-3"))
  expect_identical(decide_guides(scores, 0.75)$cells$guide_id, c("guide-1", NA, NA))
})

test_that("equal shares go to more UMIs, then to the earlier cell", {
  # Shares of guide-1: 1/2, 1/2, 1/2, 1/4.
  counts <- named_counts(rbind(c(2, 5, 2, 1), c(2, 5, 2, 3)))
  scores <- score_guides(counts, "quantiles")
  of_guide <- function(q) with(decide_guides(scores, quantile = q)$pairs, cell_barcode[guide_id == "guide-1"])
  expect_identical(of_guide(0.24), character())
  expect_identical(of_guide(0.25), "cell-2")
  expect_identical(of_guide(0.5), c("cell-1", "cell-2"))
  expect_identical(of_guide(0.75), c("cell-1", "cell-2", "cell-3"))
  expect_identical(of_guide(1), paste0("cell-", 1:4))
})

# The definition, word by word: of all cuts, the one that calls most and keeps the expected share.
called_at_fdr <- function(posterior, umis, fdr, min_umi) {
  best <- rep(FALSE, length(posterior))
  for (cut in unique(posterior[posterior > 0])) {
    set <- posterior >= cut & umis >= min_umi
    if (sum(set) > sum(best) && mean(1 - posterior[set]) <= fdr + 1e-12) best <- set
  }
  best
}

test_that("fdr calls the largest set whose expected share of false pairs is at most that", {
  counts <- small_screen()$counts
  for (model in c("poisson", "gauss", "beta2", "ambient")) {
    scores <- score_guides(counts, model)
    # Ties, as rounding makes them; without log odds, as scores of earlier versions are.
    scores$posterior@x <- round(scores$posterior@x, 2)
    scores$log_odds <- NULL
    p <- scores$posterior@x
    y <- counts@x
    guide <- counts@i
    n <- integer()
    for (fdr in c(0, 0.01, 0.05, 0.2, 1)) {
      for (min_umi in c(0, 4)) {
        what <- paste(model, fdr, min_umi)
        expect_message(
          calls <- decide_guides(scores, fdr = fdr, min_umi = min_umi), "no log odds", class = "kaichi_message_choice"
        )
        expect_calls(calls, counts, model)
        expected <- called_at_fdr(p, y, fdr, min_umi)
        assigned <- as.matrix(calls$assigned)[as.matrix(counts) > 0]
        expect_identical(assigned == 1, expected, label = what)
        expect_identical(calls$params[c("fdr", "fdr_by")], list(fdr = fdr, fdr_by = "overall"))
        expect_null(calls$params$min_confidence)
        n <- c(n, sum(expected))

        by_guide <- suppressMessages(decide_guides(scores, fdr = fdr, min_umi = min_umi, fdr_by = "guide"))
        for (g in unique(guide)) expected[guide == g] <- called_at_fdr(p[guide == g], y[guide == g], fdr, min_umi)
        expect_identical(as.matrix(by_guide$assigned)[as.matrix(counts) > 0] == 1, expected, label = what)
        expect_identical(by_guide$params$fdr_by, "guide")
      }
    }
    expect_gt(length(unique(n)), 4L)
  }
})

# By what rounds to 1, too: ranked by log odds, with probabilities that have all their digits.
called_at_small_fdr <- function(log_odds, posterior, umis, fdr, min_umi) {
  may <- which(posterior > 0 & umis >= min_umi)
  called <- rep(FALSE, length(log_odds))
  for (cut in sort(unique(log_odds[may]), decreasing = TRUE)) {
    set <- may[log_odds[may] >= cut]
    if (mean(exp(stats::plogis(-log_odds[set], log.p = TRUE))) > fdr * (1 + 1e-12)) break
    called[set] <- TRUE
  }
  called
}

test_that("small rates tell apart posteriors that round to 1", {
  for (model in c("poisson_gauss", "poisson", "gauss", "ambient")) {
    # A cell's ambient UMIs may be many, so that `ambient` is that certain of hundreds of UMIs only.
    sim <- simulate_guides("easy", n_cells = 300, n_guides = 6, signal_mean = if (model == "ambient") 1000 else 60, seed = 8)
    guide <- sim$counts@i
    scores <- score_guides(sim$counts, model)
    n <- integer()
    rates <- c(0, 10^-sort(with_fixed_seed(3, stats::runif(6, 0, 60)), decreasing = TRUE), 1)
    before <- list(FALSE, FALSE)
    for (fdr in rates) {
      what <- paste(model, fdr)
      of <- function(...) as.matrix(decide_guides(scores, fdr = fdr, min_umi = 2, ...)$assigned)[as.matrix(sim$counts) > 0] == 1
      overall <- of()
      expected <- called_at_small_fdr(scores$log_odds@x, scores$posterior@x, sim$counts@x, fdr, 2)
      expect_identical(overall, expected, label = what)
      by_guide <- of(fdr_by = "guide")
      for (g in unique(guide)) {
        at <- guide == g
        expected[at] <- called_at_small_fdr(scores$log_odds@x[at], scores$posterior@x[at], sim$counts@x[at], fdr, 2)
      }
      expect_identical(by_guide, expected, label = what)
      # Sets are nested.
      expect_true(all(overall[before[[1L]]]) && all(by_guide[before[[2L]]]), label = what)
      before <- list(which(overall), which(by_guide))
      expect_identical(
        assign_guides(sim$counts, model, fdr = fdr, min_umi = 2), decide_guides(scores, fdr = fdr, min_umi = 2), label = what
      )
      n <- c(n, sum(overall))
    }
    expect_gt(length(unique(n)), 4L, label = model)
    # All of the strict sets are of posteriors that round to 1.
    expect_true(any(n > 0 & n < sum(scores$posterior@x == 1)), label = model)
  }
})

test_that("min_log_odds calls the pairs whose log odds are that high", {
  screen <- small_screen()
  for (model in posterior_models()) {
    scores <- score_guides(screen$counts, model, batch = screen$batch)
    for (cut in c(-20, 0, with_fixed_seed(4, stats::runif(3, 0, 60)), 1e5)) {
      calls <- decide_guides(scores, min_log_odds = cut, min_umi = 2)
      expect_calls(calls, screen$counts, model)
      expected <- scores$log_odds@x >= cut & scores$posterior@x > 0 & screen$counts@x >= 2
      expect_identical(as.matrix(calls$assigned)[as.matrix(screen$counts) > 0] == 1, expected, label = paste(model, cut))
      expect_identical(calls$params$min_log_odds, cut)
      one_step <- assign_guides(screen$counts, model, min_log_odds = cut, min_umi = 2, batch = screen$batch)
      expect_identical(one_step, calls, label = paste(model, cut))
    }
    expect_identical(decide_guides(scores, min_log_odds = 0)$assigned, decide_guides(scores, 0.5)$assigned, label = model)
  }
  expect_output(print(decide_guides(scores, min_log_odds = 12.5)), "(min_log_odds 12.5)", fixed = TRUE)
})

test_that("confidences next to 1 and of 1 are what they say", {
  scores <- score_guides(separable_screen(1000, 5)$counts)
  of <- function(cut) nrow(decide_guides(scores, cut)$pairs)
  expect_identical(of(1), sum(scores$posterior@x == 1))
  expect_identical(of(1 - 1e-12), sum(scores$posterior@x >= 1 - 1e-12))
  expect_gt(of(1 - 1e-12), of(1))
  expect_lt(nrow(decide_guides(scores, min_log_odds = 60)$pairs), of(1))
})

test_that("pairs get their log odds where they are asked for", {
  scores <- score_guides(small_screen()$counts, "poisson")
  for (rule in list(list(), list(fdr = 0.01), list(min_log_odds = 3))) {
    plain <- do.call(decide_guides, c(list(scores), rule))
    calls <- do.call(decide_guides, c(list(scores, log_odds = TRUE), rule))
    expect_identical(names(calls$pairs), c(names(plain$pairs), "log_odds"))
    expect_identical(calls$pairs[names(plain$pairs)], plain$pairs)
    at <- cbind(
      match(calls$pairs$guide_id, rownames(scores$counts)), match(calls$pairs$cell_barcode, colnames(scores$counts))
    )
    expect_identical(calls$pairs$log_odds, as.matrix(scores$log_odds)[at])
    calls$pairs <- plain$pairs
    expect_identical(calls, plain)
  }
  # Files have the columns that they had.
  files <- tempfile(c("with", "without"), fileext = ".csv")
  on.exit(unlink(files))
  write_calls(decide_guides(scores, log_odds = TRUE), files[1L])
  write_calls(decide_guides(scores), files[2L])
  expect_identical(readLines(files[1L]), readLines(files[2L]))
})

test_that("scores of earlier versions, without log odds, are decided by their posteriors", {
  scores <- score_guides(small_screen()$counts, "poisson")
  old <- scores[setdiff(names(scores), c("log_odds", "screen"))]
  class(old) <- "guide_scores"
  expect_silent(decide_guides(old, 0.7))
  expect_message(calls <- decide_guides(old, min_log_odds = 2), "no log odds", class = "kaichi_message_choice")
  expect_identical(calls$assigned, decide_guides(scores, min_log_odds = 2)$assigned)
  certain <- suppressMessages(decide_guides(old, min_log_odds = 500, log_odds = TRUE))
  expect_identical(nrow(certain$pairs), sum(scores$posterior@x == 1))
  expect_true(all(certain$pairs$log_odds == 1e4))
})

test_that("what a model learns of the screen is in its summary", {
  calls <- assign_guides(small_screen()$counts, "ambient")
  expect_identical(summary(calls)$screen, calls$screen)
  said <- utils::capture.output(print(summary(calls)))
  at <- match("The screen as a whole:", said)
  named <- names(calls$screen)[!vapply(calls$screen, anyNA, NA)]
  expect_identical(sub("^ +([a-z_]+) .*", "\\1", said[at + seq_along(named)]), named)
  # Columns of any name.
  calls$screen$hopping_low <- 0.125
  expect_match(utils::capture.output(print(summary(calls))), "^  hopping_low +0.125$", all = FALSE)
  plain <- summary(assign_guides(small_screen()$counts, "gauss"))
  expect_null(plain$screen)
  expect_false("The screen as a whole:" %in% utils::capture.output(print(plain)))
})

test_that("assign_guides() takes fdr too", {
  counts <- small_screen()$counts
  expect_identical(assign_guides(counts, "poisson", fdr = 0.1), decide_guides(score_guides(counts, "poisson"), fdr = 0.1))
  expect_output(print(assign_guides(counts, "poisson", fdr = 0.1)), "(fdr 0.1)", fixed = TRUE)
  scores <- score_guides(counts, "poisson")
  expect_output(print(decide_guides(scores, fdr = 0.1, fdr_by = "guide", min_umi = 2)), "(fdr 0.1 per guide, min_umi 2)", fixed = TRUE)
})

test_that("the set of a cell is as probable as its pairs say", {
  counts <- small_screen()$counts
  scores <- score_guides(counts, "poisson")
  for (calls in list(decide_guides(scores), decide_guides(scores, 0.2), decide_guides(scores, min_umi = 5))) {
    p <- as.matrix(scores$posterior)
    expected <- apply(ifelse(as.matrix(calls$assigned) == 1, p, 1 - p), 2L, prod)
    expect_equal(calls$cells$set_probability, unname(expected), tolerance = 1e-12)
  }
  expect_identical(calls$cells$set_probability[c(40L, 299L)], c(1, 1))
})

test_that("precision and recall of a guide are what its posteriors expect", {
  counts <- small_screen()$counts
  scores <- score_guides(counts, "poisson")
  calls <- decide_guides(scores, 0.7)
  p <- as.matrix(scores$posterior)
  called <- as.matrix(calls$assigned) == 1
  fits <- calls$fits
  for (g in seq_len(nrow(counts))) {
    expect_equal(fits$expected_cells[g], sum(p[g, ]))
    if (any(called[g, ])) expect_equal(fits$expected_precision[g], mean(p[g, called[g, ]]))
    if (sum(p[g, ]) > 0) {
      expect_equal(fits$expected_recall[g], sum(p[g, called[g, ]]) / sum(p[g, ]))
      with_guide <- p[g, counts[g, ] > 0]
      apart <- weighted.mean(with_guide, with_guide) - weighted.mean(with_guide, 1 - with_guide)
      expect_equal(fits$separation[g], apart)
    }
  }
  expect_true(any(fits$warning == "") && any(fits$warning != ""))
  s <- summary(calls)
  expect_setequal(s$worst, fits$guide_id[fits$warning != ""])
  expect_false(is.unsorted(order(s$guides$expected_precision[match(s$worst, s$guides$guide_id)], na.last = FALSE)))
  expect_equal(s$moi, c(called = sum(called) / 300, expected = sum(p) / 300))
  expect_equal(s$share_multiple, mean(colSums(called) > 1))
  expect_equal(s$share_ambient, sum(as.matrix(counts)[!called]) / sum(counts))
})

test_that("a guide with a fault is named with it", {
  screen <- separable_screen(400, 4)
  counts <- as.matrix(screen$counts)
  fault <- function(counts, ...) {
    fits <- assign_guides(as_counts(counts), "umi", ...)$fits
    stats::setNames(fits$warning, fits$guide_id)
  }
  fine <- fault(counts)
  expect_identical(unname(fine), rep("", 4))
  counts["guide-1", ] <- 2
  counts["guide-1", 1:3] <- 9
  counts["guide-2", ] <- 9
  bad <- fault(counts)
  expect_identical(bad[["guide-1"]], "few cells; background in most cells")
  expect_identical(bad[["guide-2"]], "present in most cells")
  expect_identical(bad[["guide-3"]], "")
})

test_that("scores are not changed by a decision", {
  scores <- score_guides(small_screen()$counts)
  copy <- unserialize(serialize(scores, NULL))
  decide_guides(scores, 0.5, 2)
  expect_identical(scores, copy)
})

test_that("arguments that are wrong say so", {
  counts <- small_screen()$counts
  scores <- score_guides(counts)
  expect_snapshot({
    error_text("argument", decide_guides(counts))
    error_text("argument", decide_guides(assign_guides(counts)))
    error_text("argument", decide_guides(NULL))
    error_text("argument", decide_guides(scores, 2))
    error_text("argument", decide_guides(scores, NA))
    error_text("argument", decide_guides(scores, Inf))
    error_text("argument", decide_guides(scores, "0.9"))
    error_text("argument", decide_guides(scores, min_umi = NaN))
    error_text("argument", decide_guides(scores, min_umi = c(1, 2)))
    error_text("argument", decide_guides(scores, quantile = 0.1))
    error_text("argument", decide_guides(scores, 0.9, quantile = 0.1))
    error_text("argument", decide_guides(score_guides(counts, "quantiles"), quantile = -1))
    error_text("argument", decide_guides(scores, 0.9, fdr = 0.1))
    error_text("argument", decide_guides(scores, quantile = 0.1, fdr = 0.1))
    error_text("argument", decide_guides(score_guides(counts, "quantiles"), fdr = 0.1))
    error_text("argument", decide_guides(scores, fdr = 1.5))
    error_text("argument", decide_guides(scores, fdr = "low"))
    error_text("argument", decide_guides(scores, fdr = 0.1, fdr_by = "cell"))
    error_text("argument", decide_guides(scores, fdr_by = "guide"))
    error_text("argument", assign_guides(counts, "umi", fdr = 0.1))
    error_text("argument", assign_guides(counts, "umi", min_log_odds = 0.1))
    error_text("argument", decide_guides(scores, min_log_odds = Inf))
    error_text("argument", decide_guides(scores, min_log_odds = "high"))
    error_text("argument", decide_guides(scores, min_log_odds = 3, fdr = 0.1))
    error_text("argument", decide_guides(score_guides(counts, "quantiles"), min_log_odds = 3))
    error_text("argument", decide_guides(score_guides(counts, "quantiles"), log_odds = TRUE))
    error_text("argument", decide_guides(scores, log_odds = NA))
    error_text("argument", assign_guides(counts, "gauss", fdr = 0.1, min_confidence = 0.5))
  })
})
