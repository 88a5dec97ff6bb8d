# Cases in which a model that looks at one number goes wrong, with known truth. The guide in question is the first.

# 20 guides x 2,000 cells, 90 % of which carry one guide; Poisson background of mean `ambient`, one for each guide, and a
# negative binomial signal. `change` may add to the counts.
hard_screen <- function(ambient = 0.03, signal = 40, prob = NULL, n_guides = 20L, n_cells = 2000L, change = NULL) {
  with_fixed_seed(11, {
    carried <- matrix(FALSE, n_guides, n_cells)
    guide <- sample.int(n_guides, n_cells, TRUE, prob = prob)
    carried[cbind(guide, seq_len(n_cells))[stats::runif(n_cells) < 0.9, ]] <- TRUE
    n <- n_guides * n_cells
    counts <- matrix(stats::rpois(n, rep_len(ambient, n_guides)), n_guides) +
      carried * stats::rnbinom(n, mu = rep_len(signal, n_guides), size = 3)
    if (!is.null(change)) counts <- change(counts)
    list(counts = named_counts(counts), carried = carried)
  })
}

rates <- function(screen, model) {
  called <- as.matrix(assign_guides(screen$counts, model)$assigned) > 0
  c(
    recall = sum(called & screen$carried) / sum(screen$carried), precision = sum(called & screen$carried) / sum(called),
    first_recall = sum(called[1L, ] & screen$carried[1L, ]) / sum(screen$carried[1L, ]),
    first_false = sum(called[1L, ] & !screen$carried[1L, ])
  )
}

test_that("a guide whose ambient UMIs exceed 5 in every cell is called where it is carried", {
  screen <- hard_screen(ambient = c(20, rep(0.03, 19)), signal = 200)
  expect_gt(min(screen$counts[1L, ]), 4)
  for (model in c("ambient", "poisson_gauss", "gauss")) {
    found <- rates(screen, model)
    expect_gte(found[["first_recall"]], 0.94, label = model)
    expect_identical(found[["first_false"]], 0, label = model)
    expect_gte(found[["recall"]], 0.99, label = model)
    expect_gte(found[["precision"]], 0.99, label = model)
  }
  # The fixed cut calls it nearly everywhere, and says so.
  fits <- assign_guides(screen$counts, "umi")$fits
  expect_match(fits$warning[1L], "present in most cells")
})

test_that("a guide that takes up nearly all UMIs of its cells is found", {
  screen <- hard_screen(signal = c(5000, rep(40, 19)))
  for (model in all_models()) {
    if (model == "quantiles") next
    expect_identical(rates(screen, model)[["first_recall"]], 1, label = model)
  }
  expect_gte(rates(screen, "ambient")[["precision"]], 0.998)
})

test_that("a guide in half of all cells is found in them", {
  screen <- hard_screen(prob = c(20, rep(1, 19)))
  expect_gt(mean(screen$carried[1L, ]), 0.45)
  found <- rates(screen, "ambient")
  expect_gte(found[["first_recall"]], 0.99)
  expect_identical(found[["first_false"]], 0)
})

test_that("a library of two guides is called as well by ambient as by hand", {
  found <- rates(hard_screen(ambient = 0.1, n_guides = 2L), "ambient")
  expect_gte(found[["recall"]], 0.995)
  expect_gte(found[["precision"]], 0.995)
})

test_that("a few UMIs beside 100 of another guide are no second guide, a few alone are one", {
  # A fiftieth of the molecules of a cell is chimeric; 60 cells carry the first guide, and caught 4 UMIs of it.
  weak <- 1901:1960
  screen <- hard_screen(signal = 100, change = function(counts) {
    counts[, weak] <- 0
    counts[1L, weak] <- 4
    counts + matrix(stats::rpois(length(counts), rep(0.02 * colSums(counts), each = nrow(counts))), nrow(counts))
  })
  screen$carried[, weak] <- FALSE
  screen$carried[1L, weak] <- TRUE
  beside <- setdiff(which(screen$counts[1L, ] >= 3 & !screen$carried[1L, ]), weak)
  expect_gt(length(beside), 100)
  called <- as.matrix(assign_guides(screen$counts, "ambient")$assigned) > 0
  expect_gte(mean(called[1L, weak]), 0.95)
  expect_lte(mean(called[1L, beside]), 0.01)
  # What looks at the count alone cannot tell them apart.
  alone <- as.matrix(assign_guides(screen$counts, "poisson_gauss")$assigned) > 0
  expect_false(mean(alone[1L, weak]) > 0.95 && mean(alone[1L, beside]) < 0.01)
})

test_that("where no cell or every cell is positive, ambient calls none or all", {
  ambient_only <- with_fixed_seed(12, named_counts(matrix(stats::rpois(20000, 0.3), 10)))
  expect_lte(nrow(assign_guides(ambient_only, "ambient")$pairs), 5)
  every <- with_fixed_seed(13, {
    guide <- sample.int(5L, 500L, TRUE)
    counts <- matrix(stats::rpois(2500, 0.05), 5)
    place <- cbind(guide, seq_along(guide))
    counts[place] <- counts[place] + 10 + stats::rnbinom(500, mu = 30, size = 3)
    list(counts = named_counts(counts), place = place)
  })
  expect_identical(sum(assign_guides(every$counts, "ambient")$assigned[every$place]), 500)
})
