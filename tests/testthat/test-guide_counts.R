counts_with <- function(value, at = 1L) {
  x <- matrix(c(3, 0, 0, 4, 1, 2), 2, dimnames = list(c("guide-1", "guide-2"), c("cell-1", "cell-2", "cell-3")))
  x[at] <- value
  x
}

test_that("counts that are none are errors that name the guide and the cell", {
  expect_snapshot({
    error_text("counts", assign_guides(counts_with(-1)))
    error_text("counts", assign_guides(counts_with(1.5, 4L)))
    error_text("counts", assign_guides(counts_with(NaN, 5L)))
    error_text("counts", assign_guides(counts_with(NA, 2L)))
    error_text("counts", assign_guides(counts_with(Inf, 6L)))
    error_text("counts", assign_guides(counts_with(-Inf)))
    error_text("counts", assign_guides(counts_with(2^31)))
    error_text("counts", assign_guides(counts_with(1e300)))
    error_text("counts", score_guides(counts_with(0.5)))
  })
})

test_that("the place of a bad count is right in every class, also after empty cells", {
  x <- matrix(0, 4, 6, dimnames = list(paste0("guide-", 1:4), paste0("cell-", 1:6)))
  x[1, 1] <- 3
  x[3, 4] <- -2
  x[4, 6] <- 5
  where <- "guide \"guide-3\" in cell \"cell-4\" is -2, which is negative"
  sparse <- as_counts(x)
  others <- list(x, sparse, methods::as(sparse, "TsparseMatrix"), methods::as(sparse, "RsparseMatrix"))
  if (requireNamespace("DelayedArray", quietly = TRUE)) others <- c(others, DelayedArray::DelayedArray(x))
  for (bad in others) expect_error(assign_guides(bad), where, fixed = TRUE, class = "kaichi_error_counts")
  # Every place.
  for (at in seq_along(x)) {
    bad <- replace(x, seq_along(x), 0)
    bad[at] <- 0.5
    place <- sprintf("guide \"guide-%d\" in cell \"cell-%d\"", row(x)[at], col(x)[at])
    expect_error(assign_guides(bad), place, fixed = TRUE, class = "kaichi_error_counts")
  }
})

test_that("the largest count is accepted", {
  calls <- assign_guides(counts_with(2^31 - 1), "umi")
  expect_identical(calls$cells$umi_count[1L], .Machine$integer.max)
})

test_that("names that are missing, empty or not unique are errors that name them", {
  x <- counts_with(3)
  named <- function(rows = rownames(x), columns = colnames(x)) `dimnames<-`(x, list(rows, columns))
  expect_snapshot({
    error_text("names", assign_guides(unname(x)))
    error_text("names", assign_guides(named(columns = NULL)))
    error_text("names", assign_guides(named(rows = NULL)))
    error_text("names", assign_guides(named(rows = c("g", "g"))))
    error_text("names", assign_guides(named(columns = c("a", "b", "a"))))
    error_text("names", assign_guides(named(rows = c("g", ""))))
    error_text("names", assign_guides(named(columns = c("a", NA, "b"))))
  })
})

test_that("a matrix without cells or guides is an error", {
  x <- counts_with(3)
  expect_snapshot({
    error_text("counts", assign_guides(x[, 0]))
    error_text("counts", assign_guides(x[0, ]))
    error_text("counts", assign_guides(x[0, 0]))
    error_text("counts", assign_guides(as_counts(x)[, 0]))
    error_text("counts", assign_guides(as_counts(x)[0, ]))
  })
})

test_that("what holds no counts is an error", {
  x <- counts_with(3)
  text <- matrix("3", 1, 1, dimnames = list("g", "c"))
  expect_snapshot({
    error_text("counts", assign_guides(text))
    error_text("counts", assign_guides(x + 0i))
    error_text("format", assign_guides(as.data.frame(x)))
    error_text("argument", assign_guides(1:3))
    error_text("argument", assign_guides(list(x)))
    error_text("argument", assign_guides(NULL))
    error_text("argument", assign_guides(mean))
    error_text("argument", assign_guides(array(1, c(1, 1, 1))))
    error_text("argument", assign_guides(factor("guides.h5ad")))
  })
})

test_that("a path that is none is an error", {
  expect_snapshot({
    error_text("argument", assign_guides(NA_character_))
    error_text("file", assign_guides(c("a.h5ad", "b.h5ad")))
    error_text("argument", assign_guides(character()))
    error_text("file", assign_guides(""))
    error_text("file", assign_guides("absent.h5ad"))
    error_text("file", assign_guides("absent.h5ad", modality = "guides"))
  })
})

test_that("batches that are none are errors", {
  x <- counts_with(3)
  path <- test_path("fixtures", "anndata-0.10.9-csr.h5ad")
  expect_snapshot({
    error_text("batch", assign_guides(x, batch = 1:2))
    error_text("batch", assign_guides(x, batch = character()))
    error_text("batch", assign_guides(x, batch = "lane"))
    error_text("batch", assign_guides(x, batch = c("a", NA, NA)))
    error_text("batch", assign_guides(x, batch = c(1, NaN, 2)))
    error_text("batch", assign_guides(x, batch = list("a", "b", "c")))
    error_text("batch", assign_guides(x, batch = data.frame(a = 1:3)))
    error_text("batch", assign_guides(x, batch = NA_character_))
    error_text("batch", assign_guides(path, batch = c("1", "2")))
  })
  expect_error(assign_guides(path, batch = "plate"), "plate", class = "kaichi_error_batch")
  expect_error(assign_guides(path, batch = "lane_na"), "cell_2", class = "kaichi_error_batch")
})

test_that("covariates that are none are errors", {
  x <- abs(counts_with(3))
  covariate <- function(values, model = "ambient") assign_guides(x, model, covariate = values)
  expect_snapshot({
    error_text("argument", covariate(1:2))
    error_text("argument", covariate(c(1, NA, 2)))
    error_text("argument", covariate(c(0, 1, 0)))
    error_text("argument", covariate(c(1, -2, Inf)))
    error_text("argument", covariate(c(a = 1, z = 2, y = 3)))
    error_text("argument", covariate("nCount_RNA"))
    error_text("argument", covariate(c("x", "y", "z")))
    error_text("argument", covariate(1:3, "gauss"))
  })
  names <- colnames(x)
  expect_identical(guide_counts(x, covariate = stats::setNames(3:1, rev(names)))$covariate, c(1, 2, 3))
})

test_that("a percent sign in a name survives in the text of every error", {
  # Handed on as a format by mistake, these would crash R.
  odd <- "100%s%n%d"
  x <- counts_with(-3)
  dimnames(x) <- list(c(odd, "g"), c(odd, "b", "c"))
  path <- test_path("fixtures", "anndata-0.10.9-csr.h5ad")
  expect_text <- function(kind, code) expect_error(code, odd, fixed = TRUE, class = paste0("kaichi_error_", kind))
  expect_text("counts", assign_guides(x))
  expect_text("model", assign_guides(x, odd))
  expect_text("file", assign_guides(paste0(odd, ".h5ad")))
  expect_text("batch", assign_guides(path, batch = odd))
  expect_text("format", assign_guides(path, layer = odd))
  expect_text("batch", assign_guides(abs(x), batch = c(NA, 1, 1)))
  expect_text("argument", assign_guides(abs(x), min_confidence = odd))
  expect_text("argument", eval(as.call(c(quote(assign_guides), quote(abs(x)), stats::setNames(list(1), odd)))))
  colnames(x)[2L] <- odd
  expect_text("names", assign_guides(x))
  rownames(x)[2L] <- odd
  expect_text("names", assign_guides(x))
  # And they do no harm where all is well.
  y <- small_screen()$counts
  rownames(y)[1L] <- colnames(y)[1L] <- odd
  for (model in all_models()) {
    calls <- assign_guides(y, model)
    expect_calls(calls, y, model)
    expect_output(print(summary(calls)), "Guides per cell")
  }
})

test_that("every error is a kaichi_error without a call", {
  conditions <- list(
    tryCatch(assign_guides(counts_with(-1)), error = identity),
    tryCatch(assign_guides("absent.h5ad"), error = identity),
    tryCatch(assign_guides(counts_with(1), "poison"), error = identity),
    tryCatch(assign_guides(counts_with(1), typo = 1), error = identity)
  )
  kinds <- c("counts", "file", "model", "argument")
  for (at in seq_along(kinds)) {
    expect_identical(class(conditions[[at]]), c(paste0("kaichi_error_", kinds[at]), "kaichi_error", "error", "condition"))
    expect_null(conditionCall(conditions[[at]]))
  }
})

test_that("names beyond ASCII are kept", {
  x <- small_screen()$counts
  rownames(x)[1L] <- "gu\u00efde \u03b1"
  colnames(x)[1L] <- "z\u00e9ro"
  calls <- assign_guides(x, "umi")
  expect_calls(calls, x, "umi")
  colnames(x)[2L] <- colnames(x)[1L]
  expect_error(assign_guides(x), "z\u00e9ro", class = "kaichi_error_names")
})

test_that("the matrix of the user is not changed", {
  x <- small_screen()$counts
  x@x[3L] <- 0
  copy <- unserialize(serialize(x, NULL))
  for (model in all_models()) assign_guides(x, model)
  expect_identical(x, copy)
})
