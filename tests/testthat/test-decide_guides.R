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
    expect_identical(decide_guides(scores), decide_guides(scores, min_confidence = 0.9, min_umi = 0), label = model)
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
    # Ties, as rounding makes them.
    scores$posterior@x <- round(scores$posterior@x, 2)
    p <- scores$posterior@x
    y <- counts@x
    guide <- counts@i
    n <- integer()
    for (fdr in c(0, 0.01, 0.05, 0.2, 1)) {
      for (min_umi in c(0, 4)) {
        what <- paste(model, fdr, min_umi)
        calls <- decide_guides(scores, fdr = fdr, min_umi = min_umi)
        expect_calls(calls, counts, model)
        expected <- called_at_fdr(p, y, fdr, min_umi)
        assigned <- as.matrix(calls$assigned)[as.matrix(counts) > 0]
        expect_identical(assigned == 1, expected, label = what)
        expect_identical(calls$params[c("fdr", "fdr_by")], list(fdr = fdr, fdr_by = "overall"))
        expect_null(calls$params$min_confidence)
        n <- c(n, sum(expected))

        by_guide <- decide_guides(scores, fdr = fdr, min_umi = min_umi, fdr_by = "guide")
        for (g in unique(guide)) expected[guide == g] <- called_at_fdr(p[guide == g], y[guide == g], fdr, min_umi)
        expect_identical(as.matrix(by_guide$assigned)[as.matrix(counts) > 0] == 1, expected, label = what)
        expect_identical(by_guide$params$fdr_by, "guide")
      }
    }
    expect_gt(length(unique(n)), 4L)
  }
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
    error_text("argument", decide_guides(scores, NULL))
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
    error_text("argument", assign_guides(counts, "gauss", fdr = 0.1, min_confidence = 0.5))
  })
})
