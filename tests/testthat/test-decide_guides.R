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
  })
})
