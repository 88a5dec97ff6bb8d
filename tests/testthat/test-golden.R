# Whoever takes a new version should read of other calls in NEWS.md, not find them in their results.
golden <- utils::read.csv(test_path("fixtures", "golden.csv"))
now <- golden_columns(read_guides(system.file("extdata", "guides.h5ad", package = "kaichi")))
key <- function(table) paste(table$cell_barcode, table$guide_id)
what_to_do <- "If that is meant, announce it in NEWS.md, then run tools/fixtures/write_golden.R."

test_that("every model calls the pairs that it called", {
  # The last bits of exp() and log() are the platform's.
  skip_on_cran()
  for (model in guide_models()$model) {
    call <- paste0(model, "_call")
    before <- key(golden)[golden[[call]] == 1L]
    after <- key(now)[now[[call]] == 1L]
    other <- c(setdiff(before, after), setdiff(after, before))
    expect(
      length(before) > 0L && length(other) == 0L,
      sprintf("\"%s\" calls other pairs, %d of them: %s.\n%s", model, length(other), paste(utils::head(other, 5L), collapse = ", "), what_to_do)
    )
  }
})

test_that("posteriors are what they were", {
  skip_on_cran()
  scores <- grep("_score$", names(golden), value = TRUE)
  expect_setequal(scores, paste0(with(guide_models(), model[confidence == "posterior"]), "_score"))
  # Of every stored count; those that are not in the file were below 0.1.
  kept <- match(key(now), key(golden))
  for (score in scores) {
    # Where EM stops is no part of these.
    tolerance <- if (score %in% c("ambient_score", "poisson_gauss_score")) 1e-3 else 2e-6
    before <- golden[[score]][kept]
    off <- ifelse(is.na(before), now[[score]] - 0.1, abs(now[[score]] - before))
    expect(
      max(off) <= tolerance,
      sprintf("%s of %s is off by %.2g.\n%s", score, key(now)[which.max(off)], max(off), what_to_do)
    )
  }
})
